//! The simulated store holds every law without faults, each fault does what it says, and the seed decides everything.

use std::future::{Future, Ready, ready};
use std::time::Duration;

use bytes::Bytes;
use tandem_store::conformance::{Transaction, basics, concurrency, isolation};
use tandem_store::simulated::{CrashPoint, FaultCounts, Faults, OUT_OF, SimulatedDisk, SimulatedStore};
use tandem_store::{Commit, CommitResult, Error, KeyRange, Read, Snapshot, Store};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::Instant;

const MUST_ANSWER: &str = "there is no such fault in this test";

fn open() -> Ready<(SimulatedStore, ())> {
    ready((SimulatedDisk::new(1).open(Faults::none()), ()))
}

tandem_store::store_laws!(open);
tandem_store::history_laws!(open);
tandem_store::fault_laws!(open);

/// One life: a paused runtime of one thread, dropped at the end with all that still waits in it.
fn live<T>(future: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime of one thread needs nothing").block_on(future)
}

fn row(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn now(store: &SimulatedStore, key: &str) -> Option<Bytes> {
    let snapshot = store.snapshot().await.expect(MUST_ANSWER);
    snapshot.get(&row(key)).await.expect(MUST_ANSWER)
}

#[test]
fn waits_change_the_order_and_no_law() {
    for seed in 0..4 {
        let store = || SimulatedDisk::new(seed).open(Faults::delays(20));
        live(async {
            basics::a_snapshot_is_stable(store()).await;
            basics::a_snapshot_sees_all_of_a_commit_or_nothing(store()).await;
            basics::a_snapshot_after_the_answer_sees_the_commit(store()).await;
            isolation::write_skew_conflicts(store()).await;
            concurrency::increments_lose_nothing(store()).await;
            concurrency::of_equal_commits_at_once_at_most_one_succeeds(store()).await;
            concurrency::transfers_keep_the_total(store()).await;
            concurrency::guarded_pairs_stay_guarded(store()).await;
            concurrency::unique_inserts_stay_unique(store()).await;
            concurrency::commits_at_once_have_different_timestamps(store()).await;
        });
    }
}

/// A transaction that reads `a` and then writes `a` and `b`.
async fn transaction(store: &SimulatedStore) -> Result<CommitResult, Error> {
    let mut transaction = Transaction::begin(store).await;
    transaction.get("a").await;
    transaction.put("a", "1").put("b", "1").end().await
}

/// Runs one transaction where `faults` happen to everything they can happen to, and tells what is there afterwards.
fn one_commit(seed: u64, faults: Faults) -> (Result<CommitResult, Error>, usize, FaultCounts) {
    let disk = SimulatedDisk::new(seed);
    let result = live(transaction(&disk.open(faults)));
    (result, disk.rows().len(), disk.counts())
}

#[test]
fn each_fault_of_a_commit_does_what_it_says() {
    let none = Faults::none();
    let (result, rows, counts) = one_commit(1, Faults { conflict: OUT_OF, ..none });
    assert_eq!(result.expect(MUST_ANSWER), CommitResult::Conflict(vec![row("a")]));
    assert_eq!((rows, counts.conflict), (0, 1));

    let (result, rows, counts) = one_commit(1, Faults { commit_unavailable: OUT_OF, ..none });
    assert!(matches!(result, Err(Error::Unavailable(_))), "{result:?}");
    assert_eq!((rows, counts.commit_unavailable), (0, 1));

    let (result, rows, counts) = one_commit(1, Faults { commit_full: OUT_OF, ..none });
    assert!(matches!(result, Err(Error::Full(_))), "{result:?}");
    assert_eq!((rows, counts.commit_full), (0, 1));

    let (result, rows, counts) = one_commit(1, Faults { undetermined_before: OUT_OF, ..none });
    assert!(matches!(result, Ok(CommitResult::Undetermined(_))), "{result:?}");
    assert_eq!((rows, counts.undetermined_before), (0, 1));

    let (result, rows, counts) = one_commit(1, Faults { undetermined_after: OUT_OF, ..none });
    assert!(matches!(result, Ok(CommitResult::Undetermined(_))), "{result:?}");
    assert_eq!((rows, counts.undetermined_after), (2, 1));
}

#[test]
fn an_open_commit_is_found_to_be_applied_or_not_and_stays_so() {
    let mut applied = 0;
    for seed in 0..40 {
        let (result, rows, counts) = one_commit(seed, Faults { undetermined_open: OUT_OF, ..Faults::none() });
        assert!(matches!(result, Ok(CommitResult::Undetermined(_))), "{result:?}");
        assert_eq!((counts.undetermined_open, counts.open_applied + counts.open_dropped), (1, 1));
        assert_eq!(rows, if counts.open_applied == 1 { 2 } else { 0 });
        applied += counts.open_applied;
    }
    assert!((5..35).contains(&applied), "both happen: {applied} of 40 were applied");
}

#[test]
fn whoever_comes_near_an_open_commit_finds_out_and_sees_all_of_it_or_nothing() {
    for seed in 0..40 {
        live(async {
            let store = SimulatedDisk::new(seed).open(Faults { undetermined_open: OUT_OF, ..Faults::none() });
            let before = store.snapshot().await.expect(MUST_ANSWER);
            assert!(matches!(transaction(&store).await, Ok(CommitResult::Undetermined(_))));
            store.set_faults(Faults::none());
            assert_eq!(before.get(&row("a")).await.expect(MUST_ANSWER), None);
            let after = store.snapshot().await.expect(MUST_ANSWER);
            assert_eq!(store.disk().counts().open_applied + store.disk().counts().open_dropped, 0, "nobody has looked");
            let rows = after.scan(&KeyRange::prefix(b"b"), 1, false).await.expect(MUST_ANSWER);
            let applied = after.get(&row("a")).await.expect(MUST_ANSWER).is_some();
            assert_eq!(rows.len(), usize::from(applied), "not in half");
            assert_eq!(before.get(&row("a")).await.expect(MUST_ANSWER), None, "a view is stable");
            assert_eq!(now(&store, "a").await.is_some(), applied, "for good");
        });
    }
}

#[test]
fn a_commit_is_judged_against_an_open_one() {
    for seed in 0..40 {
        live(async {
            let store = SimulatedDisk::new(seed).open(Faults { undetermined_open: OUT_OF, ..Faults::none() });
            let mut rival = Transaction::begin(&store).await;
            assert_eq!(rival.get("b").await, None);
            assert!(matches!(transaction(&store).await, Ok(CommitResult::Undetermined(_))));
            store.set_faults(Faults::none());
            let result = rival.put("c", "1").end().await.expect(MUST_ANSWER);
            let applied = now(&store, "a").await.is_some();
            assert_eq!(matches!(result, CommitResult::Conflict(_)), applied, "{result:?}");
        });
    }
}

#[test]
fn reads_and_snapshots_can_be_refused() {
    let disk = SimulatedDisk::new(1);
    live(async {
        let store = disk.open(Faults::none());
        let snapshot = store.snapshot().await.expect(MUST_ANSWER);
        store.set_faults(Faults { read_unavailable: OUT_OF, ..Faults::none() });
        assert!(matches!(store.snapshot().await, Err(Error::Unavailable(_))));
        assert!(matches!(snapshot.get(&row("a")).await, Err(Error::Unavailable(_))));
        assert!(matches!(snapshot.scan(&KeyRange::prefix(b""), 1, false).await, Err(Error::Unavailable(_))));
    });
    assert_eq!(disk.counts(), FaultCounts { read_unavailable: 3, ..FaultCounts::default() });
}

#[test]
fn an_operation_that_is_delayed_takes_virtual_time() {
    let disk = SimulatedDisk::new(1);
    live(async {
        let store = disk.open(Faults { delay: OUT_OF, late_answer: OUT_OF, delay_ms_max: 50, ..Faults::none() });
        let began = Instant::now();
        store.snapshot().await.expect(MUST_ANSWER);
        assert!((2..=100).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    });
    assert_eq!((disk.counts().delay, disk.counts().late_answer), (1, 1));
}

#[test]
fn a_view_that_is_handed_out_late_is_as_of_when_it_was_asked_for() {
    let disk = SimulatedDisk::new(1);
    live(async {
        let slow = disk.open(Faults { late_answer: OUT_OF, delay_ms_max: 1_000, ..Faults::none() });
        let quick = disk.open(Faults::none());
        let write = async {
            tokio::task::yield_now().await;
            Transaction::begin(&quick).await.put("a", "1").must_commit().await
        };
        let (view, written) = tokio::join!(slow.snapshot(), write);
        let view = view.expect(MUST_ANSWER);
        assert!(view.timestamp() < written);
        assert_eq!(view.get(&row("a")).await.expect(MUST_ANSWER), None);
    });
}

/// Writes pairs until the process dies, and tells how many were acknowledged.
fn write_pairs(disk: &SimulatedDisk, crash: Option<(u64, CrashPoint)>, pairs: u64) -> (u64, SimulatedStore) {
    live(async {
        let store = disk.open(Faults::none());
        if let Some((operation, point)) = crash {
            store.crash_at(operation, point);
        }
        let mut acknowledged = 0;
        let write = async {
            for number in 0..pairs {
                let mut transaction = Transaction::begin(&store).await;
                transaction.get("a").await;
                let value = number.to_string();
                transaction.put("a", &value).put(&format!("b/{number}"), &value).must_commit().await;
                acknowledged += 1;
            }
        };
        tokio::select! {
            biased;
            () = write => {}
            () = store.crashed() => {}
        }
        (acknowledged, store)
    })
}

#[test]
fn a_crash_between_any_two_operations_loses_nothing_durable_and_leaves_nothing_in_half() {
    const PAIRS: u64 = 5;
    let (acknowledged, store) = write_pairs(&SimulatedDisk::new(1), None, PAIRS);
    assert_eq!(acknowledged, PAIRS);
    let operations = store.operations();
    for operation in 1..=operations {
        for point in [CrashPoint::Before, CrashPoint::After] {
            let disk = SimulatedDisk::new(1);
            let (acknowledged, dead) = write_pairs(&disk, Some((operation, point)), PAIRS);
            assert!(dead.is_crashed() && dead.operations() == operation && disk.counts().crash == 1);
            let is_commit = operation % 3 == 0;
            let unheard = u64::from(is_commit && point == CrashPoint::After);
            let written = acknowledged + unheard;
            let again = live(async {
                let store = disk.open(Faults::none());
                let last = now(&store, "a").await;
                assert_eq!(last, written.checked_sub(1).map(|last| row(&last.to_string())));
                store.snapshot().await.expect(MUST_ANSWER).timestamp()
            });
            assert_eq!(disk.rows().len() as u64, if written == 0 { 0 } else { written + 1 });
            assert!(disk.trace().windows(2).all(|pair| pair[0].at_ms <= pair[1].at_ms), "time goes on");
            assert!(again.0 > 0 || written == 0);
        }
    }
}

#[test]
fn a_commit_that_waits_when_the_process_dies_is_never_applied() {
    let disk = SimulatedDisk::new(1);
    live(async {
        let dying = disk.open(Faults::none());
        let commit = Transaction::begin(&dying).await.put("a", "late");
        dying.set_faults(Faults { delay: OUT_OF, delay_ms_max: 1_000, ..Faults::none() });
        let waiting = tokio::spawn(commit.end());
        tokio::task::yield_now().await;
        dying.crash_now();
        dying.crashed().await;
        let next = disk.open(Faults::none());
        assert_eq!(now(&next, "a").await, None);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(now(&next, "a").await, None, "also not after its wait");
        assert!(!waiting.is_finished(), "and nobody hears of it");
    });
}

#[test]
fn a_dead_process_gets_no_answers() {
    let disk = SimulatedDisk::new(1);
    live(async {
        let store = disk.open(Faults::none());
        let snapshot = store.snapshot().await.expect(MUST_ANSWER);
        store.crash_at(1, CrashPoint::Before);
        let patience = Duration::from_mins(1);
        assert!(tokio::time::timeout(patience, snapshot.get(&row("a"))).await.is_err());
        assert!(tokio::time::timeout(patience, store.snapshot()).await.is_err());
        assert_eq!(store.operations(), 2, "what is asked of a dead process is no operation");
    });
}

/// What the writer of a transaction needs to know: it reads the primary row where the answer was lost.
async fn settled(store: &SimulatedStore, commit: Commit) -> bool {
    let (primary, value) = commit.writes[0].clone();
    match store.commit(commit).await {
        Ok(CommitResult::Committed(_)) => true,
        Ok(CommitResult::Conflict(_)) | Err(_) => false,
        Ok(CommitResult::Undetermined(_)) => loop {
            let Ok(snapshot) = store.snapshot().await else { continue };
            let Ok(found) = snapshot.get(&primary).await else { continue };
            return found == value;
        },
    }
}

/// Moves one between two accounts; the first write is a record of its own.
async fn transfer(store: &SimulatedStore, task: usize, round: usize) -> Option<bool> {
    let keys = [row(&format!("account/{}", task % 3)), row(&format!("account/{}", (task + round) % 3))];
    let record = row(&format!("record/{task}/{round}"));
    let snapshot = store.snapshot().await.ok()?;
    let values = snapshot.batch_get(&keys).await.ok()?;
    let seen_at = snapshot.timestamp();
    let balance = |value: &Option<Bytes>| -> i64 {
        value.as_ref().map_or(0, |value| String::from_utf8_lossy(value).parse().expect("only numbers are written"))
    };
    let reads = keys.iter().zip(&values).map(|(key, value)| Read { key: key.clone(), seen_at, value: value.clone() });
    let mut writes = vec![(record.clone(), Some(row("done")))];
    if keys[0] != keys[1] {
        writes.push((keys[0].clone(), Some(row(&(balance(&values[0]) - 1).to_string()))));
        writes.push((keys[1].clone(), Some(row(&(balance(&values[1]) + 1).to_string()))));
    }
    let commit = Commit { primary: record, reads: reads.collect(), ranges: Vec::new(), writes };
    Some(settled(store, commit).await)
}

/// A day of transfers under `faults`. Gives how many were made, and the disk.
fn transfers(seed: u64, faults: Faults) -> (usize, SimulatedDisk) {
    const TASKS: usize = 6;
    const ROUNDS: usize = 20;
    let disk = SimulatedDisk::new(seed);
    let made = live(async {
        let store = disk.open(faults);
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let store = store.clone();
            tasks.spawn(async move {
                let mut made = 0;
                for round in 0..ROUNDS {
                    made += usize::from(transfer(&store, task, round).await == Some(true));
                }
                made
            });
        }
        tokio::select! {
            made = tasks.join_all() => made.into_iter().sum(),
            () = store.crashed() => 0,
        }
    });
    (made, disk)
}

#[test]
fn the_worst_weather_breaks_no_contract() {
    let mut seen = FaultCounts::default();
    for seed in 0..30 {
        let (made, disk) = transfers(seed, Faults::storm());
        let rows = disk.rows();
        let records = rows.iter().filter(|(key, _)| key.starts_with(b"record/")).count();
        assert_eq!(records, made, "seed {seed}: what is said to be done is done, and nothing else");
        let balances = rows.iter().filter(|(key, _)| key.starts_with(b"account/"));
        let total: i64 =
            balances.map(|(_, value)| String::from_utf8_lossy(value).parse::<i64>().expect("a number")).sum();
        assert_eq!(total, 0, "seed {seed}: money is neither made nor lost");
        let counts = disk.counts();
        seen.conflict += counts.conflict;
        seen.open_applied += counts.open_applied;
        seen.open_dropped += counts.open_dropped;
    }
    assert!(seen.conflict > 0 && seen.open_applied > 0 && seen.open_dropped > 0, "{seen:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace_twice() {
    for seed in 0..10 {
        let faults = Faults::storm().with_crashes(if seed % 2 == 0 { 20 } else { 0 });
        let (once, twice) = (transfers(seed, faults).1, transfers(seed, faults).1);
        assert_eq!(once.trace(), twice.trace(), "seed {seed}");
        assert_eq!((once.trace_digest(), once.counts()), (twice.trace_digest(), twice.counts()));
        assert_eq!(once.rows(), twice.rows());
        assert_ne!(once.trace_digest(), transfers(seed + 1_000, faults).1.trace_digest());
    }
}

#[test]
fn a_trace_that_is_cut_short_still_has_the_digest_of_everything() {
    let whole = transfers(3, Faults::all()).1;
    let disk = SimulatedDisk::new(3);
    disk.keep_trace(10);
    assert!(whole.trace().len() > 100);
    assert_ne!(whole.trace_digest(), disk.trace_digest());
    whole.keep_trace(10);
    assert_eq!(whole.trace().len(), 10);
    assert!(whole.trace()[0].to_string().contains("life 1 #"), "{}", whole.trace()[0]);
}
