//! Random worlds, as the broad check: without a mechanism, what happens in them cannot be explained any more.

use tandem_model::mechanism::{Mechanism, sabotage};
use tandem_verify::world;
use tandem_verify::world::plan::Plan;

/// Worlds among which most losses are seen. Most of them are seen in the first ones.
const SOON: u64 = 100;
/// The same of losses that need an unlikely meeting of several things.
const LATE: u64 = 600;

/// What some world misses, and among how many first ones there is one that does. The others need what these worlds do not
/// have: another store, code that breaks when it sees what cannot be; or they are missed in too few of them.
pub(crate) const MISSED: [(Mechanism, u64); 21] = [
    (Mechanism::StoreReads, SOON),
    (Mechanism::SealingReads, LATE),
    (Mechanism::AbsenceIsRead, SOON),
    (Mechanism::RejectedReads, SOON),
    (Mechanism::SnapshotWrites, SOON),
    (Mechanism::RecordWritten, SOON),
    (Mechanism::DigestCompared, SOON),
    (Mechanism::UndeterminedDecided, SOON),
    (Mechanism::RejectionDiscards, SOON),
    (Mechanism::OverlayOrder, SOON),
    (Mechanism::FreshAttempt, SOON),
    (Mechanism::InstanceOwnership, SOON),
    (Mechanism::AheadCompared, SOON),
    (Mechanism::ReleaseAfterDurable, SOON),
    (Mechanism::LaneOrder, LATE),
    (Mechanism::MessagesWritten, SOON),
    (Mechanism::MessageConsumed, SOON),
    (Mechanism::VersionsReserved, SOON),
    (Mechanism::Deadline, LATE),
    (Mechanism::NoCancelAfterSealing, SOON),
    (Mechanism::Retention, SOON),
];

/// Whether one of the first worlds is good with a mechanism and bad without it.
pub(crate) fn is_missed(mechanism: Mechanism, worlds: u64) -> bool {
    (0..worlds).any(|seed| {
        let is_good = || world::run(&Plan::of(seed)).is_good();
        let is_good_without = {
            let _without = sabotage::without(mechanism);
            is_good()
        };
        !is_good_without && is_good()
    })
}
