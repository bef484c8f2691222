//! The one thread that validates and writes.
//!
//! It takes all commits that wait, validates one after the other (a commit also against those before it in the group),
//! writes those that hold in one batch with one sync, publishes the new view, and answers.
//!
//! **Invariant:** nobody is answered before the sync: neither those who committed, nor those who conflict with them.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use fjall::PersistMode;
use tandem_model::ids::Timestamp;
use tandem_model::mechanism::{Mechanism, works};
use tokio::sync::{mpsc, oneshot};

use super::directory::{Engine, LAST_COMMIT};
use super::window::Window;
use super::{FreeSpace, Options, Shared, View, add};
use crate::memory::next_timestamp;
use crate::{Commit, CommitResult, Error};

/// Bytes that are written together at most, unless one commit alone has more.
const GROUP_BYTES: u64 = 16 << 20;

/// One waiting commit.
pub(super) struct Request {
    pub(super) commit: Commit,
    pub(super) answer: oneshot::Sender<Result<CommitResult, Error>>,
}

type Answer = (oneshot::Sender<Result<CommitResult, Error>>, Result<CommitResult, Error>);

pub(super) struct Committer {
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    window: Window,
    last: Timestamp,
    /// Views that were current once and may still be read, oldest first.
    views: VecDeque<(Timestamp, Weak<View>)>,
    free_space: FreeSpace,
    options: Options,
}

/// Tells everybody that the thread has gone, if it went by a panic.
struct Watch(Arc<Shared>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop("the commit thread panicked; restart the process".to_owned());
        }
    }
}

/// What a group will write, each key once: the engine gives all of a batch one version.
#[derive(Default)]
struct Group {
    writes: BTreeMap<Bytes, Option<Bytes>>,
    commits: u64,
    conflicts: u64,
    bytes: u64,
}

impl Committer {
    pub(super) fn new(
        engine: Arc<Engine>,
        shared: Arc<Shared>,
        last: Timestamp,
        path: &Path,
        mut options: Options,
    ) -> Self {
        let path = path.to_owned();
        let free_space = options.free_space.take().unwrap_or_else(|| Arc::new(move || free_bytes(&path)));
        let window = Window::new(last, options.window_keys);
        Self { engine, shared, window, last, views: VecDeque::new(), free_space, options }
    }

