//! The mechanisms that uphold the contract, each with a switch that only tests have.
//!
//! Each mechanism acts in one place of the code, behind [`works`]. Without the feature `sabotage`, which no released
//! binary has, that is the constant `true` and costs nothing. With it, a test turns a mechanism off for its own thread
//! and shows that a check turns red: a mechanism that can be taken away unseen is either not needed or not checked.

/// A mechanism. Its documentation is the claim that it upholds.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::EnumMessage,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
pub enum Mechanism {
    /// A flow gets its place in the order only if no flow before it changed a row that it read.
    SealingReads,
    /// A flow gets its place in the order only if no flow before it changed, added or removed a row in a range that it scanned.
    SealingRanges,
    /// The store commits a group only if what its flows read is still so there, whoever may have written it.
    StoreReads,
    /// The store commits a group only if the ranges that its flows scanned are still so there.
    StoreRanges,
    /// What a flow read of a flow that was not durable yet is validated once it is durable, like everything else.
    StoreSealedReads,
    /// That a row was not there is part of what a flow read.
    AbsenceIsRead,
    /// What a call read that was rejected stays part of what the flow read: the "no" rests on it.
    RejectedReads,
    /// With snapshot isolation, of two flows that write one row at the same time the second runs again.
    SnapshotWrites,
    /// The record of a request is in the transaction of its effects, so that the same request again has no effect.
    RecordWritten,
    /// The absence of the record is part of what a flow read, so that two runs of one request cannot both commit.
    RecordAbsence,
    /// A request with the id of another one and a different body is refused.
    DigestCompared,
    /// An undetermined commit is looked up before anybody is told anything.
    UndeterminedDecided,
    /// The record of another run is not taken for one's own when an undetermined commit is looked up.
    OwnRecord,
    /// What a rejected call and the calls below it did is gone.
    RejectionDiscards,
    /// Of two writes of one flow to one row the later one counts.
    OverlayOrder,
    /// An attempt leaves nothing to the next one.
    FreshAttempt,
    /// Of two calls of one flow on one instance the second waits for the first, and sees what it did.
    InstanceOwnership,
    /// A flow that moves its view to the present goes on only if everything that it read is still so: user code never sees two times at once.
    ViewExtension,
    /// Code that ran before the turn of its flow counts only if it began with what the flow then sees.
    AheadCompared,
    /// Nothing leaves before the commit is durable: no answer, no message, no egress record.
    ReleaseAfterDurable,
    /// A read-only flow reads what is durable, and nothing else.
    ReadOnlyDurable,
    /// Messages and egress records leave in the order of the commits.
    ReleaseOrder,
    /// Messages from one instance to another run in the order in which they were committed.
    LaneOrder,
    /// What flows of several runtimes keep fighting over is taken in turn at its owner, so that they end, and not with a conflict.
    AgreedTurns,
    /// If a group cannot be committed, all that was sealed after it is thrown away with it.
    LaterGroupsFall,
    /// A flow whose view was open when sealed flows were thrown away runs again: it may have seen what never was.
    EpochCompared,
    /// A message is a row of the transaction that sends it.
    MessagesWritten,
    /// The transaction of a message's effects deletes its row.
    MessageConsumed,
    /// Numbers of messages and egress records grow across restarts.
    VersionsReserved,
    /// A flow that is not done at its deadline ends, and has no effect.
    Deadline,
    /// Once a flow is sealed nothing can cancel it: its commit decides.
    NoCancelAfterSealing,
    /// Request records are kept for the retention.
    Retention,
    /// The embedded store commits only if nothing that was read has changed since.
    EmbeddedWindow,
    /// The embedded store syncs before it shows or answers anything.
    EmbeddedSync,
    /// On TiKV, keys that were only read still have their values at the commit timestamp.
    TikvReads,
    /// On TiKV, keys that were read and not there are still not there at the commit timestamp.
    TikvAbsences,
    /// On TiKV, ranges that were read have the same rows at the commit timestamp.
    TikvRanges,
    /// On TiKV, a key that was read and is written has not changed from the read to the start of the transaction.
    TikvGuards,
    /// On TiKV, the timestamp of a snapshot becomes the start of one transaction at most.
    TikvStartOnce,
    /// On TiKV, a transaction that only read something is not committed in one phase.
    TikvOnePhase,
    /// On TiKV, the primary is committed at exactly the timestamp at which what was read was validated.
    TikvCommitTime,
    /// On TiKV, what must be committed later than it was validated is validated again.
    TikvTooEarly,
    /// On TiKV, a commit whose answer was lost is asked for, and nothing is said of it before.
    TikvLostCommit,
    /// On TiKV, a commit in one phase whose answer was lost is forbidden at its primary before anything else is said of it.
    TikvLostOnePhase,
    /// On TiKV, a commit in one phase that stays undetermined is decided for all snapshots that are taken afterwards.
    TikvUndeterminedFloor,
    /// On TiKV, a lock is cleared for want of a primary only once the primary is forbidden.
    TikvAbsentPrimary,
}

