//! Sends at once and later, across restarts; egress records; what is kept only for a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tandem_model::outcome::Outcome;
use tandem_model::slot::SlotCount;
use tandem_runtime::clock::Clock;
use tandem_runtime::runtime::{FlowState, Invalid, NotAccepted, Options};
use tandem_store::keys::RowKey;
use tandem_store::memory::MemoryStore;

use crate::script::{PATIENCE, Step, gone, node, point, reach, reached, until};
use crate::stage::{EGRESS, Stage, end_of, eventually};

const HOUR_MS: u64 = 3_600_000;

/// A clock that the test moves on.
#[derive(Debug)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn unix_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn clock() -> Arc<TestClock> {
    Arc::new(TestClock(AtomicU64::new(1_700_000_000_000)))
}

fn options(clock: &Arc<TestClock>) -> Options {
    Options { clock: clock.clone(), ..Options::default() }
}

/// Something for the courier to do, so that it looks at the clock.
async fn wake(stage: &Stage<MemoryStore>) {
    stage.run("wake", vec![Step::Send(node("woken", vec![Step::Add(1)]), 0)]).await;
    stage.rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_send_runs_once_when_it_is_due_and_not_before() {
    let (clock, store) = (clock(), MemoryStore::new());
    let stage = Stage::start_with(store.clone(), options(&clock), |_| {}).await;
    stage.run("a", vec![Step::Send(node("later", vec![Step::Add(1)]), HOUR_MS)]).await;
    clock.0.fetch_add(HOUR_MS - 1_000, Ordering::Relaxed);
    wake(&stage).await;
    assert_eq!(stage.value("later").await, None);
    // A restart in between changes nothing.
    stage.runtime.shut_down(PATIENCE).await;
    let stage = Stage::start_with(store, options(&clock), |_| {}).await;
    wake(&stage).await;
    assert_eq!((stage.value("later").await, stage.value("woken").await), (None, Some(2)));
    clock.0.fetch_add(2_000, Ordering::Relaxed);
    wake(&stage).await;
    eventually("the message arrives", async || stage.value("later").await.is_some()).await;
    wake(&stage).await;
    assert_eq!(stage.value("later").await, Some(1));
    assert_eq!(stage.count(|row| matches!(row, RowKey::Timer { .. })).await, 0);
}

// To see it fail: let `Engine::check` take any request id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_can_take_the_place_of_a_message() {
    let (clock, store) = (clock(), MemoryStore::new());
    let stage = Stage::start_with(store, options(&clock), |_| {}).await;
    let sent = stage.run("a", vec![Step::Send(node("b", vec![Step::Add(1)]), HOUR_MS)]).await;
    let id = format!("message:{}:0", sent.flow);
    let refused = stage.submit(&id, &node("b", vec![Step::Add(100)])).await;
    assert!(matches!(refused, Err(NotAccepted::Invalid(Invalid::ReservedId))), "{refused:?}");
    clock.0.fetch_add(2 * HOUR_MS, Ordering::Relaxed);
    wake(&stage).await;
    eventually("the message arrives", async || stage.value("b").await == Some(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_delays_pass_by_themselves() {
    let stage = Stage::memory().await;
    let sends = [30, 10, 20].map(|delay| Step::Send(node("b", vec![Step::Note(delay.to_string())]), delay));
    stage.run("a", sends.into()).await;
    eventually("all have arrived", async || stage.value("b").await == Some(3)).await;
    let expected = [("10", 1), ("20", 2), ("30", 3)].map(|(name, place)| (name.to_owned(), place));
    assert_eq!(stage.entries("b").await.into_iter().collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_a_dying_runtime_was_at_is_delivered_once_by_the_next() {
    let store = MemoryStore::new();
    let stage = Stage::start(store.clone()).await;
    let (began, go) = (point("began"), point("go"));
    let steps = vec![Step::Reach(began.clone()), Step::Await(go.clone(), 1), Step::Add(1)];
    let next = node("b", vec![Step::Add(10), Step::Send(node("c", vec![Step::Add(1)]), 0)]);
    stage.run("a", vec![Step::Send(node("b", steps), 0), Step::Send(next, 0)]).await;
    until(&began, 1).await;
    stage.runtime.shut_down(Duration::ZERO).await;
    until(&gone(&go), 1).await;
    reach(&go);
    let stage = Stage::start(store).await;
    stage.rest().await;
    assert_eq!((stage.value("b").await, stage.value("c").await), (Some(11), Some(1)));
    assert!(reached(&began) >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_egress_is_read_in_commit_order_from_any_place_also_after_a_restart() {
    let store = MemoryStore::new();
    let stage = Stage::start(store.clone()).await;
    let egress = EGRESS.parse().unwrap();
    let mut changed = stage.runtime.egress_changed(&egress);
    for number in 0..10 {
        // From instances in different slots, two records each.
        let emits = vec![Step::Emit(EGRESS.into(), 2 * number), Step::Emit(EGRESS.into(), 2 * number + 1)];
        stage.run(&format!("k-{number}"), emits).await;
    }
    assert!(changed.has_changed().unwrap());
    changed.mark_unchanged();
    stage.run("no", vec![Step::Emit(EGRESS.into(), 99), Step::Reject]).await;
    assert!(!changed.has_changed().unwrap());
    assert_eq!(stage.emitted().await, (0..20).collect::<Vec<_>>());
    let all = stage.runtime.egress(&egress, 0, 100).await.unwrap();
    stage.runtime.shut_down(PATIENCE).await;

    let stage = Stage::start(store).await;
    stage.run("new", vec![Step::Emit(EGRESS.into(), 20)]).await;
    let mut after = 0;
    let mut seen = Vec::new();
    loop {
        let page = stage.runtime.egress(&egress, after, 7).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.sequence;
        seen.extend(page);
    }
    assert_eq!(seen[..20], all);
    assert_eq!(seen.len(), 21);
    assert!(seen.is_sorted_by(|one, next| one.sequence < next.sequence));
    // Close to the end it is answered from memory, and says the same.
    assert_eq!(stage.runtime.egress(&egress, all[19].sequence, 7).await.unwrap(), seen[20..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_swept_after_their_retention() {
    let (clock, store) = (clock(), MemoryStore::new());
    let stage = Stage::start_with(store, options(&clock), |topology| {
        topology.slots = SlotCount::new(4).unwrap();
        topology.retention_ms = 60_000;
        topology.egresses.values_mut().for_each(|egress| egress.stream_retention_ms = 120_000);
    })
    .await;
    let to = node("a", vec![Step::Add(1), Step::Emit(EGRESS.into(), 1)]);
    let first = stage.ask_as("r-1", &to).await.record;
    clock.0.fetch_add(90_000, Ordering::Relaxed);
    stage.ask_as("r-2", &node("b", vec![])).await;
    let requests = async || stage.count(|row| matches!(row, RowKey::Request { .. })).await;
    let records = async || stage.count(|row| matches!(row, RowKey::Egress { .. })).await;
    eventually("the first record is removed", async || requests().await == 1).await;
    assert_eq!(records().await, 1);
    clock.0.fetch_add(90_000, Ordering::Relaxed);
    eventually("all is removed", async || requests().await == 0 && records().await == 0).await;
    let removed = |kind: &str| {
        let series = format!("tandem_runtime_expired_rows_total{{reason=\"{kind}\"}}");
        let text = stage.runtime.metrics().text();
        text.lines().find_map(|line| line.strip_prefix(series.as_str())?.trim().parse::<u64>().ok()).unwrap_or_default()
    };
    assert_eq!((removed("request"), removed("egress")), (2, 1));
    // State is not swept, and the id is free again.
    assert_eq!(stage.value("a").await, Some(1));
    let again = stage.ask_as("r-1", &to).await;
    assert_eq!((end_of(&again.record), again.repeated), ((Outcome::Committed, ""), false));
    assert!(matches!(stage.runtime.flow(first.flow).await.unwrap(), FlowState::Ended(_)));
}
