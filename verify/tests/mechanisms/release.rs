//! What leaves a flow: answers, messages, egress records; when, and in which order.

use tandem_store::keys::RowKey;
use tandem_store::memory::MemoryStore;

use super::order::{hear, hold_up};
use crate::held::HeldStore;
use crate::script::{PATIENCE, Step, To, node, point, reached};
use crate::stage::{EGRESS, Stage, copy, embedded, ended, eventually};
use crate::{claim, committed};

/// More records than any check makes.
const RECORDS_MAX: usize = 100;

pub(crate) async fn nothing_leaves_before_the_commit_is_durable() {
    let stage = Stage::start(HeldStore::new(MemoryStore::new())).await;
    let ran = point("ran");
    let message = node("sent", vec![Step::Reach(ran.clone()), Step::Set(1)]);
    let steps = vec![Step::Set(1), Step::Send(message, 0), Step::Emit(EGRESS.into(), 1)];
    let changed = stage.runtime.egress_changed(&EGRESS.parse().unwrap());
    let mut first = hold_up(&stage, steps).await;
    hear(&stage).await;
    let left = (first.outcome.try_recv().is_ok(), changed.has_changed().unwrap(), reached(&ran));
    claim!(left, (false, false, 0));
    stage.store.let_go();
    committed(async { ended(first).await.record }).await;
    stage.rest().await;
    assert_eq!((stage.emitted().await, reached(&ran)), (vec![1], 1));
}

pub(crate) async fn a_read_only_flow_sees_only_what_is_durable() {
    let stage = Stage::start(HeldStore::new(MemoryStore::new())).await;
    let first = hold_up(&stage, vec![Step::Set(1)]).await;
    let look = || stage.ask(To::of("node", "hold-up", "look", vec![Step::Read]));
    claim!(committed(look()).await, 0);
    stage.store.let_go();
    ended(first).await;
    claim!(committed(look()).await, 1);
}

pub(crate) async fn what_was_answered_is_on_disk() {
    let (directory, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let stage = Stage::start(embedded(directory.path())).await;
    committed(stage.run("a", vec![Step::Set(1)])).await;
    copy(directory.path(), after.path());
    let stage = Stage::start(embedded(after.path())).await;
    claim!(stage.value("a").await, Some(1));
}

pub(crate) async fn a_message_is_delivered() {
    let stage = Stage::memory().await;
    committed(stage.run("a", vec![Step::Send(node("b", vec![Step::Set(1)]), 0)])).await;
    stage.rest().await;
    claim!(stage.value("b").await, Some(1));
}

pub(crate) async fn a_message_is_consumed_with_its_effect() {
    let stage = Stage::memory().await;
    committed(stage.run("a", vec![Step::Send(node("b", vec![Step::Set(1)]), 0)])).await;
    eventually("the message has its effect", async || stage.value("b").await == Some(1)).await;
    claim!(stage.count(|row| matches!(row, RowKey::Inbox { .. })).await, 0);
}

pub(crate) async fn messages_of_one_sender_run_in_order() {
    let stage = Stage::memory().await;
    let names = ["1", "2", "3"];
    let sends = names.map(|name| Step::Send(node("b", vec![Step::Note(name.into())]), 0));
    committed(stage.run("a", sends.into())).await;
    stage.rest().await;
    let places = stage.entries("b").await;
    claim!(names.map(|name| places[name]), [1, 2, 3]);
}

pub(crate) async fn egress_records_leave_in_the_order_of_the_commits() {
    let stage = Stage::start(HeldStore::new(MemoryStore::new())).await;
    let emit = |number| vec![Step::Emit(EGRESS.into(), number)];
    let mut flows = vec![hold_up(&stage, emit(0)).await];
    for number in 1..4 {
        flows.push(stage.submit(&stage.id(), &node(&format!("k-{number}"), emit(number))).await.unwrap());
        hear(&stage).await;
    }
    stage.store.let_go();
    for flow in flows {
        ended(flow).await;
    }
    let egress = EGRESS.parse().unwrap();
    let first = stage.runtime.egress(&egress, 0, 1).await.unwrap()[0].sequence;
    let left = stage.runtime.egress(&egress, first, RECORDS_MAX).await.unwrap();
    let numbers: Vec<i64> = left.iter().map(|record| serde_json::from_slice(&record.payload).unwrap()).collect();
    claim!(numbers, [1, 2, 3]);
}

pub(crate) async fn sequences_grow_across_restarts() {
    let store = MemoryStore::new();
    for number in 0..3 {
        let stage = Stage::start(store.clone()).await;
        committed(stage.run("a", vec![Step::Emit(EGRESS.into(), number)])).await;
        stage.runtime.shut_down(PATIENCE).await;
    }
    claim!(Stage::start(store).await.emitted().await, [0, 1, 2]);
}
