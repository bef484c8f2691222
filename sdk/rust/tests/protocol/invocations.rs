//! One invocation, one answer, whatever the code does.

use tandem_proto::function::v1alpha1 as proto;
use tandem_proto::function::v1alpha1::runtime_frame::Frame as RuntimeFrame;
use tandem_proto::function::v1alpha1::worker_frame::Frame as WorkerFrame;

use crate::functions::DROPPED;
use crate::runtime::{DEADLINE, Runtime, failure, rejection, value, worker};

#[tokio::test]
async fn the_context_says_who_and_when() {
    let mut runtime = Runtime::start().await;
    let mut invoke = runtime.invocation("about", "");
    (invoke.attempt, invoke.traceparent) = (3, "00-ab-cd-01".into());
    runtime.send(vec![RuntimeFrame::Invoke(invoke)]);
    assert_eq!(value(&runtime.finished().await), r#""k-1 flow-1 3 true Some(\"00-ab-cd-01\")""#);
}

#[tokio::test]
async fn a_rejection_has_no_effects() {
    let mut runtime = Runtime::start().await;
    runtime.invoke("say-no", "null");
    let finished = runtime.finished().await;
    let rejection = rejection(&finished);
    assert_eq!((rejection.reason.as_str(), rejection.detail.as_str()), ("no-way", "k-1 says no"));
    // The runtime fills in who said it.
    assert_eq!((rejection.function.as_str(), rejection.key.as_str()), ("", ""));
    assert_eq!(finished.effects, []);
}

#[tokio::test]
async fn failures_say_what_broke_and_whether_to_try_again() {
    let mut runtime = Runtime::start().await;
    let mut check = async |handler: &str, payload: &str, retryable: bool, message: &str| {
        runtime.invoke(handler, payload);
        let finished = runtime.finished().await;
        let failure = failure(&finished);
        assert_eq!(failure.retryable, retryable, "{handler}");
        assert!(failure.message.contains(message), "{handler}: {}", failure.message);
    };
    check("break_down", "false", true, "invalid digit found in string").await;
    check("break_down", "true", false, "broken for good").await;
    check("go_mad", "", true, "panicked: lost it: k-1").await;
    check("add", "\"x\"", false, "the payload of probe/k-1 add cannot be read: invalid type: string").await;
    check("add", "1 2", false, "the payload of probe/k-1 add cannot be read: trailing characters").await;
    check("add", "", false, "the payload of probe/k-1 add cannot be read: invalid type: null").await;
    check("emit_nonsense", "", false, "the record for egress events cannot be written as JSON").await;
    check("return_nonsense", "", false, "the result of probe/k-1 return_nonsense cannot be written as JSON").await;
    check("return_too_much", "", false, "result and effects have").await;
    check("nothing", "", false, "function probe has no handler \"nothing\"; it has about, add,").await;
    check("no_handler", "", false, "has no handler").await;
    // And the worker goes on.
    runtime.invoke("add", "1");
    assert_eq!(value(&runtime.finished().await), "1");
}

#[tokio::test]
async fn an_unknown_function_is_a_failure() {
    let mut runtime = Runtime::start().await;
    let mut invoke = runtime.invocation("add", "1");
    invoke.function = "porbe".into();
    runtime.send(vec![RuntimeFrame::Invoke(invoke)]);
    let finished = runtime.finished().await;
    assert_eq!(failure(&finished).message, "this worker has no function \"porbe\"; it has echo, probe");
}

#[tokio::test]
async fn raw_payloads_keep_their_bytes_and_media_type() {
    let mut runtime = Runtime::start().await;
    let mut invoke = runtime.invocation("raw", "abc");
    invoke.content_type = "text/plain".into();
    runtime.send(vec![RuntimeFrame::Invoke(invoke)]);
    let finished = runtime.finished().await;
    assert_eq!((value(&finished), finished.content_type.as_str()), ("cba", "reversed-text/plain"));
}

#[tokio::test]
async fn a_cancelled_invocation_is_stopped() {
    let mut runtime = Runtime::start().await;
    let mut invoke = runtime.invocation("hang", "");
    invoke.flow_id = "cancelled".into();
    let id = invoke.invocation_id;
    runtime.send(vec![RuntimeFrame::Invoke(invoke)]);
    runtime.call().await;
    runtime.send(vec![RuntimeFrame::Cancel(proto::Cancel { invocation_id: id, reason: "deadline".into() })]);
    let finished = runtime.finished().await;
    assert_eq!(finished.invocation_id, id);
    assert_eq!(failure(&finished).message, "cancelled: deadline");
    let mut dropped = DROPPED.subscribe();
    let waiting = dropped.wait_for(|flows| flows.contains("cancelled"));
    tokio::time::timeout(DEADLINE, waiting).await.expect("the handler goes on").unwrap();
}

#[tokio::test]
async fn invocations_do_not_wait_for_one_another() {
    let worker = worker(|server| server.credit(1)).await;
    let mut runtime = Runtime::attach(worker.address).await;
    runtime.invoke("hang", "");
    runtime.call().await;
    // A call that the first one made may come beyond the credit.
    let id = runtime.invoke("add", "1");
    assert_eq!(runtime.finished().await.invocation_id, id);
}

#[tokio::test]
async fn a_thousand_invocations_in_one_message_are_all_answered_once() {
    const COUNT: usize = 1_000;
    let mut runtime = Runtime::start().await;
    let invokes =
        (0..COUNT).map(|number| RuntimeFrame::Invoke(runtime.invocation("add", &number.to_string()))).collect();
    runtime.send(invokes);
    let mut answers = vec![0; COUNT];
    for _ in 0..COUNT {
        match runtime.next().await.unwrap() {
            WorkerFrame::Finished(finished) => answers[value(&finished).parse::<usize>().unwrap()] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answers, vec![1; COUNT]);
}

#[tokio::test]
async fn large_results_are_split_over_messages() {
    const COUNT: usize = 12;
    const BYTES: usize = 3 << 20;
    let mut runtime = Runtime::start().await;
    // Together more than one message may hold, in either direction.
    for _ in 0..COUNT {
        let payload = "x".repeat(BYTES);
        runtime.invoke("raw", &payload);
    }
    for _ in 0..COUNT {
        assert_eq!(value(&runtime.finished().await).len(), BYTES);
    }
}
