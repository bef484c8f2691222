//! The embedded store: one machine, one process, on disk, on the log-structured tree of `fjall`.
//!
//! ```text
//! commit() ─▶ bounded queue ─▶ commit thread: validate each ─▶ one batch ─▶ one sync ─▶ publish the view ─▶ answer all
//! snapshot() ◀──────────────────────────────────────────────── the view published last
//! ```
//!
//! | module | concept |
//! | --- | --- |
//! | `directory` | the data directory: lock, format, how it comes into being |
//! | `committer` | the one thread that validates and writes |
//! | `window` | which keys changed since which timestamp |
//!
//! The engine's own transactions are not used. There is one writer, which knows every key that changed since the oldest
//! live view, so it can say for each commit whether what was read is still true, absences and ranges included.
//!
//! **Invariant:** a view shows only what is durable. Therefore whatever a flow has read, or a client was told, survives
//! a crash.
//!
//! Reads are answered on the calling thread: usually from memory, otherwise after a read of one block.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use fjall::Readable as _;
use tandem_model::ids::Timestamp;
use tandem_model::mechanism::Works;
use tokio::sync::{mpsc, oneshot};

use crate::memory::{UnixMillis, system_unix_ms};
use crate::{Commit, CommitResult, Error, KeyRange, Snapshot, Store};

mod committer;
mod directory;
mod window;

use committer::{Committer, Request};
use directory::Engine;

/// How many commits may wait for the commit thread. More wait in [`Store::commit`].
const QUEUE_COMMITS: usize = 1_024;

/// Commits that are written together at most. More do not make a sync cheaper.
const GROUP_COMMITS_MAX: usize = 512;

const MIB: u64 = 1 << 20;

/// Says how many bytes are free for the process that asks, where the data lies.
pub type FreeSpace = Arc<dyn Fn() -> io::Result<u64> + Send + Sync>;

/// What can be chosen when a store is opened. The defaults suit a laptop: at most about 200 MiB of memory.
#[derive(Clone)]
pub struct Options {
    /// Memory for blocks that were read. What is not in it is most often in the page cache of the system, so that more of
    /// it has shown no gain with a million instances.
    pub cache_bytes: u64,
    /// Memory for rows that are not in a table file yet. Up to five times as much while the disk is slow.
    pub memtable_bytes: u64,
    /// Disk space of the journal, at least 64 MiB. More of it makes a restart longer.
    pub journal_bytes: u64,
    /// Commits are refused with [`Error::Full`] while less than this is free. The engine needs it to tidy up.
    pub reserve_bytes: u64,
    /// Threads that write and merge table files.
    pub worker_threads: usize,
    /// How many changed keys are remembered at most to validate commits. A flow that is older than what is remembered
    /// conflicts, and runs again.
    pub window_keys: usize,
    /// How many commits share one sync at most. 1 shows what a commit costs by itself.
    pub group_commits_max: usize,
    /// Where the wall time in timestamps comes from.
    pub unix_ms: UnixMillis,
    /// How much room there is. `None` asks the file system.
    pub free_space: Option<FreeSpace>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 16 * MIB,
            memtable_bytes: 32 * MIB,
            journal_bytes: 256 * MIB,
            reserve_bytes: 256 * MIB,
            worker_threads: 2,
            window_keys: 200_000,
            group_commits_max: GROUP_COMMITS_MAX,
            unix_ms: Arc::new(system_unix_ms),
            free_space: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("cache_bytes", &self.cache_bytes)
            .field("memtable_bytes", &self.memtable_bytes)
            .field("journal_bytes", &self.journal_bytes)
            .field("reserve_bytes", &self.reserve_bytes)
            .field("worker_threads", &self.worker_threads)
            .field("window_keys", &self.window_keys)
            .field("group_commits_max", &self.group_commits_max)
            .finish_non_exhaustive()
    }
}

/// What a store has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Commits that were applied.
    pub commits: u64,
    /// Commits that conflicted.
    pub conflicts: u64,
    /// Commits that were refused for want of room.
    pub refused_full: u64,
    /// Groups that were written: one batch each.
    pub groups: u64,
    /// Times that the journal was synced.
    pub syncs: u64,
    /// Bytes of the keys and values that were written, as the caller sees them.
    pub bytes_written: u64,
}

#[derive(Debug, Default)]
struct Counters {
    commits: AtomicU64,
    conflicts: AtomicU64,
    refused_full: AtomicU64,
    groups: AtomicU64,
    bytes_written: AtomicU64,
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// A store on disk. Clones share it. When the last clone and the last snapshot are gone, the directory is released.
#[derive(Clone)]
pub struct EmbeddedStore {
    handle: Arc<Handle>,
}

/// Ends the commit thread when the last store goes, and waits for it, so that the directory can be opened again.
struct Handle {
    path: PathBuf,
    shared: Arc<Shared>,
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

/// What readers and the commit thread have in common.
struct Shared {
    current: Mutex<Arc<View>>,
    /// Set once, when what is on disk is no longer known. Then nothing is answered any more.
    stopped: OnceLock<String>,
    counters: Counters,
}

/// A timestamp and the engine's view that belongs to it.
struct View {
    timestamp: Timestamp,
    snapshot: fjall::Snapshot,
    // The last field: what it holds must outlive the snapshot.
    engine: Arc<Engine>,
}

impl Shared {
    fn current(&self) -> Arc<View> {
        // The lock guards one assignment, which cannot be half done.
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn publish(&self, view: Arc<View>) -> Arc<View> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, view)
    }

