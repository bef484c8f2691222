//! Laws of isolation: each anomaly, made by hand, must conflict; what is none must not.

use super::{MUST_ANSWER, Transaction, bytes, everything, now, prefix, write};
use crate::{Commit, CommitResult, KeyRange, Read, Snapshot, Store};

/// Two read the same row and both write it: the second conflicts.
pub async fn a_lost_update_conflicts<S: Store>(store: S) {
    write(&store, &[("a", "1")]).await;
    let mut first = Transaction::begin(&store).await;
    let mut second = Transaction::begin(&store).await;
    first.get("a").await;
    second.get("a").await;
    first.put("a", "2").must_commit().await;
    second.put("a", "3").must_conflict("a").await;
    assert_eq!(now(&store, "a").await.as_deref(), Some("2"));
}

/// Two read the same two rows and each writes the other one: the second conflicts.
pub async fn write_skew_conflicts<S: Store>(store: S) {
    write(&store, &[("a", "1"), ("b", "1")]).await;
    let mut first = Transaction::begin(&store).await;
    let mut second = Transaction::begin(&store).await;
    for transaction in [&mut first, &mut second] {
        transaction.get("a").await;
        transaction.get("b").await;
    }
    first.put("a", "0").must_commit().await;
    second.put("b", "0").must_conflict("a").await;
    assert_eq!(now(&store, "b").await.as_deref(), Some("1"));
}

/// What was read as absent and has been inserted since conflicts.
pub async fn an_absence_that_was_read_is_protected<S: Store>(store: S) {
    let mut transaction = Transaction::begin(&store).await;
    assert_eq!(transaction.get("a").await, None);
    write(&store, &[("a", "")]).await;
    transaction.put("b", "1").must_conflict("a").await;
}

/// A row that was deleted and written again conflicts, if its value is another than before.
pub async fn a_key_that_came_back_conflicts<S: Store>(store: S) {
    write(&store, &[("a", "1")]).await;
    let mut transaction = Transaction::begin(&store).await;
    transaction.get("a").await;
    Transaction::begin(&store).await.delete("a").must_commit().await;
    write(&store, &[("a", "2")]).await;
    transaction.put("b", "1").must_conflict("a").await;
}

/// A row that was read and has been deleted since conflicts.
pub async fn a_deleted_key_conflicts<S: Store>(store: S) {
    write(&store, &[("a", "1")]).await;
    let mut transaction = Transaction::begin(&store).await;
    transaction.get("a").await;
    Transaction::begin(&store).await.delete("a").must_commit().await;
    transaction.put("b", "1").must_conflict("a").await;
}

async fn phantom<S: Store>(store: &S, changed: &str, value: Option<&str>) -> CommitResult {
    write(store, &[("r/1", "1"), ("r/3", "3"), ("s", "9")]).await;
    let mut transaction = Transaction::begin(store).await;
    assert_eq!(transaction.scan(prefix("r/")).await.len(), 2);
    let other = Transaction::begin(store).await;
    let other = if let Some(value) = value { other.put(changed, value) } else { other.delete(changed) };
    other.must_commit().await;
    transaction.put("x", "1").end().await.expect(MUST_ANSWER)
}

/// A row that was inserted into a range that was scanned conflicts.
pub async fn a_phantom_insert_conflicts<S: Store>(store: S) {
    assert_eq!(phantom(&store, "r/2", Some("2")).await, CommitResult::Conflict(vec![bytes("r/2")]));
}

/// A row that was deleted from a range that was scanned conflicts.
pub async fn a_phantom_delete_conflicts<S: Store>(store: S) {
    assert_eq!(phantom(&store, "r/3", None).await, CommitResult::Conflict(vec![bytes("r/3")]));
}

/// A row that was changed in a range that was scanned conflicts.
pub async fn a_phantom_update_conflicts<S: Store>(store: S) {
    assert_eq!(phantom(&store, "r/1", Some("changed")).await, CommitResult::Conflict(vec![bytes("r/1")]));
}

/// What changes beside a range that was scanned does not matter.
pub async fn a_change_outside_of_the_range_does_not_conflict<S: Store>(store: S) {
    for beside in ["s", "r", "r.", "r0"] {
        let result = phantom(&store, beside, Some("changed")).await;
        assert!(matches!(result, CommitResult::Committed(_)), "{beside:?}: {result:?}");
    }
}

/// A range without rows is protected too.
pub async fn an_empty_range_is_protected<S: Store>(store: S) {
    let mut transaction = Transaction::begin(&store).await;
    assert_eq!(transaction.scan(prefix("r/")).await, []);
    write(&store, &[("r/1", "")]).await;
    transaction.put("x", "").must_conflict("r/1").await;
}

