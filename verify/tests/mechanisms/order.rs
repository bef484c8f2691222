//! The one order of flows: in memory when they are sealed, and in the store when they are committed.

use tandem_model::outcome::Outcome;
use tandem_runtime::runtime::Accepted;
use tandem_store::Store;
use tandem_store::memory::{Fault, MemoryStore};

use crate::held::HeldStore;
use crate::script::{Step, To, meet, node, point, reach, until};
use crate::stage::{Stage, embedded, ended};
use crate::{claim, committed};

/// Returns once the runtime has heard all that its worker has said so far: both are on one stream, in order.
pub(crate) async fn hear<S: Store>(stage: &Stage<S>) {
    for _ in 0..3 {
        committed(stage.ask(To::of("node", "nobody", "look", vec![]))).await;
    }
}

/// A flow that waits at the gate of the store, so that all that is sealed after it becomes one group.
pub(crate) async fn hold_up<S: Store>(stage: &Stage<HeldStore<S>>, steps: Vec<Step>) -> Accepted {
    stage.store.hold();
    let first = stage.submit("hold-up", &node("hold-up", steps)).await.unwrap();
    stage.store.until_waiting().await;
    first
}

/// Runs two flows that both call `shared` and end up in one group if nothing keeps them from it; gives their outcomes.
async fn in_one_group(shared: &To) -> (Stage<HeldStore<MemoryStore>>, [Outcome; 2]) {
    let stage = Stage::start(HeldStore::new(MemoryStore::new())).await;
    let first = hold_up(&stage, vec![]).await;
    let one = stage.submit("one", &node("one", vec![Step::Call(shared.clone())])).await.unwrap();
    let two = stage.submit("two", &node("two", vec![Step::Call(shared.clone())])).await.unwrap();
    hear(&stage).await;
    stage.store.let_go();
    ended(first).await;
    let mut outcomes = [ended(one).await.record.outcome, ended(two).await.record.outcome];
    outcomes.sort();
    (stage, outcomes)
}

pub(crate) async fn an_update_within_one_group_is_not_lost() {
    let met = point("met");
    let (stage, _) = in_one_group(&node("x", vec![Step::Read, meet(&met, 2), Step::Add(1)])).await;
    claim!(stage.value("x").await, Some(2));
}

/// Puts an entry if there is none, after all have looked.
fn put_the_first(met: &str) -> Vec<Step> {
    vec![Step::Count, meet(met, 2), Step::AtMost(0), Step::PutRandom]
}

pub(crate) async fn there_are_no_phantoms_within_one_group() {
    let (stage, outcomes) = in_one_group(&node("x", put_the_first(&point("met")))).await;
    claim!(stage.entries("x").await.len(), 1);
    claim!(outcomes, [Outcome::Committed, Outcome::Rejected]);
}

/// Runs `flow` against its mirror image on the instances `alice` and `bob`, and tells who has a value afterwards.
async fn mirrored(flow: impl Fn(&str) -> Vec<Step>) -> usize {
    let stage = Stage::memory().await;
    let _ = tokio::join!(stage.run("alice", flow("bob")), stage.run("bob", flow("alice")));
    [stage.value("alice").await, stage.value("bob").await].into_iter().flatten().count()
}

pub(crate) async fn an_absence_that_was_read_is_protected() {
    let met = point("met");
    let take_if_free =
        |other: &str| vec![Step::Call(node(other, vec![Step::Read])), meet(&met, 2), Step::AtMost(0), Step::Set(1)];
    claim!(mirrored(take_if_free).await, 1);
}

pub(crate) async fn a_handled_no_rests_on_what_it_saw() {
    let met = point("met");
    let take_if_refused = |other: &str| {
        vec![Step::Handle(node(other, vec![Step::Need(1)])), meet(&met, 2), Step::AtMost(-1), Step::Set(1)]
    };
    claim!(mirrored(take_if_refused).await, 1);
}

pub(crate) async fn the_second_writer_of_a_snapshot_runs_again() {
    let stage = Stage::memory().await;
    let met = point("met");
    let add = vec![Step::Call(node("x", vec![Step::Read, meet(&met, 2), Step::Add(1)]))];
    let flow = |key| stage.ask(To::of("node", key, "snapshot", add.clone()));
    let _ = tokio::join!(flow("one"), flow("two"));
    claim!(stage.value("x").await, Some(2));
}

/// A runtime whose commits can be held, and the store below it.
async fn held() -> (Stage<HeldStore<MemoryStore>>, MemoryStore) {
    let memory = MemoryStore::new();
    (Stage::start(HeldStore::new(memory.clone())).await, memory)
}

