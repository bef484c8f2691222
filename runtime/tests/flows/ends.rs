//! Deadlines, cancels, time-outs, shutting down.

use std::time::Duration;

use tandem_model::ids::FunctionName;
use tandem_model::outcome::Outcome;
use tandem_model::topology::{Handler, Topology};
use tandem_runtime::runtime::{Cancelled, FlowState, NotAccepted};
use tandem_store::memory::{Fault, MemoryStore};

use crate::held::HeldStore;
use crate::script::{PATIENCE, Step, gone, node, other, point, reach, reached, until};
use crate::stage::{Stage, end_of, ended, eventually};

const SHORT: Duration = Duration::from_millis(150);

/// Writes, and waits for ever in a call below.
fn endless(began: &str, never: &str) -> Vec<Step> {
    let below = other("below", vec![Step::Set(1), Step::Reach(began.to_owned()), Step::Await(never.to_owned(), 1)]);
    vec![Step::Set(1), Step::Emit("out".into(), 1), Step::Call(below)]
}

// To see it fail: await the attempt without `timeout_at` in `Flow::step`; for the cancel: send no `Cancel` when a
// `SessionHandle` is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_the_flow_and_its_invocations() {
    let stage = Stage::memory().await;
    let (began, never) = (point("began"), point("never"));
    let mut request = stage.request("r-1", &node("a", endless(&began, &never)));
    request.deadline = SHORT;
    let before = stage.rows().await;
    let record = ended(stage.runtime.submit(request).await.unwrap()).await.record;
    assert_eq!(end_of(&record), (Outcome::TimedOut, "deadline"));
    let detail = &record.cause.as_ref().unwrap().detail;
    assert!(detail.contains("other/below run was running"), "{detail}");
    tokio::time::timeout(PATIENCE, until(&gone(&never), 1)).await.expect("the worker was not told");
    assert_eq!(stage.rows_but(&[record.flow]).await, before);
    let record = stage.run("a", vec![Step::Set(2)]).await;
    assert_eq!(end_of(&record), (Outcome::Committed, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_the_instance_counts_against_the_deadline() {
    let stage = Stage::memory().await;
    let (began, go) = (point("began"), point("go"));
    let steps = vec![Step::Reach(began.clone()), Step::Await(go.clone(), 1)];
    let slow = stage.submit("slow", &node("a", steps)).await.unwrap();
    until(&began, 1).await;
    let mut request = stage.request("r-1", &node("a", vec![Step::Set(1)]));
    request.deadline = SHORT;
    let record = ended(stage.runtime.submit(request).await.unwrap()).await.record;
    assert_eq!((end_of(&record), record.attempts), ((Outcome::TimedOut, "deadline"), 0));
    reach(&go);
    assert_eq!(end_of(&ended(slow).await.record), (Outcome::Committed, ""));
    assert_eq!(stage.value("a").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_flow_leaves_nothing() {
    let stage = Stage::memory().await;
    let (began, never) = (point("began"), point("never"));
    let before = stage.rows().await;
    let running = stage.submit("r-1", &node("a", endless(&began, &never))).await.unwrap();
    until(&began, 1).await;
    // It waits for the first one.
    let waiting = stage.submit("r-2", &node("a", vec![Step::Set(5)])).await.unwrap();
    for (accepted, attempts) in [(waiting, 0), (running, 1)] {
        let Cancelled::Done(record) = stage.runtime.cancel(accepted.flow).await.unwrap() else { panic!("too late") };
        assert_eq!((end_of(&record), record.attempts), ((Outcome::Cancelled, "cancelled"), attempts));
        assert_eq!(ended(accepted).await.record.outcome, Outcome::Cancelled);
    }
    until(&gone(&never), 1).await;
    let flows = ["r-1", "r-2"].map(|id| stage.request(id, &node("a", vec![])).flow);
    assert_eq!(stage.rows_but(&flows).await, before);
    // The outcome is the request's for good.
    let again = stage.ask_as("r-2", &node("a", vec![Step::Set(5)])).await;
    assert_eq!((again.record.outcome, again.repeated), (Outcome::Cancelled, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_comes_too_late_once_the_flow_is_sealed() {
    let store = HeldStore::new(MemoryStore::new());
    let stage = Stage::start(store.clone()).await;
    store.hold();
    let accepted = stage.submit("r-1", &node("a", vec![Step::Set(1)])).await.unwrap();
    store.until_waiting().await;
    let (runtime, flow) = (stage.runtime.clone(), accepted.flow);
    let cancel = tokio::spawn(async move { runtime.cancel(flow).await.unwrap() });
    tokio::task::yield_now().await;
    store.let_go();
    let late = cancel.await.unwrap();
    assert!(matches!(&late, Cancelled::TooLate(record) if record.outcome == Outcome::Committed), "{late:?}");
    let later = stage.runtime.cancel(flow).await.unwrap();
    assert!(matches!(&later, Cancelled::TooLate(record) if record.outcome == Outcome::Committed), "{later:?}");
    assert_eq!(stage.value("a").await, Some(1));
    let unknown = stage.request("nobody", &node("a", vec![])).flow;
    assert!(matches!(stage.runtime.cancel(unknown).await.unwrap(), Cancelled::Unknown));
    assert!(matches!(stage.runtime.flow(unknown).await.unwrap(), FlowState::Unknown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_has_a_time_out_of_its_own() {
    let timeout = |topology: &mut Topology| {
        let other = topology.functions.get_mut(&"other".parse::<FunctionName>().unwrap()).unwrap();
        let handler = Handler { timeout_ms: Some(50), ..Handler::default() };
        (other.handlers, other.failure_attempts_max) = (Some([("run".parse().unwrap(), handler)].into()), 2);
    };
    let stage = Stage::memory_with(timeout).await;
    let never = point("never");
    let slow = other("slow", vec![Step::Set(1), Step::Await(never.clone(), 1)]);
    let record = stage.run("a", vec![Step::Set(1), Step::Call(slow)]).await;
    assert_eq!((end_of(&record), record.attempts), ((Outcome::Failed, "handler-timeout"), 2));
    assert_eq!(record.cause.as_ref().unwrap().instance.as_ref().unwrap().to_string(), "other/slow");
    until(&gone(&never), 2).await;
    assert_eq!((stage.value("a").await, stage.value_of("other", "slow").await), (None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutting_down_lets_flows_end() {
    let stage = Stage::memory().await;
    let (began, go) = (point("began"), point("go"));
    let steps = vec![Step::Reach(began.clone()), Step::Await(go.clone(), 1), Step::Set(1)];
    let accepted = stage.submit("r-1", &node("a", steps)).await.unwrap();
    until(&began, 1).await;
    let runtime = stage.runtime.clone();
    let stopping = tokio::spawn(async move { runtime.shut_down(PATIENCE).await });
    eventually("it takes no more requests", async || !stage.runtime.is_ready()).await;
    let refused = stage.submit("r-2", &node("b", vec![])).await;
    assert!(matches!(refused, Err(NotAccepted::Unavailable(_))), "{refused:?}");
    assert!(!stopping.is_finished());
    reach(&go);
    stopping.await.unwrap();
    assert_eq!(end_of(&ended(accepted).await.record), (Outcome::Committed, ""));
    assert_eq!(stage.value("a").await, Some(1));
}

// To see it fail: let the committer leave without a word (`Partition::run_committer`): what is sealed afterwards
// would wait for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_that_do_not_end_in_time_have_no_outcome_and_can_be_repeated() {
    let store = MemoryStore::new();
    let stage = Stage::start(store.clone()).await;
    let (began, go) = (point("began"), point("go"));
    let to = node("a", vec![Step::Reach(began.clone()), Step::Await(go.clone(), 1), Step::Add(1)]);
    let mut request = stage.request("r-1", &to);
    request.deadline = Duration::from_secs(1);
    let accepted = stage.runtime.submit(request).await.unwrap();
    until(&began, 1).await;
    stage.runtime.shut_down(Duration::ZERO).await;
    let outcome = tokio::time::timeout(PATIENCE, accepted.outcome).await.expect("it waits for ever");
    assert!(outcome.is_err(), "{outcome:?}");
    reach(&go);
    let stage = Stage::start(store).await;
    let again = stage.ask_as("r-1", &to).await;
    assert_eq!((end_of(&again.record), again.repeated), ((Outcome::Committed, ""), false));
    assert_eq!((stage.value("a").await, reached(&began)), (Some(1), 2));
}

// To see it fail: never give up in `Flow::after` when there was a conflict.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_that_keeps_conflicting_ends_as_conflict_and_leaves_nothing() {
    const ATTEMPTS_MAX: u32 = 3;
    let stage = Stage::memory_with(|topology| topology.limits.attempts_max = ATTEMPTS_MAX).await;
    (0..ATTEMPTS_MAX).for_each(|_| stage.store.fail_next_commit(Fault::Conflict));
    let record = stage.run("a", vec![Step::Add(1), Step::Emit("out".into(), 1)]).await;
    assert_eq!(end_of(&record), (Outcome::Conflict, "conflict"));
    assert_eq!((record.attempts, stage.store.faults_left()), (ATTEMPTS_MAX, 0));
    assert_eq!((stage.value("a").await, stage.emitted().await), (None, Vec::new()));
    // One conflict fewer, and it commits.
    (1..ATTEMPTS_MAX).for_each(|_| stage.store.fail_next_commit(Fault::Conflict));
    let record = stage.run("a", vec![Step::Add(1)]).await;
    assert_eq!((end_of(&record), record.attempts), ((Outcome::Committed, ""), ATTEMPTS_MAX));
}