/// The start of a range is protected, its end is not.
pub async fn a_range_is_half_open<S: Store>(store: S) {
    let range = KeyRange { start: bytes("b"), end: Some(bytes("d")) };
    let mut transaction = Transaction::begin(&store).await;
    transaction.scan(range.clone()).await;
    write(&store, &[("d", ""), ("a", "")]).await;
    transaction.put("x", "1").must_commit().await;
    let mut transaction = Transaction::begin(&store).await;
    transaction.scan(range).await;
    write(&store, &[("b", "")]).await;
    transaction.put("x", "2").must_conflict("b").await;
}

/// Two scan the same range and each inserts into it: the second conflicts.
pub async fn predicate_write_skew_conflicts<S: Store>(store: S) {
    let mut first = Transaction::begin(&store).await;
    let mut second = Transaction::begin(&store).await;
    first.scan(prefix("on-call/")).await;
    second.scan(prefix("on-call/")).await;
    first.put("on-call/alice", "").must_commit().await;
    second.put("on-call/bob", "").must_conflict("on-call/alice").await;
    assert_eq!(everything(&store).await.len(), 1);
}

/// Writes without reads do not conflict; the later commit wins.
pub async fn blind_writes_do_not_conflict<S: Store>(store: S) {
    let first = Transaction::begin(&store).await.put("a", "1").put("b", "1");
    let second = Transaction::begin(&store).await.put("a", "2");
    let earlier = first.must_commit().await;
    let later = second.must_commit().await;
    assert!(later > earlier);
    assert_eq!(now(&store, "a").await.as_deref(), Some("2"));
    assert_eq!(now(&store, "b").await.as_deref(), Some("1"));
}

/// A transaction that reads what it writes does not conflict with itself, by key or by range, again and again.
pub async fn own_writes_do_not_conflict_with_own_reads<S: Store>(store: S) {
    for round in 0..10 {
        let mut transaction = Transaction::begin(&store).await;
        let before = transaction.get("a").await.map_or(0, |value| value.parse().unwrap_or(-1));
        assert_eq!(before, round);
        transaction.scan(prefix("a")).await;
        transaction.put("a", &(round + 1).to_string()).must_commit().await;
    }
}

/// A commit that conflicts leaves nothing, not even the keys that nobody else touched.
pub async fn a_conflict_applies_nothing<S: Store>(store: S) {
    write(&store, &[("a", "1"), ("d", "1")]).await;
    let mut transaction = Transaction::begin(&store).await;
    transaction.get("a").await;
    write(&store, &[("a", "2")]).await;
    let before = everything(&store).await;
    transaction.put("b", "x").put("c", "x").delete("d").must_conflict("a").await;
    assert_eq!(everything(&store).await, before);
}

/// Who only reads a key does not make another conflict that reads it too, nor one that writes it.
pub async fn a_reader_does_not_disturb_others<S: Store>(store: S) {
    write(&store, &[("price", "1")]).await;
    let mut first = Transaction::begin(&store).await;
    let mut second = Transaction::begin(&store).await;
    let mut writer = Transaction::begin(&store).await;
    first.get("price").await;
    second.get("price").await;
    writer.get("price").await;
    first.put("order/1", "").must_commit().await;
    second.put("order/2", "").must_commit().await;
    writer.put("price", "2").must_commit().await;
}

/// Each read is judged by the snapshot that it came from, although they are in one commit.
pub async fn reads_of_several_snapshots_are_judged_each<S: Store>(store: S) {
    write(&store, &[("a", "1"), ("b", "1")]).await;
    let early = store.snapshot().await.expect(MUST_ANSWER);
    write(&store, &[("b", "2")]).await;
    let late = store.snapshot().await.expect(MUST_ANSWER);
    let a_early = read(&early, "a").await;
    let b_late = read(&late, "b").await;
    let b_early = read(&early, "b").await;
    let result = store.commit(reading(vec![a_early.clone(), b_late], "x")).await.expect(MUST_ANSWER);
    assert!(matches!(result, CommitResult::Committed(_)), "{result:?}");
    let result = store.commit(reading(vec![a_early, b_early], "y")).await.expect(MUST_ANSWER);
    assert_eq!(result, CommitResult::Conflict(vec![bytes("b")]));
}

async fn read<N: Snapshot>(snapshot: &N, key: &str) -> Read {
    let value = snapshot.get(&bytes(key)).await.expect(MUST_ANSWER);
    Read { key: bytes(key), seen_at: snapshot.timestamp(), value }
}

fn reading(reads: Vec<Read>, writes: &str) -> Commit {
    let primary = bytes(writes);
    Commit { reads, writes: vec![(primary.clone(), Some(bytes("")))], primary, ranges: Vec::new() }
}
