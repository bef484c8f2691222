//! `tandem-verify simulate` and `commits`: worlds of many seeds on all cores, or one world with its trace.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;
use tandem_verify::{commits, pods, world};

/// Failing worlds after which no new one is begun.
const FAILURES_MAX: usize = 10;
/// How often it is told how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// How often it is looked whether it is done.
const POLL: Duration = Duration::from_millis(20);

/// Which worlds to run.
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

/// What is known of one world after its end.
pub(crate) trait Report: Serialize + Send + Sized {
    /// A world before it begins.
    type Plan: Debug;

    /// The world that follows from a seed, which keeps the lines of its trace if it is told to.
    fn plan(seed: u64, keep_lines: bool) -> Self::Plan;
    /// Runs it to its end, and judges it.
    fn run(plan: &Self::Plan) -> Self;
    /// What every kind of world has.
    fn summary(&self) -> Summary<'_>;
    /// Adds something that must not be.
    fn add_violation(&mut self, violation: String);
    /// What else is counted in this kind of world.
    fn figures(&self) -> BTreeMap<String, u64>;
}

/// What every kind of world has.
#[derive(Debug)]
pub(crate) struct Summary<'report> {
    /// What the world followed from.
    pub(crate) seed: u64,
    trace: u64,
    events: u64,
    virtual_ms: u64,
    /// How often each thing happened.
    pub(crate) counts: &'report BTreeMap<String, u64>,
    lines: &'report [String],
    /// Some of what must not be.
    pub(crate) violations: &'report [String],
    /// How much of it there was.
    violations_found: usize,
    /// The command that does it all again.
    pub(crate) replay: String,
}

/// What was found in all worlds together.
#[derive(Debug, Serialize)]
struct Total<R> {
    worlds: u64,
    seconds: f64,
    virtual_ms: u64,
    events: u64,
    /// How often each thing happened.
    counts: BTreeMap<String, u64>,
    figures: BTreeMap<String, u64>,
    failures: Vec<R>,
}

/// Runs it. `false` if something was found.
pub(crate) fn run<R: Report>(arguments: &Arguments) -> anyhow::Result<bool> {
    let total = match arguments.seed {
        Some(seed) => one::<R>(seed),
        None => many::<R>(arguments),
    };
    if let Some(path) = &arguments.output {
        let json = serde_json::to_vec_pretty(&total).context("failed to write the report as JSON")?;
        std::fs::write(path, json).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(total.failures.is_empty())
}

fn one<R: Report>(seed: u64) -> Total<R> {
    let plan = R::plan(seed, true);
    println!("{plan:#?}");
    let report = R::run(&plan);
    let summary = report.summary();
    summary.lines.iter().for_each(|line| println!("{line}"));
    println!("trace {:016x}, {} events, {} ms", summary.trace, summary.events, summary.virtual_ms);
    summary.tell();
    let mut total = Total::default();
    total.add(report);
    total
}

fn many<R: Report>(arguments: &Arguments) -> Total<R> {
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
    let work = || {
        while !stop.load(Ordering::Relaxed) && until.is_none_or(|until| Instant::now() < until) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= range.end {
                return;
            }
            let report: R = checked(seed, arguments.twice);
            report.summary().tell();
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            total.add(report);
            stop.fetch_or(total.failures.len() >= FAILURES_MAX, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut told = Instant::now();
        while running.iter().any(|thread| !thread.is_finished()) {
            thread::sleep(POLL);
            if told.elapsed() > PROGRESS_INTERVAL {
                told = Instant::now();
                let total = total.lock().unwrap_or_else(PoisonError::into_inner);
                println!(
                    "{} worlds in {:.0} s, {} bad",
                    total.worlds,
                    began.elapsed().as_secs_f64(),
                    total.failures.len()
                );
            }
        }
    });
    let mut total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    total.seconds = began.elapsed().as_secs_f64();
    total.tell();
    total
}

fn checked<R: Report>(seed: u64, twice: bool) -> R {
    let plan = R::plan(seed, false);
    let mut report = R::run(&plan);
    if twice && R::run(&plan).summary().trace != report.summary().trace {
        report.add_violation("the same seed gave another trace".to_owned());
    }
    report
}

/// Runs worlds on all cores for a while, from a seed on. Gives what is known of them, and the next seed.
pub(crate) fn for_a_while<R: Report>(first: u64, time: Duration) -> (Vec<R>, u64) {
    let (began, next, ended) = (Instant::now(), AtomicU64::new(first), Mutex::new(Vec::new()));
    let threads = thread::available_parallelism().map_or(1, Into::into);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while began.elapsed() < time {
                    let report = checked(next.fetch_add(1, Ordering::Relaxed), false);
                    ended.lock().unwrap_or_else(PoisonError::into_inner).push(report);
                }
            });
        }
    });
    (ended.into_inner().unwrap_or_else(PoisonError::into_inner), next.into_inner())
}