    /// Works until there is no sender any more.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let _watch = Watch(Arc::clone(&self.shared));
        while let Some(first) = requests.blocking_recv() {
            let group = take_group(first, &mut requests, self.options.group_commits_max);
            self.commit(group);
        }
    }

    fn commit(&mut self, requests: Vec<Request>) {
        let bytes = requests.iter().map(|request| written_bytes(&request.commit)).sum();
        let room = self.check_room(bytes);
        let now = (self.options.unix_ms)();
        let mut group = Group::default();
        let mut answers: Vec<Answer> = Vec::with_capacity(requests.len());
        for Request { commit, answer } in requests {
            let result = match &room {
                Err(error) if !commit.writes.is_empty() => Err(error.again()),
                _ => self.validate(commit, now, &mut group),
            };
            answers.push((answer, result));
        }
        if let Err(error) = self.write(group) {
            for (_, result) in &mut answers {
                *result = Err(Error::Stopped(error.clone()));
            }
        }
        let full = answers.iter().filter(|(_, result)| matches!(result, Err(Error::Full(_)))).count();
        add(&self.shared.counters.refused_full, full as u64);
        for (answer, result) in answers {
            // Whoever does not wait any more does not want to know.
            let _ = answer.send(result);
        }
    }

    /// Adds `commit` to the group if everything it has read is still true.
    fn validate(&mut self, commit: Commit, now_unix_ms: u64, group: &mut Group) -> Result<CommitResult, Error> {
        if let Some((key, _)) = commit.writes.iter().find(|(key, _)| key.is_empty() || key.len() > KEY_BYTES_MAX) {
            let problem = format!("a row key must have 1 to {KEY_BYTES_MAX} bytes, not {}", key.len());
            return Err(Error::Damaged(problem));
        }
        let conflicts = self.window.conflicts(&commit);
        if !conflicts.is_empty() && works(Mechanism::EmbeddedWindow) {
            group.conflicts += 1;
            return Ok(CommitResult::Conflict(conflicts));
        }
        if commit.writes.is_empty() {
            // What was read is true together with all that was committed so far, so that is its place in the order.
            return Ok(CommitResult::Committed(self.last));
        }
        self.last = next_timestamp(self.last, now_unix_ms);
        group.commits += 1;
        group.bytes += written_bytes(&commit);
        for (key, value) in commit.writes {
            self.window.record(key.clone(), self.last);
            group.writes.insert(key, value);
        }
        Ok(CommitResult::Committed(self.last))
    }

    /// Makes the group durable and visible. An error means that it is not known what is on disk.
    fn write(&mut self, group: Group) -> Result<(), String> {
        if let Some(cause) = self.shared.stopped.get() {
            return Err(cause.clone());
        }
        add(&self.shared.counters.conflicts, group.conflicts);
        if group.writes.is_empty() {
            return Ok(());
        }
        let sync = works(Mechanism::EmbeddedSync).then_some(PersistMode::SyncAll);
        let mut batch = self.engine.database.batch().durability(sync);
        for (key, value) in group.writes {
            match value {
                Some(value) => batch.insert(&self.engine.rows, &key[..], &value[..]),
                None => batch.remove(&self.engine.rows, &key[..]),
            }
        }
        batch.insert(&self.engine.own, LAST_COMMIT, self.last.0.to_be_bytes());
        if let Err(error) = batch.commit() {
            let cause = format!(
                "failed to write to {}: {error}; what was written last is unknown, restart the process",
                self.engine.path.display()
            );
            tracing::error!(%error, path = %self.engine.path.display(), "failed to write, the store stops");
            self.shared.stop(cause.clone());
            return Err(cause);
        }
        let counters = &self.shared.counters;
        add(&counters.commits, group.commits);
        add(&counters.groups, 1);
        add(&counters.bytes_written, group.bytes);
        self.publish();
        Ok(())
    }

    fn publish(&mut self) {
        let snapshot = self.engine.database.snapshot();
        let view = View { timestamp: self.last, snapshot, engine: Arc::clone(&self.engine) };
        let before = self.shared.publish(Arc::new(view));
        self.views.push_back((before.timestamp, Arc::downgrade(&before)));
        drop(before);
        while self.views.pop_front_if(|(_, view)| view.strong_count() == 0).is_some() {}
        let oldest_live = self.views.front().map_or(self.last, |(timestamp, _)| *timestamp);
        self.window.forget(oldest_live);
    }

    /// Asked before every group that writes: it costs far less than a sync, and a write that fails stops the store.
    fn check_room(&self, bytes: u64) -> Result<(), NoRoom> {
        let reserve = self.options.reserve_bytes;
        match (self.free_space)() {
            Ok(free) if free >= reserve.saturating_add(bytes) => Ok(()),
            Ok(free) => {
                let path = self.engine.path.display();
                let text = format!("{free} bytes are free at {path}, {reserve} must stay free; make room");
                Err(NoRoom::Full(text))
            }
            Err(error) => Err(NoRoom::Unknown(format!(
                "failed to ask how much room there is at {}: {error}",
                self.engine.path.display()
            ))),
        }
    }
}

/// Keys that the engine can store.
const KEY_BYTES_MAX: usize = u16::MAX as usize;

enum NoRoom {
    Full(String),
    Unknown(String),
}

impl NoRoom {
    fn again(&self) -> Error {
        match self {
            Self::Full(text) => Error::Full(text.clone()),
            Self::Unknown(text) => Error::Unavailable(text.clone()),
        }
    }
}

fn take_group(first: Request, requests: &mut mpsc::Receiver<Request>, commits_max: usize) -> Vec<Request> {
    let mut bytes = written_bytes(&first.commit);
    let mut group = vec![first];
    while group.len() < commits_max && bytes < GROUP_BYTES {
        let Ok(next) = requests.try_recv() else { break };
        bytes += written_bytes(&next.commit);
        group.push(next);
    }
    group
}

fn written_bytes(commit: &Commit) -> u64 {
    let bytes = |(key, value): &(Bytes, Option<Bytes>)| key.len() + value.as_ref().map_or(0, Bytes::len);
    commit.writes.iter().map(bytes).sum::<usize>() as u64
}

fn free_bytes(path: &Path) -> std::io::Result<u64> {
    let answer = rustix::fs::statvfs(path)?;
    Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
}
