//! One outcome for each request, whatever happens to its commit.

use std::time::Duration;

use tandem_model::outcome::Outcome;
use tandem_model::slot::SlotCount;
use tandem_runtime::runtime::NotAccepted;
use tandem_store::memory::{Fault, MemoryStore};

use super::order::hear;
use crate::held::HeldStore;
use crate::script::{PATIENCE, Step, node, point, reach};
use crate::stage::{Stage, ended};
use crate::{claim, committed};

pub(crate) async fn the_same_request_again_has_no_effect() {
    let stage = Stage::memory().await;
    let to = node("a", vec![Step::Add(1)]);
    stage.ask_as("r-1", &to).await;
    claim!(stage.ask_as("r-1", &to).await.repeated, true);
    claim!(stage.value("a").await, Some(1));
}

/// One runtime's commit of a request waits until another one has committed the same; what that is told of its own
/// commit then is `fault`, or the truth. Gives the entries that there are, and whether both say the same.
async fn run_by_two(fault: Option<Fault>) -> (usize, bool) {
    let memory = MemoryStore::new();
    let held = HeldStore::new(memory.clone());
    let (slow, fast) = (Stage::start(held.clone()).await, Stage::start(memory.clone()).await);
    held.hold();
    let to = node("a", vec![Step::PutRandom]);
    let waiting = slow.submit("same", &to).await.unwrap();
    held.until_waiting().await;
    let fast = committed(async { fast.ask_as("same", &to).await.record }).await;
    if let Some(fault) = fault {
        memory.fail_next_commit(fault);
    }
    held.let_go();
    let same = committed(async { ended(waiting).await.record }).await == fast;
    (slow.entries("a").await.len(), same)
}

pub(crate) async fn two_runtimes_cannot_both_run_a_request() {
    claim!(run_by_two(None).await, (1, true));
}

pub(crate) async fn the_record_of_another_run_is_not_taken_for_ones_own() {
    claim!(run_by_two(Some(Fault::UndeterminedBefore)).await, (1, true));
}

pub(crate) async fn another_body_under_the_same_id_is_refused() {
    let stage = Stage::memory().await;
    stage.ask_as("r-1", &node("a", vec![Step::Add(1)])).await;
    let other = stage.submit("r-1", &node("a", vec![Step::Add(2)])).await;
    claim!(matches!(other, Err(NotAccepted::Mismatch { .. })), true);
}

pub(crate) async fn a_commit_that_was_lost_is_not_taken_for_done() {
    let stage = Stage::memory().await;
    stage.store.fail_next_commit(Fault::UndeterminedBefore);
    committed(stage.run("a", vec![Step::Add(1)])).await;
    claim!(stage.value("a").await, Some(1));
}

pub(crate) async fn nothing_is_said_of_a_sealed_flow_before_its_commit() {
    let stage = Stage::start(HeldStore::new(MemoryStore::new())).await;
    stage.store.hold();
    let accepted = stage.submit("r-1", &node("a", vec![Step::Add(1)])).await.unwrap();
    stage.store.until_waiting().await;
    let mut cancelling = Box::pin(stage.runtime.cancel(accepted.flow));
    let early = tokio::select! {
        _ = &mut cancelling => true,
        () = hear(&stage) => false,
    };
    claim!(early, false);
    stage.store.let_go();
    cancelling.await.unwrap();
    claim!(ended(accepted).await.record.outcome, Outcome::Committed);
    claim!(stage.value("a").await, Some(1));
}

pub(crate) async fn a_flow_that_is_not_done_at_its_deadline_has_no_effect() {
    const DEADLINE: Duration = Duration::from_millis(100);
    let stage = Stage::memory().await;
    let go = point("go");
    let mut request = stage.request("r-1", &node("a", vec![Step::Await(go.clone(), 1), Step::Add(1)]));
    request.deadline = DEADLINE;
    let accepted = stage.runtime.submit(request).await.unwrap();
    tokio::spawn(async move {
        tokio::time::sleep(4 * DEADLINE).await;
        reach(&go);
    });
    claim!(ended(accepted).await.record.outcome, Outcome::TimedOut);
    claim!(stage.value("a").await, None);
}

pub(crate) async fn a_record_is_kept_for_the_retention() {
    /// All slots have been swept by then.
    const SWEPT: Duration = Duration::from_secs(12);
    let stage = Stage::memory_with(|topology| topology.slots = SlotCount::new(4).unwrap()).await;
    let to = node("a", vec![Step::Add(1)]);
    stage.ask_as("r-1", &to).await;
    tokio::time::pause();
    tokio::time::sleep(SWEPT).await;
    tokio::time::resume();
    let again = tokio::time::timeout(PATIENCE, stage.ask_as("r-1", &to)).await.unwrap();
    claim!(again.repeated, true);
    claim!(stage.value("a").await, Some(1));
}
