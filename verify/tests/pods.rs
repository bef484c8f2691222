//! Worlds of one to three runtimes on a simulated TiKV cluster, of some seeds. `tandem-verify pods` runs as many as there is
//! time for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::thread;

use tandem_verify::pods::plan::Plan;
use tandem_verify::pods::{self, Report};

/// Enough for everything to happen that is asked for below.
const SEEDS: u64 = 30;
/// Seeds that are run twice.
const TWICE: u64 = 5;
/// Threads that share the seeds.
const THREADS: usize = 2;

/// The reports of all seeds, made once for all tests of this file.
fn reports() -> &'static [Report] {
    static REPORTS: OnceLock<Vec<Report>> = OnceLock::new();
    REPORTS.get_or_init(|| {
        let share = |first: u64| move || (first..SEEDS).step_by(THREADS).map(run).collect::<Vec<Report>>();
        let threads: Vec<_> = (0..).take(THREADS).map(|first| thread::spawn(share(first))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn run(seed: u64) -> Report {
    pods::run(&Plan::of(seed))
}

#[test]
fn the_contract_holds_in_every_world() {
    for report in reports() {
        let violations = report.0.verdict.violations.join("\n  ");
        assert!(report.is_good(), "seed {}:\n  {violations}\n{}", report.0.seed, report.replay());
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for first in reports().iter().filter(|report| report.0.seed < TWICE) {
        let second = run(first.0.seed);
        assert_eq!((first.0.trace, first.0.events), (second.0.trace, second.0.events), "{}", first.replay());
    }
}

/// Everything that is meant to go wrong does so in some world.
#[test]
fn everything_happens_sometimes() {
    let (mut counts, mut replayed): (BTreeMap<&str, u64>, usize) = (BTreeMap::new(), 0);
    for report in reports() {
        for (name, count) in &report.0.counts {
            *counts.entry(name).or_default() += count;
        }
        replayed += report.0.verdict.replayed;
    }
    let wanted = ["pod-killed", "pod-stopped", "peer-dialled", "peer-cut", "peer-parted", "process-frozen", "sample"];
    let missing: Vec<&str> = wanted.into_iter().filter(|name| !counts.contains_key(name)).collect();
    assert!(missing.is_empty(), "never happened in {SEEDS} worlds: {missing:?} of {counts:?}");
    assert!(replayed > 200, "too little was looked at: {replayed}");
}
