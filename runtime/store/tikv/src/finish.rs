//! The second phase: the commit of the primary, of all others behind it, and the rollback.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use tandem_model::ids::Timestamp;

use crate::batches::{self, Batch, REQUESTS_AT_ONCE};
use crate::cluster::{Cluster, CommitAnswer, CommitKeys, Failure, RollbackKeys};
use crate::commit::Committer;
use crate::prewrite::Transaction;
use crate::retry::{Backoff, Deadline};

/// How long to go on with what nobody waits for. Whatever is left then is cleared by those who meet it.
const BACKGROUND_TIME: Duration = Duration::from_secs(20);

/// What became of the commit of the primary.
#[derive(Debug)]
pub(crate) enum Primary {
    /// Committed; these keys are not yet.
    Committed(Vec<Bytes>),
    /// Somebody has read the primary at a later time.
    TooEarly,
    /// Somebody has rolled it back.
    RolledBack,
    /// No request can have had an effect.
    NotSent(Failure),
    /// A request may have had an effect, or may still.
    Lost(String),
}

/// Commits the primary at exactly `at`, with all keys that fit into the same request.
pub(crate) async fn commit_primary<C: Cluster>(
    cluster: &C,
    transaction: Transaction<'_>,
    at: Timestamp,
    deadline: Deadline,
) -> Primary {
    let mut lost = None;
    let mut backoff = Backoff::new();
    loop {
        let keys: Vec<Bytes> = transaction.plan.writes.iter().map(|(key, _)| key.clone()).collect();
        let failure = match batches::by_region(cluster, keys, |key| key, Bytes::len, deadline).await {
            // The primary comes first among the writes, and so does its batch.
            Ok(grouped) => match one_commit(cluster, transaction.start, at, grouped, deadline).await {
                Ok(primary) => return primary,
                Err(failure) => failure,
            },
            Err(failure) => failure,
        };
        if let Failure::Lost(why) = &failure {
            lost = Some(why.clone());
        }
        let over = matches!(failure, Failure::Refused(_)) || !backoff.wait(deadline).await;
        match lost {
            Some(why) if over => return Primary::Lost(why),
            None if over => return Primary::NotSent(failure),
            _ => {}
        }
    }
}

async fn one_commit<C: Cluster>(
    cluster: &C,
    start: Timestamp,
    at: Timestamp,
    grouped: Vec<Batch<Bytes>>,
    deadline: Deadline,
) -> Result<Primary, Failure> {
    let mut grouped = grouped.into_iter();
    let Some(first) = grouped.next() else { return Ok(Primary::Committed(Vec::new())) };
    let request = CommitKeys { start, at, keys: first.items };
    Ok(match deadline.call(cluster.commit(first.region, request)).await? {
        CommitAnswer::Committed => Primary::Committed(grouped.flat_map(|batch| batch.items).collect()),
        CommitAnswer::Expired { .. } => Primary::TooEarly,
        CommitAnswer::LockNotFound => Primary::RolledBack,
    })
}

/// Commits all other keys, in the background. Until then, own readers of these keys wait a moment.
pub(crate) fn commit_others<C: Cluster>(
    committer: &Arc<Committer<C>>,
    start: Timestamp,
    at: Timestamp,
    keys: Vec<Bytes>,
) {
    if keys.is_empty() {
        return;
    }
    let pending = committer.pending.add(start.0, keys.clone());
    let committer = committer.clone();
    tokio::spawn(async move {
        let send = |batch: Batch<Bytes>, deadline: Deadline| {
            let cluster = committer.cluster.clone();
            async move {
                let request = CommitKeys { start, at, keys: batch.items };
                // Whatever the answer is, there is nothing left to do: where there is no lock, somebody was faster.
                deadline.call(cluster.commit(batch.region, request)).await.map(|_| ())
            }
        };
        in_background(&committer, keys, send).await;
        drop(pending);
    });
}

/// Removes all locks of a transaction that never will commit, in the background.
pub(crate) fn roll_back<C: Cluster>(committer: &Arc<Committer<C>>, start: Timestamp, keys: Vec<Bytes>) {
    let pending = committer.pending.add(start.0, keys.clone());
    let committer = committer.clone();
    tokio::spawn(async move {
        let send = |batch: Batch<Bytes>, deadline: Deadline| {
            let cluster = committer.cluster.clone();
            async move {
                let request = RollbackKeys { start, keys: batch.items };
                deadline.call(cluster.rollback(batch.region, request)).await.map(|_| ())
            }
        };
        in_background(&committer, keys, send).await;
        drop(pending);
    });
}

/// Sends a request for all keys, and again for those that it did not reach, until the time is over.
async fn in_background<C: Cluster, F: Future<Output = Result<(), Failure>>>(
    committer: &Committer<C>,
    keys: Vec<Bytes>,
    send: impl Fn(Batch<Bytes>, Deadline) -> F,
) {
    let deadline = Deadline::of(committer.timeouts).after(BACKGROUND_TIME);
    let mut backoff = Backoff::new();
    let mut left = keys;
    while !left.is_empty() {
        let Ok(grouped) = batches::by_region(&committer.cluster, left, |key| key, Bytes::len, deadline).await else {
            return;
        };
        let requests = grouped.into_iter().map(|batch| async {
            let keys = batch.items.clone();
            (keys, send(batch, deadline).await)
        });
        let answers: Vec<_> = stream::iter(requests).buffered(REQUESTS_AT_ONCE).collect().await;
        left = answers.into_iter().filter(|(_, answer)| answer.is_err()).flat_map(|(keys, _)| keys).collect();
        if !left.is_empty() && !backoff.wait(deadline).await {
            return;
        }
    }
}
