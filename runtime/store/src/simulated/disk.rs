//! What survives the process: the rows, open commits, and what the simulation itself has to remember.

use std::collections::VecDeque;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tandem_model::ids::Timestamp;

use super::CrashPoint;
use super::faults::{CommitFault, FaultCounts, Faults, OUT_OF};
use super::trace::{Answer, Operation, Trace, TraceEntry, digest};
use crate::memory::History;
use crate::{Commit, CommitResult, Error, KeyRange};

/// The wall time at which every simulation begins, in milliseconds since 1970: an arbitrary one in 2026.
const START_UNIX_MS: u64 = 1_780_000_000_000;

/// A commit of which nobody knows yet whether it was applied.
#[derive(Debug)]
struct Open {
    /// Its place in the order, if it was.
    at: Timestamp,
    writes: Vec<(Bytes, Option<Bytes>)>,
}

/// What the disk knows of one life of the process.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) faults: Faults,
    pub(super) ordered: VecDeque<CommitFault>,
    pub(super) crash_at: Option<(u64, CrashPoint)>,
    pub(super) operations: u64,
    pub(super) dead: bool,
}

#[derive(Debug)]
pub(super) struct Disk {
    pub(super) history: History,
    pub(super) trace: Trace,
    pub(super) counts: FaultCounts,
    pub(super) lives: Vec<Life>,
    /// Virtual time of the latest operation.
    pub(super) now_ms: u64,
    open: Vec<Open>,
    rng: SmallRng,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            history: History::default(),
            trace: Trace::new(),
            counts: FaultCounts::default(),
            lives: Vec::new(),
            now_ms: 0,
            open: Vec::new(),
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// Whether something happens that does so many times out of [`OUT_OF`]. What never happens takes no number from
    /// the generator.
    pub(super) fn happens(&mut self, probability: u16) -> bool {
        probability > 0 && self.rng.random_range(0..OUT_OF) < probability
    }

    /// How long to wait now, if at all.
    pub(super) fn wait_ms(&mut self, probability: u16, longest_ms: u64) -> Option<u64> {
        (longest_ms > 0 && self.happens(probability)).then(|| self.rng.random_range(1..=longest_ms))
    }

    /// Where in the operation that comes next a life dies, if it does.
    pub(super) fn crash(&mut self, life: usize) -> Option<CrashPoint> {
        let Life { crash_at, operations, faults, .. } = &self.lives[life];
        let ordered = crash_at.filter(|(number, _)| *number <= operations + 1).map(|(_, point)| point);
        let probability = faults.crash;
        ordered.or_else(|| {
            let dies = self.happens(probability);
            dies.then(|| if self.rng.random_bool(0.5) { CrashPoint::Before } else { CrashPoint::After })
        })
    }

    pub(super) fn note(&mut self, life: usize, operation: Operation, asked: u64, answer: Answer) {
        let number = self.lives[life].operations;
        let life = u32::try_from(life + 1).unwrap_or(u32::MAX);
        self.trace.add(TraceEntry { life, number, at_ms: self.now_ms, operation, asked, answer });
    }

    pub(super) fn unix_ms(now_ms: u64) -> u64 {
        START_UNIX_MS + now_ms
    }

    fn refuse_read(&mut self, life: usize, operation: Operation, asked: u64) -> Result<(), Error> {
        if !self.happens(self.lives[life].faults.read_unavailable) {
            return Ok(());
        }
        self.counts.read_unavailable += 1;
        self.note(life, operation, asked, Answer::Refused);
        Err(Error::Unavailable("a simulated fault".to_owned()))
    }

    pub(super) fn snapshot(&mut self, life: usize, at: Option<Timestamp>) -> Result<Timestamp, Error> {
        let operation = if at.is_some() { Operation::SnapshotAt } else { Operation::Snapshot };
        let asked = digest(&at);
        self.refuse_read(life, operation, asked)?;
        // What lies in the future is not decided yet, so the view must not claim to know it.
        let at = at.unwrap_or(Timestamp(u64::MAX)).min(self.history.last());
        self.note(life, operation, asked, Answer::At(at));
        Ok(at)
    }

