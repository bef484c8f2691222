//! `tandem-verify histories`: list-append histories through real runtimes, one round after the other.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use tandem_store::Store;
use tandem_store::embedded::{self, EmbeddedStore};
use tandem_store::memory::MemoryStore;
use tandem_store_tikv::TikvStore;
use tandem_store_tikv::options::Options;
use tandem_verify::history::workload::Shape;
use tandem_verify::history::workload::clients::{Load, Recorder, read_all, run as run_clients};
use tandem_verify::history::workload::site::Site;
use tandem_verify::history::{Level, Status, Transaction, check};

/// How often it is told how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
const KEYS: [usize; 4] = [2, 4, 12, 150];
const CLIENTS: [u32; 4] = [2, 6, 16, 32];
/// Requests of all clients together. Lists get long, so many short rounds find more than few long ones.
const REQUESTS: [usize; 3] = [100, 300, 600];

/// What to check.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// As many rounds as there is time for.
    #[arg(long, default_value_t = 1)]
    minutes: u64,
    /// Only the round of this seed.
    #[arg(long, conflicts_with = "minutes")]
    seed: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    from: u64,
    /// A TiKV cluster to do it on, with two runtimes: tikv://HOST:PORT[,HOST:PORT][/PREFIX]. Each round leaves its rows below
    /// a prefix of its own. In memory and on this machine's disk without.
    #[arg(long, value_name = "URL")]
    store: Option<Options>,
    /// Where to write a report as JSON.
    #[arg(short, long)]
    output: Option<PathBuf>,
}

/// All rounds together.
#[derive(Debug, Default, Serialize)]
struct Total {
    rounds: u64,
    committed: usize,
    aborted: usize,
    unknown: usize,
    relations: usize,
    /// Rounds of which the checker found something.
    failures: Vec<Failure>,
}

#[derive(Debug, Serialize)]
struct Failure {
    seed: u64,
    found: String,
    history: Vec<Transaction>,
}

/// Runs it. `false` if something was found.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let tokio = tokio::runtime::Runtime::new().context("failed to start")?;
    let mut total = Total::default();
    let (began, mut told) = (Instant::now(), Instant::now());
    let (first, last) = arguments.seed.map_or((arguments.from, u64::MAX), |seed| (seed, seed));
    for seed in first..=last {
        if arguments.seed.is_none() && began.elapsed() >= Duration::from_mins(arguments.minutes) {
            break;
        }
        tokio
            .block_on(round(seed, arguments.store.as_ref(), &mut total))
            .with_context(|| format!("round {seed} failed"))?;
        if told.elapsed() >= PROGRESS_INTERVAL {
            told = Instant::now();
            println!("{} rounds, {} committed, {} bad", total.rounds, total.committed, total.failures.len());
        }
    }
    println!(
        "{} rounds of histories: {} committed, {} aborted, {} unknown, {} relations, {} rounds with anomalies",
        total.rounds,
        total.committed,
        total.aborted,
        total.unknown,
        total.relations,
        total.failures.len()
    );
    if let Some(path) = &arguments.output {
        let json = serde_json::to_vec_pretty(&total).context("failed to write the report as JSON")?;
        std::fs::write(path, json).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(total.failures.is_empty())
}

/// One round: which store, how many lists and clients, and what they ask, follows from the seed. In which order it
/// happens does not, so the history is kept if something is found.
async fn round(seed: u64, cluster: Option<&Options>, total: &mut Total) -> anyhow::Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut choose = |from: &[usize]| from.choose(&mut random).copied().unwrap_or(1);
    let (keys, requests) = (choose(&KEYS), choose(&REQUESTS));
    let clients = CLIENTS[random.random_range(0..CLIENTS.len())];
    let requests = requests / clients as usize;
    println!("round {seed}: {keys} lists, {clients} clients with {requests} requests each");
    let load = Load { seed, clients: 0..clients, requests, shape: Shape::of_keys(keys) };
    let history = match (cluster, seed % 3) {
        (Some(cluster), _) => one(Site::start_each(stores_on(cluster, seed).await?).await?, &load).await?,
        (None, 0) => one(Site::start(MemoryStore::new()).await?, &load).await?,
        (None, 1) => {
            let directory = tempfile::tempdir().context("failed to make a data directory")?;
            let options = embedded::Options { reserve_bytes: 0, ..embedded::Options::default() };
            one(Site::start(EmbeddedStore::open(directory.path(), options)?).await?, &load).await?
        }
        (None, _) => {
            let store = MemoryStore::new();
            one(Site::start_each(vec![store.clone(), store]).await?, &load).await?
        }
    };
    let report = check(&history, Level::Declared)?;
    let of = |status| history.iter().filter(|transaction| transaction.status == status).count();
    total.rounds += 1;
    total.committed += of(Status::Committed);
    total.aborted += of(Status::Aborted);
    total.unknown += of(Status::Unknown);
    total.relations += report.relations;
    if of(Status::Committed) == 0 {
        bail!("nothing was committed");
    }
    if !report.is_clean() {
        println!("{report}");
        total.failures.push(Failure { seed, found: report.to_string(), history });
    }
    Ok(())
}

/// Two stores on one new part of a cluster, as two processes have them.
async fn stores_on(cluster: &Options, seed: u64) -> anyhow::Result<Vec<TikvStore>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let prefix = format!("{}/histories-{seed}-{now:x}", cluster.prefix);
    let options = Options { prefix, ..cluster.clone() };
    Ok(vec![TikvStore::open(&options).await?, TikvStore::open(&options).await?])
}

async fn one<S: Store>(site: Site<S>, load: &Load) -> anyhow::Result<Vec<Transaction>> {
    let recorder = Recorder::default();
    run_clients(&site.runtimes, &recorder, load).await?;
    let Some(first) = site.runtimes.first() else { bail!("there is no runtime") };
    read_all(first, &recorder, &load.shape).await?;
    site.stop().await;
    Ok(recorder.history()?)
}
