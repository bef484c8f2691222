//! One of the stores there are, so that one test runs on each of them.

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tandem_store::embedded::EmbeddedStore;
use tandem_store::memory::MemoryStore;
use tandem_store::{Commit, CommitResult, Error, KeyRange, Snapshot, Store};

/// A store in memory or an embedded one.
#[derive(Clone, Debug)]
pub(crate) enum EitherStore {
    Memory(MemoryStore),
    Embedded(EmbeddedStore),
}

/// A view of it.
#[derive(Clone)]
pub(crate) enum EitherSnapshot {
    Memory(<MemoryStore as Store>::Snapshot),
    Embedded(<EmbeddedStore as Store>::Snapshot),
}

impl Store for EitherStore {
    type Snapshot = EitherSnapshot;

    async fn snapshot(&self) -> Result<EitherSnapshot, Error> {
        match self {
            Self::Memory(store) => store.snapshot().await.map(EitherSnapshot::Memory),
            Self::Embedded(store) => store.snapshot().await.map(EitherSnapshot::Embedded),
        }
    }

    async fn snapshot_at(&self, at: Timestamp) -> Result<EitherSnapshot, Error> {
        match self {
            Self::Memory(store) => store.snapshot_at(at).await.map(EitherSnapshot::Memory),
            Self::Embedded(store) => store.snapshot_at(at).await.map(EitherSnapshot::Embedded),
        }
    }

    async fn commit(&self, commit: Commit) -> Result<CommitResult, Error> {
        match self {
            Self::Memory(store) => store.commit(commit).await,
            Self::Embedded(store) => store.commit(commit).await,
        }
    }
}

impl Snapshot for EitherSnapshot {
    fn timestamp(&self) -> Timestamp {
        match self {
            Self::Memory(snapshot) => snapshot.timestamp(),
            Self::Embedded(snapshot) => snapshot.timestamp(),
        }
    }

    async fn get(&self, key: &Bytes) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Memory(snapshot) => snapshot.get(key).await,
            Self::Embedded(snapshot) => snapshot.get(key).await,
        }
    }

    async fn batch_get(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, Error> {
        match self {
            Self::Memory(snapshot) => snapshot.batch_get(keys).await,
            Self::Embedded(snapshot) => snapshot.batch_get(keys).await,
        }
    }

    async fn scan(&self, range: &KeyRange, limit: usize, reverse: bool) -> Result<Vec<(Bytes, Bytes)>, Error> {
        match self {
            Self::Memory(snapshot) => snapshot.scan(range, limit, reverse).await,
            Self::Embedded(snapshot) => snapshot.scan(range, limit, reverse).await,
        }
    }
}
