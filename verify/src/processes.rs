//! `tandem-verify processes`: real processes, with kill -9. And what their workers run.

use std::path::PathBuf;

use anyhow::Context;
use tandem_verify::process::worker::{self, Protocol};
use tandem_verify::process::{self, Kind, Plan, Programs, Report};

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What is sent, and what goes wrong, follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long things go wrong.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// List-append histories instead of random programs.
    #[arg(long)]
    histories: bool,
    /// The `tandem` program; from beside this one by default.
    #[arg(long)]
    tandem: Option<PathBuf>,
    /// `tikv://HOST:PORT[,HOST:PORT][/PREFIX]`: state is kept there, below a prefix of its own.
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// Says less.
    #[arg(long)]
    quiet: bool,
}

/// A worker, started by a run.
#[derive(Debug, clap::Args)]
pub(crate) struct WorkerArguments {
    /// How it is talked to: `grpc` or `http`.
    #[arg(value_parser = parse_protocol)]
    protocol: Protocol,
}

fn parse_protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "grpc" => Ok(Protocol::Grpc),
        "http" => Ok(Protocol::Http),
        _ => Err(format!("{text:?} is neither grpc nor http")),
    }
}

/// The programs that are run: ourselves, and `tandem`.
pub(crate) fn programs(tandem: Option<&PathBuf>) -> anyhow::Result<Programs> {
    let verify = std::env::current_exe().context("failed to find out where this program is")?;
    match tandem {
        Some(tandem) => Ok(Programs { tandem: std::path::absolute(tandem)?, verify, store: None }),
        None => Programs::beside(&verify),
    }
}

/// Runs it. `false` if something was found.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let programs = Programs { store: arguments.store.clone(), ..programs(arguments.tandem.as_ref())? };
    let plan = Plan { tells: !arguments.quiet, ..Plan::of(arguments.seed, arguments.seconds) };
    let kind = if arguments.histories { Kind::Histories } else { Kind::Processes };
    println!("seed {}", plan.seed);
    let report = threads()?.block_on(process::run(&programs, kind, &plan))?;
    println!("{:#?}", report.counts);
    tell(&report);
    Ok(report.is_good())
}

/// Says what was found, and how to look for it again.
pub(crate) fn tell(report: &Report) {
    if report.is_good() {
        return;
    }
    println!("{} with seed {}: {} violations", report.kind.command(), report.seed, report.violations_found);
    report.violations.iter().for_each(|violation| println!("  {violation}"));
    println!("  {}", report.replay());
    if let Some(kept) = &report.kept {
        println!("  data and logs are in {}", kept.display());
    }
}

/// Threads for the tasks of a run.
pub(crate) fn threads() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("failed to start threads")
}

/// Runs a worker until it is told to stop.
pub(crate) fn work(arguments: &WorkerArguments) -> anyhow::Result<bool> {
    threads()?.block_on(worker::serve(arguments.protocol))?;
    Ok(true)
}
