//! What a request costs, and how fast requests can be, beside floors that do the same reads and writes.
//!
//! | module | concept |
//! | --- | --- |
//! | `plan` | which measurements there are |
//! | `workload`, `random` | what is asked for: instances, requests, choices |
//! | `system` | who is asked: Tandem, bare transactions, an empty call, PostgreSQL |
//! | `serve`, `child` | the processes of Tandem and of the empty call: this program as well |
//! | `load`, `http` | the load generator |
//! | `measure`, `usage` | one measurement: latencies, CPU, bytes, syncs |
//! | `tally`, `rows` | what was acknowledged against what is stored |
//! | `summary` | medians of rounds |
//!
//! **Invariant:** there are no figures of a run whose stored state is not exactly what was acknowledged.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};

mod child;
mod http;
mod load;
mod measure;
mod padded;
mod plan;
mod random;
mod rows;
mod serve;
mod summary;
mod system;
mod table;
mod tally;
mod usage;
mod workload;

use load::Load;
use plan::{Benchmark, Case};
use summary::Results;
use system::System;
use system::postgres::Cluster;
use workload::Workload;

/// As in the command that users run.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Tandem beside bare transactions of its store and PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "tandem-bench")]
struct Arguments {
    #[command(subcommand)]
    serve: Option<Serve>,
    /// Which benchmarks; all if none is named.
    #[arg(value_enum)]
    benchmarks: Vec<Benchmark>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, clap::Args)]
struct Options {
    /// Seconds a measurement takes.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Seconds of load before it.
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// Rounds of each measurement; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Clients at the same time, one measurement each, instead of those of the benchmark.
    #[arg(long, value_delimiter = ',')]
    clients: Vec<usize>,
    /// Systems, instead of all.
    #[arg(long, value_enum, value_delimiter = ',')]
    systems: Vec<System>,
    /// Counters of B1, instead of 100,000.
    #[arg(long)]
    keys: Option<u32>,
    /// Only variants whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Requests a second at fixed times, instead of a closed loop.
    #[arg(long)]
    rate: Option<f64>,
    /// Writes the results as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where data is put while it is measured: a directory on a real disk.
    #[arg(long, default_value = "target")]
    directory: PathBuf,
    /// Of all random choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What this program does when it is started by itself.
#[derive(Debug, Subcommand)]
enum Serve {
    /// A runtime.
    #[command(name = "serve-runtime", hide = true)]
    Runtime {
        #[arg(long)]
        data: PathBuf,
        #[arg(long)]
        worker: String,
        #[arg(long)]
        functions: u32,
    },
    /// A worker.
    #[command(name = "serve-worker", hide = true)]
    Worker {
        #[arg(long)]
        functions: u32,
    },
    /// The front of the empty call.
    #[command(name = "serve-front", hide = true)]
    Front {
        #[arg(long)]
        data: Option<PathBuf>,
        #[arg(long)]
        worker: String,
        #[arg(long)]
        keys: u32,
    },
    /// The worker of the empty call.
    #[command(name = "serve-nothing", hide = true)]
    Nothing,
}

impl Serve {
    async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Runtime { data, worker, functions } => serve::runtime::serve(&data, &worker, functions).await,
            Self::Worker { functions } => serve::worker::serve(functions).await,
            Self::Front { data, worker, keys } => {
                let workload = Workload::Counter { keys, theta: 0.0, functions: 0 };
                serve::front::serve(data.as_deref(), &worker, workload).await
            }
            Self::Nothing => serve::front::serve_nothing().await,
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(serve) = arguments.serve {
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve.run())?;
        return Ok(ExitCode::SUCCESS);
    }
    let results = compare(&arguments.benchmarks, &arguments.options)?;
    println!("{}", table::plain(&results));
    if let Some(file) = &arguments.options.json {
        std::fs::write(file, serde_json::to_string_pretty(&results)? + "\n")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn compare(benchmarks: &[Benchmark], options: &Options) -> anyhow::Result<Results> {
    std::fs::create_dir_all(&options.directory)?;
    let all = [Benchmark::B1, Benchmark::B2, Benchmark::B3, Benchmark::B4];
    let benchmarks = if benchmarks.is_empty() { &all[..] } else { benchmarks };
    let mut cases: Vec<Case> =
        benchmarks.iter().flat_map(|benchmark| plan::cases(*benchmark, &options.clients, options.keys)).collect();
    if let Some(only) = &options.only {
        cases.retain(|case| case.workload.to_string().contains(only.as_str()));
    }
    for case in &mut cases {
        case.systems.retain(|system| options.systems.is_empty() || options.systems.contains(system));
    }
    let needs_cluster = cases.iter().any(|case| case.systems.contains(&System::Postgres));
    let cluster = if needs_cluster { Cluster::start(&options.directory)?.map(Arc::new) } else { None };
    match &cluster {
        Some(cluster) => eprintln!("PostgreSQL {}", cluster.version()),
        None if needs_cluster => eprintln!("PostgreSQL is not installed, so its column is left out"),
        None => {}
    }
    let mut results = Results::default();
    let count = cases.len();
    for (number, case) in (1..).zip(cases) {
        eprintln!("{number} of {count}: {} {}, {} clients", case.benchmark, case.workload, case.clients);
        run(&case, options, cluster.as_ref(), &mut results)?;
    }
    Ok(results)
}

/// All rounds of one case, its systems in turn.
fn run(case: &Case, options: &Options, cluster: Option<&Arc<Cluster>>, results: &mut Results) -> anyhow::Result<()> {
    let systems: Vec<System> =
        case.systems.iter().copied().filter(|system| *system != System::Postgres || cluster.is_some()).collect();
    let mut rounds = vec![Vec::new(); systems.len()];
    for round in 1..=options.rounds {
        for (system, rounds) in systems.iter().zip(&mut rounds) {
            let load = Load {
                clients: case.clients,
                rate: options.rate,
                warm_up: Duration::from_secs_f64(options.warm_up),
                time: Duration::from_secs_f64(options.seconds),
                seed: options.seed + round as u64,
            };
            let running = measure::start(*system, case.workload, &options.directory, cluster)?;
            let figures = measure::measure(running, case.workload, load, &options.directory)
                .map_err(|error| error.context(format!("{} in {}", system.label(), case.workload)))?;
            eprintln!("  round {round}: {:26} {:8.0}/s", system.label(), figures["per_second"]);
            rounds.push(figures);
        }
    }
    for (system, rounds) in systems.iter().zip(&rounds) {
        results.add(case.benchmark, &case.workload.to_string(), case.clients, *system, rounds);
    }
    Ok(())
}
