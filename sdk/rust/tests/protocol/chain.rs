//! Invocations that follow each other, as the runtime asks for them.

use bytes::Bytes;
use tandem_proto::function::v1alpha1 as proto;
use tandem_proto::function::v1alpha1::runtime_frame::Frame as RuntimeFrame;
use tandem_proto::function::v1alpha1::worker_frame::Frame as WorkerFrame;

use crate::functions::DROPPED;
use crate::runtime::{DEADLINE, Runtime, failure, value};

impl Runtime {
    /// An invocation of `add` with these states.
    fn add(&mut self, count: &str) -> proto::Invoke {
        let count = Some(Bytes::copy_from_slice(count.as_bytes()));
        let states = vec![proto::StateValue { state: "count".into(), value: count }];
        proto::Invoke { states, ..self.invocation("add", "1") }
    }

    fn behind(&mut self, before: u64, handler: &str, payload: &str) -> proto::Invoke {
        proto::Invoke { follows: Some(before), ..self.invocation(handler, payload) }
    }

    async fn began(&mut self) -> (u64, Bytes) {
        match self.next().await.unwrap() {
            WorkerFrame::Began(began) => {
                let names: Vec<&str> = began.states.iter().map(|state| state.state.as_str()).collect();
                assert_eq!(names, ["count", "label-text"], "all values and no maps");
                (began.invocation_id, began.states[0].value.clone().unwrap())
            }
            other => panic!("expected Began, got {other:?}"),
        }
    }
}

fn number(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[tokio::test]
async fn each_runs_on_what_the_one_before_left() {
    let mut runtime = Runtime::start().await;
    let first = runtime.add("10");
    let second = runtime.behind(first.invocation_id, "add", "5");
    let third = runtime.behind(second.invocation_id, "add", "100");
    let ids = [second.invocation_id, third.invocation_id];
    runtime.send(vec![RuntimeFrame::Invoke(first), RuntimeFrame::Invoke(second), RuntimeFrame::Invoke(third)]);
    assert_eq!(value(&runtime.finished().await), "11");
    assert_eq!(runtime.began().await, (ids[0], number("11")));
    assert_eq!(value(&runtime.finished().await), "16");
    assert_eq!(runtime.began().await, (ids[1], number("16")));
    assert_eq!(value(&runtime.finished().await), "116");
}

#[tokio::test]
async fn one_that_has_ended_can_be_followed() {
    let mut runtime = Runtime::start().await;
    let first = runtime.add("10");
    let id = first.invocation_id;
    runtime.send(vec![RuntimeFrame::Invoke(first)]);
    assert_eq!(value(&runtime.finished().await), "11");
    let second = runtime.behind(id, "add", "5");
    let second_id = second.invocation_id;
    runtime.send(vec![RuntimeFrame::Invoke(second)]);
    assert_eq!(runtime.began().await, (second_id, number("11")));
    assert_eq!(value(&runtime.finished().await), "16");
}

#[tokio::test]
async fn one_that_fails_or_is_cancelled_leaves_what_it_found() {
    let mut runtime = Runtime::start().await;
    let mut first = runtime.add("10");
    (first.handler, first.payload) = ("go_mad".into(), Bytes::from_static(b"null"));
    let mut second = runtime.behind(first.invocation_id, "hang", "null");
    second.flow_id = "chained".into();
    let third = runtime.behind(second.invocation_id, "add", "1");
    let (second_id, third_id) = (second.invocation_id, third.invocation_id);
    runtime.send(vec![RuntimeFrame::Invoke(first), RuntimeFrame::Invoke(second), RuntimeFrame::Invoke(third)]);
    assert!(failure(&runtime.finished().await).message.contains("panicked"));
    assert_eq!(runtime.began().await, (second_id, number("10")));
    assert!(runtime.call().await.spawn);
    runtime.send(vec![RuntimeFrame::Cancel(proto::Cancel { invocation_id: second_id, reason: "test".into() })]);
    let mut dropped = DROPPED.subscribe();
    let gone = dropped.wait_for(|dropped| dropped.contains("chained"));
    tokio::time::timeout(DEADLINE, gone).await.expect("the handler goes on").unwrap();
    assert!(failure(&runtime.finished().await).message.contains("cancelled"));
    assert_eq!(runtime.began().await, (third_id, number("10")));
    assert_eq!(value(&runtime.finished().await), "11");
}

#[tokio::test]
async fn what_is_not_known_or_too_large_is_declined() {
    let mut runtime = Runtime::start().await;
    let unknown = runtime.behind(77, "add", "1");
    runtime.send(vec![RuntimeFrame::Invoke(unknown)]);
    assert!(failure(&runtime.finished().await).retryable);
    let label = format!("\"{}\"", "x".repeat(5_000));
    let first = runtime.invocation("relabel", &label);
    let second = runtime.behind(first.invocation_id, "add", "1");
    let third = runtime.behind(second.invocation_id, "add", "1");
    runtime.send(vec![RuntimeFrame::Invoke(first), RuntimeFrame::Invoke(second), RuntimeFrame::Invoke(third)]);
    assert_eq!(value(&runtime.finished().await), "null");
    assert!(failure(&runtime.finished().await).retryable);
    assert!(failure(&runtime.finished().await).retryable);
}

#[tokio::test]
async fn what_follows_a_declined_one_is_declined_as_well() {
    let mut runtime = Runtime::start().await;
    let unknown = runtime.behind(77, "add", "1");
    let second = runtime.behind(unknown.invocation_id, "add", "1");
    let third = runtime.behind(second.invocation_id, "add", "1");
    runtime.send(vec![RuntimeFrame::Invoke(unknown), RuntimeFrame::Invoke(second)]);
    assert!(failure(&runtime.finished().await).retryable);
    assert!(failure(&runtime.finished().await).retryable);
    runtime.send(vec![RuntimeFrame::Invoke(third)]);
    assert!(failure(&runtime.finished().await).retryable);
}
