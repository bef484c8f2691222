//! `tandem-verify faults`: named faults of real processes on a cluster of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;
use tandem_e2e_tikv::Cluster;
use tandem_verify::faults::{self, CASES, Case, Launch, Plan, Report};

use crate::processes::threads;

/// The program of a runtime.
const RUNTIME: &str = "tandem-runtime";

/// What to run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Ends with 0 if all promises were kept, 1 if not (logs are kept), 2 if it could not be tried. \
                        It starts a PD and three test stores of its own for each case, which needs Go.")]
pub(crate) struct Arguments {
    /// Only says which cases there are, and runs nothing.
    #[arg(long)]
    list: bool,
    /// Runs this case; may be given several times. All of them by default.
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Begins no further case after this time, and goes through all cases again and again until then, each time with another
    /// seed. Without it, each case runs once.
    #[arg(long)]
    minutes: Option<u64>,
    /// What clients ask follows from it, and grows by one with each run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The `tandem-runtime` program; from beside this one by default.
    #[arg(long, value_name = "FILE")]
    runtime: Option<PathBuf>,
    /// Tells each step while it is done.
    #[arg(short, long)]
    verbose: bool,
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

/// All runs.
#[derive(Debug, Serialize)]
struct Whole {
    minutes: f64,
    runs: Vec<Report>,
    bad: usize,
}

/// Runs it. `false` if something was found.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let cases = chosen(&arguments.cases)?;
    if arguments.list {
        list(&cases);
        return Ok(true);
    }
    let verify = std::env::current_exe().context("failed to find out where this program is")?;
    let runtime = arguments.runtime.clone().unwrap_or_else(|| verify.with_file_name(RUNTIME));
    ensure!(
        runtime.exists(),
        "{} is not there; build it with: cargo build --release -p tandem-server",
        runtime.display()
    );
    let launch = Launch { command: vec![runtime.display().to_string()], environment: Vec::new() };
    let (began, time) = (Instant::now(), arguments.minutes.map(|minutes| Duration::from_secs(minutes * 60)));
    let (threads, mut whole) = (threads()?, Whole { minutes: 0.0, runs: Vec::new(), bad: 0 });
    'rounds: loop {
        for case in &cases {
            if time.is_some_and(|time| began.elapsed() >= time) {
                break 'rounds;
            }
            let seed = arguments.seed + whole.runs.len() as u64;
            let (verify, launch, place) = (verify.clone(), launch.clone(), case.name.to_owned());
            let plan = Plan { case: *case, seed, place, verify, launch, tells: arguments.verbose };
            let report = threads.block_on(async {
                let cluster = Cluster::start(faults::cluster_options(&[case.name], case.disturbs())).await?;
                anyhow::Ok(faults::run(&plan, &Arc::new(cluster)).await)
            })?;
            eprintln!("{}", line(&report));
            whole.bad += usize::from(!report.is_good());
            whole.runs.push(report);
        }
        if time.is_none() {
            break;
        }
    }
    whole.minutes = began.elapsed().as_secs_f64() / 60.0;
    match arguments.output {
        Output::Table => whole.print(),
        Output::Json => println!("{}", serde_json::to_string_pretty(&whole).context("failed to write JSON")?),
    }
    Ok(whole.bad == 0)
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<Case>> {
    if names.is_empty() {
        return Ok(CASES.to_vec());
    }
    let by_name =
        |name: &String| Case::named(name).with_context(|| format!("there is no case {name:?}; --list names them"));
    names.iter().map(by_name).collect()
}

fn list(cases: &[Case]) {
    for case in cases {
        println!("{:<30}{:<22}{} runtimes: {}", case.name, case.covers.join(" "), case.runtimes, case.what);
    }
}

/// One run, while others follow.
fn line(report: &Report) -> String {
    let verdict = if report.is_good() { "good" } else { "BAD" };
    let recovered = report.recovered_in_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s"));
    let known = ["COMMITTED", "REJECTED"].iter().map(|outcome| report.count(outcome)).sum::<u64>();
    format!(
        "{:<30}{verdict:<6}{:>6.1} s, works again after {recovered:>7}; {known:>6} requests ended, {:>5} transactions of histories",
        report.case,
        report.seconds,
        report.count("transactions-committed")
    )
}

impl Whole {
    fn print(&self) {
        for report in self.runs.iter().filter(|report| !report.is_good()) {
            println!("{} with seed {}:", report.case, report.seed);
            report.violations.iter().for_each(|violation| println!("  {violation}"));
            println!("  tandem-verify faults --case {} --seed {}", report.case, report.seed);
            if let Some(kept) = &report.kept {
                println!("  logs are in {}", kept.display());
            }
        }
        println!("{} runs in {:.1} minutes, {} bad", self.runs.len(), self.minutes, self.bad);
    }
}
