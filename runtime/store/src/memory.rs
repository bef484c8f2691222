//! A store in memory that keeps all history, for tests. Faults of the next commits can be ordered in advance.
//!
//! Nothing here is durable. Everything else behaves as [`crate::Store`] says, in particular the validation of commits.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tandem_model::ids::Timestamp;

use crate::{Commit, CommitResult, Error, KeyRange, Snapshot, Store};

pub(crate) use history::History;

mod history;

/// What becomes of a commit instead of the usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It answers [`CommitResult::Conflict`] with the primary key; nothing is applied.
    Conflict,
    /// It answers [`CommitResult::Undetermined`]; nothing is applied.
    UndeterminedBefore,
    /// It answers [`CommitResult::Undetermined`], although it was applied. A commit that conflicts is not applied.
    UndeterminedAfter,
    /// It answers [`Error::Unavailable`]; nothing is applied.
    Unavailable,
}

/// Where the wall time in timestamps comes from: milliseconds since 1970.
pub type UnixMillis = Arc<dyn Fn() -> u64 + Send + Sync>;

/// A store in memory. Clones share the data.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Mutex<State>>,
    unix_ms: UnixMillis,
}

#[derive(Default)]
struct State {
    history: History,
    faults: VecDeque<Fault>,
    window: Option<Duration>,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("MemoryStore").field("keys", &state.history.keys()).field("last", &state.history.last()).finish()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store that looks at the system's clock.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(system_unix_ms))
    }

    /// An empty store with a clock of the test's own. A constant clock gives the same timestamps in every run.
    pub fn with_clock(unix_ms: UnixMillis) -> Self {
        Self { shared: Arc::new(Mutex::new(State::default())), unix_ms }
    }

    /// From now on, [`Store::snapshot_at`] refuses what lies further back than `window`. Without one, nothing is refused.
    pub fn keep_history_for(&self, window: Option<Duration>) {
        self.state().window = window;
    }

    /// Orders a fault for the next commit that has none yet: two calls are for two commits.
    pub fn fail_next_commit(&self, fault: Fault) {
        self.state().faults.push_back(fault);
    }

    /// How many ordered faults have not happened yet.
    pub fn faults_left(&self) -> usize {
        self.state().faults.len()
    }

    /// All rows as they are now, in key order: for tests that compare everything.
    pub fn rows(&self) -> Vec<(Bytes, Bytes)> {
        let history = &self.state().history;
        history.rows(&KeyRange { start: Bytes::new(), end: None }, history.last()).collect()
    }

    /// The timestamp of the last commit.
    pub fn last_commit(&self) -> Timestamp {
        self.state().history.last()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics half way through a change of the state, so a poisoned one is still whole.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit_now(&self, commit: Commit) -> Result<CommitResult, Error> {
        let now = (self.unix_ms)();
        let mut state = self.state();
        let fault = state.faults.pop_front();
        match fault {
            Some(Fault::Conflict) => return Ok(CommitResult::Conflict(vec![commit.primary])),
            Some(Fault::Unavailable) => return Err(Error::Unavailable("ordered by a test".to_owned())),
            Some(Fault::UndeterminedBefore) => return Ok(undetermined()),
            Some(Fault::UndeterminedAfter) | None => {}
        }
        let conflicts = state.history.conflicts(&commit);
        if !conflicts.is_empty() {
            return Ok(CommitResult::Conflict(conflicts));
        }
        let at = state.history.next_timestamp(now);
        state.history.write(at, commit.writes);
        Ok(if fault.is_some() { undetermined() } else { CommitResult::Committed(at) })
    }
}

fn undetermined() -> CommitResult {
    CommitResult::Undetermined("ordered by a test".to_owned())
}

/// The system's clock, in milliseconds since 1970.
pub(crate) fn system_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The timestamp after `last`: the wall time, unless that would go backwards.
pub(crate) fn next_timestamp(last: Timestamp, unix_ms: u64) -> Timestamp {
    Timestamp((last.0 + 1).max(unix_ms << Timestamp::COUNTER_BITS))
}

impl Store for MemoryStore {
    type Snapshot = MemorySnapshot;

    async fn snapshot(&self) -> Result<MemorySnapshot, Error> {
        let at = self.state().history.last();
        Ok(MemorySnapshot { store: self.clone(), at })
    }

    async fn snapshot_at(&self, at: Timestamp) -> Result<MemorySnapshot, Error> {
        let now = (self.unix_ms)();
        let state = self.state();
        if let Some(window) = state.window {
            let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
            if at.unix_ms() < now.saturating_sub(window_ms) {
                let why = format!("only the last {} seconds are kept", window.as_secs());
                return Err(Error::HistoryNotKept { asked: at, why });
            }
        }
        // What lies in the future is not decided yet, so the view must not claim to know it.
        let at = at.min(state.history.last());
        Ok(MemorySnapshot { store: self.clone(), at })
    }

    async fn commit(&self, commit: Commit) -> Result<CommitResult, Error> {
        self.commit_now(commit)
    }
}

/// A view of a [`MemoryStore`] at one timestamp.
#[derive(Clone, Debug)]
pub struct MemorySnapshot {
    store: MemoryStore,
    at: Timestamp,
}

impl Snapshot for MemorySnapshot {
    fn timestamp(&self) -> Timestamp {
        self.at
    }

    async fn get(&self, key: &Bytes) -> Result<Option<Bytes>, Error> {
        Ok(self.store.state().history.get(key, self.at))
    }

    async fn batch_get(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, Error> {
        let state = self.store.state();
        Ok(keys.iter().map(|key| state.history.get(key, self.at)).collect())
    }

    async fn scan(&self, range: &KeyRange, limit: usize, reverse: bool) -> Result<Vec<(Bytes, Bytes)>, Error> {
        Ok(self.store.state().history.scan(range, self.at, limit, reverse))
    }
}
