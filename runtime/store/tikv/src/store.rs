//! The store: snapshots and commits over any [`Cluster`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tandem_store::{Commit, CommitResult, Error, KeyRange, Snapshot, Store};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::commit::{Committer, failed};
use crate::read::{self, Patience, to_error};
use crate::retry::{Backoff, Deadline, Timeouts};
use crate::stats::Stats;
use crate::together::Together;

/// What is younger than this is kept: the least window of history is twice as long. Reads of older views are checked.
const SURELY_KEPT: Duration = Duration::from_mins(5);

/// About what a commit takes under load, with a request to each region and two syncs.
const GROUP_WAIT_MAX: Duration = Duration::from_millis(8);

/// A store on a cluster. Clones share it.
pub struct ClusterStore<C> {
    committer: Arc<Committer<C>>,
    together: Arc<Together>,
}

impl<C> Clone for ClusterStore<C> {
    fn clone(&self) -> Self {
        Self { committer: self.committer.clone(), together: self.together.clone() }
    }
}

impl<C> fmt::Debug for ClusterStore<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterStore").finish_non_exhaustive()
    }
}

impl<C: Cluster> ClusterStore<C> {
    /// A store on `cluster`.
    pub fn new(cluster: C, timeouts: Timeouts) -> Self {
        Self::with_stats(cluster, timeouts, Arc::default())
    }

    /// The same, with counters that others see too.
    pub fn with_stats(cluster: C, timeouts: Timeouts, stats: Arc<Stats>) -> Self {
        Self { committer: Arc::new(Committer::new(cluster, stats, timeouts)), together: Arc::default() }
    }

    /// What it has done so far.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.committer.stats
    }

    /// The cluster below.
    pub fn cluster(&self) -> &C {
        &self.committer.cluster
    }

    /// Ends when the last handle is gone.
    pub(crate) fn until_dropped(&self) -> watch::Receiver<()> {
        self.committer.alive.subscribe()
    }

    fn deadline(&self) -> Deadline {
        Deadline::of(self.committer.timeouts)
    }

    /// Whether the history of this time has not been removed yet.
    async fn is_kept(&self, at: Timestamp, deadline: Deadline) -> Result<(), Error> {
        let safe = deadline.repeat(|| self.committer.cluster.safe_point()).await.map_err(failed)?;
        if at < safe {
            let why = format!("history before {} ms since 1970 is removed", safe.unix_ms());
            return Err(Error::HistoryNotKept { asked: at, why });
        }
        Ok(())
    }

    /// A timestamp of now that is above everything that is undetermined.
    async fn now(&self, deadline: Deadline) -> Result<Timestamp, Error> {
        let mut backoff = Backoff::new();
        loop {
            let at = self.committer.timestamp(deadline).await?;
            if at.0 > self.committer.floor.load(Ordering::Acquire) {
                return Ok(at);
            }
            if !backoff.wait(deadline).await {
                return Err(Error::Unavailable("the clock of the cluster does not go on".to_owned()));
            }
        }
    }
}

impl<C: Cluster> Store for ClusterStore<C> {
    type Snapshot = ClusterSnapshot<C>;

    // Snapshots that are asked for at once have one timestamp. It can become the start of one transaction: the first one
    // that claims it.
    async fn snapshot(&self) -> Result<ClusterSnapshot<C>, Error> {
        let store = self.clone();
        let ask = move || {
            let store = store.clone();
            async move {
                let at = store.now(store.deadline()).await?;
                store.committer.claims.add(at);
                Ok(at)
            }
        };
        let shared = self.together.timestamp(ask).await?;
        self.committer.stats.snapshots.add_one();
        let surely_kept_until = Instant::now() + SURELY_KEPT;
        Ok(ClusterSnapshot { store: self.clone(), at: shared.at, is_shared: shared.with_others, surely_kept_until })
    }

    async fn snapshot_at(&self, at: Timestamp) -> Result<ClusterSnapshot<C>, Error> {
        let deadline = self.deadline();
        // A store that is asked for a timestamp which PD has not given out yet may stop for good.
        let now = self.now(deadline).await?;
        self.is_kept(at, deadline).await?;
        self.committer.stats.snapshots.add_one();
        let age = Duration::from_millis(now.unix_ms().saturating_sub(at.unix_ms()));
        let surely_kept_until = Instant::now() + SURELY_KEPT.saturating_sub(age);
        Ok(ClusterSnapshot { store: self.clone(), at: at.min(now), is_shared: false, surely_kept_until })
    }

    async fn commit(&self, commit: Commit) -> Result<CommitResult, Error> {
        self.committer.clone().commit(commit).await
    }

    fn group_wait_max(&self) -> Duration {
        GROUP_WAIT_MAX
    }
}

/// A view of a [`ClusterStore`] at one timestamp.
pub struct ClusterSnapshot<C> {
    store: ClusterStore<C>,
    at: Timestamp,
    /// Others read at the same time, perhaps at this moment.
    is_shared: bool,
    surely_kept_until: Instant,
}

impl<C> Clone for ClusterSnapshot<C> {
    fn clone(&self) -> Self {
        let Self { store, at, is_shared, surely_kept_until } = self;
        Self { store: store.clone(), at: *at, is_shared: *is_shared, surely_kept_until: *surely_kept_until }
    }
}

impl<C> fmt::Debug for ClusterSnapshot<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterSnapshot").field("at", &self.at.0).finish_non_exhaustive()
    }
}

impl<C: Cluster> ClusterSnapshot<C> {
    /// Reads with those who read in the same snapshot at this moment. `None` if something is in the way of one of them.
    async fn read_together(&self, keys: &[Bytes]) -> Option<Vec<Option<Bytes>>> {
        let (store, at) = (self.store.clone(), self.at);
        let read = move |keys: Vec<Bytes>| async move {
            store.committer.stats.reads_together.add_one();
            store.deadline().read(store.committer.cluster.batch_get(at, &keys)).await.ok()
        };
        self.store.together.read(at, keys, read).await
    }

    /// After a read: what it gave counts only if the history had not been removed before it. Stores do not say so.
    async fn kept<T>(&self, read: T) -> Result<T, Error> {
        if Instant::now() >= self.surely_kept_until {
            self.store.is_kept(self.at, self.store.deadline()).await?;
        }
        Ok(read)
    }
}

impl<C: Cluster> Snapshot for ClusterSnapshot<C> {
    fn timestamp(&self) -> Timestamp {
        self.at
    }

    async fn get(&self, key: &Bytes) -> Result<Option<Bytes>, Error> {
        let values = self.batch_get(std::slice::from_ref(key)).await?;
        Ok(values.into_iter().next().flatten())
    }

    async fn batch_get(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, Error> {
        let committer = &self.store.committer;
        committer.pending.wait_for_keys(keys.iter()).await;
        if self.is_shared
            && let Some(values) = self.read_together(keys).await
        {
            return self.kept(values).await;
        }
        let read = read::batch_get(&committer.cluster, self.at, keys, Patience::Wait, self.store.deadline());
        self.kept(read.await.map_err(|failure| to_error(failure, self.at))?).await
    }

    async fn scan(&self, range: &KeyRange, limit: usize, reverse: bool) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let committer = &self.store.committer;
        committer.pending.wait_for_range(range).await;
        let (bounds, deadline) = ((limit, reverse), self.store.deadline());
        let read = read::scan(&committer.cluster, self.at, range, bounds, Patience::Wait, deadline);
        self.kept(read.await.map_err(|failure| to_error(failure, self.at))?).await
    }
}
