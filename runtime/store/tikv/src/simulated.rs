//! A TiKV cluster in memory, for simulations: what goes wrong, and when, follows from a seed.
//!
//! ```text
//! SimulatedCluster (seed)              regions on stores, locks and versions, timestamps, messages on their way
//!    └─ process() ─▶ SimulatedClient   what one process sees of it: the Cluster below the commit
//! ```
//!
//! | module | concept |
//! | --- | --- |
//! | `rows` | locks, versions and rollback records, and the effect of each request on them |
//! | `regions` | who leads which keys |
//! | `world` | time, timestamps, chance |
//! | `client` | routing, and the way of a request and of its answer |
//! | `faults` | which faults may happen, how often |
//! | `trace` | what was done, to be compared between two runs of one seed |
//!
//! Each request is a task of its own: it arrives and has its effect whether or not its caller still waits. That is how an
//! undetermined commit comes about, and why it stays open until somebody decides it.
//!
//! Waits are on tokio's clock, so that a paused one makes a simulation fast. Nothing here starts a thread, looks at the
//! machine's clock or depends on the order of a hash map: in a paused runtime of one thread, the same seed and the same
//! calls give the same trace.
//!
//! **Invariant:** it does what TiKV does, in the order in which requests happen to arrive. It is meaner, never wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tokio::sync::Notify;

use crate::cluster::Lock;

pub use client::SimulatedClient;
pub use faults::{Faults, OUT_OF};

use world::World;

mod client;
mod faults;
mod regions;
mod rows;
mod trace;
mod world;

/// How the cluster is laid out when it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many stores there are, at least one.
    pub stores: usize,
    /// Where regions end, in order; one region more than borders.
    pub borders: Vec<Bytes>,
}

/// Somebody who can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Node {
    /// The placement driver.
    Oracle,
    /// A store, from 0.
    Store(usize),
}

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// A timestamp.
    Timestamp,
    /// The region of a key.
    Region,
    /// Below what history is not kept.
    SafePoint,
    /// A prewrite.
    Prewrite,
    /// A commit.
    Commit,
    /// A rollback.
    Rollback,
    /// The fate of a transaction.
    Check,
    /// Values.
    Get,
    /// Rows of a range.
    Scan,
}

/// Which messages between a process and a node get lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All.
    Both,
    /// Requests arrive, answers do not.
    Answers,
    /// Requests do not arrive.
    Requests,
}

/// What happens to one certain request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It has no effect, and nobody knows.
    LoseRequest,
    /// It has its effect, and nobody knows.
    LoseAnswer,
    /// Its caller is told at once that nobody knows; it arrives after so many milliseconds.
    Late(u64),
    /// It is on its way for so many milliseconds, and its caller waits.
    Slow(u64),
    /// Its answer is on its way for so many milliseconds, and its caller waits.
    AnswerSlow(u64),
    /// A commit: somebody else has met the transaction before and was promised that it commits later.
    Push,
    /// The process dies before it is sent.
    DieBefore,
    /// The process dies when the answer arrives.
    DieAfter,
}

/// Whether a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Alive,
    /// It does nothing for a while, and does not know.
    Frozen,
    /// It does nothing any more. Drop all that it is.
    Dead,
}

/// A cluster. Clones are the same one.
#[derive(Clone, Debug)]
pub struct SimulatedCluster {
    world: Arc<Mutex<World>>,
    lives: Arc<Mutex<Vec<Life>>>,
    /// Wakes those who wait for a change in the order in which they came, as the same trace needs it.
    changed: Arc<Notify>,
}

impl SimulatedCluster {
    /// An empty cluster without faults. Everything that chance decides follows from `seed`.
    pub fn new(seed: u64, shape: &Shape) -> Self {
        Self { world: Arc::new(Mutex::new(World::new(seed, shape))), lives: Arc::default(), changed: Arc::default() }
    }

    /// One more process that uses the cluster.
    pub fn process(&self) -> SimulatedClient {
        let mut lives = self.lives();
        lives.push(Life::Alive);
        SimulatedClient::new(self.clone(), lives.len() - 1)
    }

    /// Other faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// Nothing goes wrong any more: no faults, no cuts, all stores are up, and nobody is frozen.
    pub fn calm(&self) {
        let mut world = self.lock();
        world.faults = Faults::latency(world.faults.latency_ms_max.min(1));
        world.heal();
        drop(world);
        self.lives().iter_mut().filter(|life| **life == Life::Frozen).for_each(|life| *life = Life::Alive);
        self.changed.notify_waiters();
    }

