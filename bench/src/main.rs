//! What one request costs, against the bare store transaction that does the same reads and writes, in the same run.
//!
//! One keyed counter: HTTP in, user code over gRPC in a process of its own, commit, answer. The floor reads and writes
//! the counter and a request record of the same size in one transaction of the embedded store per request. Rounds are
//! interleaved; every counter is checked against the acknowledged requests after each run. CPU is that of all
//! processes, the load generator included; machines differ and are shared, so look at the ratios.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use serde::Serialize;

mod floor;
mod path;
mod usage;
mod worker;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures a keyed counter through the whole path and on the bare store.
#[derive(Debug, Parser)]
#[command(name = "tandem-bench")]
struct Arguments {
    /// Seconds a measurement takes.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Rounds of each measurement; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Clients at the same time, one measurement each.
    #[arg(long, value_delimiter = ',', default_value = "1,64,256")]
    clients: Vec<usize>,
    /// Different counters. 1 is the hot key.
    #[arg(long, value_delimiter = ',', default_value = "10000,1")]
    keys: Vec<usize>,
    /// Prints JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Serves the counter function; used by the benchmark itself.
    #[arg(long, hide = true)]
    worker: bool,
}

/// What one measurement gave.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    system: &'static str,
    keys: usize,
    clients: usize,
    requests: usize,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us_per_request: f64,
    written_bytes_per_request: f64,
}

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) keys: usize,
    pub(crate) clients: usize,
    pub(crate) time: Duration,
}

impl Figures {
    /// From the latencies of all requests of a run.
    #[expect(clippy::cast_precision_loss, reason = "counts of one run are far below 2^52")]
    pub(crate) fn new(
        system: &'static str,
        load: Load,
        mut latencies: Vec<Duration>,
        used: usage::Usage,
        took: Duration,
    ) -> Self {
        latencies.sort_unstable();
        let requests = latencies.len();
        let count = requests.max(1) as f64;
        let at =
            |percent: usize| latencies.get(requests * percent / 100).map_or(0.0, |latency| latency.as_secs_f64() * 1e3);
        Self {
            system,
            keys: load.keys,
            clients: load.clients,
            requests,
            per_second: requests as f64 / took.as_secs_f64(),
            p50_ms: at(50),
            p99_ms: at(99),
            cpu_us_per_request: used.cpu.as_secs_f64() * 1e6 / count,
            written_bytes_per_request: used.written_bytes as f64 / count,
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.worker {
        worker::serve().await?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut all = Vec::new();
    for keys in &arguments.keys {
        for clients in &arguments.clients {
            let load = Load { keys: *keys, clients: *clients, time: Duration::from_secs(arguments.seconds) };
            let (mut floors, mut paths) = (Vec::new(), Vec::new());
            for round in 1..=arguments.rounds {
                eprintln!("{keys} keys, {clients} clients, round {round} of {}", arguments.rounds);
                floors.push(floor::run(load).await?);
                paths.push(path::run(load).await?);
            }
            all.push((median(floors), median(paths)));
        }
    }
    if arguments.json {
        let pairs: Vec<_> = all.iter().flat_map(|(floor, path)| [floor, path]).collect();
        println!("{}", serde_json::to_string_pretty(&pairs)?);
    } else {
        println!("{}", table(&all));
    }
    Ok(ExitCode::SUCCESS)
}

fn median(mut figures: Vec<Figures>) -> Figures {
    figures.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    figures.swap_remove(figures.len() / 2)
}

fn table(all: &[(Figures, Figures)]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "keys",
        "clients",
        "system",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "CPU µs/request",
        "bytes written/request",
        "rate ÷ floor",
    ]);
    for (floor, path) in all {
        for figures in [floor, path] {
            table.add_row([
                figures.keys.to_string(),
                figures.clients.to_string(),
                figures.system.to_owned(),
                format!("{:.0}", figures.per_second),
                format!("{:.2}", figures.p50_ms),
                format!("{:.2}", figures.p99_ms),
                format!("{:.0}", figures.cpu_us_per_request),
                format!("{:.0}", figures.written_bytes_per_request),
                format!("{:.2}", figures.per_second / floor.per_second),
            ]);
        }
    }
    table
}

/// Runs `clients` loops of `request` for the given time, and gives every latency.
pub(crate) async fn closed_loop<F, G>(load: Load, request: F) -> anyhow::Result<Vec<Duration>>
where
    F: Fn(usize, usize) -> G + Clone + Send + 'static,
    G: Future<Output = anyhow::Result<()>> + Send,
{
    let until = Instant::now() + load.time;
    let mut tasks = Vec::new();
    for client in 0..load.clients {
        let request = request.clone();
        tasks.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            while Instant::now() < until {
                let started = Instant::now();
                request(client, latencies.len()).await?;
                latencies.push(started.elapsed());
            }
            anyhow::Ok(latencies)
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(all)
}

/// Spreads requests over keys, the same way in every run.
pub(crate) fn key_of(client: usize, number: usize, keys: usize) -> usize {
    (client.wrapping_mul(7_919).wrapping_add(number.wrapping_mul(104_729))) % keys
}
