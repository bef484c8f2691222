//! Faults of the commit path on TiKV by name, each on a simulated cluster in virtual time: what was injected really
//! happened, and what must hold afterwards holds.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]
#![allow(dead_code, reason = "the support modules are shared by several tests")]

use std::time::Duration;

use bytes::Bytes;
use tandem_store::conformance::Transaction;
use tandem_store::{CommitResult, Error, KeyRange, Snapshot, Store};
use tandem_store_tikv::simulated::{Action, Call, Cut, Faults, Life, Node, SimulatedCluster};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use cluster::{Tested, cluster, is_committed, is_rejected, now, order, process, put, wait_ms};

#[path = "support/cluster.rs"]
mod cluster;

/// Longer than every lock of these tests lives.
const LOCKS_DIE_MS: u64 = 5_000;
/// Where the two keys of a transaction lie apart.
const APART: [&str; 1] = ["m"];
/// The record and the effect of a transaction.
const ROWS: [(&str, &str); 2] = [("a", "record"), ("x", "effect")];

/// A transaction in a task of its own, as of a process that may die.
fn spawn_put(store: &Tested) -> JoinHandle<Result<CommitResult, Error>> {
    let store = store.clone();
    tokio::spawn(async move { put(&store, &ROWS).await })
}

/// Kills a process at one of its requests, and gives a survivor.
async fn killed_at(cluster: &SimulatedCluster, call: Call, skip: u32, action: Action) -> Tested {
    let victim = process(cluster);
    order(&victim, call, skip, action);
    let task = spawn_put(&victim);
    cluster.until(victim.cluster().process(), Life::Dead).await;
    task.abort();
    assert_eq!(cluster.ordered_left(), 0);
    // What is on its way arrives.
    while cluster.in_flight() > 0 {
        wait_ms(1).await;
    }
    process(cluster)
}

/// The record and the effect are both there, or none of them; and nothing is locked.
async fn both(cluster: &SimulatedCluster, store: &Tested) -> bool {
    let found = [now(store, "a").await.is_some(), now(store, "x").await.is_some()];
    assert!(found[0] == found[1], "{found:?}");
    while cluster.in_flight() > 0 {
        wait_ms(1).await;
    }
    assert_eq!(cluster.locks(), []);
    found[0]
}

/// The same transaction again commits once.
async fn again(cluster: &SimulatedCluster, store: &Tested) {
    assert!(is_committed(&put(store, &ROWS).await));
    assert!(both(cluster, store).await);
}

#[tokio::test(start_paused = true)]
async fn a1_killed_before_the_prewrite_nothing_is_left() {
    let cluster = cluster(&APART);
    let survivor = killed_at(&cluster, Call::Prewrite, 0, Action::DieBefore).await;
    assert_eq!(cluster.locks(), []);
    assert!(!both(&cluster, &survivor).await);
    again(&cluster, &survivor).await;
}

#[tokio::test(start_paused = true)]
async fn a2_killed_after_the_prewrite_a_reader_clears_the_locks() {
    let cluster = cluster(&APART);
    let survivor = killed_at(&cluster, Call::Commit, 0, Action::DieBefore).await;
    assert_eq!(cluster.locks().len(), 2);
    let begin = Instant::now();
    assert!(!both(&cluster, &survivor).await);
    assert!(begin.elapsed() < Duration::from_millis(LOCKS_DIE_MS), "{:?}", begin.elapsed());
    again(&cluster, &survivor).await;
}

