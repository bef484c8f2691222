//! Which faults may happen, how often, and which did.

use crate::memory::Fault;

/// Probabilities are out of this many.
pub const OUT_OF: u16 = 10_000;

/// How often each fault happens: so many times out of [`OUT_OF`] operations of the kind that it can happen to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A commit that read something is told of a conflict, although nothing has changed. A store may be that cautious.
    pub conflict: u16,
    /// Any operation waits before it has its effect.
    pub delay: u16,
    /// The answer of any operation comes late: a snapshot is taken at once and handed out after others have committed,
    /// a commit is durable long before it is answered.
    pub late_answer: u16,
    /// Longest such wait, in virtual milliseconds. Without it nothing is delayed.
    pub delay_ms_max: u64,
    /// A commit is undetermined, and was never applied.
    pub undetermined_before: u16,
    /// A commit is undetermined, and was applied.
    pub undetermined_after: u16,
    /// A commit is undetermined, and open: whoever reads or writes one of its rows first finds out that it was applied,
    /// or that it never will be.
    pub undetermined_open: u16,
    /// A read or a snapshot is refused.
    pub read_unavailable: u16,
    /// A commit is refused, and may be asked for again.
    pub commit_unavailable: u16,
    /// A commit is refused for want of room.
    pub commit_full: u16,
    /// The process dies at an operation: before its effect or after it, each half of the time.
    pub crash: u16,
}

impl Faults {
    /// None at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// Only waits, up to `delay_ms_max`: every order of things, and nothing that fails.
    pub fn delays(delay_ms_max: u64) -> Self {
        Self { delay: 3_000, late_answer: 2_000, delay_ms_max, ..Self::none() }
    }

    /// A bit of everything but crashes, as a bad day would have it.
    pub fn all() -> Self {
        Self {
            conflict: 200,
            delay: 2_000,
            late_answer: 1_000,
            delay_ms_max: 20,
            undetermined_before: 200,
            undetermined_after: 200,
            undetermined_open: 200,
            read_unavailable: 100,
            commit_unavailable: 200,
            commit_full: 50,
            crash: 0,
        }
    }

    /// So much of everything but crashes that nothing goes right the first time.
    pub fn storm() -> Self {
        Self {
            conflict: 1_500,
            delay: 4_000,
            late_answer: 3_000,
            delay_ms_max: 50,
            undetermined_before: 800,
            undetermined_after: 800,
            undetermined_open: 800,
            read_unavailable: 300,
            commit_unavailable: 1_000,
            commit_full: 300,
            crash: 0,
        }
    }

    /// The same, and the process dies so often.
    #[must_use]
    pub fn with_crashes(self, crash: u16) -> Self {
        Self { crash, ..self }
    }
}

/// How often each fault happened on a disk, over all lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Conflicts that were none.
    pub conflict: u64,
    /// Waits before the effect.
    pub delay: u64,
    /// Waits after the effect.
    pub late_answer: u64,
    /// Undetermined commits that were never applied.
    pub undetermined_before: u64,
    /// Undetermined commits that had been applied.
    pub undetermined_after: u64,
    /// Undetermined commits that were left open.
    pub undetermined_open: u64,
    /// Open commits that were found to be applied.
    pub open_applied: u64,
    /// Open commits that were found to be never applied.
    pub open_dropped: u64,
    /// Reads and snapshots that were refused.
    pub read_unavailable: u64,
    /// Commits that were refused.
    pub commit_unavailable: u64,
    /// Commits that were refused for want of room.
    pub commit_full: u64,
    /// Deaths.
    pub crash: u64,
}

/// What happens to a commit instead of the usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommitFault {
    Conflict,
    UndeterminedBefore,
    UndeterminedAfter,
    UndeterminedOpen,
    Unavailable,
    Full,
}

impl From<Fault> for CommitFault {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Conflict => Self::Conflict,
            Fault::UndeterminedBefore => Self::UndeterminedBefore,
            Fault::UndeterminedAfter => Self::UndeterminedAfter,
            Fault::Unavailable => Self::Unavailable,
        }
    }
}
