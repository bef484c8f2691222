//! The seam below the commit: what a cluster that speaks TiKV's protocol can be asked, in types of our own.
//!
//! Everything that decides about a commit is written against [`Cluster`] and nothing else, so that the same code runs on
//! real stores and in a simulation with faults from a seed. Keys here are keys of the store's user: a prefix, an
//! encoding, or a keyspace is the affair of the implementation.
//!
//! **Time.** The callers wait and limit everything with tokio's clock, and put a time-out around each call. A call that
//! is dropped by its time-out may still arrive: whoever drops it treats it as [`Failure::Lost`]. An implementation
//! should limit itself too, but nothing relies on it.
//!
//! **Repetition.** Requests may be repeated, also at once and out of order, as after a lost answer. The answer to a
//! repeated prewrite of a transaction that holds its locks is success; to a repeated commit at the same timestamp,
//! success; to a repeated rollback, success.

use std::future::Future;

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tandem_store::KeyRange;

/// A TiKV cluster, or something that behaves like one. Clones are handles to the same one.
pub trait Cluster: Clone + Send + Sync + 'static {
    /// A timestamp that is greater than all that anybody got before this call, and that nobody else ever gets.
    fn timestamp(&self) -> impl Future<Output = Result<Timestamp, Failure>> + Send;

    /// The region that holds `key`, as far as is known here. What is known may be stale: the region's store then answers
    /// [`Failure::Region`], by which time the implementation has forgotten or corrected what it knew.
    fn region_of(&self, key: &Bytes) -> impl Future<Output = Result<Region, Failure>> + Send;

    /// Locks all keys of one request and stores their new values with the locks, or (with [`Prewrite::one_phase`])
    /// commits them at once. All keys lie in `region`.
    fn prewrite(
        &self,
        region: Region,
        request: Prewrite,
    ) -> impl Future<Output = Result<PrewriteAnswer, Failure>> + Send;

    /// Turns the locks of a transaction on these keys into committed values. All keys lie in `region`. All or none of
    /// the keys of one request are committed.
    fn commit(&self, region: Region, request: CommitKeys)
    -> impl Future<Output = Result<CommitAnswer, Failure>> + Send;

    /// Removes the locks of a transaction on these keys, and leaves a record there by which a later prewrite of the same
    /// transaction is refused with [`KeyProblem::RolledBack`]. All keys lie in `region`.
    fn rollback(
        &self,
        region: Region,
        request: RollbackKeys,
    ) -> impl Future<Output = Result<RollbackAnswer, Failure>> + Send;

    /// Asks for the fate of a transaction at its primary key, which lies in `region`, and decides it where asked to.
    fn check_transaction(
        &self,
        region: Region,
        request: CheckTransaction,
    ) -> impl Future<Output = Result<TransactionStatus, Failure>> + Send;

    /// The values of keys as of `at`, in the order of the keys, over all regions. Retries and routes by itself, but never
    /// waits for a lock and never clears one: a lock of a transaction that began before `at` on one of the keys is
    /// answered with [`ReadFailure::Locked`] at once, whether that transaction lives or not.
    ///
    /// `at` must have come from [`Cluster::timestamp`]. After the answer, no transaction that had no lock on one of the
    /// keys at the time of the read can commit it at or before `at`.
    fn batch_get(
        &self,
        at: Timestamp,
        keys: &[Bytes],
    ) -> impl Future<Output = Result<Vec<Option<Bytes>>, ReadFailure>> + Send;

    /// The rows of a range as of `at`, in key order (or in reverse), at most `limit`, over all regions. As
    /// [`Cluster::batch_get`] otherwise. `usize::MAX` means all; the implementation reads in pages.
    fn scan(
        &self,
        at: Timestamp,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> impl Future<Output = Result<Vec<(Bytes, Bytes)>, ReadFailure>> + Send;

    /// Below it, reads may miss what was there.
    fn safe_point(&self) -> impl Future<Output = Result<Timestamp, Failure>> + Send;
}

/// A region at one moment of its life. Keys of the same `Region` may go into one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region {
    /// Stays the same while its borders and its members change.
    pub id: u64,
    /// Grows with each change of the borders.
    pub version: u64,
    /// Grows with each change of the members.
    pub members_version: u64,
}

/// Why a request got no answer of its own. The variant says whether it may have had an effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No effect: the region has moved, split, has no leader, or its store is busy. Look the region up again, wait a
    /// little, group the keys again.
    #[error("region not served: {0}")]
    Region(String),
    /// No effect: it was not sent, since nobody could be reached.
    #[error("not reachable: {0}")]
    Unreachable(String),
    /// It may have had its effect, or may have it later: the answer was lost, or the store does not know itself.
    #[error("answer lost: {0}")]
    Lost(String),
    /// No effect, and repeating it does not help: the cluster refuses such requests.
    #[error("refused: {0}")]
    Refused(String),
}

