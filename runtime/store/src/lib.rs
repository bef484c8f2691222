//! Where state lives: the [`Store`] trait, the encoding of rows, and the stores behind it.
//!
//! | module | concept |
//! | --- | --- |
//! | [`keys`] | row keys: memcomparable, injective, a format |
//! | [`rows`] | row values: request records, messages, a format |
//! | [`embedded`] | one machine, one process, on disk |
//! | [`memory`] | in memory, with history; for tests |
//! | [`simulated`] | in memory, with faults and crashes from a seed; for simulations |
//! | [`conformance`] | what every store must do, as one suite |
//!
//! A store is the judge of every commit: it alone says whether what a flow read is still true. Whoever asks may be a
//! zombie, or two who both believe that they own the same partition; they cannot both commit.

use std::future::Future;
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use tandem_model::ids::Timestamp;

pub mod conformance;
pub mod embedded;
pub mod keys;
pub mod memory;
pub mod rows;
pub mod simulated;

/// A transactional, ordered key-value store.
///
/// Cloning gives another handle to the same store.
pub trait Store: Clone + Send + Sync + 'static {
    /// A consistent view at one timestamp.
    type Snapshot: Snapshot;

    /// A view of everything that was durably committed before this call, and of nothing that is not yet durable.
    fn snapshot(&self) -> impl Future<Output = Result<Self::Snapshot, Error>> + Send;

    /// A view as of a past time. [`Error::HistoryNotKept`] if the store keeps none, or not that far back.
    fn snapshot_at(&self, at: Timestamp) -> impl Future<Output = Result<Self::Snapshot, Error>> + Send;

    /// Applies all writes at one timestamp, if everything that was read is unchanged there; otherwise nothing.
    ///
    /// Durable when it returns [`CommitResult::Committed`]. `Err` means that nothing was applied and nothing will be, with
    /// one exception: after [`Error::Stopped`] only a restart of the process tells. Dropping the future may or may not
    /// apply the commit, never half of it.
    fn commit(&self, commit: Commit) -> impl Future<Output = Result<CommitResult, Error>> + Send;

    /// How long it may be worth to wait for more that can go into the same commit. Zero where a commit of little costs
    /// little.
    fn group_wait_max(&self) -> Duration {
        Duration::ZERO
    }
}

/// A consistent view of a store at one timestamp. Cheap to clone.
pub trait Snapshot: Clone + Send + Sync + 'static {
    /// When it was taken. All commits at or before it are visible, none after it.
    fn timestamp(&self) -> Timestamp;

    /// The value of one key.
    fn get(&self, key: &Bytes) -> impl Future<Output = Result<Option<Bytes>, Error>> + Send;

    /// The values of many keys, in the order of the keys.
    fn batch_get(&self, keys: &[Bytes]) -> impl Future<Output = Result<Vec<Option<Bytes>>, Error>> + Send;

    /// Rows of a range in key order (or in reverse), at most `limit`.
    fn scan(
        &self,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> impl Future<Output = Result<Vec<(Bytes, Bytes)>, Error>> + Send;
}

/// Keys with `start <= key < end`. No `end` means to the last key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyRange {
    /// The first key that is in it.
    pub start: Bytes,
    /// The first key that is not in it any more.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        let end = prefix.iter().rposition(|byte| *byte != 0xff).map(|last| {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            Bytes::from(end)
        });
        Self { start: Bytes::copy_from_slice(prefix), end }
    }

    /// Whether no key at all can be in it.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// Whether `key` is in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start <= key && self.end.as_ref().is_none_or(|end| key < end)
    }

    /// For `BTreeMap::range` and its like.
    pub fn bounds(&self) -> (Bound<Bytes>, Bound<Bytes>) {
        let end = self.end.clone().map_or(Bound::Unbounded, Bound::Excluded);
        (Bound::Included(self.start.clone()), end)
    }
}

/// What a transaction asks for.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// The key whose presence afterwards decides an undetermined commit: a request record. Must be among `writes`.
    pub primary: Bytes,
    /// Keys that were read. Each must still have the value that was seen.
    pub reads: Vec<Read>,
    /// Ranges that were scanned. No row may have been added, changed or removed in them since.
    pub ranges: Vec<RangeRead>,
    /// What to write, each key once. `None` deletes.
    pub writes: Vec<(Bytes, Option<Bytes>)>,
}

/// One key that a transaction read, absence included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The key.
    pub key: Bytes,
    /// Timestamp of the view it was read from.
    pub seen_at: Timestamp,
    /// The value that was seen. A store may compare it instead of versions.
    pub value: Option<Bytes>,
}

/// One range that a transaction scanned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRead {
    /// The range, cut at the last row that was seen if a limit ended the scan.
    pub range: KeyRange,
    /// Timestamp of the view it was read from.
    pub seen_at: Timestamp,
}

/// How a commit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitResult {
    /// All writes are durable at this timestamp.
    Committed(Timestamp),
    /// Nothing was applied: these keys (some of them, at least one) changed since they were read.
    Conflict(Vec<Bytes>),
    /// It may have been applied, or may still be. Reading the primary key in a *new* snapshot decides: once that read
    /// answers, the commit either is visible or will never be applied.
    Undetermined(String),
}

/// Why a store could not do something. The variant says what the caller may do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was applied; it may work again later.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// There is no room; reads still work. Nothing was applied.
    #[error("the store is full: {0}")]
    Full(String),
    /// Nothing was applied, and the same will not work later: something is configured wrongly, belongs to another
    /// installation, or is larger than the store takes.
    #[error("the store refuses: {0}")]
    Refused(String),
    /// The past that was asked for is not kept.
    #[error("the store keeps no state as of {asked}: {why}")]
    HistoryNotKept {
        /// What was asked for.
        asked: Timestamp,
        /// What it keeps, and what to do.
        why: String,
    },
    /// Another process uses the data directory.
    #[error("data directory {0} is in use by another process")]
    InUse(String),
    /// The data was written by a newer version.
    #[error("data directory {path} has format {found}, this version reads up to {known}; use a newer version")]
    NewerFormat {
        /// The directory.
        path: String,
        /// Its format.
        found: u32,
        /// The newest format this code reads.
        known: u32,
    },
    /// The data was laid out with another number of slots. It is fixed once data is stored.
    #[error("the stored data is laid out in {found} slots, not in {asked}; the number of slots cannot be changed")]
    OtherLayout {
        /// What the data has.
        found: u16,
        /// What was asked for.
        asked: u16,
    },
    /// Another version works on the same data, and the two do not understand each other.
    #[error(
        "a runtime with formats of version {found} works on this store, this one knows version {known}; \
         let the others end first, or use their version"
    )]
    OtherVersion {
        /// The version of the other.
        found: u32,
        /// The version of this one.
        known: u32,
    },
    /// Stored bytes make no sense. Needs a human.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
    /// A sync failed or the engine stopped: the process must end and recover from disk, since what was written last is unknown.
    #[error("the store has stopped: {0}")]
    Stopped(String),
}
