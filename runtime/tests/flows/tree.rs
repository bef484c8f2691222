//! The tree of calls: parallel calls, rings, spawns, rejections.

use tandem_model::outcome::{CallStatus, Outcome};

use crate::script::{Step, meet, node, other, point};
use crate::stage::{Stage, end_of, result};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_calls_of_one_instance_lose_no_update() {
    let stage = Stage::memory().await;
    let calls = (0..20).map(|_| node("x", vec![Step::Read, Step::Add(1)])).collect();
    let record = stage.run("a", vec![Step::Together(calls)]).await;
    assert_eq!((result(&record), record.attempts), ((0..20).sum(), 1));
    assert_eq!(stage.value("x").await, Some(20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ring_of_waits_is_resolved_by_running_one_after_the_other() {
    let stage = Stage::memory().await;
    let met = point("ring");
    let subtree = |key: &str, across: &str| {
        node(key, vec![meet(&met, 2), Step::Add(1), Step::Call(node(across, vec![Step::Add(10)]))])
    };
    let record = stage.run("top", vec![Step::Together(vec![subtree("a", "b"), subtree("b", "a")])]).await;
    assert_eq!((end_of(&record), record.attempts), ((Outcome::Committed, ""), 2));
    assert_eq!((stage.value("a").await, stage.value("b").await), (Some(11), Some(11)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_commits_only_once_its_spawns_are_done() {
    let stage = Stage::memory().await;
    let go = point("go");
    let spawned =
        other("s", vec![Step::Await(go.clone(), 1), Step::Add(1), Step::Spawn(other("t", vec![Step::Add(1)]))]);
    let mut accepted = stage.submit("r", &node("a", vec![Step::Spawn(spawned), Step::Add(1)])).await.unwrap();
    stage.run("b", vec![Step::Add(1)]).await;
    assert!(accepted.outcome.try_recv().is_err());
    assert_eq!(stage.value("a").await, None);
    crate::script::reach(&go);
    assert_eq!(end_of(&crate::stage::ended(accepted).await.record), (Outcome::Committed, ""));
    assert_eq!((stage.value("a").await, stage.value_of("other", "t").await), (Some(1), Some(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spawn_that_fails_fails_the_flow() {
    let stage = Stage::memory().await;
    for (last, expected) in [
        (Step::Fail, (Outcome::Failed, "function-failed")),
        (Step::Reject, (Outcome::Rejected, "no")),
        (Step::Emit("nowhere".into(), 1), (Outcome::Failed, "unknown-egress")),
    ] {
        let record = stage.run("a", vec![Step::Add(1), Step::Spawn(other("s", vec![Step::Add(1), last]))]).await;
        assert_eq!(end_of(&record), expected);
        let said_no = record.cause.as_ref().unwrap().instance.as_ref().unwrap();
        assert_eq!(said_no.to_string(), "other/s");
    }
    assert_eq!((stage.value("a").await, stage.value_of("other", "s").await), (None, None));
}

// To see it fail: let calls that outlive a handler run on when it has said no (`drain` in `Attempt::drive`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_below_a_handled_rejection_are_not_waited_for() {
    let stage = Stage::memory().await;
    let (began, never) = (point("began"), point("never"));
    let slow = other("slow", vec![Step::Reach(began.clone()), Step::Await(never.clone(), 1), Step::Add(1)]);
    let quick = other("quick", vec![Step::Await(began, 1), Step::Reject]);
    let below = node("below", vec![Step::Add(1), Step::Together(vec![slow, quick])]);
    let record = stage.run("a", vec![Step::Handle(below), Step::Add(1)]).await;
    assert_eq!(end_of(&record), (Outcome::Committed, ""));
    assert_eq!((stage.value("a").await, stage.value("below").await), (Some(1), None));
    assert_eq!(stage.value_of("other", "slow").await, None);
    crate::script::until(&crate::script::gone(&never), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_tells_what_became_of_each_call() {
    let stage = Stage::memory().await;
    let handled = Step::Handle(node("no", vec![Step::Call(other("below", vec![])), Step::Reject]));
    let record = stage.run("a", vec![Step::Call(other("yes", vec![])), handled, Step::Reject]).await;
    let calls: Vec<(u16, String, &CallStatus)> =
        record.calls.iter().map(|call| (call.depth, call.instance.to_string(), &call.status)).collect();
    let said_no = CallStatus::Rejected("as told".to_owned());
    let expected = [
        (0, "node/a".to_owned(), &said_no),
        (1, "other/yes".to_owned(), &CallStatus::Undone),
        (1, "node/no".to_owned(), &said_no),
        (2, "other/below".to_owned(), &CallStatus::Undone),
    ];
    assert_eq!(calls, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_that_breaks_for_the_moment_is_run_again() {
    let stage = Stage::memory().await;
    let breaks = |times: u32| {
        let mut steps: Vec<Step> = (1..=times).map(|attempt| Step::OnAttempt(attempt, vec![Step::Break])).collect();
        steps.push(Step::Add(1));
        node("callee", steps)
    };
    let record = stage.run("a", vec![Step::Add(1), Step::Call(breaks(2))]).await;
    assert_eq!((end_of(&record), record.attempts), ((Outcome::Committed, ""), 3));
    let record = stage.run("a", vec![Step::Add(1), Step::Call(breaks(3))]).await;
    assert_eq!((end_of(&record), record.attempts), ((Outcome::Failed, "function-failed"), 3));
    let record = stage.run("a", vec![Step::Add(1), Step::Call(node("callee", vec![Step::Fail]))]).await;
    assert_eq!((end_of(&record), record.attempts), ((Outcome::Failed, "function-failed"), 1));
    assert_eq!((stage.value("a").await, stage.value("callee").await), (Some(1), Some(1)));
}