    fn stop(&self, cause: String) {
        // Only the first cause is of interest.
        let _ = self.stopped.set(cause);
    }

    fn check_running(&self) -> Result<(), Error> {
        self.stopped.get().map_or(Ok(()), |cause| Err(Error::Stopped(cause.clone())))
    }
}

impl EmbeddedStore {
    /// Opens the store in the directory `path`, which is made if it does not exist.
    ///
    /// Blocks while the journal of the last run is read. [`Error::InUse`] if another process (or another store of this
    /// process) has it open, [`Error::NewerFormat`] if a newer version wrote it, [`Error::Damaged`] if what is there
    /// cannot be read, [`Error::Unavailable`] if the directory cannot be used at all.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let path = path.as_ref().to_owned();
        let (engine, last) = directory::open(&path, &options)?;
        let engine = Arc::new(engine);
        let view =
            Arc::new(View { timestamp: last, snapshot: engine.database.snapshot(), engine: Arc::clone(&engine) });
        let shared =
            Arc::new(Shared { current: Mutex::new(view), stopped: OnceLock::new(), counters: Counters::default() });
        let (requests, queue) = mpsc::channel(QUEUE_COMMITS);
        let committer = Committer::new(engine, Arc::clone(&shared), last, &path, options);
        let works = Works::here();
        let run = move || {
            works.carry_over();
            committer.run(queue);
        };
        let thread = std::thread::Builder::new().name("tandem-commit".to_owned()).spawn(run);
        let thread = thread.map_err(|error| Error::Unavailable(format!("failed to start a thread: {error}")))?;
        Ok(Self { handle: Arc::new(Handle { path, shared, requests: Some(requests), thread: Some(thread) }) })
    }

    /// What it has done since it was opened.
    pub fn statistics(&self) -> Statistics {
        let counters = &self.handle.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let groups = read(&counters.groups);
        Statistics {
            commits: read(&counters.commits),
            conflicts: read(&counters.conflicts),
            refused_full: read(&counters.refused_full),
            groups,
            // One sync a group is not a tendency but how a batch is written.
            syncs: groups,
            bytes_written: read(&counters.bytes_written),
        }
    }

    /// The data directory.
    pub fn path(&self) -> &Path {
        &self.handle.path
    }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").field("path", &self.handle.path).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Without a sender, the thread finishes what it has and ends.
        self.requests.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(path = %self.path.display(), "the commit thread had panicked");
        }
    }
}

impl Store for EmbeddedStore {
    type Snapshot = EmbeddedSnapshot;

    async fn snapshot(&self) -> Result<EmbeddedSnapshot, Error> {
        self.handle.shared.check_running()?;
        Ok(EmbeddedSnapshot(self.handle.shared.current()))
    }

    async fn snapshot_at(&self, at: Timestamp) -> Result<EmbeddedSnapshot, Error> {
        let why = "the embedded store keeps only the present; read without a time, or use a store that keeps history";
        Err(Error::HistoryNotKept { asked: at, why: why.to_owned() })
    }

    /// One sync is shared by all commits that wait at the same time.
    ///
    /// Never [`CommitResult::Undetermined`]: that would promise that a read decides. If writing or syncing fails, what
    /// is on disk is not known until the journal is read again, so the answer is [`Error::Stopped`], and the same to
    /// everybody who asks for a commit or a snapshot afterwards. After the restart the request record decides.
    async fn commit(&self, commit: Commit) -> Result<CommitResult, Error> {
        let shared = &self.handle.shared;
        shared.check_running()?;
        let ended = || Error::Stopped(shared.stopped.get().cloned().unwrap_or_else(|| "it was closed".to_owned()));
        let (answer, result) = oneshot::channel();
        let requests = self.handle.requests.as_ref().ok_or_else(ended)?;
        requests.send(Request { commit, answer }).await.map_err(|_| ended())?;
        result.await.map_err(|_| ended())?
    }
}

/// A view of an [`EmbeddedStore`]. The engine keeps old versions of rows for as long as it lives.
#[derive(Clone)]
pub struct EmbeddedSnapshot(Arc<View>);

impl fmt::Debug for EmbeddedSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EmbeddedSnapshot").field(&self.0.timestamp).finish()
    }
}

impl EmbeddedSnapshot {
    fn get_now(&self, key: &Bytes) -> Result<Option<Bytes>, Error> {
        let view = &self.0;
        if key.is_empty() {
            return Ok(None);
        }
        let value = view.snapshot.get(&view.engine.rows, key).map_err(|error| view.engine.read_failed(&error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }
}

impl Snapshot for EmbeddedSnapshot {
    fn timestamp(&self) -> Timestamp {
        self.0.timestamp
    }

    async fn get(&self, key: &Bytes) -> Result<Option<Bytes>, Error> {
        self.get_now(key)
    }

    async fn batch_get(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, Error> {
        keys.iter().map(|key| self.get_now(key)).collect()
    }

    async fn scan(&self, range: &KeyRange, limit: usize, reverse: bool) -> Result<Vec<(Bytes, Bytes)>, Error> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let view = &self.0;
        let mut rows = view.snapshot.range(&view.engine.rows, range.bounds());
        let next = std::iter::from_fn(|| if reverse { rows.next_back() } else { rows.next() });
        next.take(limit)
            .map(|row| {
                let (key, value) = row.into_inner().map_err(|error| view.engine.read_failed(&error))?;
                Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
