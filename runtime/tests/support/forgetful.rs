//! A store whose garbage collection overtakes snapshots that are in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tandem_store::memory::MemoryStore;
use tandem_store::{Commit, CommitResult, Error, KeyRange, Snapshot, Store};

/// A store in memory that can be told to let go of everything older than a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct ForgetfulStore {
    store: MemoryStore,
    /// Snapshots are numbered; those below this one cannot be read any more.
    kept: Arc<AtomicU64>,
    taken: Arc<AtomicU64>,
}

/// A view of it, as long as it is kept.
#[derive(Clone)]
pub(crate) struct ForgetfulSnapshot {
    base: <MemoryStore as Store>::Snapshot,
    number: u64,
    kept: Arc<AtomicU64>,
}

impl ForgetfulStore {
    /// No snapshot that was taken so far can be read from now on.
    pub(crate) fn forget(&self) {
        self.kept.store(self.taken.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    fn snapshot_of(&self, base: <MemoryStore as Store>::Snapshot) -> ForgetfulSnapshot {
        let number = self.taken.fetch_add(1, Ordering::SeqCst);
        ForgetfulSnapshot { base, number, kept: Arc::clone(&self.kept) }
    }
}

impl ForgetfulSnapshot {
    fn check(&self) -> Result<(), Error> {
        if self.number >= self.kept.load(Ordering::SeqCst) {
            return Ok(());
        }
        Err(Error::HistoryNotKept { asked: self.base.timestamp(), why: "it was let go of just now".to_owned() })
    }
}

impl Store for ForgetfulStore {
    type Snapshot = ForgetfulSnapshot;

    async fn snapshot(&self) -> Result<ForgetfulSnapshot, Error> {
        self.store.snapshot().await.map(|base| self.snapshot_of(base))
    }

    async fn snapshot_at(&self, at: Timestamp) -> Result<ForgetfulSnapshot, Error> {
        self.store.snapshot_at(at).await.map(|base| self.snapshot_of(base))
    }

    async fn commit(&self, commit: Commit) -> Result<CommitResult, Error> {
        self.store.commit(commit).await
    }
}

impl Snapshot for ForgetfulSnapshot {
    fn timestamp(&self) -> Timestamp {
        self.base.timestamp()
    }

    async fn get(&self, key: &Bytes) -> Result<Option<Bytes>, Error> {
        self.check()?;
        self.base.get(key).await
    }

    async fn batch_get(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, Error> {
        self.check()?;
        self.base.batch_get(keys).await
    }

    async fn scan(&self, range: &KeyRange, limit: usize, reverse: bool) -> Result<Vec<(Bytes, Bytes)>, Error> {
        self.check()?;
        self.base.scan(range, limit, reverse).await
    }
}