impl Mechanism {
    /// All of them.
    pub fn all() -> &'static [Self] {
        <Self as strum::VariantArray>::VARIANTS
    }

    /// The claim that it upholds.
    pub fn claim(self) -> &'static str {
        strum::EnumMessage::get_documentation(&self).unwrap_or_default()
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

#[cfg(not(feature = "sabotage"))]
mod switch {
    use super::Mechanism;

    /// Whether a mechanism works. Always.
    #[inline]
    pub const fn works(_: Mechanism) -> bool {
        true
    }

    /// What works on the thread that asks, to be taken to another one.
    #[derive(Clone, Copy, Debug)]
    pub struct Works;

    impl Works {
        /// What works here.
        #[inline]
        pub const fn here() -> Self {
            Self
        }

        /// The same on the other thread, from now on.
        #[inline]
        pub const fn carry_over(self) {}
    }
}

#[cfg(feature = "sabotage")]
mod switch {
    use std::cell::Cell;

    use super::Mechanism;

    thread_local! {
        /// A bit for each mechanism that is turned off.
        static OFF: Cell<u64> = const { Cell::new(0) };
    }

    const _: () = assert!((Mechanism::TikvAbsentPrimary as u32) < u64::BITS, "each mechanism has a bit");

    pub(super) fn turn(mechanism: Mechanism, off: bool) -> bool {
        let (bit, before) = (1 << mechanism as u32, OFF.get());
        OFF.set(if off { before | bit } else { before & !bit });
        before & bit != 0
    }

    /// Whether a mechanism works on this thread.
    pub fn works(mechanism: Mechanism) -> bool {
        OFF.get() & (1 << mechanism as u32) == 0
    }

    /// What works on the thread that asks, to be taken to another one.
    #[derive(Clone, Copy, Debug)]
    pub struct Works(u64);

    impl Works {
        /// What works here.
        pub fn here() -> Self {
            Self(OFF.get())
        }

        /// The same on the other thread, from now on.
        pub fn carry_over(self) {
            OFF.set(self.0);
        }
    }
}

pub use switch::{Works, works};

/// Turning mechanisms off, for tests.
#[cfg(feature = "sabotage")]
pub mod sabotage {
    use std::marker::PhantomData;

    use super::Mechanism;

    /// While it lives, a mechanism does not work on this thread.
    #[derive(Debug)]
    pub struct Without {
        mechanism: Mechanism,
        was_off: bool,
        /// It belongs to its thread.
        thread: PhantomData<*const ()>,
    }

    /// Turns a mechanism off on this thread.
    #[must_use = "it works again as soon as this is dropped"]
    pub fn without(mechanism: Mechanism) -> Without {
        Without { mechanism, was_off: super::switch::turn(mechanism, true), thread: PhantomData }
    }

    impl Drop for Without {
        fn drop(&mut self) {
            super::switch::turn(self.mechanism, self.was_off);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mechanism_has_a_claim_and_works() {
        for mechanism in Mechanism::all() {
            assert!(mechanism.claim().ends_with('.'), "{mechanism:?}");
            assert!(works(*mechanism));
        }
    }

    #[cfg(feature = "sabotage")]
    #[test]
    fn a_mechanism_is_off_only_on_its_thread_and_only_for_a_time() {
        let off = sabotage::without(Mechanism::Retention);
        assert!(!works(Mechanism::Retention) && works(Mechanism::Deadline));
        let here = Works::here();
        let elsewhere = std::thread::spawn(move || {
            let before = works(Mechanism::Retention);
            here.carry_over();
            (before, works(Mechanism::Retention))
        });
        assert_eq!(elsewhere.join().expect("it does not panic"), (true, false));
        drop(off);
        assert!(works(Mechanism::Retention));
    }
}
