//! Calls, spawns, sends and emits: what is asked of the runtime, and when.

use bytes::Bytes;
use tandem_proto::function::v1alpha1 as proto;
use tandem_proto::function::v1alpha1::call_done::Result as Answer;
use tandem_proto::function::v1alpha1::effect::Effect;

use crate::runtime::{Runtime, failure, rejection, value};

#[tokio::test]
async fn a_call_gives_the_result_of_the_callee() {
    let mut runtime = Runtime::start().await;
    let id = runtime.invoke("buy", r#"{"sku": "sku-7", "quantity": 2}"#);
    let call = runtime.call().await;
    let expected = proto::Call {
        invocation_id: id,
        call_id: call.call_id,
        function: "echo".into(),
        key: "sku-7".into(),
        handler: "double".into(),
        payload: "20".into(),
        spawn: false,
    };
    assert_eq!(call, expected);
    runtime.answer_call(&call, Answer::Value("40".into()));
    let finished = runtime.finished().await;
    assert_eq!(value(&finished), "40");
    assert_eq!(finished.effects.len(), 1);
}

#[tokio::test]
async fn a_rejection_that_is_passed_on_keeps_its_origin() {
    let said = proto::Rejection {
        reason: "too-much".into(),
        detail: "1 left".into(),
        function: "echo".into(),
        key: "sku-7".into(),
    };
    let mut runtime = Runtime::start().await;
    runtime.invoke("buy", r#"{"sku": "sku-7", "quantity": 2}"#);
    let call = runtime.call().await;
    runtime.answer_call(&call, Answer::Rejection(said.clone()));
    let finished = runtime.finished().await;
    assert_eq!(rejection(&finished), &said);
    assert_eq!(finished.effects, []);

    runtime.invoke("buy_or_less", "2");
    let call = runtime.call().await;
    runtime.answer_call(&call, Answer::Rejection(said));
    assert_eq!(value(&runtime.finished().await), "0");
}

#[tokio::test]
async fn calls_run_at_the_same_time_and_may_be_answered_in_any_order() {
    let mut runtime = Runtime::start().await;
    runtime.invoke("buy_all", r#"["a", "b", "c"]"#);
    // All three are asked for before one is answered.
    let calls = [runtime.call().await, runtime.call().await, runtime.call().await];
    for call in calls.iter().rev() {
        runtime.answer_call(call, Answer::Value(format!("1{}", String::from_utf8_lossy(&call.payload)).into()));
    }
    assert_eq!(value(&runtime.finished().await), "[11,12,13]");
}

#[tokio::test]
async fn one_rejection_of_many_calls_ends_the_caller() {
    let mut runtime = Runtime::start().await;
    runtime.invoke("buy_all", r#"["a", "b"]"#);
    let calls = [runtime.call().await, runtime.call().await];
    let said = proto::Rejection { reason: "no".into(), ..proto::Rejection::default() };
    runtime.answer_call(&calls[1], Answer::Rejection(said));
    assert_eq!(rejection(&runtime.finished().await).reason, "no");
    // Nobody waits for it any more, and that is no mistake of the runtime.
    runtime.answer_call(&calls[0], Answer::Value("1".into()));
    runtime.invoke("add", "1");
    assert_eq!(value(&runtime.finished().await), "1");
}

#[tokio::test]
async fn a_result_of_another_type_is_a_failure() {
    let mut runtime = Runtime::start().await;
    runtime.invoke("buy_or_less", "1");
    let call = runtime.call().await;
    runtime.answer_call(&call, Answer::Value("\"x\"".into()));
    let finished = runtime.finished().await;
    let failure = failure(&finished);
    assert!(!failure.retryable && failure.message.starts_with("the result of echo cannot be read"), "{failure:?}");
}

#[tokio::test]
async fn spawns_leave_at_once_and_sends_with_the_result() {
    let mut runtime = Runtime::start().await;
    runtime.invoke("release", "");
    let call = runtime.call().await;
    assert!(call.spawn);
    assert_eq!((call.handler.as_str(), &call.payload[..]), ("double", &b"1"[..]));

    let finished = runtime.finished().await;
    assert_eq!(value(&finished), "null");
    let effects: Vec<_> = finished.effects.into_iter().filter_map(|effect| effect.effect).collect();
    let send = |function: &str, key: &str, handler: &str, payload: &str, delay_ms| {
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        Effect::Send(proto::Send {
            function: function.into(),
            key: key.into(),
            handler: handler.into(),
            payload,
            delay_ms,
        })
    };
    let emit = Effect::Emit(proto::Emit { egress: "events".into(), payload: "{\"n\":1}".into() });
    let expected = [
        send("echo", "e", "double", "2", 0),
        send("echo", "e", "greet", "null", 30 * 60 * 1000),
        send("elsewhere", "7", "take", "bytes", 0),
        emit,
    ];
    assert_eq!(effects, expected);
}

#[tokio::test]
async fn a_call_that_began_goes_on_without_its_future() {
    let mut runtime = Runtime::start().await;
    runtime.invoke("forget_a_call", "");
    assert_eq!(runtime.call().await.handler, "double");
    assert_eq!(value(&runtime.finished().await), "1");
}

#[tokio::test]
async fn functions_without_a_client_are_called_by_name() {
    let mut runtime = Runtime::start().await;
    runtime.invoke("by_name", "");
    let call = runtime.call().await;
    assert_eq!(
        (call.function.as_str(), call.handler.as_str(), &call.payload[..]),
        ("elsewhere", "take", &b"[1,2]"[..])
    );
    runtime.answer_call(&call, Answer::Value("\"one\"".into()));
    let call = runtime.call().await;
    assert_eq!(&call.payload[..], b"raw");
    runtime.answer_call(&call, Answer::Value("not JSON".into()));
    assert_eq!(value(&runtime.finished().await), r#"["one","not JSON"]"#);
}