    /// Lets something happen to the request of a process of one kind, after `skip` others of it.
    pub fn order(&self, process: usize, call: Call, skip: u32, action: Action) {
        self.lock().order(process, call, skip, action);
    }

    /// How many ordered actions have not happened yet.
    pub fn ordered_left(&self) -> usize {
        self.lock().ordered_left()
    }

    /// Cuts messages between a process and a node, or heals that.
    pub fn cut(&self, process: usize, node: Node, cut: Option<Cut>) {
        self.lock().cut(process, node, cut);
    }

    /// A store is down for so many milliseconds.
    pub fn stop_store(&self, store: usize, gone_ms: u64) {
        self.lock().stop_store(store, gone_ms);
    }

    /// The placement driver is down for so many milliseconds.
    pub fn stop_oracle(&self, gone_ms: u64) {
        self.lock().stop_oracle(gone_ms);
    }

    /// Timestamps leap so far ahead of the clock.
    pub fn leap(&self, leap_ms: u64) {
        self.lock().leap(leap_ms);
    }

    /// Timestamps stand still until the clock has gone on by so many milliseconds.
    pub fn lag(&self, lag_ms: u64) {
        self.lock().lag(lag_ms);
    }

    /// Splits a region at a key. Whether there was no border yet.
    pub fn split(&self, at: &Bytes) -> bool {
        self.lock().split(at)
    }

    /// History is kept for `keep_ms` from now on, except where a lock needs it.
    pub fn move_safe_point(&self, keep_ms: u64) {
        self.lock().move_safe_point(keep_ms);
    }

    /// Lets a process go on, freeze or die. A dead one stays dead.
    pub fn set_life(&self, process: usize, to: Life) {
        let name = match to {
            Life::Alive => "process-thawed",
            Life::Frozen => "process-frozen",
            Life::Dead => "process-died",
        };
        let is_changed = match self.lives().get_mut(process) {
            Some(life) if *life != to && *life != Life::Dead => {
                *life = to;
                true
            }
            _ => false,
        };
        if is_changed {
            self.lock().trace.count(name);
            self.changed.notify_waiters();
        }
    }

    /// Whether a process runs. One that there never was is dead.
    pub fn life(&self, process: usize) -> Life {
        self.lives().get(process).copied().unwrap_or(Life::Dead)
    }

    /// Returns when a process is what is asked for; never if it cannot become so any more.
    pub async fn until(&self, process: usize, life: Life) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.life(process) == life {
                return;
            }
            changed.await;
        }
    }

    /// Virtual milliseconds since the cluster began.
    pub fn now_ms(&self) -> u64 {
        self.lock().now_ms()
    }

    /// The last timestamp that was handed out.
    pub fn latest(&self) -> Timestamp {
        self.lock().latest()
    }

    /// How many requests are on their way.
    pub fn in_flight(&self) -> usize {
        self.lock().in_flight
    }

    /// All locks, whoever they belong to.
    pub fn locks(&self) -> Vec<Lock> {
        self.lock().rows.locks()
    }

    /// All rows with the timestamp at which they were written, as if there were no locks.
    pub fn rows(&self) -> Vec<(Timestamp, Bytes, Bytes)> {
        self.lock().rows.committed()
    }

    /// How often each thing has happened.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.lock().trace.counts().clone()
    }

    /// Keeps what happens from now on as lines, too.
    pub fn keep_lines(&self) {
        self.lock().trace.keep_lines();
    }

    /// Notes something in the trace.
    pub fn note(&self, what: &str) {
        let mut world = self.lock();
        let now_ms = world.now_ms();
        world.trace.note(now_ms, format_args!("{what}"));
    }

    /// What happened, if it was kept.
    pub fn lines(&self) -> Vec<String> {
        self.lock().trace.lines().to_vec()
    }

    /// A digest of all that happened, and how many things happened.
    pub fn digest(&self) -> (u64, u64) {
        let world = self.lock();
        (world.trace.digest(), world.trace.events())
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        // No code panics half way through a change, so a poisoned one is still whole.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lives(&self) -> MutexGuard<'_, Vec<Life>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
