//! Laws of one client: snapshots, reads, scans, values, timestamps.

use super::{MUST_ANSWER, Transaction, bytes, everything, now, prefix, text, write};
use crate::{KeyRange, Snapshot, Store};

/// Nothing is there before anything is written.
pub async fn a_new_store_is_empty<S: Store>(store: S) {
    assert_eq!(everything(&store).await, []);
    assert_eq!(now(&store, "a").await, None);
}

/// What was committed can be read, by key and by range.
pub async fn reads_own_snapshot<S: Store>(store: S) {
    let at = write(&store, &[("a", "1"), ("b", "2")]).await;
    let snapshot = store.snapshot().await.expect(MUST_ANSWER);
    assert!(snapshot.timestamp() >= at);
    assert_eq!(snapshot.get(&bytes("a")).await.expect(MUST_ANSWER), Some(bytes("1")));
    assert_eq!(snapshot.get(&bytes("b")).await.expect(MUST_ANSWER), Some(bytes("2")));
    assert_eq!(snapshot.get(&bytes("c")).await.expect(MUST_ANSWER), None);
    assert_eq!(everything(&store).await, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
}

/// A snapshot shows the same from both ends, whatever is committed after it was taken: updates, inserts, deletes.
pub async fn a_snapshot_is_stable<S: Store>(store: S) {
    write(&store, &[("a", "1"), ("b", "2")]).await;
    let snapshot = store.snapshot().await.expect(MUST_ANSWER);
    let clone = snapshot.clone();
    for round in 0..20 {
        let value = format!("round {round}");
        Transaction::begin(&store).await.put("a", &value).put(&value, "new").must_commit().await;
    }
    Transaction::begin(&store).await.delete("b").must_commit().await;
    drop(snapshot);
    let forwards = clone.scan(&prefix(""), usize::MAX, false).await.expect(MUST_ANSWER);
    assert_eq!(forwards, [(bytes("a"), bytes("1")), (bytes("b"), bytes("2"))]);
    let backwards = clone.scan(&prefix(""), usize::MAX, true).await.expect(MUST_ANSWER);
    assert_eq!(backwards, [(bytes("b"), bytes("2")), (bytes("a"), bytes("1"))]);
    assert_eq!(clone.get(&bytes("b")).await.expect(MUST_ANSWER), Some(bytes("2")));
    assert_eq!(now(&store, "a").await.as_deref(), Some("round 19"));
}

/// Whenever a snapshot is taken, two rows that are always written together are equal in it.
pub async fn a_snapshot_sees_all_of_a_commit_or_nothing<S: Store>(store: S) {
    write(&store, &[("a", "start"), ("z", "start")]).await;
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for round in 0..100 {
                let value = round.to_string();
                Transaction::begin(&store).await.put("a", &value).put("z", &value).must_commit().await;
            }
        }
    });
    while !writer.is_finished() {
        let snapshot = store.snapshot().await.expect(MUST_ANSWER);
        let values = snapshot.batch_get(&[bytes("a"), bytes("z")]).await.expect(MUST_ANSWER);
        assert_eq!(values[0], values[1]);
        let rows = snapshot.scan(&prefix(""), usize::MAX, false).await.expect(MUST_ANSWER);
        assert_eq!(rows.iter().map(|(_, value)| Some(value.clone())).collect::<Vec<_>>(), values);
        tokio::task::yield_now().await;
    }
    writer.await.expect("the writer must not fail");
    assert_eq!(now(&store, "a").await.as_deref(), Some("99"));
}

/// A snapshot that was asked for after a commit was answered shows it, every time.
pub async fn a_snapshot_after_the_answer_sees_the_commit<S: Store>(store: S) {
    for round in 0..50 {
        let value = round.to_string();
        let at = write(&store, &[("a", &value)]).await;
        let snapshot = store.snapshot().await.expect(MUST_ANSWER);
        assert!(snapshot.timestamp() >= at);
        assert_eq!(snapshot.get(&bytes("a")).await.expect(MUST_ANSWER), Some(bytes(&value)));
    }
}

/// A deleted row is gone for gets and scans; deleting what is not there does no harm; it can be written again.
pub async fn a_delete_removes_the_row<S: Store>(store: S) {
    write(&store, &[("a", "1"), ("b", "2")]).await;
    Transaction::begin(&store).await.delete("a").delete("never").must_commit().await;
    assert_eq!(now(&store, "a").await, None);
    assert_eq!(everything(&store).await, [("b".to_owned(), "2".to_owned())]);
    write(&store, &[("a", "3")]).await;
    assert_eq!(now(&store, "a").await.as_deref(), Some("3"));
}

/// A row whose value has no bytes is there.
pub async fn an_empty_value_is_not_absence<S: Store>(store: S) {
    write(&store, &[("a", "")]).await;
    assert_eq!(now(&store, "a").await.as_deref(), Some(""));
    assert_eq!(everything(&store).await, [("a".to_owned(), String::new())]);
    let mut transaction = Transaction::begin(&store).await;
    assert_eq!(transaction.get("a").await.as_deref(), Some(""));
    transaction.put("b", "").must_commit().await;
    Transaction::begin(&store).await.delete("a").must_commit().await;
    assert_eq!(now(&store, "a").await, None);
}

/// A value of a mebibyte comes back byte by byte.
pub async fn a_large_value_survives<S: Store>(store: S) {
    const VALUE_BYTES: usize = 1 << 20;
    let value: String =
        (0..VALUE_BYTES).map(|index| char::from(b'a' + u8::try_from(index % 23).unwrap_or(0))).collect();
    write(&store, &[("large", &value), ("small", "1")]).await;
    assert!(now(&store, "large").await.as_deref() == Some(&value));
    assert_eq!(now(&store, "small").await.as_deref(), Some("1"));
}