pub(crate) async fn what_was_built_on_a_failed_group_falls_with_it() {
    let (stage, memory) = held().await;
    stage.store.hold();
    let one = stage.submit("one", &node("x", vec![Step::Add(1)])).await.unwrap();
    stage.store.until_waiting().await;
    let two = stage.submit("two", &node("x", vec![Step::Add(1)])).await.unwrap();
    hear(&stage).await;
    memory.fail_next_commit(Fault::Conflict);
    stage.store.let_go();
    ended(one).await;
    ended(two).await;
    claim!(stage.value("x").await, Some(2));
}

pub(crate) async fn a_view_of_what_never_was_is_void() {
    let (stage, memory) = held().await;
    let [seen, go, again, go_again] = ["seen", "go", "again", "go-again"].map(point);
    stage.store.hold();
    let wait_again = Step::OnAttempt(2, vec![Step::Reach(again.clone()), Step::Await(go_again.clone(), 1)]);
    let one = stage.submit("one", &node("x", vec![wait_again, Step::Add(1)])).await.unwrap();
    stage.store.until_waiting().await;
    let wait = Step::OnAttempt(1, vec![Step::Reach(seen.clone()), Step::Await(go.clone(), 1)]);
    let call = Step::Call(node("x", vec![Step::Add(1)]));
    let two = stage.submit("two", &node("y", vec![call, wait])).await.unwrap();
    until(&seen, 1).await;
    // The second flow has seen what the first one wrote, and the first one is thrown away.
    memory.fail_next_commit(Fault::Conflict);
    stage.store.let_go();
    until(&again, 1).await;
    reach(&go);
    ended(two).await;
    reach(&go_again);
    ended(one).await;
    claim!(stage.value("x").await, Some(2));
}

/// Runs steps on `x` of one runtime, and others on `x` of another on the same store while the first ones wait at the
/// point that they are given.
async fn overtaken<S: Store>(store: S, slow: impl FnOnce(Step) -> Vec<Step>, fast: Vec<Step>) -> (Stage<S>, Outcome) {
    let (here, there) = (Stage::start(store.clone()).await, Stage::start(store).await);
    let (seen, go) = (point("seen"), point("go"));
    let wait = Step::OnAttempt(1, vec![Step::Reach(seen.clone()), Step::Await(go.clone(), 1)]);
    let slow = here.submit("slow", &node("x", slow(wait))).await.unwrap();
    until(&seen, 1).await;
    committed(there.run("x", fast)).await;
    reach(&go);
    let outcome = ended(slow).await.record.outcome;
    (here, outcome)
}

pub(crate) async fn an_update_of_another_runtime_is_not_lost() {
    let slow = |wait| vec![wait, Step::Add(1)];
    let (stage, _) = overtaken(MemoryStore::new(), slow, vec![Step::Add(10)]).await;
    claim!(stage.value("x").await, Some(11));
}

pub(crate) async fn an_update_of_another_runtime_is_not_lost_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let slow = |wait| vec![wait, Step::Add(1)];
    let (stage, _) = overtaken(embedded(directory.path()), slow, vec![Step::Add(10)]).await;
    claim!(stage.value("x").await, Some(11));
}

pub(crate) async fn there_are_no_phantoms_of_another_runtime() {
    let slow = |wait| vec![Step::Count, wait, Step::AtMost(0), Step::PutRandom];
    let (stage, outcome) = overtaken(MemoryStore::new(), slow, vec![Step::PutRandom]).await;
    claim!(stage.entries("x").await.len(), 1);
    claim!(outcome, Outcome::Rejected);
}

pub(crate) async fn what_was_read_before_it_was_durable_is_validated_too() {
    let (stage, memory) = held().await;
    let there = Stage::start(memory).await;
    let (seen, go) = (point("seen"), point("go"));
    stage.store.hold();
    let one = stage.submit("one", &node("x", vec![Step::Add(1)])).await.unwrap();
    stage.store.until_waiting().await;
    let wait = Step::OnAttempt(1, vec![Step::Reach(seen.clone()), Step::Await(go.clone(), 1)]);
    let call = Step::Call(node("x", vec![Step::Add(1)]));
    let two = stage.submit("two", &node("y", vec![call, wait])).await.unwrap();
    until(&seen, 1).await;
    stage.store.let_go();
    ended(one).await;
    committed(there.run("x", vec![Step::Add(10)])).await;
    reach(&go);
    ended(two).await;
    claim!(stage.value("x").await, Some(12));
}