    pub(super) fn get(&mut self, life: usize, keys: &[Bytes], at: Timestamp) -> Result<Vec<Option<Bytes>>, Error> {
        let asked = digest(&(keys, at));
        self.refuse_read(life, Operation::Get, asked)?;
        self.settle(life, |open| open.at <= at && keys.iter().any(|key| open.writes_to(key)));
        let values: Vec<Option<Bytes>> = keys.iter().map(|key| self.history.get(key, at)).collect();
        self.note(life, Operation::Get, asked, Answer::Rows(digest(&values)));
        Ok(values)
    }

    pub(super) fn scan(
        &mut self,
        life: usize,
        range: &KeyRange,
        at: Timestamp,
        (limit, reverse): (usize, bool),
    ) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let asked = digest(&(range, at, limit, reverse));
        self.refuse_read(life, Operation::Scan, asked)?;
        self.settle(life, |open| open.at <= at && open.writes_in(range));
        let rows = self.history.scan(range, at, limit, reverse);
        self.note(life, Operation::Scan, asked, Answer::Rows(digest(&rows)));
        Ok(rows)
    }

    /// All rows as they are now. Finds out about all open commits.
    pub(super) fn rows(&mut self) -> Vec<(Bytes, Bytes)> {
        self.settle(0, |_| true);
        let everything = KeyRange { start: Bytes::new(), end: None };
        self.history.rows(&everything, self.history.last()).collect()
    }

    /// All rows as they are now, each with the timestamp at which it was written. Finds out about all open commits.
    pub(super) fn versioned_rows(&mut self) -> Vec<(Timestamp, Bytes, Bytes)> {
        self.settle(0, |_| true);
        self.history.versioned_rows().collect()
    }

    pub(super) fn commit(&mut self, life: usize, mut commit: Commit) -> Result<CommitResult, Error> {
        // Callers collect what they read and write in hash maps: their order must decide nothing here.
        commit.reads.sort_by(|a, b| a.key.cmp(&b.key));
        commit.ranges.sort_by(|a, b| a.range.cmp(&b.range));
        commit.writes.sort();
        let asked = asked_by(&commit);
        let has_read = !commit.reads.is_empty() || !commit.ranges.is_empty();
        let fault = self.commit_fault(life, has_read);
        let (answer, result) = self.judge(life, commit, fault);
        self.note(life, Operation::Commit, asked, answer);
        result
    }

    fn commit_fault(&mut self, life: usize, has_read: bool) -> Option<CommitFault> {
        if let Some(ordered) = self.lives[life].ordered.pop_front() {
            return Some(ordered);
        }
        let faults = self.lives[life].faults;
        let odds = [
            (faults.commit_unavailable, CommitFault::Unavailable),
            (faults.commit_full, CommitFault::Full),
            (faults.undetermined_before, CommitFault::UndeterminedBefore),
            (faults.undetermined_after, CommitFault::UndeterminedAfter),
            (faults.undetermined_open, CommitFault::UndeterminedOpen),
            // Who read nothing cannot be told that it has changed.
            (if has_read { faults.conflict } else { 0 }, CommitFault::Conflict),
        ];
        odds.into_iter().find_map(|(odds, fault)| self.happens(odds).then_some(fault))
    }

    fn judge(
        &mut self,
        life: usize,
        commit: Commit,
        fault: Option<CommitFault>,
    ) -> (Answer, Result<CommitResult, Error>) {
        let fault_text = || "a simulated fault".to_owned();
        match fault {
            Some(CommitFault::Unavailable) => {
                self.counts.commit_unavailable += 1;
                return (Answer::Refused, Err(Error::Unavailable(fault_text())));
            }
            Some(CommitFault::Full) => {
                self.counts.commit_full += 1;
                return (Answer::Refused, Err(Error::Full(fault_text())));
            }
            Some(CommitFault::UndeterminedBefore) => {
                self.counts.undetermined_before += 1;
                return (Answer::Lost, Ok(CommitResult::Undetermined(fault_text())));
            }
            Some(CommitFault::Conflict | CommitFault::UndeterminedAfter | CommitFault::UndeterminedOpen) | None => {}
        }
        self.settle(life, |open| open.touched_by(&commit));
        let mut conflicts = self.history.conflicts(&commit);
        if conflicts.is_empty() && fault == Some(CommitFault::Conflict) {
            self.counts.conflict += 1;
            conflicts.push(self.imagined(&commit));
        }
        if !conflicts.is_empty() {
            return (Answer::Conflict(digest(&conflicts)), Ok(CommitResult::Conflict(conflicts)));
        }
        let at = self.history.next_timestamp(Self::unix_ms(self.now_ms));
        if fault == Some(CommitFault::UndeterminedOpen) {
            self.counts.undetermined_open += 1;
            self.open.push(Open { at, writes: commit.writes });
            return (Answer::Open(at), Ok(CommitResult::Undetermined(fault_text())));
        }
        self.history.write(at, commit.writes);
        if fault == Some(CommitFault::UndeterminedAfter) {
            self.counts.undetermined_after += 1;
            return (Answer::Applied(at), Ok(CommitResult::Undetermined(fault_text())));
        }
        (Answer::At(at), Ok(CommitResult::Committed(at)))
    }

    /// A key to name in a conflict that is none: of what was read, if anything was.
    fn imagined(&mut self, commit: &Commit) -> Bytes {
        let reads = commit.reads.iter().map(|read| &read.key);
        let keys: Vec<&Bytes> = reads.chain(commit.ranges.iter().map(|read| &read.range.start)).collect();
        match keys.len() {
            0 => commit.primary.clone(),
            count => keys[self.rng.random_range(0..count)].clone(),
        }
    }

    /// Finds out what became of open commits: each was applied at its place in the order, or never will be.
    fn settle(&mut self, life: usize, touches: impl Fn(&Open) -> bool) {
        let mut index = 0;
        while index < self.open.len() {
            if !touches(&self.open[index]) {
                index += 1;
                continue;
            }
            let Open { at, writes } = self.open.remove(index);
            let asked = digest(&at);
            if self.rng.random_bool(0.5) {
                self.counts.open_applied += 1;
                // Nobody wrote these rows since: whoever comes near an open commit settles it first.
                self.history.write(at, writes);
                self.note(life, Operation::Settle, asked, Answer::Applied(at));
            } else {
                self.counts.open_dropped += 1;
                self.note(life, Operation::Settle, asked, Answer::Lost);
            }
        }
    }
}

impl Open {
    fn writes_to(&self, key: &Bytes) -> bool {
        self.writes.binary_search_by(|(written, _)| written.cmp(key)).is_ok()
    }

    fn writes_in(&self, range: &KeyRange) -> bool {
        self.writes.iter().any(|(key, _)| range.contains(key))
    }

    fn touched_by(&self, commit: &Commit) -> bool {
        commit.reads.iter().any(|read| self.writes_to(&read.key))
            || commit.writes.iter().any(|(key, _)| self.writes_to(key))
            || commit.ranges.iter().any(|read| self.writes_in(&read.range))
    }
}

fn asked_by(commit: &Commit) -> u64 {
    let reads: Vec<_> = commit.reads.iter().map(|read| (&read.key, read.seen_at)).collect();
    let ranges: Vec<_> = commit.ranges.iter().map(|read| (&read.range, read.seen_at)).collect();
    digest(&(&commit.primary, reads, ranges, &commit.writes))
}
