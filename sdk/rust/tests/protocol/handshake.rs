//! Hello, Welcome, what ends a connection, and how a worker stops.

use tandem::Server;
use tandem_proto::function::v1alpha1 as proto;
use tandem_proto::function::v1alpha1::runtime_frame::Frame as RuntimeFrame;
use tandem_proto::function::v1alpha1::worker_frame::Frame as WorkerFrame;
use tokio::net::TcpListener;
use tonic::Code;

use crate::functions::{DROPPED, Probe};
use crate::runtime::{DEADLINE, Runtime, value, worker};

async fn dropped(flow: &str) {
    let mut dropped = DROPPED.subscribe();
    let waiting = dropped.wait_for(|flows| flows.contains(flow));
    tokio::time::timeout(DEADLINE, waiting).await.expect("the handler goes on").unwrap();
}

#[tokio::test]
async fn welcome_names_functions_handlers_and_states() {
    let worker = worker(|server| server.credit(7)).await;
    let mut runtime = Runtime::dial(worker.address).await;
    runtime.hello(1, 9);
    let WorkerFrame::Welcome(welcome) = runtime.next().await.unwrap() else { panic!("no welcome") };
    assert_eq!((welcome.version, welcome.credit), (1, 7));
    assert!(welcome.sdk.starts_with("tandem-rust/"), "{}", welcome.sdk);

    let [probe, echo] = &welcome.functions[..] else { panic!("{:?}", welcome.functions) };
    assert_eq!((probe.name.as_str(), echo.name.as_str()), ("probe", "echo"));
    let isolation =
        |name: &str| probe.handlers.iter().find(|handler| handler.name == name).map(proto::HandlerInfo::isolation);
    assert_eq!(isolation("add"), Some(proto::Isolation::Unspecified));
    assert_eq!(isolation("peek_and_write"), Some(proto::Isolation::ReadOnly));
    assert_eq!(isolation("say-no"), Some(proto::Isolation::Snapshot));
    assert_eq!((isolation("no_handler"), isolation("helper")), (None, None));
    assert_eq!(echo.handlers[0].isolation(), proto::Isolation::Serializable);

    let states: Vec<_> = probe.states.iter().map(|state| (state.name.as_str(), state.kind())).collect();
    let value = proto::StateKind::Value;
    assert_eq!(states, [("count", value), ("label-text", value), ("lines", proto::StateKind::Map)]);
    assert_eq!(echo.states, []);
}

#[tokio::test]
async fn no_common_version_is_said_and_ends_the_connection() {
    let worker = worker(|server| server).await;
    for (min, max) in [(2, 3), (0, 0)] {
        let mut runtime = Runtime::dial(worker.address).await;
        runtime.hello(min, max);
        let status = runtime.ended().await;
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().contains("no common protocol version"), "{status}");
    }
}

#[tokio::test]
async fn a_runtime_that_breaks_the_protocol_is_dropped_and_others_are_not() {
    let worker = worker(|server| server).await;
    let mut good = Runtime::attach(worker.address).await;

    let mut before_hello = Runtime::dial(worker.address).await;
    before_hello.invoke("add", "1");
    assert_eq!(before_hello.ended().await.code(), Code::FailedPrecondition);

    let mut hello_twice = Runtime::attach(worker.address).await;
    hello_twice.hello(1, 1);
    assert_eq!(hello_twice.ended().await.code(), Code::FailedPrecondition);

    let mut same_id = Runtime::attach(worker.address).await;
    let mut invoke = same_id.invocation("hang", "");
    invoke.flow_id = "same-id".into();
    same_id.send(vec![RuntimeFrame::Invoke(invoke.clone())]);
    same_id.call().await;
    same_id.send(vec![RuntimeFrame::Invoke(invoke)]);
    assert_eq!(same_id.ended().await.code(), Code::InvalidArgument);
    dropped("same-id").await;

    for answer in [
        RuntimeFrame::CallDone(proto::CallDone {
            invocation_id: 1,
            call_id: 77,
            result: Some(proto::call_done::Result::Value("1".into())),
        }),
        RuntimeFrame::CallDone(proto::CallDone { invocation_id: 1, call_id: 1, result: None }),
        RuntimeFrame::ReadDone(proto::ReadDone { invocation_id: 1, read_id: 77, ..proto::ReadDone::default() }),
    ] {
        let mut unasked = Runtime::attach(worker.address).await;
        unasked.invoke("hang", "");
        unasked.call().await;
        unasked.send(vec![answer]);
        assert_eq!(unasked.ended().await.code(), Code::InvalidArgument);
    }

    good.invoke("add", "1");
    assert_eq!(value(&good.finished().await), "1");
}

