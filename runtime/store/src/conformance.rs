//! What every store must do, as one suite: a law is an async function that takes an empty store and panics if it is broken.
//!
//! A store joins with one line per group of laws that it promises, in an integration test:
//!
//! ```text
//! tandem_store::store_laws!(open);    // async fn open() -> (impl Store, impl Sized): a new, empty store and its guard;
//!                                     // or an Option of them: without one, the law is skipped
//! tandem_store::history_laws!(open);  // or no_history_law!(open)
//! tandem_store::fault_laws!(open);    // if it can lose answers on demand: FaultyStore
//! ```
//!
//! A law asks for no more than the trait promises. Where stores may differ (whether one of two that conflict must win),
//! the law takes the weaker side, and the store's own tests hold the stronger one.

use bytes::Bytes;
use tandem_model::ids::Timestamp;

use crate::memory::{Fault, MemoryStore};
use crate::{Commit, CommitResult, Error, KeyRange, RangeRead, Read, Snapshot, Store};

pub mod basics;
pub mod concurrency;
pub mod isolation;
pub mod special;

/// A store whose commits can be made to fail by order.
pub trait FaultyStore: Store {
    /// The next commit ends this way.
    fn fail_next_commit(&self, fault: Fault);
}

impl FaultyStore for MemoryStore {
    fn fail_next_commit(&self, fault: Fault) {
        Self::fail_next_commit(self, fault);
    }
}

/// A transaction as the runtime makes them: everything that is read goes into the commit.
#[derive(Debug)]
pub struct Transaction<S: Store> {
    store: S,
    snapshot: S::Snapshot,
    commit: Commit,
}

/// What the laws say when a store gives an error where it must not.
const MUST_ANSWER: &str = "the store must answer";

impl<S: Store> Transaction<S> {
    /// Begins at the present.
    pub async fn begin(store: &S) -> Self {
        let snapshot = store.snapshot().await.expect(MUST_ANSWER);
        Self { store: store.clone(), snapshot, commit: Commit::default() }
    }

    /// The timestamp that it reads at.
    pub fn timestamp(&self) -> Timestamp {
        self.snapshot.timestamp()
    }

    /// Reads a key, to be validated.
    pub async fn get(&mut self, key: &str) -> Option<String> {
        let key = bytes(key);
        let value = self.snapshot.get(&key).await.expect(MUST_ANSWER);
        self.commit.reads.push(Read { key, seen_at: self.snapshot.timestamp(), value: value.clone() });
        value.map(|value| text(&value))
    }

    /// Reads a range, to be validated.
    pub async fn scan(&mut self, range: KeyRange) -> Vec<(String, String)> {
        let rows = self.snapshot.scan(&range, usize::MAX, false).await.expect(MUST_ANSWER);
        self.commit.ranges.push(RangeRead { range, seen_at: self.snapshot.timestamp() });
        rows.iter().map(|(key, value)| (text(key), text(value))).collect()
    }

    /// Writes a key when it commits. Each key at most once.
    #[must_use]
    pub fn put(mut self, key: &str, value: &str) -> Self {
        self.commit.writes.push((bytes(key), Some(bytes(value))));
        self
    }

    /// Deletes a key when it commits.
    #[must_use]
    pub fn delete(mut self, key: &str) -> Self {
        self.commit.writes.push((bytes(key), None));
        self
    }

    /// Commits. The first key that was written is the primary.
    pub async fn end(mut self) -> Result<CommitResult, Error> {
        self.commit.primary = self.commit.writes.first().map(|(key, _)| key.clone()).unwrap_or_default();
        self.store.commit(self.commit).await
    }

    /// Commits, and must succeed.
    pub async fn must_commit(self) -> Timestamp {
        let result = self.end().await.expect(MUST_ANSWER);
        committed(&result).unwrap_or_else(|| unreachable!("must commit, but: {result:?}"))
    }

    /// Commits, and must conflict because of `key`.
    pub async fn must_conflict(self, key: &str) {
        let result = self.end().await.expect(MUST_ANSWER);
        assert_eq!(result, CommitResult::Conflict(vec![bytes(key)]));
    }
}