impl Summary<'_> {
    /// Whether nothing was found that must not be.
    pub(crate) fn is_good(&self) -> bool {
        self.violations_found == 0
    }

    /// Prints what was found, if anything was.
    fn tell(&self) {
        if self.is_good() {
            return;
        }
        println!("seed {}: {} violations", self.seed, self.violations_found);
        self.violations.iter().for_each(|violation| println!("  {violation}"));
        println!("  {}", self.replay);
    }
}

impl<R> Default for Total<R> {
    fn default() -> Self {
        Self {
            worlds: 0,
            seconds: 0.0,
            virtual_ms: 0,
            events: 0,
            counts: BTreeMap::new(),
            figures: BTreeMap::new(),
            failures: Vec::new(),
        }
    }
}

impl<R: Report> Total<R> {
    fn add(&mut self, report: R) {
        let summary = report.summary();
        self.worlds += 1;
        self.virtual_ms += summary.virtual_ms;
        self.events += summary.events;
        sum(&mut self.counts, summary.counts);
        sum(&mut self.figures, &report.figures());
        if !summary.is_good() {
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
        if !self.figures.is_empty() {
            println!("judged: {:?}", self.figures);
        }
        println!("happened: {:?}", self.counts);
    }
}

fn sum(total: &mut BTreeMap<String, u64>, counts: &BTreeMap<String, u64>) {
    for (name, count) in counts {
        *total.entry(name.clone()).or_default() += count;
    }
}

impl Report for world::Report {
    type Plan = world::plan::Plan;

    fn plan(seed: u64, keep_lines: bool) -> Self::Plan {
        Self::Plan { keep_lines, ..Self::Plan::of(seed) }
    }

    fn run(plan: &Self::Plan) -> Self {
        world::run(plan)
    }

    fn summary(&self) -> Summary<'_> {
        Summary {
            seed: self.seed,
            trace: self.trace,
            events: self.events,
            virtual_ms: self.virtual_ms,
            counts: &self.counts,
            lines: &self.lines,
            violations: &self.verdict.violations,
            violations_found: self.verdict.violations_found,
            replay: self.replay(),
        }
    }

    fn add_violation(&mut self, violation: String) {
        self.verdict.violations_found += 1;
        self.verdict.violations.push(violation);
    }

    fn figures(&self) -> BTreeMap<String, u64> {
        let verdict = &self.verdict;
        let named = [
            ("flows-replayed", verdict.replayed),
            ("messages", verdict.messages),
            ("refusals", verdict.refusals),
            ("looks", verdict.looks),
            ("samples", verdict.samples),
            ("undecided", verdict.undecided),
        ];
        let named = named.into_iter().map(|(name, count)| (name.to_owned(), count as u64));
        let outcomes = verdict.outcomes.iter().map(|(outcome, count)| (outcome.clone(), *count as u64));
        named.chain(outcomes).collect()
    }
}

impl Report for commits::Report {
    type Plan = commits::plan::Plan;

    fn plan(seed: u64, keep_lines: bool) -> Self::Plan {
        Self::Plan { keep_lines, ..Self::Plan::of(seed) }
    }

    fn run(plan: &Self::Plan) -> Self {
        commits::run(plan)
    }

    fn summary(&self) -> Summary<'_> {
        Summary {
            seed: self.seed,
            trace: self.trace,
            events: self.events,
            virtual_ms: self.virtual_ms,
            counts: &self.counts,
            lines: &self.lines,
            violations: &self.violations,
            violations_found: self.violations.len(),
            replay: self.replay(),
        }
    }

    fn add_violation(&mut self, violation: String) {
        self.violations.push(violation);
    }

    fn figures(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }
}

impl Report for pods::Report {
    type Plan = pods::plan::Plan;

    fn plan(seed: u64, keep_lines: bool) -> Self::Plan {
        let mut plan = Self::Plan::of(seed);
        plan.life.keep_lines = keep_lines;
        plan
    }

    fn run(plan: &Self::Plan) -> Self {
        pods::run(plan)
    }

    fn summary(&self) -> Summary<'_> {
        Summary { replay: self.replay(), ..self.0.summary() }
    }

    fn add_violation(&mut self, violation: String) {
        self.0.add_violation(violation);
    }

    fn figures(&self) -> BTreeMap<String, u64> {
        self.0.figures()
    }
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let problem = || format!("{text:?} is not a range of seeds, like 0..1000");
    let (start, end) = text.split_once("..").ok_or_else(problem)?;
    let (start, end) = (start.trim().parse().map_err(|_| problem())?, end.trim().parse().map_err(|_| problem())?);
    Ok(start..end)
}
