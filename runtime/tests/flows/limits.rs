//! Every bound and every wrong name is an outcome with its reason, and nothing is applied.

use tandem_model::ids::{FunctionName, Timestamp};
use tandem_model::limits::Limits;
use tandem_model::outcome::Outcome;
use tandem_model::topology::{StateKind, Topology, ValueType};
use tandem_runtime::runtime::{Invalid, NotAccepted};

use crate::script::{Step, To, node, other, point};
use crate::stage::{Stage, end_of, eventually};

fn small(topology: &mut Topology) {
    topology.limits = Limits {
        payload_bytes_max: 4_000,
        value_bytes_max: 3,
        call_depth_max: 4,
        fan_out_max: 10,
        writes_max: 20,
        write_bytes_max: 3_000,
        ..Limits::default()
    };
}

/// Runs steps that must fail with a reason, and leave nothing but their record.
async fn fails(adjust: impl FnOnce(&mut Topology), to: To, reason: &str) {
    let stage = Stage::memory_with(adjust).await;
    stage.run("before", vec![Step::Set(1)]).await;
    let before = stage.rows().await;
    let record = stage.ask(to).await;
    assert_eq!(end_of(&record), (Outcome::Failed, reason), "{:?}", record.cause);
    assert_eq!(record.attempts, 1, "{reason}: running it again cannot help");
    stage.rest().await;
    assert_eq!(stage.rows_but(&[record.flow]).await, before, "{reason}");
    // Nothing else is disturbed.
    let record = stage.run("a", vec![Step::Set(1)]).await;
    assert_eq!(end_of(&record), (Outcome::Committed, ""));
}

