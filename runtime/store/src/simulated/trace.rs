//! What a simulated store did, in order: to be compared between two runs of one seed.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use tandem_model::ids::Timestamp;

use super::CrashPoint;

/// Entries that are kept unless somebody asks for more.
const ENTRIES_KEPT: usize = 4_096;

/// What was asked of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A view of the present.
    Snapshot,
    /// A view of the past.
    SnapshotAt,
    /// One row or several.
    Get,
    /// A range.
    Scan,
    /// A commit.
    Commit,
    /// An open commit was found out about.
    Settle,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// A view, or a commit, at this timestamp.
    At(Timestamp),
    /// Rows with this digest.
    Rows(u64),
    /// A conflict about keys with this digest.
    Conflict(u64),
    /// Undetermined, and never applied.
    Lost,
    /// Undetermined, and applied at this timestamp.
    Applied(Timestamp),
    /// Undetermined, and open at this timestamp.
    Open(Timestamp),
    /// Refused.
    Refused,
    /// The process died at it.
    Crashed(CrashPoint),
}

/// One operation and its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceEntry {
    /// Which life of the process, from 1.
    pub life: u32,
    /// Its number in that life, from 1, in the order of the effects.
    pub number: u64,
    /// Virtual milliseconds since the disk was made.
    pub at_ms: u64,
    /// What was asked.
    pub operation: Operation,
    /// A digest of the keys and values in the question.
    pub asked: u64,
    /// What became of it.
    pub answer: Answer,
}

impl fmt::Display for TraceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { life, number, at_ms, operation, asked, answer } = self;
        write!(f, "{at_ms:>8} ms  life {life} #{number:<6} {operation:?} {asked:016x}: {answer:?}")
    }
}

/// The last entries, and a digest of all.
#[derive(Debug)]
pub(super) struct Trace {
    entries: VecDeque<TraceEntry>,
    kept: usize,
    digest: u64,
}

impl Trace {
    pub(super) fn new() -> Self {
        Self { entries: VecDeque::new(), kept: ENTRIES_KEPT, digest: 0 }
    }

    pub(super) fn keep(&mut self, entries: usize) {
        self.kept = entries;
        self.cut();
    }

    pub(super) fn add(&mut self, entry: TraceEntry) {
        self.digest = digest(&(self.digest, entry));
        self.entries.push_back(entry);
        self.cut();
    }

    fn cut(&mut self) {
        while self.entries.len() > self.kept {
            self.entries.pop_front();
        }
    }

    pub(super) fn entries(&self) -> Vec<TraceEntry> {
        self.entries.iter().copied().collect()
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }
}

/// The same for the same value in every run of one build.
pub(super) fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
