//! A store in memory for simulations: what goes wrong, and when, follows from a seed.
//!
//! ```text
//! SimulatedDisk (seed, rows, trace)            survives
//!    └─ open(faults) ─▶ SimulatedStore         one life of the process, ends with a crash
//!                          └─ snapshot() ─▶ SimulatedSnapshot
//! ```
//!
//! | module | concept |
//! | --- | --- |
//! | `faults` | which faults may happen, how often, and which did |
//! | `disk` | rows, open commits, and the effect of each operation |
//! | `trace` | what was done, to be compared between two runs of one seed |
//!
//! Waits are on tokio's clock, so that a paused one makes a simulation fast. Nothing here starts a thread, looks at the
//! machine's clock or depends on the order of a hash map: in a paused runtime of one thread, the same seed and the same
//! calls give the same trace.
//!
//! **Crashes.** Each operation of a life has a number, in the order of the effects. A crash at one of them lets its
//! effect happen or not, and from then on no operation of that life returns, and none has an effect: what waits when
//! the process dies is lost. What was applied, and an open commit (see [`Faults::undetermined_open`]), which had
//! been sent before, stay. The driver awaits [`SimulatedStore::crashed`], drops the whole runtime of that life, and
//! opens the disk again. Two lives may also be open at once, as with two processes on one store.
//!
//! **Invariant:** with [`Faults::none`], and with any other faults as far as [`crate::Store`] allows them, it keeps the
//! contract of a store: it is meaner than the others, never wrong.

use std::collections::VecDeque;
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::conformance::FaultyStore;
use crate::memory::Fault;
use crate::{Commit, CommitResult, Error, KeyRange, Snapshot, Store};

pub use faults::{FaultCounts, Faults, OUT_OF};
pub use trace::{Answer, Operation, TraceEntry};

use disk::{Disk, Life};

mod disk;
mod faults;
mod trace;

/// Where in an operation a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CrashPoint {
    /// The operation has no effect.
    Before,
    /// The operation has its effect, and nobody learns of it.
    After,
}

/// What survives the process. Clones are the same disk.
#[derive(Clone)]
pub struct SimulatedDisk(Arc<Mutex<Disk>>);

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = self.lock();
        f.debug_struct("SimulatedDisk").field("lives", &disk.lives.len()).field("counts", &disk.counts).finish()
    }
}

impl SimulatedDisk {
    /// An empty disk. Everything that chance decides follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Disk::new(seed))))
    }

    /// Begins a life of the process. Virtual time goes on from where the last operation was.
    pub fn open(&self, faults: Faults) -> SimulatedStore {
        let mut disk = self.lock();
        let life = Life { faults, ordered: VecDeque::new(), crash_at: None, operations: 0, dead: false };
        disk.lives.push(life);
        let (number, began_ms) = (disk.lives.len() - 1, disk.now_ms);
        let (dead, opened) = (watch::Sender::new(false), Instant::now());
        SimulatedStore(Arc::new(Handle { disk: self.clone(), number, began_ms, opened, dead }))
    }

    /// How often each fault has happened.
    pub fn counts(&self) -> FaultCounts {
        self.lock().counts
    }

    /// The last operations of all lives, oldest first: some thousands, unless [`SimulatedDisk::keep_trace`] says more.
    pub fn trace(&self) -> Vec<TraceEntry> {
        self.lock().trace.entries()
    }

    /// A digest of all operations since the disk was made, also of those that the trace does not hold any more.
    pub fn trace_digest(&self) -> u64 {
        self.lock().trace.digest()
    }

    /// How many operations the trace holds from now on.
    pub fn keep_trace(&self, entries: usize) {
        self.lock().trace.keep(entries);
    }

    /// All rows as they are now, in key order. Finds out about all open commits, as any read of their rows does.
    pub fn rows(&self) -> Vec<(Bytes, Bytes)> {
        self.lock().rows()
    }

    /// The same, each row with the timestamp at which it was written: the order in which things were committed, whoever
    /// did it.
    pub fn versioned_rows(&self) -> Vec<(Timestamp, Bytes, Bytes)> {
        self.lock().versioned_rows()
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        // No code panics half way through a change of the disk, so a poisoned one is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store for one life of the process. Clones share it.
#[derive(Clone)]
pub struct SimulatedStore(Arc<Handle>);

struct Handle {
    disk: SimulatedDisk,
    /// Which of the disk's lives it is.
    number: usize,
    began_ms: u64,
    opened: Instant,
    dead: watch::Sender<bool>,
}

impl fmt::Debug for SimulatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedStore").field("life", &(self.0.number + 1)).finish_non_exhaustive()
    }
}

impl SimulatedStore {
    /// The disk below.
    pub fn disk(&self) -> &SimulatedDisk {
        &self.0.disk
    }

    /// Other faults from now on, such as none, to see that everything comes to an end.
    pub fn set_faults(&self, faults: Faults) {
        self.life(|life| life.faults = faults);
    }

    /// How many operations of this life have had their effect or were refused.
    pub fn operations(&self) -> u64 {
        self.life(|life| life.operations)
    }

