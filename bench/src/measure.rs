//! One measurement: start a system, load it, count what it used, check what it stored.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::load::{self, Load};
use crate::serve::Counted;
use crate::system::bare::Bare;
use crate::system::bare_tikv::BareOnTikv;
use crate::system::floor::{Floor, Into};
use crate::system::postgres::{Cluster, Postgres};
use crate::system::stores::Stores;
use crate::system::tandem::Tandem;
use crate::system::tikv::TandemOnTikv;
use crate::system::{Running, System};
use crate::tally::Tally;
use crate::usage::{self, Device, Process, Usage};
use crate::workload::Workload;

/// The process that generates load; for bare transactions it is the whole system.
pub(crate) const LOAD: &str = "load";
/// The figure that says how long a restart took, in seconds.
pub(crate) const RESTART: &str = "restart_s";
/// Figures by name, of one round.
pub(crate) type Figures = BTreeMap<String, f64>;

const MILLISECOND: f64 = 1e6;
const MICROSECONDS: f64 = 1e6;
const MIB: f64 = 1_048_576.0;

/// Runtimes of [`System::TikvThree`].
const RUNTIMES: usize = 3;

/// Starts `system` with the data of `workload` below `directory`.
pub(crate) fn start(
    system: System,
    workload: Workload,
    directory: &Path,
    cluster: Option<&Arc<Cluster>>,
    stores: Option<&Arc<Stores>>,
) -> anyhow::Result<Box<dyn Running>> {
    let stores = || stores.context("there are no stores");
    Ok(match system {
        System::Tandem => Box::new(Tandem::start(directory, workload)?),
        System::BareAlone => Box::new(Bare::start(directory, workload, true)?),
        System::BareGrouped => Box::new(Bare::start(directory, workload, false)?),
        System::Floor => Box::new(Floor::start(Into::Embedded(directory), workload)?),
        System::EmptyCall => Box::new(Floor::start(Into::Nothing, workload)?),
        System::Postgres => {
            let cluster = cluster.context("PostgreSQL does not run")?;
            Box::new(Postgres::start(Arc::clone(cluster), workload)?)
        }
        System::Tikv => Box::new(TandemOnTikv::start(stores()?, workload, 1)?),
        System::TikvThree => Box::new(TandemOnTikv::start(stores()?, workload, RUNTIMES)?),
        System::BareTikv => Box::new(BareOnTikv::start(stores()?, workload)?),
        System::TikvFloor => Box::new(Floor::start(Into::Stores(stores()?), workload)?),
    })
}

/// Everything that was counted at one moment.
struct Moment {
    at: Instant,
    counted: Counted,
    /// By role: of all processes that have it.
    used: BTreeMap<&'static str, Usage>,
    device: Option<Device>,
}

impl Moment {
    fn now(running: &mut dyn Running, directory: &Path) -> anyhow::Result<Self> {
        let processes = [Process::alone(LOAD, std::process::id())].into_iter().chain(running.processes());
        let mut used = BTreeMap::<_, Usage>::new();
        for process in processes {
            used.entry(process.role).or_default().add(Usage::of(&process)?);
        }
        let (at, device) = (Instant::now(), Device::of(directory));
        Ok(Self { at, counted: running.counted()?, used, device })
    }
}

/// Loads a system that runs, ends it, and checks it. No figures without a clean check.
pub(crate) fn measure(
    mut running: Box<dyn Running>,
    workload: Workload,
    load: Load,
    directory: &Path,
    restarts: bool,
) -> anyhow::Result<Figures> {
    let at_rest = memory(&*running)?;
    let clients_are_part = running.connector().is_in_process();
    let loading = load::start(running.connector(), workload, load)?;
    std::thread::sleep(load.warm_up);
    let before = Moment::now(&mut *running, directory)?;
    loading.count();
    let started = Instant::now();
    std::thread::sleep(load.time);
    let after = Moment::now(&mut *running, directory)?;
    loading.stop();
    let seconds = started.elapsed().as_secs_f64();
    let loaded_memory = memory(&*running)?;
    let mut loaded = loading.end()?;
    let restart = if restarts { restart(&mut *running, workload, load, &mut loaded.tally)? } else { None };
    running.end(&loaded.tally).context("an invariant does not hold, so there is no result")?;
    anyhow::ensure!(!loaded.latencies.is_empty(), "no request ended in {seconds:.1} s");
    let stretch = after.at.duration_since(before.at).as_secs_f64() / seconds;
    let mut figures = figures(&loaded.latencies, (seconds, stretch), clients_are_part, &before, &after);
    for (name, memory) in [("memory_at_rest_mib", at_rest), ("memory_mib", loaded_memory)] {
        figures.extend(memory.into_iter().map(|(role, bytes)| (format!("{name}.{role}"), mib(bytes))));
    }
    if loaded.gave_up > 0 {
        figures.insert("gave_up".to_owned(), per_request(loaded.gave_up, &loaded.latencies));
    }
    if let Some(restart) = restart {
        figures.insert(RESTART.to_owned(), restart.as_secs_f64());
    }
    if let Some(rate) = load.rate {
        figures.insert("rate".to_owned(), rate);
    }
    Ok(figures)
}

