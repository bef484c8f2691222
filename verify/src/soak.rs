//! `tandem-verify soak`: simulated worlds of all kinds, random programs against real processes, and histories, in turn, each
//! time with new seeds, for as long as it is told to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use serde::Serialize;
use tandem_verify::process::{self, Kind, Plan, Programs, Report};
use tandem_verify::{commits, pods, world};

use crate::processes::{programs, tell, threads};
use crate::seeds;

/// How long worlds of each kind are simulated in each turn.
const SIMULATION: Duration = Duration::from_secs(8);
/// How long things go wrong in each run of programs.
const PROCESSES_SECONDS: u64 = 15;
/// How long things go wrong in each run of histories.
const HISTORIES_SECONDS: u64 = 10;
/// Failures after which it ends early.
const FAILURES_MAX: usize = 10;
/// Violations of one failure that the report tells.
const TOLD_MAX: usize = 3;
/// How far the seeds of two soaks that begin one after the other are apart.
const SEEDS_APART: u64 = 1_000_000;

/// What a death of a simulated process is counted as: of a runtime, of a committer, of a runtime on a cluster.
const DEATHS: &[&str] = &["crash", "process-gone"];
const COMMITTER_DEATHS: &[&str] = &["process-died"];
const POD_DEATHS: &[&str] = &["pod-killed"];

/// What to do.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How long.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// The first seed; a new one by default.
    #[arg(long)]
    seed: Option<u64>,
    /// The `tandem` program; from beside this one by default.
    #[arg(long)]
    tandem: Option<PathBuf>,
    /// `tikv://HOST:PORT[,HOST:PORT][/PREFIX]`: state is kept there, below prefixes of its own, and nothing is simulated.
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// Kills nothing, and freezes nothing.
    #[arg(long)]
    calm: bool,
    /// How to print the report.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// A form of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

/// All runs of one kind together.
#[derive(Debug, Default, Serialize)]
struct Row {
    runs: u64,
    bad: u64,
    seconds: f64,
    counts: BTreeMap<String, u64>,
}

/// A seed that failed.
#[derive(Debug, Serialize)]
struct Failure {
    seed: u64,
    replay: String,
    violations: Vec<String>,
    kept: Option<PathBuf>,
}

/// The whole report.
#[derive(Debug, Default, Serialize)]
struct Soak {
    first_seed: u64,
    minutes: f64,
    simulation: Row,
    commits: Row,
    pods: Row,
    processes: Row,
    histories: Row,
    failures: Vec<Failure>,
}

/// Runs it. `false` if something was found.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let programs = Programs { store: arguments.store.clone(), ..programs(arguments.tandem.as_ref())? };
    let simulates = programs.store.is_none();
    let first_seed = arguments.seed.unwrap_or_else(new_seed);
    let (began, time) = (Instant::now(), Duration::from_mins(arguments.minutes));
    let mut soak = Soak { first_seed, ..Soak::default() };
    eprintln!("soaking for {} minutes, from seed {first_seed}", arguments.minutes);
    let (mut world_seed, mut seed) = (first_seed, first_seed);
    while began.elapsed() < time && soak.failures.len() < FAILURES_MAX {
        if simulates {
            let left = || time.saturating_sub(began.elapsed()).min(SIMULATION);
            let next = [
                soak.simulate::<world::Report>(|soak| &mut soak.simulation, world_seed, left()),
                soak.simulate::<commits::Report>(|soak| &mut soak.commits, world_seed, left()),
                soak.simulate::<pods::Report>(|soak| &mut soak.pods, world_seed, left()),
            ];
            world_seed = next.into_iter().fold(world_seed, u64::max);
        }
        for (kind, seconds) in [(Kind::Processes, PROCESSES_SECONDS), (Kind::Histories, HISTORIES_SECONDS)] {
            let plan = Plan { kills: !arguments.calm, ..Plan::of(seed, seconds) };
            soak.process(&programs, kind, &plan)?;
            seed += 1;
        }
        soak.progress(began.elapsed());
    }
    soak.minutes = began.elapsed().as_secs_f64() / 60.0;
    soak.check_faults(simulates, !arguments.calm);
    match arguments.output {
        Output::Table => soak.print(),
        Output::Json => println!("{}", serde_json::to_string_pretty(&soak).context("failed to write JSON")?),
    }
    Ok(soak.failures.is_empty())
}

/// Seconds of the wall clock, so that no two soaks look at the same seeds.
fn new_seed() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_secs().wrapping_mul(SEEDS_APART)
}

impl Soak {
    /// Simulates worlds of one kind on all cores for a while. Gives the next seed.
    fn simulate<R: seeds::Report>(&mut self, row: fn(&mut Self) -> &mut Row, first: u64, time: Duration) -> u64 {
        let began = Instant::now();
        let (ended, next) = seeds::for_a_while::<R>(first, time);
        for report in ended {
            let (summary, figures) = (report.summary(), report.figures());
            let counts = summary.counts.iter().chain(&figures);
            row(self).add(summary.is_good(), counts.map(|(name, count)| (name.as_str(), *count)));
            if !summary.is_good() {
                self.fail(summary.seed, summary.replay.clone(), summary.violations, None);
            }
        }
        row(self).seconds += began.elapsed().as_secs_f64();
        next
    }