/// Many keys are answered in the order of the question, absent and repeated ones included.
pub async fn batch_get_keeps_the_order<S: Store>(store: S) {
    write(&store, &[("a", "1"), ("b", "2"), ("c", "3")]).await;
    let snapshot = store.snapshot().await.expect(MUST_ANSWER);
    let keys = ["c", "absent", "a", "c", "b"].map(bytes);
    let values = snapshot.batch_get(&keys).await.expect(MUST_ANSWER);
    assert_eq!(values, [Some(bytes("3")), None, Some(bytes("1")), Some(bytes("3")), Some(bytes("2"))]);
    assert_eq!(snapshot.batch_get(&[]).await.expect(MUST_ANSWER), []);
}

/// The start of a range is in it, its end is not, and no end means to the last key.
pub async fn a_scan_honours_its_bounds<S: Store>(store: S) {
    write(&store, &[("a", ""), ("b", ""), ("b\0", ""), ("ba", ""), ("c", "")]).await;
    let snapshot = store.snapshot().await.expect(MUST_ANSWER);
    let cases: [(&str, Option<&str>, &[&str]); 6] = [
        ("", None, &["a", "b", "b\0", "ba", "c"]),
        ("b", Some("c"), &["b", "b\0", "ba"]),
        ("b", Some("b\0"), &["b"]),
        ("b\0", None, &["b\0", "ba", "c"]),
        ("b", Some("b"), &[]),
        ("d", None, &[]),
    ];
    for (start, end, expected) in cases {
        let range = KeyRange { start: bytes(start), end: end.map(bytes) };
        for reverse in [false, true] {
            let rows = snapshot.scan(&range, usize::MAX, reverse).await.expect(MUST_ANSWER);
            let mut keys: Vec<String> = rows.iter().map(|(key, _)| text(key)).collect();
            if reverse {
                keys.reverse();
            }
            assert_eq!(keys, expected, "{range:?} reverse {reverse}");
        }
    }
}

/// A limit cuts after so many rows, from the front or in reverse from the back.
pub async fn a_scan_honours_limit_and_direction<S: Store>(store: S) {
    write(&store, &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]).await;
    Transaction::begin(&store).await.delete("b").must_commit().await;
    let snapshot = store.snapshot().await.expect(MUST_ANSWER);
    let cases: [(usize, bool, &[&str]); 6] = [
        (0, false, &[]),
        (2, false, &["a", "c"]),
        (9, false, &["a", "c", "d"]),
        (0, true, &[]),
        (2, true, &["d", "c"]),
        (9, true, &["d", "c", "a"]),
    ];
    for (limit, reverse, expected) in cases {
        let rows = snapshot.scan(&prefix(""), limit, reverse).await.expect(MUST_ANSWER);
        let keys: Vec<String> = rows.iter().map(|(key, _)| text(key)).collect();
        assert_eq!(keys, expected, "limit {limit}, reverse {reverse}");
    }
}

/// A range whose end lies before its start has no rows and protects nothing.
pub async fn a_range_that_is_upside_down_is_empty<S: Store>(store: S) {
    write(&store, &[("a", ""), ("b", ""), ("c", "")]).await;
    let range = KeyRange { start: bytes("c"), end: Some(bytes("a")) };
    let mut transaction = Transaction::begin(&store).await;
    assert_eq!(transaction.scan(range).await, []);
    write(&store, &[("b", "changed")]).await;
    transaction.put("x", "").must_commit().await;
}

/// Keys are compared as bytes, a prefix first.
pub async fn keys_are_ordered_as_bytes<S: Store>(store: S) {
    let keys: [&[u8]; 7] = [&[0], &[0, 0], &[0, 1], &[1], &[0x7f, 0xff], &[0x80], &[0xff, 0xff]];
    let writes = keys.iter().rev().map(|key| (bytes::Bytes::copy_from_slice(key), Some(bytes("v")))).collect();
    let commit = crate::Commit { primary: bytes::Bytes::from_static(&[0]), writes, ..crate::Commit::default() };
    store.commit(commit).await.expect(MUST_ANSWER);
    let snapshot = store.snapshot().await.expect(MUST_ANSWER);
    let rows = snapshot.scan(&prefix(""), usize::MAX, false).await.expect(MUST_ANSWER);
    assert!(rows.iter().map(|(key, _)| &key[..]).eq(keys));
}

/// A commit that begins after another was answered has a greater timestamp, and snapshots never go back.
pub async fn timestamps_follow_real_time<S: Store>(store: S) {
    let mut last = store.snapshot().await.expect(MUST_ANSWER).timestamp();
    for round in 0..50 {
        let at = write(&store, &[(&format!("key {round}"), "")]).await;
        assert!(at > last, "{at} must be after {last}");
        last = store.snapshot().await.expect(MUST_ANSWER).timestamp();
        assert!(last >= at);
    }
}

/// A commit without writes says whether what was read is still true.
pub async fn a_commit_that_only_reads_is_judged<S: Store>(store: S) {
    write(&store, &[("a", "1")]).await;
    let mut same = Transaction::begin(&store).await;
    same.get("a").await;
    let mut changed = Transaction::begin(&store).await;
    changed.get("a").await;
    same.must_commit().await;
    write(&store, &[("a", "2")]).await;
    changed.must_conflict("a").await;
}
