//! A store that is far away: a commit takes a while, and others commit meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tandem_model::ids::Timestamp;
use tandem_store::{Commit, CommitResult, Error, Store};

/// A store behind a slow line.
#[derive(Clone, Debug)]
pub(crate) struct FarStore<S> {
    store: S,
    way: Duration,
    snapshots: Arc<AtomicUsize>,
}

impl<S: Store> FarStore<S> {
    /// With this much time before each commit arrives.
    pub(crate) fn new(store: S, way: Duration) -> Self {
        Self { store, way, snapshots: Arc::default() }
    }

    /// How many snapshots were taken so far.
    pub(crate) fn snapshots(&self) -> usize {
        self.snapshots.load(Ordering::Relaxed)
    }
}

impl<S: Store> Store for FarStore<S> {
    type Snapshot = S::Snapshot;

    async fn snapshot(&self) -> Result<Self::Snapshot, Error> {
        self.snapshots.fetch_add(1, Ordering::Relaxed);
        self.store.snapshot().await
    }

    async fn snapshot_at(&self, timestamp: Timestamp) -> Result<Self::Snapshot, Error> {
        self.store.snapshot_at(timestamp).await
    }

    async fn commit(&self, commit: Commit) -> Result<CommitResult, Error> {
        tokio::time::sleep(self.way).await;
        self.store.commit(commit).await
    }
}
