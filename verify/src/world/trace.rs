//! What happened in a world, in order: to be compared between two runs of a seed, and to be read by people.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// A trace that all parts of a world write to. Clones are the same trace.
#[derive(Clone, Debug)]
pub struct Trace(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// The same for the same content in every run of one build.
    hasher: DefaultHasher,
    events: u64,
    base_ms: u64,
    began: Option<Instant>,
    counts: BTreeMap<String, u64>,
    alarms: Vec<String>,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// An empty trace, that keeps what it is told as lines only if somebody wants to read it.
    pub fn new(keep_lines: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            hasher: DefaultHasher::new(),
            events: 0,
            base_ms: 0,
            began: None,
            counts: BTreeMap::new(),
            alarms: Vec::new(),
            lines: keep_lines.then(Vec::new),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A life of the process begins at this virtual time.
    pub(crate) fn begin_life(&self, base_ms: u64, began: Instant) {
        let mut inner = self.lock();
        inner.base_ms = base_ms;
        inner.began = Some(began);
        drop(inner);
        self.note("a process starts");
    }

    /// Virtual milliseconds since the world began.
    pub fn now_ms(&self) -> u64 {
        self.lock().now_us() / 1_000
    }

    /// Notes something of a kind that is counted. Returns its number among all that happened.
    pub fn tick(&self, kind: &str, what: &str) -> u64 {
        self.count(kind);
        self.lock().add(kind, what)
    }

    /// Notes something.
    pub fn note(&self, what: &str) -> u64 {
        self.lock().add("", what)
    }

    /// Counts something that happened.
    pub fn count(&self, kind: &str) {
        let mut inner = self.lock();
        match inner.counts.get_mut(kind) {
            Some(count) => *count += 1,
            None => drop(inner.counts.insert(kind.to_owned(), 1)),
        }
    }

    pub(crate) fn count_all(&self, counts: &BTreeMap<String, u64>) {
        self.lock().counts.extend(counts.clone());
    }

    /// Something that must not be.
    pub fn alarm(&self, what: &str) {
        let mut inner = self.lock();
        inner.add("ALARM", what);
        inner.alarms.push(what.to_owned());
    }

    pub(crate) fn take_alarms(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().alarms)
    }

    /// A digest of everything, what the store has seen included, and the number of events.
    pub(crate) fn digest(&self, store: u64) -> (u64, u64) {
        let inner = self.lock();
        let mut hasher = inner.hasher.clone();
        store.hash(&mut hasher);
        (hasher.finish(), inner.events)
    }

    pub(crate) fn into_parts(self) -> (BTreeMap<String, u64>, Vec<String>) {
        let mut inner = self.lock();
        (std::mem::take(&mut inner.counts), inner.lines.take().unwrap_or_default())
    }
}

impl Inner {
    fn now_us(&self) -> u64 {
        let lived = self.began.map_or(0, |began| u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
        self.base_ms * 1_000 + lived
    }

    fn add(&mut self, kind: &str, what: &str) -> u64 {
        let now_us = self.now_us();
        (now_us, kind, what).hash(&mut self.hasher);
        self.events += 1;
        if let Some(lines) = &mut self.lines {
            let (ms, us) = (now_us / 1_000, now_us % 1_000);
            lines.push(format!("{:>6} {ms:>7}.{us:03} {kind:<12} {what}", self.events));
        }
        self.events
    }
}
