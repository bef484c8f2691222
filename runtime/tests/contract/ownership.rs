//! C9: two runtimes on one store, both sure that everything is theirs. The store is the judge.

use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tandem_model::outcome::Outcome;
use tandem_runtime::runtime::Options;
use tandem_store::Store;
use tandem_store::memory::{Fault, MemoryStore};
use tandem_store::simulated::{Faults, SimulatedDisk};

use crate::held::HeldStore;
use crate::script::{Step, node, other};
use crate::stage::{Stage, Worker, embedded, end_of, eventually, result, topology};

async fn two_stages<S: Store>(store: S) -> [Stage<S>; 2] {
    let worker = Worker::start().await;
    let mut topology = topology(&[&worker]);
    topology.limits.attempts_max = 1_000;
    let one = Stage::of(store.clone(), Options::default(), topology.clone()).await;
    let mut two = Stage::of(store, Options::default(), topology).await;
    two.keep(worker);
    [one, two]
}

async fn transfers_keep_the_sum<S: Store>(stages: &[Stage<S>; 2]) {
    const ACCOUNTS: u32 = 6;
    const TRANSFERS: u64 = 60;
    let account = |number: u32| format!("account-{number}");
    for number in 0..ACCOUNTS {
        stages[0].run(&account(number), vec![Step::Set(100)]).await;
    }
    let transfer = |number: u64| {
        let mut random = SmallRng::seed_from_u64(number);
        let from = random.random_range(0..ACCOUNTS);
        let to = (from + random.random_range(1..ACCOUNTS)) % ACCOUNTS;
        let amount = random.random_range(1..80);
        let pay = Step::Call(node(&account(to), vec![Step::Add(amount)]));
        let steps = vec![Step::Need(amount), Step::Add(-amount), pay];
        let stage = &stages[usize::from(number.is_multiple_of(2))];
        async move { stage.run(&account(from), steps).await }
    };
    let records = join_all((0..TRANSFERS).map(transfer)).await;
    for record in &records {
        assert!(matches!(record.outcome, Outcome::Committed | Outcome::Rejected), "{:?}", end_of(record));
    }
    let mut sum = 0;
    for number in 0..ACCOUNTS {
        let value = stages[1].value(&account(number)).await.unwrap();
        assert!(value >= 0);
        sum += value;
    }
    assert_eq!(sum, i64::from(ACCOUNTS) * 100);
}

async fn the_same_id_runs_once<S: Store>(stages: &[Stage<S>; 2]) {
    const REQUESTS: usize = 25;
    let steps = |number: usize| {
        let send = Step::Send(other("sent", vec![Step::Add(1)]), 0);
        node(&format!("once-{}", number % 5), vec![Step::Add(1), send, Step::PutRandom])
    };
    let both = |number: usize| {
        let id = format!("once-{number}");
        async move {
            let to = steps(number);
            let (one, two) = tokio::join!(stages[0].ask_as(&id, &to), stages[1].ask_as(&id, &to));
            assert_eq!(result(&one.record), result(&two.record), "request {number}");
        }
    };
    join_all((0..REQUESTS).map(both)).await;
    let mut entries = 0;
    for number in 0..5 {
        assert_eq!(stages[0].value(&format!("once-{number}")).await, Some(5));
        entries += stages[0].entries(&format!("once-{number}")).await.len();
    }
    assert_eq!(entries, REQUESTS);
    eventually("all messages have arrived", async || {
        stages[0].value_of("other", "sent").await == Some(i64::try_from(REQUESTS).unwrap())
    })
    .await;
    stages[0].rest().await;
    stages[1].rest().await;
    assert_eq!(stages[0].value_of("other", "sent").await, Some(i64::try_from(REQUESTS).unwrap()));
}

// To see it fail: give the store no reads and no ranges to validate (`Inner::commit_of`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runtimes_on_one_memory_store_cannot_both_commit() {
    let stages = two_stages(MemoryStore::new()).await;
    transfers_keep_the_sum(&stages).await;
    the_same_id_runs_once(&stages).await;
}

