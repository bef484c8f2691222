//! C3: nothing leaves before the commit is durable. C5: an undetermined commit is decided before anyone is answered.

use tandem_model::outcome::Outcome;
use tandem_store::memory::{Fault, MemoryStore};

use crate::held::HeldStore;
use crate::script::{PATIENCE, Step, node, point, reached, until};
use crate::stage::{Stage, copy, embedded, embedded_stage, end_of, ended, result};

// To see it fail: answer `Sealed::Durable` in `Partition::seal` and never commit (`run_committer`), or leave the
// released rows out of the transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_the_process() {
    let (stage, directory) = embedded_stage().await;
    let held = point("held");
    for number in 0..10 {
        let waits = vec![Step::Await(held.clone(), 1), Step::Add(number)];
        let steps = vec![Step::Add(number), Step::Send(node("sent", waits), 0), Step::Emit("out".into(), number)];
        let answer = stage.ask_as(&format!("r-{number}"), &node(&format!("k-{number}"), steps)).await;
        assert_eq!(end_of(&answer.record), (Outcome::Committed, ""));
    }
    // Nobody is told to stop; the copy is all that is left.
    let after = tempfile::tempdir().unwrap();
    copy(directory.path(), after.path());
    crate::script::reach(&held);
    let stage = Stage::start(embedded(after.path())).await;
    stage.rest().await;
    for number in 0..10 {
        assert_eq!(stage.value(&format!("k-{number}")).await, Some(number));
    }
    assert_eq!(stage.value("sent").await, Some(45));
    assert_eq!(stage.emitted().await, (0..10).collect::<Vec<_>>());
    let steps = vec![
        Step::Add(3),
        Step::Send(node("sent", vec![Step::Await(held.clone(), 1), Step::Add(3)]), 0),
        Step::Emit("out".into(), 3),
    ];
    let again = stage.ask_as("r-3", &node("k-3", steps)).await;
    assert!(again.repeated);
    assert_eq!(stage.value("k-3").await, Some(3));
}

// To see it fail: in `Partition::seal` send `Sealed::Durable` to the flow, or pass its messages on, at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_leaves_before_the_commit() {
    let store = HeldStore::new(MemoryStore::new());
    let stage = Stage::start(store.clone()).await;
    let ran = point("ran");
    store.hold();
    let message = node("sent", vec![Step::Reach(ran.clone()), Step::Set(1)]);
    let steps = vec![Step::Set(1), Step::Send(message, 0), Step::Emit("out".into(), 1)];
    let mut accepted = stage.submit("r-1", &node("a", steps)).await.unwrap();
    store.until_waiting().await;
    // Another flow on the same instance reads what is not durable, and is not answered either.
    let mut second = stage.submit("r-2", &node("a", vec![Step::Read])).await.unwrap();
    // A read-only flow is answered now, and must not see it.
    let look = stage.ask(crate::script::To::of("node", "a", "look", vec![Step::Read])).await;
    assert_eq!(result(&look), 0);
    assert!(accepted.outcome.try_recv().is_err() && second.outcome.try_recv().is_err());
    assert_eq!((stage.value("a").await, stage.emitted().await, reached(&ran)), (None, vec![], 0));
    store.let_go();
    assert_eq!(end_of(&ended(accepted).await.record), (Outcome::Committed, ""));
    assert_eq!(result(&ended(second).await.record), 1);
    tokio::time::timeout(PATIENCE, until(&ran, 1)).await.unwrap();
    stage.rest().await;
    assert_eq!((stage.value("a").await, stage.value("sent").await), (Some(1), Some(1)));
    assert_eq!(stage.emitted().await, [1]);
}

// To see it fail: in `Runtime::answered` answer with any record that is there, also with one that is only sealed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_is_not_answered_before_the_commit_either() {
    let store = HeldStore::new(MemoryStore::new());
    let stage = Stage::start(store.clone()).await;
    store.hold();
    let to = node("a", vec![Step::Add(1)]);
    let first = stage.submit("r-1", &to).await.unwrap();
    store.until_waiting().await;
    let mut again = stage.submit("r-1", &to).await.unwrap();
    assert!(again.outcome.try_recv().is_err());
    let other_body = stage.submit("r-1", &node("a", vec![Step::Add(2)])).await;
    assert!(matches!(other_body, Err(tandem_runtime::runtime::NotAccepted::Mismatch { .. })));
    store.let_go();
    assert!(!ended(first).await.repeated && ended(again).await.repeated);
    assert_eq!(stage.value("a").await, Some(1));
}

// To see it fail: in `Partition::commit` take `Undetermined` for durable (before), or for a conflict without looking
// whether the flow has a record already (after; `Flow::open`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_went_wrong_has_its_effect_once() {
    for fault in [Fault::Conflict, Fault::UndeterminedBefore, Fault::UndeterminedAfter, Fault::Unavailable] {
        let stage = Stage::memory().await;
        stage.store.fail_next_commit(fault);
        let steps = vec![Step::Add(1), Step::Send(node("sent", vec![Step::Add(1)]), 0), Step::Emit("out".into(), 1)];
        let first = stage.ask_as("r-1", &node("a", steps.clone())).await;
        assert_eq!((end_of(&first.record), first.repeated), ((Outcome::Committed, ""), false), "{fault:?}");
        assert_eq!(stage.store.faults_left(), 0);
        let again = stage.ask_as("r-1", &node("a", steps)).await;
        assert!(again.repeated, "{fault:?}");
        stage.rest().await;
        assert_eq!((stage.value("a").await, stage.value("sent").await), (Some(1), Some(1)), "{fault:?}");
        assert_eq!(stage.emitted().await, [1], "{fault:?}");
    }
}

// To see it fail: the same as above; also leave `epoch` as it is in `Partition::throw_away`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_flows_get_through_many_faults_once_each() {
    const FLOWS: i64 = 40;
    let faults = [Fault::UndeterminedAfter, Fault::Conflict, Fault::UndeterminedBefore, Fault::Unavailable];
    let stage = Stage::memory_with(|topology| topology.limits.attempts_max = 50).await;
    faults.into_iter().cycle().take(12).for_each(|fault| stage.store.fail_next_commit(fault));
    let flow = |number: i64| {
        let send = Step::Send(node("sent", vec![Step::Add(1)]), 0);
        stage.run(["a", "b", "c"][usize::try_from(number % 3).unwrap()], vec![Step::Add(1), send])
    };
    let ended = futures_util::future::join_all((0..FLOWS).map(flow)).await;
    assert!(ended.iter().all(|record| record.outcome == Outcome::Committed));
    stage.rest().await;
    let mut sum = 0;
    for key in ["a", "b", "c"] {
        sum += stage.value(key).await.unwrap();
    }
    assert_eq!((sum, stage.value("sent").await), (FLOWS, Some(FLOWS)));
    assert_eq!(stage.store.faults_left(), 0);
}