fn chain(length: usize) -> To {
    (1..length).rev().fold(node("end", vec![Step::Set(1)]), |below, index| {
        node(&format!("link-{index}"), vec![Step::Set(1), Step::Call(below)])
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_much_is_refused() {
    let puts = |count: usize| (0..count).map(|index| Step::Put(format!("{index}"), 1));
    let calls = |count: usize| (0..count).map(|index| other(&format!("{index}"), vec![Step::Set(1)])).collect();
    for (steps, reason) in [
        (vec![Step::Set(1), Step::EmitBytes("out".into(), 4_001)], "payload-too-large"),
        (vec![Step::Set(1_000)], "value-too-large"),
        (vec![Step::Set(1), Step::Put("x".repeat(1_025), 1)], "entry-key"),
        (puts(21).collect(), "too-many-writes"),
        (vec![Step::EmitBytes("out".into(), 1_600), Step::EmitBytes("out".into(), 1_600)], "write-bytes"),
        (vec![Step::Set(1), Step::Together(calls(11))], "fan-out"),
        (vec![Step::Set(1), Step::Call(chain(4))], "call-depth"),
        (vec![Step::Send(node("b", vec![]), 400 * 24 * 3_600_000)], "send-delay"),
    ] {
        fails(small, node("a", steps), reason).await;
    }
    // What is just allowed is allowed.
    let stage = Stage::memory_with(small).await;
    let mut steps: Vec<Step> = puts(9).collect();
    steps.extend([Step::Set(999), Step::Together(calls(10))]);
    let record = stage.run("a", steps).await;
    assert_eq!(end_of(&record), (Outcome::Committed, ""));
    let record = stage.run("a", vec![Step::Call(chain(3))]).await;
    assert_eq!(end_of(&record), (Outcome::Committed, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_of_the_whole_flow_count_together() {
    let call = |key: &str| Step::Call(node(key, (0..11).map(|index| Step::Put(format!("{index}"), 1)).collect()));
    fails(small, node("a", vec![call("b"), call("c")]), "too-many-writes").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_calls_are_too_many() {
    fails(
        |_| {},
        node("a", vec![Step::Set(1), Step::Repeat(10_000, other("x", vec![Step::Set(1)]))]),
        "too-many-calls",
    )
    .await;
}

// To see it fail: take a worker that asks for more than fits its queue for a lost one (`Session::next`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_calls_at_once_are_too_many() {
    let calls = (0..10_000).map(|index| other(&format!("{index}"), vec![])).collect();
    fails(|_| {}, node("a", vec![Step::Set(1), Step::Together(calls)]), "fan-out").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_names_and_forbidden_things_are_refused() {
    let set_then = |step: Step| node("a", vec![Step::Set(1), step]);
    let call = |function: &str, key: &str, handler: &str| Step::Call(To::of(function, key, handler, vec![]));
    for (to, reason) in [
        (set_then(call("nobody", "k", "run")), "unknown-function"),
        (set_then(call("other", "k", "walk")), "unknown-handler"),
        (set_then(call("other", "k", "1")), "unknown-handler"),
        (set_then(call("other", "", "run")), "invalid-key"),
        (set_then(Step::Send(To::of("nobody", "k", "run", vec![]), 0)), "unknown-function"),
        (set_then(Step::Emit("nowhere".into(), 1)), "unknown-egress"),
        (set_then(Step::Call(other("b", vec![Step::Call(node("a", vec![]))]))), "call-cycle"),
        (set_then(Step::Call(To::of("node", "b", "look", vec![Step::Set(1)]))), "function-failed"),
    ] {
        fails(|_| {}, to, reason).await;
    }
    let no_callers = |topology: &mut Topology| {
        topology.functions.get_mut(&"other".parse::<FunctionName>().unwrap()).unwrap().callers =
            Some(vec!["other".parse().unwrap()]);
    };
    fails(no_callers, set_then(Step::Call(other("b", vec![Step::Set(1)]))), "caller-not-allowed").await;
    fails(no_callers, set_then(Step::Send(other("b", vec![Step::Set(1)]), 0)), "caller-not-allowed").await;
    let texts = |topology: &mut Topology| {
        let state = |kind, value_type| tandem_model::topology::State { kind, value_type };
        let value = ("value".parse().unwrap(), state(StateKind::Value, ValueType::String));
        let entries = ("entries".parse().unwrap(), state(StateKind::Map, ValueType::Integer));
        topology.functions.get_mut(&"other".parse::<FunctionName>().unwrap()).unwrap().states =
            Some([value, entries].into());
    };
    fails(texts, other("b", vec![Step::Put("k".into(), 1), Step::Set(1)]), "state-type").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_not_accepted_and_leaves_nothing() {
    let stage = Stage::memory_with(|topology| topology.limits.payload_bytes_max = 1_000).await;
    let before = stage.rows().await;
    let refused = async |to: To| match stage.submit(&stage.id(), &to).await {
        Err(NotAccepted::Invalid(invalid)) => invalid,
        other => panic!("{other:?}"),
    };
    assert!(matches!(refused(To::of("nobody", "k", "run", vec![])).await, Invalid::UnknownFunction(_)));
    assert!(matches!(refused(To::of("node", "k", "walk", vec![])).await, Invalid::UnknownHandler { .. }));
    let large = node("a", vec![Step::Reach("x".repeat(1_000))]);
    assert!(matches!(refused(large).await, Invalid::PayloadTooLarge { max: 1_000, .. }));
    let mut past = stage.request("past", &node("a", vec![]));
    past.as_of = Some(Timestamp(1));
    let answer = stage.runtime.submit(past).await;
    assert!(matches!(answer, Err(NotAccepted::Invalid(Invalid::AsOfNeedsReadOnly))), "{answer:?}");
    assert_eq!(stage.rows().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_handler_must_not_write_send_or_emit() {
    let stage = Stage::memory().await;
    let before = stage.rows().await;
    for step in [
        Step::Set(1),
        Step::Send(node("b", vec![]), 0),
        Step::Emit("out".into(), 1),
        Step::Call(node("b", vec![Step::Set(1)])),
    ] {
        let record = stage.ask(To::of("node", "a", "look", vec![step])).await;
        // The SDK says so itself; a worker that does not is told by the runtime.
        assert_eq!(end_of(&record), (Outcome::Failed, "function-failed"));
        assert!(record.cause.as_ref().unwrap().detail.contains("read-only"), "{:?}", record.cause);
    }
    assert_eq!(stage.rows().await, before, "not even a record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_flow_can_look_into_the_past() {
    let stage = Stage::memory().await;
    stage.run("a", vec![Step::Set(1)]).await;
    let then = stage.store.last_commit();
    stage.run("a", vec![Step::Set(2)]).await;
    let mut look = stage.request("past", &To::of("node", "a", "look", vec![Step::Read]));
    look.as_of = Some(then);
    let ended = crate::stage::ended(stage.runtime.submit(look).await.unwrap()).await;
    assert_eq!(crate::stage::result(&ended.record), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_flows_than_allowed_are_told_to_come_again() {
    let stage = Stage::memory_with(|topology| topology.limits.flows_in_flight_max = 2).await;
    let go = point("go");
    let waits = |key: &str| node(key, vec![Step::Await(go.clone(), 1), Step::Add(1)]);
    let first = stage.submit("r-1", &waits("a")).await.unwrap();
    let second = stage.submit("r-2", &waits("b")).await.unwrap();
    let third = stage.submit("r-3", &waits("c")).await;
    assert!(matches!(third, Err(NotAccepted::Busy { in_flight: 2, max: 2 })), "{third:?}");
    // A repetition takes no place of its own.
    let repeated = stage.submit("r-1", &waits("a")).await.unwrap();
    crate::script::reach(&go);
    for accepted in [first, second, repeated] {
        assert_eq!(end_of(&crate::stage::ended(accepted).await.record), (Outcome::Committed, ""));
    }
    eventually("there is room again", async || stage.submit("r-3", &waits("c")).await.is_ok()).await;
}
