//! A store whose commits wait until the test lets them go, and that refuses one when the test says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tandem_model::ids::Timestamp;
use tandem_store::{Commit, CommitResult, Error, Store};
use tokio::sync::{Notify, watch};

/// A store with a gate before its commits.
#[derive(Clone, Debug)]
pub(crate) struct HeldStore<S> {
    store: S,
    open: watch::Sender<bool>,
    late: Arc<AtomicBool>,
    let_go: Arc<Notify>,
    waiting: watch::Sender<usize>,
    refusals: Arc<AtomicUsize>,
}

impl<S: Store> HeldStore<S> {
    /// Open at first.
    pub(crate) fn new(store: S) -> Self {
        Self {
            store,
            open: watch::Sender::new(true),
            late: Arc::default(),
            let_go: Arc::default(),
            waiting: watch::Sender::new(0),
            refusals: Arc::default(),
        }
    }

    /// From now on commits wait.
    pub(crate) fn hold(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn let_go(&self) {
        self.open.send_replace(true);
    }

    /// From now on snapshots are taken, and handed out only when they are let go, the first one first.
    pub(crate) fn hold_snapshots(&self) {
        self.late.store(true, Ordering::SeqCst);
    }

    pub(crate) fn let_snapshots_go(&self) {
        self.late.store(false, Ordering::SeqCst);
        self.let_go.notify_waiters();
    }

    /// The next commit that gets through the gate is a conflict, of whatever.
    pub(crate) fn refuse_next(&self) {
        self.refusals.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns once a commit waits at the gate.
    pub(crate) async fn until_waiting(&self) {
        self.waiting.subscribe().wait_for(|waiting| *waiting > 0).await.expect("we hold the sender");
    }
}

impl<S: Store> Store for HeldStore<S> {
    type Snapshot = S::Snapshot;

    async fn snapshot(&self) -> Result<S::Snapshot, Error> {
        let snapshot = self.store.snapshot().await;
        if self.late.load(Ordering::SeqCst) {
            self.let_go.notified().await;
        }
        snapshot
    }

    async fn snapshot_at(&self, at: Timestamp) -> Result<S::Snapshot, Error> {
        self.store.snapshot_at(at).await
    }

    async fn commit(&self, commit: Commit) -> Result<CommitResult, Error> {
        self.waiting.send_modify(|waiting| *waiting += 1);
        self.open.subscribe().wait_for(|open| *open).await.expect("we hold the sender");
        self.waiting.send_modify(|waiting| *waiting -= 1);
        let one_less = |refusals: usize| refusals.checked_sub(1);
        if self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            return Ok(CommitResult::Conflict(vec![commit.primary]));
        }
        self.store.commit(commit).await
    }
}
