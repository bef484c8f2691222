//! `tandem-verify commits`: committers on simulated TiKV clusters, many seeds on all cores, or one with its trace.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;
use tandem_verify::commits::plan::Plan;
use tandem_verify::commits::{self, Report};

use crate::simulate::parse_range;

/// Failing worlds after which no new one is begun.
const FAILURES_MAX: usize = 10;

/// What to simulate.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// One seed, with its trace.
    #[arg(long, conflicts_with_all = ["seeds", "minutes"])]
    seed: Option<u64>,
    /// Seeds from A up to B: `A..B`.
    #[arg(long, value_parser = parse_range, conflicts_with = "minutes")]
    seeds: Option<Range<u64>>,
    /// As many seeds as there is time for.
    #[arg(long)]
    minutes: Option<u64>,
    /// The first seed, with --minutes.
    #[arg(long, default_value_t = 0, requires = "minutes")]
    from: u64,
    /// Threads; as many as there are cores by default.
    #[arg(long)]
    threads: Option<usize>,
    /// Runs each seed twice, and compares the traces.
    #[arg(long)]
    twice: bool,
    /// Where to write a report as JSON.
    #[arg(short, long)]
    output: Option<PathBuf>,
}

/// What was found in all worlds together.
#[derive(Debug, Default, Serialize)]
struct Total {
    worlds: u64,
    seconds: f64,
    virtual_ms: u64,
    events: u64,
    /// How often each thing happened.
    counts: BTreeMap<String, u64>,
    failures: Vec<Report>,
}

/// Runs it. `false` if something was found.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let total = match arguments.seed {
        Some(seed) => one(seed),
        None => many(arguments),
    };
    if let Some(path) = &arguments.output {
        let json = serde_json::to_vec_pretty(&total).context("failed to write the report as JSON")?;
        std::fs::write(path, json).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(total.failures.is_empty())
}

fn one(seed: u64) -> Total {
    let plan = Plan { keep_lines: true, ..Plan::of(seed) };
    println!("{plan:#?}");
    let report = commits::run(&plan);
    report.lines.iter().for_each(|line| println!("{line}"));
    println!("trace {:016x}, {} events, {} ms", report.trace, report.events, report.virtual_ms);
    tell(&report);
    let mut total = Total::default();
    total.add(report);
    total
}

fn many(arguments: &Arguments) -> Total {
    let (range, until) = match (&arguments.seeds, arguments.minutes) {
        (Some(range), _) => (range.clone(), None),
        (None, minutes) => {
            let time = Duration::from_mins(minutes.unwrap_or(1));
            (arguments.from..u64::MAX, Some(Instant::now() + time))
        }
    };
    let began = Instant::now();
    let (next, stop, total) = (AtomicU64::new(range.start), AtomicBool::new(false), Mutex::new(Total::default()));
    let threads = arguments.threads.or_else(|| thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) && until.is_none_or(|until| Instant::now() < until) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= range.end {
                        return;
                    }
                    let report = checked(seed, arguments.twice);
                    tell(&report);
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    total.add(report);
                    stop.fetch_or(total.failures.len() >= FAILURES_MAX, Ordering::Relaxed);
                }
            });
        }
    });
    let mut total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    total.seconds = began.elapsed().as_secs_f64();
    total.tell();
    total
}

fn checked(seed: u64, twice: bool) -> Report {
    let plan = Plan::of(seed);
    let mut report = commits::run(&plan);
    if twice && commits::run(&plan).trace != report.trace {
        report.violations.push("the same seed gave another trace".to_owned());
    }
    report
}

fn tell(report: &Report) {
    if report.is_good() {
        return;
    }
    println!("seed {}: {} violations", report.seed, report.violations.len());
    report.violations.iter().for_each(|violation| println!("  {violation}"));
    println!("  {}", report.replay());
}

impl Total {
    fn add(&mut self, report: Report) {
        self.worlds += 1;
        self.virtual_ms += report.virtual_ms;
        self.events += report.events;
        for (name, count) in &report.counts {
            *self.counts.entry(name.clone()).or_default() += count;
        }
        if !report.is_good() {
            self.failures.push(report);
        }
    }

    fn tell(&self) {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let a_minute = 60.0 * self.worlds as f64 / self.seconds.max(f64::EPSILON);
        println!(
            "{} worlds in {:.1} s, {a_minute:.0} a minute, {} bad",
            self.worlds,
            self.seconds,
            self.failures.len()
        );
        println!("{} events, {} virtual s", self.events, self.virtual_ms / 1_000);
        println!("happened: {:?}", self.counts);
    }
}
