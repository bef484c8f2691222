//! Reads above the seam: what to do about the locks that are met.

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tandem_store::{Error, KeyRange};

use crate::cluster::{Cluster, Lock, ReadFailure};
use crate::resolve;
use crate::retry::{Backoff, Deadline};

/// What to do about the lock of a transaction that lives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// Wait until it is over.
    Wait,
    /// For one that reads for a transaction which itself holds locks: wait a little for transactions that began later,
    /// and not at all for those that began earlier. So two that look at each other's locks cannot both give up, nor
    /// wait for each other.
    OnlyForLaterThan(Timestamp),
}

/// How long an older transaction waits for a younger one.
const WAIT_FOR_YOUNGER: std::time::Duration = std::time::Duration::from_millis(100);
const LONGEST_WAIT_FOR_LOCK: std::time::Duration = std::time::Duration::from_millis(16);

/// Reads keys as of `at`.
pub(crate) async fn batch_get<C: Cluster>(
    cluster: &C,
    at: Timestamp,
    keys: &[Bytes],
    patience: Patience,
    deadline: Deadline,
) -> Result<Vec<Option<Bytes>>, ReadFailure> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut waiting = Waiting::new(patience, deadline);
    loop {
        match deadline.read(cluster.batch_get(at, keys)).await {
            Ok(values) => return Ok(values),
            Err(failure) => waiting.after(cluster, failure).await?,
        }
    }
}

/// Reads a range as of `at`.
pub(crate) async fn scan<C: Cluster>(
    cluster: &C,
    at: Timestamp,
    range: &KeyRange,
    (limit, reverse): (usize, bool),
    patience: Patience,
    deadline: Deadline,
) -> Result<Vec<(Bytes, Bytes)>, ReadFailure> {
    if range.is_empty() || limit == 0 {
        return Ok(Vec::new());
    }
    let mut waiting = Waiting::new(patience, deadline);
    loop {
        match deadline.read(cluster.scan(at, range, limit, reverse)).await {
            Ok(rows) => return Ok(rows),
            Err(failure) => waiting.after(cluster, failure).await?,
        }
    }
}

/// One read that is tried again.
struct Waiting {
    patience: Patience,
    deadline: Deadline,
    for_younger: Option<Deadline>,
    for_stores: Backoff,
    for_locks: Backoff,
}

impl Waiting {
    fn new(patience: Patience, deadline: Deadline) -> Self {
        let for_locks = Backoff::up_to(LONGEST_WAIT_FOR_LOCK);
        Self { patience, deadline, for_younger: None, for_stores: Backoff::new(), for_locks }
    }

    /// Returns once it is worth another try. An error says that it is not.
    async fn after<C: Cluster>(&mut self, cluster: &C, failure: ReadFailure) -> Result<(), ReadFailure> {
        match failure {
            ReadFailure::Unreachable(_) if self.for_stores.wait(self.deadline).await => Ok(()),
            ReadFailure::Locked(locks) => {
                let unreachable = |failure: crate::cluster::Failure| ReadFailure::Unreachable(failure.to_string());
                let living = resolve::clear(cluster, locks, self.deadline).await.map_err(unreachable)?;
                if living.is_empty() && !self.deadline.is_over() {
                    return Ok(());
                }
                if self.wait_for(&living).await { Ok(()) } else { Err(ReadFailure::Locked(living)) }
            }
            other => Err(other),
        }
    }

    async fn wait_for(&mut self, living: &[Lock]) -> bool {
        let deadline = match self.patience {
            Patience::Wait => self.deadline,
            Patience::OnlyForLaterThan(start) if living.iter().any(|lock| lock.start < start) => return false,
            Patience::OnlyForLaterThan(_) => {
                let younger = self.deadline.but_at_most(WAIT_FOR_YOUNGER);
                *self.for_younger.get_or_insert(younger)
            }
        };
        self.for_locks.wait(deadline).await
    }
}

/// What a failed read means to the user of the store.
pub(crate) fn to_error(failure: ReadFailure, at: Timestamp) -> Error {
    match failure {
        ReadFailure::Locked(_) => {
            Error::Unavailable("what is asked for is locked by a transaction that does not end".to_owned())
        }
        ReadFailure::Unreachable(why) => Error::Unavailable(why),
        ReadFailure::BelowSafePoint(why) => Error::HistoryNotKept { asked: at, why },
        ReadFailure::Refused(why) => Error::Refused(why),
    }
}
