//! Values and maps: what a handler sees, and what it leaves behind.

use bytes::Bytes;
use tandem_proto::function::v1alpha1 as proto;
use tandem_proto::function::v1alpha1::effect::Effect;
use tandem_proto::function::v1alpha1::read::What;
use tandem_proto::function::v1alpha1::runtime_frame::Frame as RuntimeFrame;

use crate::runtime::{Runtime, failure, value};

fn stored(state: &str, value: &str) -> proto::StateValue {
    proto::StateValue { state: state.into(), value: Some(Bytes::copy_from_slice(value.as_bytes())) }
}

/// State, entry and value.
type Write<'a> = (&'a str, Option<&'a [u8]>, Option<&'a [u8]>);

/// The writes of an invocation; all its effects must be writes.
fn writes(finished: &proto::Finished) -> Vec<Write<'_>> {
    let writes = finished.effects.iter().map(|effect| match &effect.effect {
        Some(Effect::Write(write)) => (write.state.as_str(), write.entry.as_deref(), write.value.as_deref()),
        other => panic!("{other:?}"),
    });
    writes.collect()
}

#[tokio::test]
async fn values_come_with_the_invocation_and_are_written_once() {
    let mut runtime = Runtime::start().await;
    let mut invoke = runtime.invocation("add", "2");
    invoke.states = vec![stored("label-text", "\"a\""), stored("count", "40"), stored("unknown", "1")];
    runtime.send(vec![RuntimeFrame::Invoke(invoke)]);
    let finished = runtime.finished().await;
    assert_eq!(value(&finished), "42");
    assert_eq!(writes(&finished), [("count", None, Some(&b"42"[..]))]);
}

#[tokio::test]
async fn what_was_only_read_is_not_written_and_what_is_deleted_is() {
    let mut runtime = Runtime::start().await;
    runtime.invoke("relabel", "\"b\"");
    let finished = runtime.finished().await;
    assert_eq!(value(&finished), "null");
    assert_eq!(writes(&finished), [("label-text", None, Some(&b"\"b\""[..]))]);

    let mut invoke = runtime.invocation("relabel", "null");
    invoke.states = vec![stored("label-text", "\"b\"")];
    runtime.send(vec![RuntimeFrame::Invoke(invoke)]);
    let finished = runtime.finished().await;
    assert_eq!(value(&finished), "\"b\"");
    assert_eq!(writes(&finished), [("label-text", None, None)]);
}

#[tokio::test]
async fn a_stored_value_of_another_type_is_a_failure() {
    let mut runtime = Runtime::start().await;
    let mut invoke = runtime.invocation("add", "2");
    invoke.states = vec![stored("count", "\"many\"")];
    runtime.send(vec![RuntimeFrame::Invoke(invoke)]);
    let finished = runtime.finished().await;
    let failure = failure(&finished);
    assert!(failure.message.starts_with("state count of probe/k-1 cannot be read: invalid type"), "{failure:?}");
    assert!(!failure.retryable);
}

#[tokio::test]
async fn a_read_only_invocation_that_writes_is_a_failure() {
    let mut runtime = Runtime::start().await;
    let mut invoke = runtime.invocation("peek_and_write", "");
    invoke.read_only = true;
    runtime.send(vec![RuntimeFrame::Invoke(invoke)]);
    let finished = runtime.finished().await;
    let failure = failure(&finished);
    assert_eq!(failure.message, "probe/k-1 peek_and_write runs read-only, but tried to write state count");
    assert!(!failure.retryable);
}

#[tokio::test]
async fn an_entry_is_read_from_the_runtime_unless_it_was_written() {
    let mut runtime = Runtime::start().await;
    runtime.invoke("line", "\"sku-1\"");
    let read = runtime.read().await;
    assert_eq!((read.state.as_str(), &read.what), ("lines", &Some(What::Entry("sku-1".into()))));
    runtime.answer_read(&read, &[(b"sku-1", "3")], false);
    let finished = runtime.finished().await;
    assert_eq!(value(&finished), "[3,9,null]");
    assert_eq!(writes(&finished), [("lines", Some(&b"sku-1"[..]), None)]);
}

#[tokio::test]
async fn a_scan_reads_all_pages_and_lays_own_writes_over_them() {
    let mut runtime = Runtime::start().await;
    runtime.invoke("lines", r#"[["a", 1], ["c", null], ["d", 40], ["e", 50], ["y", 1], ["x", null], ["x", 9]]"#);
    let scan = |from: &'static [u8]| {
        let (from, to) = (Some(Bytes::from_static(from)), Some(Bytes::from_static(b"y")));
        Some(What::Scan(proto::Scan { from, to, limit: 0, reverse: false }))
    };
    let read = runtime.read().await;
    assert_eq!(read.what, scan(b"b"));
    runtime.answer_read(&read, &[(b"b", "2"), (b"c", "3")], true);
    let read = runtime.read().await;
    assert_eq!(read.what, scan(b"c\0"));
    runtime.answer_read(&read, &[(b"d", "4"), (b"f", "6")], false);
    let finished = runtime.finished().await;
    assert_eq!(value(&finished), r#"[["b",2],["d",40],["e",50],["f",6],["x",9]]"#);
    assert_eq!(writes(&finished).len(), 6);
}

#[tokio::test]
async fn limited_scans_ask_for_as_much_as_own_removals_may_hide() {
    let mut runtime = Runtime::start().await;
    runtime.invoke("ends", "\"b\"");
    let read = runtime.read().await;
    let first = proto::Scan { from: None, to: None, limit: 2, reverse: false };
    assert_eq!(read.what, Some(What::Scan(first)));
    runtime.answer_read(&read, &[(b"b", "2"), (b"c", "3")], true);

    let read = runtime.read().await;
    let last = proto::Scan { from: None, to: Some(Bytes::from_static(b"m\0")), limit: 3, reverse: true };
    assert_eq!(read.what, Some(What::Scan(last.clone())));
    // The runtime may answer less than was asked for.
    runtime.answer_read(&read, &[(b"m", "13")], true);
    let read = runtime.read().await;
    assert_eq!(read.what, Some(What::Scan(proto::Scan { to: Some(Bytes::from_static(b"m")), limit: 2, ..last })));
    runtime.answer_read(&read, &[(b"c", "3"), (b"b", "2")], true);
    assert_eq!(value(&runtime.finished().await), r#"[["c",3],["m",13],["c",3]]"#);
}

#[tokio::test]
async fn a_damaged_entry_is_a_failure() {
    let mut runtime = Runtime::start().await;
    runtime.invoke("lines", "[]");
    let read = runtime.read().await;
    runtime.answer_read(&read, &[(&[0xff], "1")], false);
    let finished = runtime.finished().await;
    assert!(failure(&finished).message.starts_with("an entry of state lines of probe/k-1: the stored key is not text"));
}