    /// Lets the process die at its operation with this number (from 1), or at the next one if that number is over.
    pub fn crash_at(&self, operation: u64, point: CrashPoint) {
        self.life(|life| life.crash_at = Some((operation, point)));
    }

    /// Lets the process die now, between two operations.
    pub fn crash_now(&self) {
        self.0.disk.lock().counts.crash += 1;
        self.die();
    }

    /// Returns once this life is over. Then nothing that asks the store returns any more: drop it all.
    pub async fn crashed(&self) {
        // We hold the sender, so waiting cannot fail.
        let _ = self.0.dead.subscribe().wait_for(|dead| *dead).await;
    }

    /// Whether this life is over.
    pub fn is_crashed(&self) -> bool {
        *self.0.dead.borrow()
    }

    /// The simulated wall time in milliseconds since 1970: a fixed start, and the virtual time since then.
    pub fn unix_ms(&self) -> u64 {
        Disk::unix_ms(self.now_ms())
    }

    fn now_ms(&self) -> u64 {
        self.0.began_ms + u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn life<T>(&self, change: impl FnOnce(&mut Life) -> T) -> T {
        change(&mut self.0.disk.lock().lives[self.0.number])
    }

    fn die(&self) {
        self.life(|life| life.dead = true);
        self.0.dead.send_replace(true);
    }

    /// One operation: perhaps a wait, its effect, perhaps another wait. Does not return if the process has died.
    async fn operate<T>(&self, operation: Operation, effect: impl FnOnce(&mut Disk, usize) -> T) -> T {
        self.wait(|faults| faults.delay, |disk| disk.counts.delay += 1).await;
        let Some(answer) = self.act(operation, effect) else { return pending().await };
        self.wait(|faults| faults.late_answer, |disk| disk.counts.late_answer += 1).await;
        if self.is_crashed() {
            return pending().await;
        }
        answer
    }

    async fn wait(&self, probability: fn(&Faults) -> u16, count: fn(&mut Disk)) {
        let wait_ms = {
            let mut disk = self.0.disk.lock();
            let faults = disk.lives[self.0.number].faults;
            let wait_ms = disk.wait_ms(probability(&faults), faults.delay_ms_max);
            wait_ms.inspect(|_| count(&mut disk))
        };
        if let Some(wait_ms) = wait_ms {
            sleep(Duration::from_millis(wait_ms)).await;
        }
    }

    /// The effect of an operation; nothing if the process is dead, or dies at it.
    fn act<T>(&self, operation: Operation, effect: impl FnOnce(&mut Disk, usize) -> T) -> Option<T> {
        let now_ms = self.now_ms();
        let mut disk = self.0.disk.lock();
        if disk.lives[self.0.number].dead {
            return None;
        }
        disk.now_ms = disk.now_ms.max(now_ms);
        let crash = disk.crash(self.0.number);
        disk.lives[self.0.number].operations += 1;
        let answer = (crash != Some(CrashPoint::Before)).then(|| effect(&mut disk, self.0.number));
        let Some(point) = crash else { return answer };
        disk.note(self.0.number, operation, 0, Answer::Crashed(point));
        disk.counts.crash += 1;
        drop(disk);
        self.die();
        None
    }
}

impl FaultyStore for SimulatedStore {
    fn fail_next_commit(&self, fault: Fault) {
        self.life(|life| life.ordered.push_back(fault.into()));
    }
}

impl Store for SimulatedStore {
    type Snapshot = SimulatedSnapshot;

    async fn snapshot(&self) -> Result<SimulatedSnapshot, Error> {
        let at = self.operate(Operation::Snapshot, |disk, life| disk.snapshot(life, None)).await?;
        Ok(SimulatedSnapshot { store: self.clone(), at })
    }

    async fn snapshot_at(&self, at: Timestamp) -> Result<SimulatedSnapshot, Error> {
        let at = self.operate(Operation::SnapshotAt, |disk, life| disk.snapshot(life, Some(at))).await?;
        Ok(SimulatedSnapshot { store: self.clone(), at })
    }

    async fn commit(&self, commit: Commit) -> Result<CommitResult, Error> {
        self.operate(Operation::Commit, |disk, life| disk.commit(life, commit)).await
    }
}

/// A view of a [`SimulatedStore`] at one timestamp.
#[derive(Clone, Debug)]
pub struct SimulatedSnapshot {
    store: SimulatedStore,
    at: Timestamp,
}

impl Snapshot for SimulatedSnapshot {
    fn timestamp(&self) -> Timestamp {
        self.at
    }

    async fn get(&self, key: &Bytes) -> Result<Option<Bytes>, Error> {
        let values = self.batch_get(std::slice::from_ref(key)).await?;
        Ok(values.into_iter().next().flatten())
    }

    async fn batch_get(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, Error> {
        self.store.operate(Operation::Get, |disk, life| disk.get(life, keys, self.at)).await
    }

    async fn scan(&self, range: &KeyRange, limit: usize, reverse: bool) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let read = |disk: &mut Disk, life| disk.scan(life, range, self.at, (limit, reverse));
        self.store.operate(Operation::Scan, read).await
    }
}
