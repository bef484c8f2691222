//! Worlds of some seeds. `tandem-verify simulate` runs as many as there is time for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use tandem_store::simulated::Faults;
use tandem_verify::program::generate::Shape;
use tandem_verify::world::plan::{Plan, Trouble};
use tandem_verify::world::{self, Report};

/// Enough for everything to happen that is asked for below.
const SEEDS: u64 = 400;
/// Seeds that are run twice.
const TWICE: u64 = 40;
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
    world::run(&Plan::of(seed))
}

fn check(report: &Report) {
    let violations = report.verdict.violations.join("\n  ");
    assert!(report.is_good(), "seed {}:\n  {violations}\n{}", report.seed, report.replay());
}

#[test]
fn the_contract_holds_in_every_world() {
    reports().iter().for_each(check);
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

/// Everything that is meant to go wrong does so in some world, and every way to end is come to.
#[test]
fn everything_happens_sometimes() {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut outcomes, mut looked): (BTreeMap<&str, usize>, [usize; 5]) = (BTreeMap::new(), [0; 5]);
    for report in reports() {
        for (name, count) in &report.counts {
            *counts.entry(name).or_default() += count;
        }
        for (outcome, count) in &report.verdict.outcomes {
            *outcomes.entry(outcome).or_default() += count;
        }
        let verdict = &report.verdict;
        let more = [verdict.replayed, verdict.messages, verdict.refusals, verdict.looks, verdict.samples];
        looked.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    }
    let wanted = [
        "store-conflict",
        "store-delay",
        "store-late-answer",
        "store-undetermined-before",
        "store-undetermined-after",
        "store-undetermined-open",
        "store-open-applied",
        "store-open-dropped",
        "store-read-unavailable",
        "store-commit-unavailable",
        "store-commit-full",
        "store-crash",
        "crash",
        "crash-at-start",
        "process-gone",
        "stopped",
        "start-failed",
        "worker-died",
        "worker-froze",
        "worker-nonsense",
        "dial-refused",
        "peer-dialled",
        "peer-refused",
        "peer-cut",
        "peer-parted",
        "pod-stopped",
        "duplicate",
        "other-body",
        "cancel-confirmed",
        "cancel-too-late",
        "gave-up-waiting",
        "asked-later",
        "http-200",
        "http-202",
        "http-409",
        "http-422",
        "http-429",
        "http-500",
        "http-503",
        "http-504",
    ];
    let missing: Vec<&str> = wanted.into_iter().filter(|name| !counts.contains_key(name)).collect();
    assert!(missing.is_empty(), "never happened in {SEEDS} worlds: {missing:?}");
    for outcome in ["COMMITTED", "REJECTED", "FAILED", "TIMED_OUT", "CANCELLED", "POISONED"] {
        assert!(outcomes.contains_key(outcome), "no flow ended as {outcome}: {outcomes:?}");
    }
    assert!(looked.iter().all(|count| *count > 500), "too little was looked at: {looked:?}");
}

/// Requests that need a worker which is never there end all the same, by their deadline.
#[test]
fn everything_ends_without_workers() {
    let plan = Plan { workers: 1, trouble: vec![(0, 0, Trouble::Dies(3_600_000))], ..quiet(7) };
    let report = world::run(&Plan { calm_after_ms: 60_000, ..plan });
    check(&report);
    assert!(report.verdict.outcomes.contains_key("TIMED_OUT"), "{:?}", report.verdict.outcomes);
}

/// A world that ends too late is noticed: here programs take longer than everything may.
#[test]
fn a_world_that_is_stuck_is_noticed() {
    let shape = Shape { keys: 1, scans: false, bad_code: false, sends: false, sleep_ms_max: 9_000 };
    let plan =
        Plan { shape, clients: 2, requests: 8, calm_after_ms: 10, convergence: Duration::from_secs(1), ..quiet(7) };
    let report = world::run(&plan);
    let violations = report.verdict.violations.join("\n");
    assert!(violations.contains("no client learned anything"), "{violations}");
    check(&world::run(&Plan { convergence: Duration::from_mins(1), ..plan }));
}

/// A world in which nothing goes wrong.
fn quiet(seed: u64) -> Plan {
    let shape = Shape { keys: 2, scans: false, bad_code: false, sends: false, sleep_ms_max: 1 };
    let plan = Plan { faults: Faults::none(), lives: Vec::new(), trouble: Vec::new(), shape, ..Plan::of(seed) };
    Plan {
        clients: 2,
        requests: 3,
        calm_after_ms: 1_000,
        tricks_percent: 0,
        rival_lives: 0,
        pods: 1,
        attempts_max: 10,
        ..plan
    }
}
