//! What a request costs, and how fast requests can be, beside floors that do the same reads and writes.
//!
//! | module | concept |
//! | --- | --- |
//! | `plan`, `options`, `suite` | which measurements there are, and their order |
//! | `workload`, `random` | what is asked for: instances, requests, choices |
//! | `system` | who is asked: Tandem, bare transactions, an empty call, PostgreSQL |
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
    /// Writes the results as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Measures nothing, but takes the results from this file.
    #[arg(long)]
    from: Option<PathBuf>,
    /// Writes the page of the documentation into this directory.
    #[arg(long)]
    page: Option<PathBuf>,
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
    let results = match &arguments.from {
        Some(file) => serde_json::from_slice(&std::fs::read(file)?)?,
        None => suite::run(&arguments.benchmarks, &arguments.options.adjusted())?,
    };
    if let Some(file) = &arguments.json {
        std::fs::write(file, serde_json::to_string_pretty(&results)? + "\n")?;
    }
    match &arguments.page {
        Some(docs) => page::write(&results, docs)?,
        None => println!("{}", table::of(&results, None)),
    }
    println!("\n{}", table::figures(&targets::figures(&results)));
    Ok(ExitCode::SUCCESS)
}