#[tokio::test]
async fn frames_for_invocations_that_have_ended_are_ignored() {
    let mut runtime = Runtime::start().await;
    let id = runtime.invoke("add", "1");
    runtime.finished().await;
    let result = Some(proto::call_done::Result::Value("1".into()));
    runtime.send(vec![
        RuntimeFrame::CallDone(proto::CallDone { invocation_id: id, call_id: 1, result }),
        RuntimeFrame::ReadDone(proto::ReadDone { invocation_id: id, read_id: 1, ..proto::ReadDone::default() }),
        RuntimeFrame::Cancel(proto::Cancel { invocation_id: id, reason: "late".into() }),
        RuntimeFrame::Cancel(proto::Cancel { invocation_id: 999, reason: "unknown".into() }),
    ]);
    runtime.invoke("add", "2");
    assert_eq!(value(&runtime.finished().await), "2");
}

#[tokio::test]
async fn invocations_end_with_their_connection() {
    let worker = worker(|server| server).await;
    let mut runtime = Runtime::attach(worker.address).await;
    let mut invoke = runtime.invocation("hang", "");
    invoke.flow_id = "connection-lost".into();
    runtime.send(vec![RuntimeFrame::Invoke(invoke)]);
    runtime.call().await;
    drop(runtime);
    dropped("connection-lost").await;

    let mut half_closed = Runtime::attach(worker.address).await;
    let mut invoke = half_closed.invocation("hang", "");
    invoke.flow_id = "half-closed".into();
    half_closed.send(vec![RuntimeFrame::Invoke(invoke)]);
    half_closed.call().await;
    half_closed.outgoing = tokio::sync::mpsc::unbounded_channel().0;
    assert_eq!(half_closed.ended().await.code(), Code::Ok);
    dropped("half-closed").await;
}

#[tokio::test]
async fn a_worker_that_stops_lets_invocations_end() {
    let worker = worker(|server| server.drain(DEADLINE * 2)).await;
    let mut runtime = Runtime::attach(worker.address).await;
    runtime.invoke("buy", r#"{"sku": "s", "quantity": 1}"#);
    let call = runtime.call().await;
    worker.stop.send(()).unwrap();
    // The listener is closed once the server has heard of it: from here on the worker is stopping.
    let refused = async {
        while tokio::net::TcpStream::connect(worker.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, refused).await.expect("the worker still accepts connections");
    runtime.answer_call(&call, proto::call_done::Result::Value("20".into()));
    assert_eq!(value(&runtime.finished().await), "20");
    assert_eq!(runtime.ended().await.code(), Code::Unavailable);
    tokio::time::timeout(DEADLINE, worker.done).await.expect("the worker does not stop").unwrap().unwrap();
}

#[tokio::test]
async fn a_worker_that_stops_does_not_wait_for_ever() {
    let worker = worker(|server| server.drain(std::time::Duration::from_millis(10))).await;
    let mut runtime = Runtime::attach(worker.address).await;
    let mut invoke = runtime.invocation("hang", "");
    invoke.flow_id = "drained".into();
    runtime.send(vec![RuntimeFrame::Invoke(invoke)]);
    runtime.call().await;
    worker.stop.send(()).unwrap();
    assert_eq!(runtime.ended().await.code(), Code::Unavailable);
    dropped("drained").await;
    tokio::time::timeout(DEADLINE, worker.done).await.expect("the worker does not stop").unwrap().unwrap();
}

#[tokio::test]
async fn two_functions_of_one_name_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = Server::new((Probe, Probe)).bind(listener).unwrap_err();
    assert!(error.to_string().contains("two functions are called \"probe\""), "{error}");
}