#[tokio::test(start_paused = true)]
async fn a2_killed_between_two_prewrites_a_reader_clears_the_lock() {
    // The lock whose primary never came is the one that makes keys unreadable for ever with other clients.
    for skip in 0..2 {
        let cluster = cluster(&APART);
        let victim = process(&cluster);
        order(&victim, Call::Prewrite, skip, Action::LoseRequest);
        order(&victim, Call::Prewrite, 2, Action::DieBefore);
        let task = spawn_put(&victim);
        cluster.until(victim.cluster().process(), Life::Dead).await;
        task.abort();
        assert_eq!(cluster.locks().len(), 1);
        let survivor = process(&cluster);
        assert!(!both(&cluster, &survivor).await);
        again(&cluster, &survivor).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a3_killed_after_the_primary_commit_the_record_is_there() {
    let cluster = cluster(&APART);
    let survivor = killed_at(&cluster, Call::Commit, 0, Action::DieAfter).await;
    assert_eq!(now(&survivor, "a").await.as_deref(), Some("record"));
    assert!(both(&cluster, &survivor).await);
}

#[tokio::test(start_paused = true)]
async fn a4_killed_before_the_others_are_committed_readers_roll_forward() {
    let cluster = cluster(&APART);
    let survivor = killed_at(&cluster, Call::Commit, 1, Action::DieBefore).await;
    assert_eq!(cluster.locks().len(), 1);
    // Whoever reads the other key first sees it.
    assert_eq!(now(&survivor, "x").await.as_deref(), Some("effect"));
    assert!(both(&cluster, &survivor).await);
}

#[tokio::test(start_paused = true)]
async fn a5_a_lost_commit_answer_is_found_out_about() {
    for (skip, action) in [(0, Action::LoseAnswer), (0, Action::LoseRequest), (0, Action::Late(20_000))] {
        let cluster = cluster(&APART);
        let store = process(&cluster);
        order(&store, Call::Commit, skip, action);
        let result = put(&store, &ROWS).await;
        assert_eq!(cluster.ordered_left(), 0);
        assert!(is_committed(&result), "{action:?}: {result:?}");
        wait_ms(30_000).await;
        assert!(both(&cluster, &store).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a6_a_lost_answer_in_one_phase_is_found_out_about() {
    for action in [Action::LoseAnswer, Action::LoseRequest, Action::Late(1_000), Action::Late(20_000)] {
        let cluster = cluster(&[]);
        let store = process(&cluster);
        order(&store, Call::Prewrite, 0, action);
        let result = put(&store, &ROWS).await;
        assert_eq!(cluster.ordered_left(), 0);
        assert!(is_committed(&result), "{action:?}: {result:?}");
        let versions = cluster.rows();
        wait_ms(30_000).await;
        // A late one changes nothing any more.
        assert_eq!(cluster.rows(), versions);
        assert!(both(&cluster, &store).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a8_one_phase_that_is_refused_falls_back_at_once() {
    let cluster = cluster(&[]);
    cluster.set_faults(Faults { one_phase_refused: 10_000, ..Faults::none() });
    let store = process(&cluster);
    let begin = Instant::now();
    let result = put(&store, &ROWS).await;
    assert!(is_committed(&result), "{result:?}");
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert!(cluster.counts()["one-phase-refused"] > 0);
    assert!(both(&cluster, &store).await);
}

#[tokio::test(start_paused = true)]
async fn a9_a_zombie_whose_locks_died_changes_nothing_behind_a_decision() {
    let cluster = cluster(&APART);
    let (zombie, other) = (process(&cluster), process(&cluster));
    // It stands still just before it commits its primary, and wakes up when its locks are dead.
    order(&zombie, Call::Commit, 0, Action::Slow(30_000));
    let task = spawn_put(&zombie);
    wait_ms(10).await;
    assert_eq!(cluster.locks().len(), 2);
    cluster.set_life(zombie.cluster().process(), Life::Frozen);
    wait_ms(10_000).await;
    assert_eq!(now(&other, "a").await, None);
    assert!(is_committed(&put(&other, &[("x", "other")]).await));
    wait_ms(10_000).await;
    cluster.set_life(zombie.cluster().process(), Life::Alive);
    let result = task.await.unwrap();
    wait_ms(30_000).await;
    // Either it began again and is committed as a whole, or nothing of it is there.
    let found = [now(&other, "a").await, now(&other, "x").await];
    if is_committed(&result) {
        assert_eq!(found, [Some("record".to_owned()), Some("effect".to_owned())]);
    } else {
        assert_eq!(found, [None, Some("other".to_owned())], "{result:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a10_two_who_believe_that_they_own_the_same_lose_nothing() {
    const UPDATES: u32 = 40;
    let cluster = cluster(&[]);
    cluster.set_faults(Faults::latency(3));
    let add = |store: Tested| async move {
        let mut done = 0;
        while done < UPDATES {
            let mut transaction = Transaction::begin(&store).await;
            let value: u32 = transaction.get("x").await.map_or(0, |value| value.parse().unwrap());
            let result = transaction.put("x", &(value + 1).to_string()).end().await;
            done += u32::from(is_committed(&result));
        }
    };
    tokio::join!(add(process(&cluster)), add(process(&cluster)));
    assert_eq!(now(&process(&cluster), "x").await, Some((2 * UPDATES).to_string()));
}

#[tokio::test(start_paused = true)]
async fn an_update_at_the_very_start_of_another_is_not_lost() {
    let cluster = cluster(&[]);
    let (slow, fast) = (process(&cluster), process(&cluster));
    put(&fast, &[("x", "1")]).await.unwrap();
    let mut late = Transaction::begin(&slow).await;
    late.get("x").await;
    // Its view is too old to become its start: it takes the next timestamp. At that very one the other commits in one phase.
    wait_ms(60_000).await;
    let mut one = Transaction::begin(&fast).await;
    one.get("x").await;
    order(&slow, Call::Get, 0, Action::Slow(50));
    let (late, one) = tokio::join!(late.put("x", "2").end(), async {
        wait_ms(10).await;
        one.put("x", "11").end().await
    });
    assert!(is_committed(&one), "{one:?}");
    assert!(matches!(late, Ok(CommitResult::Conflict(_))), "{late:?}");
    assert_eq!(now(&fast, "x").await.as_deref(), Some("11"));
}

#[tokio::test(start_paused = true)]
async fn a21_a_row_that_comes_into_a_range_conflicts() {
    for borders in [&[][..], &["t/5"][..]] {
        let cluster = cluster(borders);
        let (store, other) = (process(&cluster), process(&cluster));
        put(&other, &[("t/1", ""), ("t/9", "")]).await.unwrap();
        let mut booking = Transaction::begin(&store).await;
        assert_eq!(booking.scan(KeyRange::prefix(b"t/")).await.len(), 2);
        put(&other, &[("t/4", "")]).await.unwrap();
        let result = booking.put("t/7", "").end().await;
        assert!(matches!(result, Ok(CommitResult::Conflict(_))), "{result:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a22_a_view_that_is_too_old_says_so_and_shows_nothing_wrong() {
    let cluster = cluster(&[]);
    let store = process(&cluster);
    put(&store, &[("x", "old")]).await.unwrap();
    let view = store.snapshot().await.unwrap();
    put(&store, &[("x", "new")]).await.unwrap();
    wait_ms(700_000).await;
    // The safe point moves past the view, and what lies below it is removed.
    now(&store, "x").await;
    cluster.move_safe_point(300_000);
    wait_ms(1_000).await;
    now(&store, "x").await;
    assert!(cluster.counts()["collected"] > 0);
    let read = view.get(&Bytes::from_static(b"x")).await;
    assert!(matches!(read, Err(Error::HistoryNotKept { .. })), "{read:?}");
    let rows = view.scan(&KeyRange::prefix(b""), usize::MAX, false).await;
    assert!(matches!(rows, Err(Error::HistoryNotKept { .. })), "{rows:?}");
    assert_eq!(now(&store, "x").await.as_deref(), Some("new"));
}

#[tokio::test(start_paused = true)]
async fn b1_without_the_placement_driver_nothing_is_wrong_and_it_goes_on_afterwards() {
    let cluster = cluster(&APART);
    let store = process(&cluster);
    assert!(is_committed(&put(&store, &[("y", "before")]).await));
    let own = store.cluster().process();
    cluster.cut(own, Node::Oracle, Some(Cut::Both));
    let begin = Instant::now();
    let refused = store.snapshot().await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    wait_ms(20_000).await;
    cluster.cut(own, Node::Oracle, None);
    cluster.stop_oracle(1_000);
    let begin = Instant::now();
    assert!(is_committed(&put(&store, &ROWS).await));
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(both(&cluster, &store).await);
}

#[tokio::test(start_paused = true)]
async fn b5_cut_off_from_one_store_or_one_way_it_is_never_half_done() {
    for (node, cut) in [(0, Cut::Both), (1, Cut::Both), (0, Cut::Answers), (1, Cut::Answers), (1, Cut::Requests)] {
        let cluster = cluster(&APART);
        let (store, other) = (process(&cluster), process(&cluster));
        let own = store.cluster().process();
        cluster.cut(own, Node::Store(node), Some(cut));
        let result = put(&store, &ROWS).await;
        cluster.cut(own, Node::Store(node), None);
        wait_ms(30_000).await;
        let there = both(&cluster, &other).await;
        assert!(!(there && is_rejected(&result)), "{node} {cut:?}: {result:?}");
        assert!(there || !is_committed(&result), "{node} {cut:?}: {result:?}");
        again(&cluster, &store).await;
    }
}

#[tokio::test(start_paused = true)]
async fn b9_leaps_of_the_clock_change_no_order() {
    let cluster = cluster(&APART);
    let store = process(&cluster);
    let mut last = None;
    for step in 0..20 {
        match step % 3 {
            0 => cluster.leap(3_600_000),
            1 => cluster.lag(3_600_000),
            _ => cluster.stop_oracle(10),
        }
        let Ok(CommitResult::Committed(at)) = put(&store, &ROWS).await else { panic!("step {step} is not committed") };
        assert!(Some(at) > last, "step {step}");
        last = Some(at);
        assert!(both(&cluster, &store).await);
    }
}

#[tokio::test(start_paused = true)]
async fn b10_refusals_of_stores_are_transparent() {
    const COMMITS: usize = 200;
    let cluster = cluster(&APART);
    cluster.set_faults(Faults { region_error: 1_000, region_change: 500, ..Faults::latency(1) });
    let store = process(&cluster);
    for number in 0..COMMITS {
        let result = put(&store, &[("a", "record"), ("x", "effect"), ("y", "effect")]).await;
        assert!(is_committed(&result), "{number}: {result:?}");
    }
    let counts = cluster.counts();
    for refusal in ["server-is-busy", "epoch-not-match", "key-not-in-region", "not-leader", "stale-command"] {
        assert!(counts.contains_key(refusal), "{refusal} never happened: {counts:?}");
    }
    assert!(both(&cluster, &store).await);
}