/// One prewrite of keys of one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prewrite {
    /// Names the transaction.
    pub start: Timestamp,
    /// The key that decides about all others. Not always among `mutations`.
    pub primary: Bytes,
    /// Keys with their new values; `None` deletes.
    pub mutations: Vec<(Bytes, Option<Bytes>)>,
    /// How long after the wall time in `start` the locks hold at least. Afterwards anybody may roll back.
    pub lives_ms: u64,
    /// How many keys the whole transaction writes.
    pub transaction_keys: u64,
    /// If this is the whole transaction, and it shall be committed in the same step.
    pub one_phase: Option<OnePhase>,
    /// Whether the same was perhaps sent before.
    pub repeated: bool,
}

/// What is asked for when a transaction shall commit in one phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnePhase {
    /// If the commit timestamp would have to be greater, there are only locks, as after a prewrite without this.
    pub commit_at_most: Timestamp,
}

/// What became of a prewrite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrewriteAnswer {
    /// The locks of this request are there.
    Locked,
    /// Committed in one phase, at this timestamp. Only if it was asked for.
    Committed(Timestamp),
    /// One phase was asked for and is not possible now. The locks may be there or not.
    OnePhaseRefused,
    /// Not (all) locked, for these reasons, at least one. Locks of this request may be there or not.
    Refused(Vec<KeyProblem>),
}

/// What is in the way of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyProblem {
    /// Another transaction holds it.
    Locked(Lock),
    /// It was written by a transaction that committed after the start of this one.
    Conflict {
        /// The key.
        key: Bytes,
        /// When the other one committed.
        committed: Timestamp,
    },
    /// The transaction itself was rolled back at this key, by somebody who met its lock too late or asked for its fate.
    RolledBack,
    /// Something else that makes this transaction impossible, such as a key that is too long.
    Impossible(String),
}

/// A lock of a transaction on a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lock {
    /// The locked key.
    pub key: Bytes,
    /// The key that decides about it.
    pub primary: Bytes,
    /// Names the transaction.
    pub start: Timestamp,
    /// How long after the wall time in `start` it holds at least.
    pub lives_ms: u64,
}

/// One commit of keys of one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitKeys {
    /// Names the transaction.
    pub start: Timestamp,
    /// When it commits.
    pub at: Timestamp,
    /// Keys that hold its locks.
    pub keys: Vec<Bytes>,
}

/// What became of a commit of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitAnswer {
    /// All of them are committed, by this request or by an earlier one, whoever sent it.
    Committed,
    /// None by this request: somebody has read a key at a later time, so that it must commit later, at this time or after.
    Expired {
        /// The least timestamp that will do.
        at_least: Timestamp,
    },
    /// None: at least one key has no lock of the transaction and was not committed by it. It was rolled back there.
    LockNotFound,
}

/// One rollback of keys of one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollbackKeys {
    /// Names the transaction.
    pub start: Timestamp,
    /// Keys that may hold its locks.
    pub keys: Vec<Bytes>,
}

/// What became of a rollback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RollbackAnswer {
    /// None of the keys can be committed by the transaction any more.
    RolledBack,
    /// One of the keys was committed, at this timestamp if it is known.
    AlreadyCommitted(Option<Timestamp>),
}

/// The question about the fate of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckTransaction {
    /// The key that decides.
    pub primary: Bytes,
    /// Names the transaction.
    pub start: Timestamp,
    /// What to do with a lock that is found on the primary.
    pub found: FoundLock,
    /// If neither a lock nor a trace of the transaction is found: leave a record by which it never can commit, and answer
    /// [`TransactionStatus::RolledBack`]. Otherwise the answer is [`TransactionStatus::Unknown`].
    pub roll_back_if_absent: bool,
}

/// What to do with a lock on the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundLock {
    /// Roll it back if it lives no longer at this time.
    RollBackIfExpiredAt(Timestamp),
    /// Roll it back in any case.
    RollBack,
}

/// The fate of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Committed at this timestamp, for ever.
    Committed(Timestamp),
    /// Rolled back, for ever.
    RolledBack,
    /// Its primary is locked and lives.
    Locked,
    /// There is no trace of it.
    Unknown,
}

/// Why a read failed. Reads have no effect, so everything may be asked again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadFailure {
    /// These locks are in the way, at least one, and not necessarily all there are.
    #[error("{} locks are in the way", .0.len())]
    Locked(Vec<Lock>),
    /// Nobody can be reached, or the answer did not come in time.
    #[error("not reachable: {0}")]
    Unreachable(String),
    /// The past that was asked for is not kept.
    #[error("below the safe point: {0}")]
    BelowSafePoint(String),
    /// Repeating it does not help.
    #[error("refused: {0}")]
    Refused(String),
}
