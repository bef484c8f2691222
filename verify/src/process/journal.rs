//! What happened in a run, in order, from many threads, and what clients wait for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Counts, alarms, the clock by which things are before one another, and whether a fault is under way.
#[derive(Debug)]
pub(crate) struct Journal {
    began: Instant,
    clock: AtomicU64,
    state: Mutex<State>,
    /// One step further with every fault that begins.
    faults: AtomicU64,
    is_bad: AtomicBool,
    is_over: AtomicBool,
    tells: bool,
}

#[derive(Debug, Default)]
struct State {
    counts: BTreeMap<String, u64>,
    alarms: Vec<String>,
    /// Requests that clients are at.
    waiting: BTreeSet<String>,
    /// How many requests have a known outcome.
    known: usize,
}

/// Operations that no fault touched.
pub(crate) const CALM: &str = "calm-operations";
/// Of them, those that were answered as they should be.
pub(crate) const CALM_SUCCEEDED: &str = "calm-operations-succeeded";

impl Journal {
    /// An empty one. It tells on the terminal what happens if `tells`.
    pub(crate) fn new(tells: bool) -> Self {
        Self {
            began: Instant::now(),
            clock: AtomicU64::new(0),
            state: Mutex::default(),
            faults: AtomicU64::new(0),
            is_bad: AtomicBool::new(true),
            is_over: AtomicBool::new(false),
            tells,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A time that no other moment has.
    pub(crate) fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Tells something.
    pub(crate) fn note(&self, what: &str) {
        if self.tells {
            println!("{:>8.3} {what}", self.began.elapsed().as_secs_f64());
        }
    }

    /// Counts something that happened.
    pub(crate) fn count(&self, kind: &str) {
        *self.lock().counts.entry(kind.to_owned()).or_default() += 1;
    }

    /// The same, of something that was counted elsewhere.
    pub(crate) fn count_many(&self, kind: &str, count: u64) {
        *self.lock().counts.entry(kind.to_owned()).or_default() += count;
    }

    /// No client begins anything from now on.
    pub(crate) fn end_all(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Whether nobody shall begin anything.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// A client begins to ask for something.
    pub(crate) fn begin(&self, id: &str) {
        self.lock().waiting.insert(id.to_owned());
    }

    /// It knows what became of it.
    pub(crate) fn end(&self, id: &str) {
        let mut state = self.lock();
        state.known += usize::from(state.waiting.remove(id));
    }

    /// How many requests have a known outcome.
    pub(crate) fn known(&self) -> usize {
        self.lock().known
    }

    /// Requests that clients are at.
    pub(crate) fn waiting(&self) -> Vec<String> {
        self.lock().waiting.iter().cloned().collect()
    }

    /// Something that must not be.
    pub(crate) fn alarm(&self, what: String) {
        self.note(&format!("ALARM {what}"));
        self.lock().alarms.push(what);
    }

    /// A fault begins.
    pub(crate) fn fault(&self, kind: &str) {
        self.faults.fetch_add(1, Ordering::SeqCst);
        self.is_bad.store(true, Ordering::SeqCst);
        self.note(kind);
        self.count(kind);
    }

    /// Everything works again.
    pub(crate) fn mended(&self) {
        self.note("everything works again");
        self.is_bad.store(false, Ordering::SeqCst);
    }

    /// The present calm, if nothing is wrong.
    pub(crate) fn calm(&self) -> Option<u64> {
        let fault = self.faults.load(Ordering::SeqCst);
        (!self.is_bad.load(Ordering::SeqCst)).then_some(fault)
    }

    /// An operation ended that began in this calm.
    pub(crate) fn operation(&self, began_in: Option<u64>, succeeded: bool) {
        if began_in.is_some() && began_in == self.calm() {
            self.count(CALM);
            if succeeded {
                self.count(CALM_SUCCEEDED);
            }
        }
    }

    /// All counts and alarms.
    pub(crate) fn take(&self) -> (BTreeMap<String, u64>, Vec<String>) {
        let state = std::mem::take(&mut *self.lock());
        (state.counts, state.alarms)
    }
}