// To see it fail: the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runtimes_on_one_embedded_store_cannot_both_commit() {
    let directory = tempfile::tempdir().unwrap();
    let stages = two_stages(embedded(directory.path())).await;
    transfers_keep_the_sum(&stages).await;
    the_same_id_runs_once(&stages).await;
}

/// Runs in bad weather.
const WEATHER_SEEDS: u64 = 3;
/// With more, if that was not bad enough: how many commits there are depends on how flows come to share them.
const WEATHER_SEEDS_MAX: u64 = 12;

/// Like the first, with late answers, false conflicts, and commits that are refused or of which nobody knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runtimes_in_bad_weather_cannot_both_commit() {
    const WEATHER: Faults = Faults {
        conflict: 300,
        delay: 1_000,
        late_answer: 1_000,
        delay_ms_max: 3,
        undetermined_before: 500,
        undetermined_after: 500,
        undetermined_open: 500,
        read_unavailable: 0,
        commit_unavailable: 300,
        commit_full: 100,
        crash: 0,
    };
    let (mut after, mut open) = (0, 0);
    for seed in 0..WEATHER_SEEDS_MAX {
        let store = SimulatedDisk::new(seed).open(Faults::none());
        let stages = two_stages(store.clone()).await;
        store.set_faults(WEATHER);
        transfers_keep_the_sum(&stages).await;
        the_same_id_runs_once(&stages).await;
        let counts = store.disk().counts();
        after += counts.undetermined_after;
        open += counts.open_applied + counts.open_dropped;
        if seed + 1 >= WEATHER_SEEDS && after > 0 && open > 0 {
            return;
        }
    }
    panic!("the weather was too good: {after} commits undetermined and done, {open} open");
}

/// Both run a request with the same id; the first one's commit is held until the second has committed its own, and is
/// then undetermined. Returns how each of them ended.
async fn overtaken(
    first: &crate::script::To,
    second: &crate::script::To,
) -> (Stage<HeldStore<MemoryStore>>, [Option<i64>; 2]) {
    let memory = MemoryStore::new();
    let held = HeldStore::new(memory.clone());
    let (slow, fast) = (Stage::start(held.clone()).await, Stage::start(memory.clone()).await);
    held.hold();
    let waiting = slow.submit("same", first).await.unwrap();
    held.until_waiting().await;
    let fast = result(&fast.ask_as("same", second).await.record);
    memory.fail_next_commit(Fault::UndeterminedBefore);
    held.let_go();
    let slow_end = tokio::time::timeout(crate::script::PATIENCE, waiting.outcome).await.expect("it does not end");
    (slow, [slow_end.ok().map(|ended| result(&ended.record)), Some(fast)])
}

// To see it fail: in `Partition::decide` take any record under the primary key for our own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undetermined_commit_is_not_taken_for_the_one_of_another_runtime() {
    let to = node("a", vec![Step::PutRandom]);
    let (stage, [slow, fast]) = overtaken(&to, &to).await;
    assert_eq!(slow, fast);
    assert_eq!(stage.entries("a").await.len(), 1);
}

// To see it fail: in `Flow::open` answer with any record that is there, whatever its digest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_not_answered_with_the_outcome_of_another_body() {
    let (stage, [slow, fast]) =
        overtaken(&node("a", vec![Step::Add(1), Step::Read]), &node("a", vec![Step::Add(7), Step::Read])).await;
    assert_eq!(fast, Some(7));
    assert_eq!(slow, None, "it has no outcome; repeating it is refused");
    assert_eq!(stage.value("a").await, Some(7));
    let again = stage.submit("same", &node("a", vec![Step::Add(1), Step::Read])).await;
    assert!(matches!(again, Err(tandem_runtime::runtime::NotAccepted::Mismatch { .. })));
}
