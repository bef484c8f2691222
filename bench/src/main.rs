//! What a request costs, and how fast requests can be, beside floors that do the same reads and writes.
//!
//! | module | concept |
//! | --- | --- |
//! | `plan`, `options`, `suite` | which measurements there are, and their order |
//! | `workload`, `random` | what is asked for: instances, requests, choices |
//! | `system` | who is asked: Tandem on each store, bare transactions, an empty call, PostgreSQL |
//! | `serve`, `child` | the processes of Tandem and of the empty call: this program as well |
//! | `load`, `http` | the load generator |
//! | `measure`, `usage` | one measurement: latencies, CPU, bytes, syncs |
//! | `tally`, `rows` | what was acknowledged against what is stored |
//! | `summary`, `targets` | medians of rounds, and the figures to reach |
//! | `page`, `pictures`, `svg`, `table` | how they are shown |
//!
//! **Invariant:** there are no figures of a run whose stored state is not exactly what was acknowledged.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

mod child;
mod http;
mod load;
mod measure;
mod options;
mod padded;
mod page;
mod pictures;
mod plan;
mod random;
mod rows;
mod serve;
mod suite;
mod summary;
mod svg;
mod system;
mod table;
mod tally;
mod targets;
mod usage;
mod workload;

use options::Options;
use plan::Benchmark;
use summary::Results;
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
    /// Which benchmarks; if none is named, all of the embedded store.
    #[arg(value_enum)]
    benchmarks: Vec<Benchmark>,
    #[command(flatten)]
    options: Options,
    /// Writes the results as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Measures nothing, but takes the results from this file. May be given several times.
    #[arg(long)]
    from: Vec<PathBuf>,
    /// Writes the page of the documentation into this directory.
    #[arg(long)]
    page: Option<PathBuf>,
}

/// What this program does when it is started by itself.
#[derive(Debug, Subcommand)]
enum Serve {
    /// A runtime.
    #[command(name = "serve-runtime", hide = true)]
    Runtime(serve::runtime::Arguments),
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
        store: Option<String>,
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
            Self::Runtime(arguments) => serve::runtime::serve(&arguments).await,
            Self::Worker { functions } => serve::worker::serve(functions).await,
            Self::Front { data, store, worker, keys } => {
                let workload = Workload::Counter { keys, theta: 0.0, functions: 0 };
                serve::front::serve(data.as_deref(), store.as_deref(), &worker, workload).await
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
    let mut runs = Vec::new();
    for file in &arguments.from {
        let run = std::fs::read(file).with_context(|| file.display().to_string())?;
        runs.push(serde_json::from_slice::<Results>(&run).with_context(|| file.display().to_string())?);
    }
    if runs.is_empty() {
        let run = suite::run(&arguments.benchmarks, &arguments.options.adjusted())?;
        if let Some(file) = &arguments.json {
            std::fs::write(file, serde_json::to_string_pretty(&run)? + "\n")?;
        }
        runs.push(run);
    }
    let results = Results::together(&runs);
    match &arguments.page {
        Some(docs) => page::write(&runs, docs)?,
        None => println!("{}", table::of(&results, None)),
    }
    let mut figures = targets::figures(&results);
    figures.retain(|figure| figure.value.is_some());
    println!("\n{}", table::figures(&figures));
    Ok(ExitCode::SUCCESS)
}
