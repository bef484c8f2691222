//! Laws that only some stores promise: history, and what happens when answers get lost.

use tandem_model::ids::Timestamp;

use super::{FaultyStore, MUST_ANSWER, Transaction, bytes, everything, now, prefix, text, write};
use crate::memory::Fault;
use crate::{CommitResult, Error, Snapshot, Store};

/// A view of the past shows what had been committed until then, to the very commit.
pub async fn the_past_can_be_read<S: Store>(store: S) {
    let first = write(&store, &[("a", "1"), ("b", "1")]).await;
    let second = write(&store, &[("a", "2")]).await;
    let third = Transaction::begin(&store).await.delete("b").must_commit().await;
    let cases: [(Timestamp, &[(&str, &str)]); 6] = [
        (Timestamp(first.0 - 1), &[]),
        (first, &[("a", "1"), ("b", "1")]),
        (Timestamp(second.0 - 1), &[("a", "1"), ("b", "1")]),
        (second, &[("a", "2"), ("b", "1")]),
        (third, &[("a", "2")]),
        (Timestamp(third.0 + 1), &[("a", "2")]),
    ];
    for (at, expected) in cases {
        let snapshot = store.snapshot_at(at).await.expect(MUST_ANSWER);
        let rows = snapshot.scan(&prefix(""), usize::MAX, false).await.expect(MUST_ANSWER);
        let rows: Vec<(String, String)> = rows.iter().map(|(key, value)| (text(key), text(value))).collect();
        let expected: Vec<(String, String)> =
            expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(rows, expected, "at {at}");
        let value = snapshot.get(&bytes("a")).await.expect(MUST_ANSWER).map(|value| text(&value));
        assert_eq!(value.as_ref(), expected.first().map(|(_, value)| value));
    }
}

/// A store without history says so, and what to do.
pub async fn the_past_is_refused_clearly<S: Store>(store: S) {
    let at = write(&store, &[("a", "1")]).await;
    write(&store, &[("a", "2")]).await;
    match store.snapshot_at(at).await.map(|_| ()) {
        Err(Error::HistoryNotKept { asked, why }) => {
            assert_eq!(asked, at);
            assert!(!why.is_empty());
        }
        other => unreachable!("the past must be refused, but: {other:?}"),
    }
}

/// After an undetermined commit, a new snapshot either has the primary row and all the others, or none, for good.
pub async fn the_primary_row_decides<S: FaultyStore>(store: S) {
    for (fault, applied) in [(Fault::UndeterminedBefore, false), (Fault::UndeterminedAfter, true)] {
        let (primary, other) = (format!("request/{fault:?}"), format!("state/{fault:?}"));
        let mut transaction = Transaction::begin(&store).await;
        assert_eq!(transaction.get(&primary).await, None);
        store.fail_next_commit(fault);
        let result = transaction.put(&primary, "record").put(&other, "effect").end().await.expect(MUST_ANSWER);
        assert!(matches!(result, CommitResult::Undetermined(_)), "{result:?}");
        assert_eq!(now(&store, &primary).await.is_some(), applied);
        assert_eq!(now(&store, &other).await.is_some(), applied);
        let before = everything(&store).await;
        write(&store, &[("later", "")]).await;
        Transaction::begin(&store).await.delete("later").must_commit().await;
        assert_eq!(everything(&store).await, before);
    }
}

/// A commit that ends with an error or an ordered conflict has left nothing, and the next one works.
pub async fn an_ordered_error_applies_nothing<S: FaultyStore>(store: S) {
    store.fail_next_commit(Fault::Unavailable);
    let result = Transaction::begin(&store).await.put("a", "1").end().await;
    assert!(matches!(result, Err(Error::Unavailable(_))), "{result:?}");
    store.fail_next_commit(Fault::Conflict);
    let result = Transaction::begin(&store).await.put("a", "1").end().await.expect(MUST_ANSWER);
    assert!(matches!(result, CommitResult::Conflict(_)), "{result:?}");
    assert_eq!(everything(&store).await, []);
    write(&store, &[("a", "1")]).await;
    assert_eq!(now(&store, "a").await.as_deref(), Some("1"));
}