/// What each process holds, by role.
fn memory(running: &dyn Running) -> anyhow::Result<BTreeMap<&'static str, u64>> {
    let mut memory = BTreeMap::new();
    for process in running.processes() {
        *memory.entry(process.role).or_default() += usage::memory_bytes(&process)?;
    }
    Ok(memory)
}

/// Kills the system and starts it again, and waits for the answer to one more request.
fn restart(
    running: &mut dyn Running,
    workload: Workload,
    load: Load,
    tally: &mut Tally,
) -> anyhow::Result<Option<Duration>> {
    // A client that was not there before, so that its request has an id of its own.
    let mut generators = workload.generators(load.clients + 1, load.seed);
    let (id, operation) = generators.pop().context("at least one client")?.next();
    let Some((took, ended)) = running.restart(&id, &operation)? else { return Ok(None) };
    tally.add(&operation, ended);
    Ok(Some(took))
}

#[expect(clippy::cast_precision_loss, reason = "counts of one run are far below 2^52")]
fn per_request(count: u64, requests: &hdrhistogram::Histogram<u64>) -> f64 {
    count as f64 / requests.len() as f64
}

#[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52 bytes")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}

#[expect(clippy::cast_precision_loss, reason = "counts of one run are far below 2^52")]
fn figures(
    latencies: &hdrhistogram::Histogram<u64>,
    (seconds, stretch): (f64, f64),
    clients_are_part: bool,
    before: &Moment,
    after: &Moment,
) -> Figures {
    let requests = latencies.len() as f64;
    // What processes count is not counted for exactly as long as requests are.
    let each = |amount: f64| amount / stretch / requests;
    let mut figures = Figures::new();
    let mut set = |name: &str, value: f64| {
        figures.insert(name.to_owned(), value);
    };
    set("requests", requests);
    set("per_second", requests / seconds);
    for (name, quantile) in [("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99)] {
        set(name, latencies.value_at_quantile(quantile) as f64 / MILLISECOND);
    }
    let (mut system, mut written) = (0.0, 0.0);
    for (role, after) in &after.used {
        let used = after.since(before.used.get(role).copied().unwrap_or_default());
        let cpu = each(used.cpu.as_secs_f64() * MICROSECONDS);
        set(&format!("cpu_us.{role}"), cpu);
        if clients_are_part || *role != LOAD {
            system += cpu;
            written += each(used.written_bytes as f64);
        }
    }
    set("cpu_us", system);
    set("dirtied_bytes", written);
    if let (Some(before), Some(after)) = (before.device, after.device) {
        set("written_bytes", each(after.written_bytes.saturating_sub(before.written_bytes) as f64));
        set("flushes", each(after.flushes.saturating_sub(before.flushes) as f64));
    }
    for (name, before, after) in [
        ("syncs", before.counted.syncs, after.counted.syncs),
        ("attempts", before.counted.attempts, after.counted.attempts),
        ("conflicts", before.counted.conflicts, after.counted.conflicts),
        ("commits", before.counted.commits, after.counted.commits),
        ("stored_bytes", before.counted.stored_bytes, after.counted.stored_bytes),
        ("store_requests", before.counted.store_requests, after.counted.store_requests),
    ] {
        if let (Some(before), Some(after)) = (before, after) {
            set(name, each(after.saturating_sub(before) as f64));
        }
    }
    figures
}
