//! Worlds of committers on a simulated TiKV cluster, of some seeds. `tandem-verify commits` runs as many as there is time
//! for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::thread;

use tandem_verify::commits::plan::Plan;
use tandem_verify::commits::{self, Report};

/// Enough for everything to happen that is asked for below.
const SEEDS: u64 = 100;
/// Seeds that are run twice.
const TWICE: u64 = 10;
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
    commits::run(&Plan::of(seed))
}

#[test]
fn commits_keep_their_word_in_every_world() {
    for report in reports() {
        let violations = report.violations.join("\n  ");
        assert!(report.is_good(), "seed {}:\n  {violations}\n{}", report.seed, report.replay());
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for first in reports().iter().filter(|report| report.seed < TWICE) {
        let second = run(first.seed);
        assert_eq!((first.trace, first.events), (second.trace, second.events), "{}", first.replay());
    }
}

#[test]
fn seeds_differ() {
    let mut traces: Vec<u64> = reports().iter().map(|report| report.trace).collect();
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), reports().len());
}

/// Without faults, commits succeed or conflict, and nothing is unavailable or unknown.
#[test]
fn nothing_fails_on_a_good_day() {
    let report = commits::run(&Plan::of(1).quiet());
    assert!(report.is_good(), "{:?}", report.violations);
    for name in ["unavailable", "unknown", "undetermined-committed", "undetermined-absent"] {
        assert_eq!(report.counts.get(name), None, "{:?}", report.counts);
    }
}

/// Everything that is meant to go wrong does so in some world.
#[test]
fn everything_happens_sometimes() {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, count) in reports().iter().flat_map(|report| &report.counts) {
        *counts.entry(name).or_default() += count;
    }
    let wanted = [
        "answer-delay",
        "answer-lost",
        "arrived-after-the-caller-had-left",
        "commit-pushed",
        "committed",
        "conflicts",
        "cut-answer",
        "cut-request",
        "delay",
        "epoch-not-match",
        "key-not-in-region",
        "late",
        "leader-moved",
        "members-changed",
        "merge",
        "not-leader",
        "one-phase-refused",
        "oracle-down",
        "oracle-restart",
        "process-died",
        "process-frozen",
        "process-thawed",
        "region-not-found",
        "request-lost",
        "server-is-busy",
        "split",
        "stale-command",
        "store-down",
        "store-restart",
        "unavailable",
        "unknown",
    ];
    let missing: Vec<&str> = wanted.into_iter().filter(|name| !counts.contains_key(name)).collect();
    assert!(missing.is_empty(), "never happened in {SEEDS} worlds: {missing:?}");
}
