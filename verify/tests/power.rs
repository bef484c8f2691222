//! How good random worlds are at finding mistakes: without a mechanism, some world soon turns red.
//!
//! Mechanisms that only an unlikely meeting of several things needs are proved one by one, in `mechanisms.rs`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]

use std::thread;

use tandem_model::mechanism::{Mechanism, sabotage};
use tandem_verify::world;
use tandem_verify::world::plan::Plan;

/// Seeds among which the mistake has to be found. Most are found by the first ones.
const SEEDS: u64 = 100;
/// Threads that share the mechanisms.
const THREADS: usize = 2;

/// Mechanisms whose loss random programs have to find.
const FOUND: &[Mechanism] = &[
    Mechanism::StoreReads,
    Mechanism::AbsenceIsRead,
    Mechanism::RejectedReads,
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
    Mechanism::MessagesWritten,
    Mechanism::MessageConsumed,
    Mechanism::VersionsReserved,
    Mechanism::NoCancelAfterSealing,
    Mechanism::Retention,
];

/// The first seed whose world turns red without a mechanism.
fn found_without(mechanism: Mechanism) -> Option<u64> {
    let _off = sabotage::without(mechanism);
    (0..SEEDS).find(|seed| !world::run(&Plan::of(*seed)).is_good())
}

#[test]
fn worlds_turn_red_without_a_mechanism() {
    let share = |first: usize| {
        move || {
            let mine = FOUND.iter().skip(first).step_by(THREADS);
            mine.map(|mechanism| (*mechanism, found_without(*mechanism))).collect::<Vec<_>>()
        }
    };
    let threads: Vec<_> = (0..THREADS).map(|first| thread::spawn(share(first))).collect();
    let found: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    println!("found by seed: {found:?}");
    let missed: Vec<_> = found.iter().filter(|(_, seed)| seed.is_none()).collect();
    assert!(missed.is_empty(), "not found in {SEEDS} worlds: {missed:?}");
}