fn committed(result: &CommitResult) -> Option<Timestamp> {
    match result {
        CommitResult::Committed(at) => Some(*at),
        CommitResult::Conflict(_) | CommitResult::Undetermined(_) => None,
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn prefix(prefix: &str) -> KeyRange {
    KeyRange::prefix(prefix.as_bytes())
}

/// Writes rows without reading anything.
async fn write<S: Store>(store: &S, rows: &[(&str, &str)]) -> Timestamp {
    let mut transaction = Transaction::begin(store).await;
    for (key, value) in rows {
        transaction = transaction.put(key, value);
    }
    transaction.must_commit().await
}

/// What a key has now.
async fn now<S: Store>(store: &S, key: &str) -> Option<String> {
    let snapshot = store.snapshot().await.expect(MUST_ANSWER);
    snapshot.get(&bytes(key)).await.expect(MUST_ANSWER).map(|value| text(&value))
}

/// Everything there is now.
async fn everything<S: Store>(store: &S) -> Vec<(String, String)> {
    let snapshot = store.snapshot().await.expect(MUST_ANSWER);
    let rows = snapshot.scan(&prefix(""), usize::MAX, false).await.expect(MUST_ANSWER);
    rows.iter().map(|(key, value)| (text(key), text(value))).collect()
}

/// Makes a test of each law that every store must hold. See the [module](crate::conformance).
#[macro_export]
macro_rules! store_laws {
    ($open:path) => {
        $crate::store_laws!(@each $open, basics: a_new_store_is_empty reads_own_snapshot a_snapshot_is_stable
            a_snapshot_sees_all_of_a_commit_or_nothing a_snapshot_after_the_answer_sees_the_commit a_delete_removes_the_row
            an_empty_value_is_not_absence a_large_value_survives batch_get_keeps_the_order a_scan_honours_its_bounds
            a_scan_honours_limit_and_direction a_range_that_is_upside_down_is_empty keys_are_ordered_as_bytes
            timestamps_follow_real_time a_commit_that_only_reads_is_judged);
        $crate::store_laws!(@each $open, isolation: a_lost_update_conflicts write_skew_conflicts
            an_absence_that_was_read_is_protected a_key_that_came_back_conflicts a_deleted_key_conflicts
            a_phantom_insert_conflicts a_phantom_delete_conflicts a_phantom_update_conflicts
            a_change_outside_of_the_range_does_not_conflict an_empty_range_is_protected a_range_is_half_open
            predicate_write_skew_conflicts blind_writes_do_not_conflict own_writes_do_not_conflict_with_own_reads
            a_conflict_applies_nothing a_reader_does_not_disturb_others reads_of_several_snapshots_are_judged_each);
        $crate::store_laws!(@each $open, concurrency: increments_lose_nothing disjoint_commits_all_succeed
            of_equal_commits_at_once_at_most_one_succeeds transfers_keep_the_total guarded_pairs_stay_guarded
            unique_inserts_stay_unique commits_at_once_have_different_timestamps);
    };
    (@each $open:path, $module:ident: $($law:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $law() {
                // A store that needs something which is not there says so by itself.
                let opened: Option<(_, _)> = ::core::convert::Into::into($open().await);
                let Some((store, guard)) = opened else { return };
                $crate::conformance::$module::$law(store).await;
                drop(guard);
            }
        )*
    };
}

/// Makes a test of each law of stores that keep history.
#[macro_export]
macro_rules! history_laws {
    ($open:path) => {
        $crate::store_laws!(@each $open, special: the_past_can_be_read);
    };
}

/// Makes a test of the law of stores that keep no history.
#[macro_export]
macro_rules! no_history_law {
    ($open:path) => {
        $crate::store_laws!(@each $open, special: the_past_is_refused_clearly);
    };
}

/// Makes a test of each law of stores that can be made to fail. See [`FaultyStore`](crate::conformance::FaultyStore).
#[macro_export]
macro_rules! fault_laws {
    ($open:path) => {
        $crate::store_laws!(@each $open, special: the_primary_row_decides an_ordered_error_applies_nothing);
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_law_is_in_a_macro() {
        let macros = include_str!("conformance.rs");
        let laws = [
            include_str!("conformance/basics.rs"),
            include_str!("conformance/concurrency.rs"),
            include_str!("conformance/isolation.rs"),
            include_str!("conformance/special.rs"),
        ];
        let names: Vec<&str> = laws
            .iter()
            .flat_map(|source| source.lines())
            .filter_map(|line| line.strip_prefix("pub async fn ")?.split('<').next())
            .collect();
        assert!(names.len() > 40, "{names:?}");
        for name in names {
            let listed = macros.split_whitespace().any(|word| word.trim_end_matches(");") == name);
            assert!(listed, "{name} is in no macro");
        }
    }
}