    fn process(&mut self, programs: &Programs, kind: Kind, plan: &Plan) -> anyhow::Result<()> {
        let began = Instant::now();
        let report: Report = threads()?.block_on(process::run(programs, kind, plan))?;
        let row = match kind {
            Kind::Processes => &mut self.processes,
            Kind::Histories => &mut self.histories,
        };
        row.add(report.is_good(), report.counts.iter().map(|(name, count)| (name.as_str(), *count)));
        row.seconds += began.elapsed().as_secs_f64();
        if !report.is_good() {
            tell(&report);
            self.fail(plan.seed, report.replay(), &report.violations, report.kept);
        }
        Ok(())
    }

    fn fail(&mut self, seed: u64, replay: String, violations: &[String], kept: Option<PathBuf>) {
        eprintln!("seed {seed} failed: {}\n  {replay}", violations.first().map_or("", String::as_str));
        let violations = violations.iter().take(TOLD_MAX).cloned().collect();
        self.failures.push(Failure { seed, replay, violations, kept });
    }

    /// A soak in which nothing went wrong has shown nothing.
    fn check_faults(&mut self, simulates: bool, kills: bool) {
        let workers = |what: &str| self.processes.of(what) + self.histories.of(what);
        let none: Vec<&str> = [
            ("a crash of a simulated process", simulates, self.simulation.all(DEATHS)),
            ("a death of a simulated committer", simulates, self.commits.all(COMMITTER_DEATHS)),
            ("a kill of a runtime on a simulated cluster", simulates, self.pods.all(POD_DEATHS)),
            ("a kill of the runtime under programs", kills, self.processes.kills()),
            ("a kill of a worker", kills, workers("worker-killed")),
            ("a frozen worker", kills, workers("worker-frozen")),
            ("a kill of the runtime under histories", kills, self.histories.kills()),
        ]
        .into_iter()
        .filter(|(_, is_expected, count)| *is_expected && *count == 0)
        .map(|(what, ..)| what)
        .collect();
        if !none.is_empty() {
            let replay = format!("tandem-verify soak --seed {}", self.first_seed);
            self.fail(self.first_seed, replay, &[format!("it never happened: {}", none.join(", "))], None);
        }
    }

    fn progress(&self, elapsed: Duration) {
        eprintln!(
            "{:>5.1} min: {} worlds, {} + {} runs of processes, {} kills of the runtime, {} failures",
            elapsed.as_secs_f64() / 60.0,
            self.simulation.runs + self.commits.runs + self.pods.runs,
            self.processes.runs,
            self.histories.runs,
            self.processes.kills() + self.histories.kills(),
            self.failures.len()
        );
    }

    fn print(&self) {
        println!("{:<12}{:>8}{:>8}{:>10}{:>12}{:>10}{:>10}", "", "runs", "bad", "seconds", "flows", "kills", "calm ok");
        let rows = [
            ("simulation", &self.simulation, DEATHS),
            ("commits", &self.commits, COMMITTER_DEATHS),
            ("pods", &self.pods, POD_DEATHS),
            ("processes", &self.processes, &[]),
            ("histories", &self.histories, &[]),
        ];
        for (name, row, deaths) in rows {
            let Row { runs, bad, seconds, .. } = row;
            let flows = row.of("flows-replayed") + row.of("transactions-committed");
            let kills = row.kills() + row.all(deaths);
            let calm = row.of("calm-operations");
            let calm = match calm {
                0 => String::new(),
                _ => format!("{} %", 100 * row.of("calm-operations-succeeded") / calm),
            };
            println!("{name:<12}{runs:>8}{bad:>8}{seconds:>10.0}{flows:>12}{kills:>10}{calm:>10}");
        }
        for failure in &self.failures {
            println!("seed {}: {}", failure.seed, failure.violations.join("\n  "));
            println!("  {}", failure.replay);
            if let Some(kept) = &failure.kept {
                println!("  data and logs are in {}", kept.display());
            }
        }
        println!("{:.1} minutes from seed {}: {} failures", self.minutes, self.first_seed, self.failures.len());
    }
}

impl Row {
    fn add<'a>(&mut self, is_good: bool, counts: impl Iterator<Item = (&'a str, u64)>) {
        self.runs += 1;
        self.bad += u64::from(!is_good);
        for (name, count) in counts {
            *self.counts.entry(name.to_owned()).or_default() += count;
        }
    }

    fn of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    /// How often any of these happened.
    fn all(&self, what: &[&str]) -> u64 {
        what.iter().map(|what| self.of(what)).sum()
    }

    /// Kills of the runtime, at whatever moment.
    fn kills(&self) -> u64 {
        process::runtime_kills(&self.counts)
    }
}
