//! Random worlds, as the broad check: without a mechanism, what happens in them cannot be explained any more.

use tandem_model::mechanism::{Mechanism, sabotage};
use tandem_verify::world;
use tandem_verify::world::plan::Plan;

/// What some world of the first hundreds misses. The others need what these worlds do not have: two runtimes at once,
/// another store, code that breaks when it sees what cannot be; or they are missed in fewer than one world of a hundred.
pub(crate) const MISSED: [Mechanism; 19] = [
    Mechanism::SealingReads,
    Mechanism::AbsenceIsRead,
    Mechanism::SnapshotWrites,
    Mechanism::RecordWritten,
    Mechanism::DigestCompared,
    Mechanism::UndeterminedDecided,
    Mechanism::RejectionDiscards,
    Mechanism::OverlayOrder,
    Mechanism::FreshAttempt,
    Mechanism::InstanceOwnership,
    Mechanism::AheadCompared,
    Mechanism::ReleaseAfterDurable,
    Mechanism::LaneOrder,
    Mechanism::MessagesWritten,
    Mechanism::MessageConsumed,
    Mechanism::VersionsReserved,
    Mechanism::Deadline,
    Mechanism::NoCancelAfterSealing,
    Mechanism::Retention,
];
/// Worlds that are looked at before a mechanism counts as not missed. Each of those above is missed in one of fifty.
const WORLDS_MAX: u64 = 600;

/// Whether there is a world that is good with a mechanism and bad without it.
pub(crate) fn is_missed(mechanism: Mechanism) -> bool {
    (0..WORLDS_MAX).any(|seed| {
        let is_good = || world::run(&Plan::of(seed)).is_good();
        let is_good_without = {
            let _without = sabotage::without(mechanism);
            is_good()
        };
        !is_good_without && is_good()
    })
}
