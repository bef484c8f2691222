//! The load generator: clients that ask in a closed loop, or at times that were fixed before.
//!
//! It runs in a thread of its own (in two if the system is in this process), so that what it costs stays small and can
//! be told from what it measures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use rand::Rng;
use tokio::sync::mpsc;

use crate::random;
use crate::system::{Client, Connector};
use crate::tally::{Ended, Tally};
use crate::workload::{Generator, Workload};

/// Requests are made, not counted.
const WARM: u8 = 0;
/// Requests that end now are counted.
const MEASURE: u8 = 1;
/// Requests that run are waited for, and no more are made.
const STOP: u8 = 2;
/// Significant digits of latencies.
const DIGITS: u8 = 3;
/// Longest wait for all clients to be connected.
const CONNECT_TIME_MAX: Duration = Duration::from_mins(1);
/// Threads if the system is in this process.
const THREADS: usize = 2;

/// How much is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Connections.
    pub(crate) clients: usize,
    /// Requests a second at times that were fixed before. `None`: each client asks again when it has its answer.
    pub(crate) rate: Option<f64>,
    /// Before anything is counted.
    pub(crate) warm_up: Duration,
    /// For how long requests are counted.
    pub(crate) time: Duration,
    /// Of the choices.
    pub(crate) seed: u64,
}

/// What a load gave.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// In nanoseconds, of the requests that were counted. From when they were due, if that was fixed before.
    pub(crate) latencies: Histogram<u64>,
    /// Requests that were given up while others were counted, and made again.
    pub(crate) gave_up: u64,
    /// All requests, counted or not.
    pub(crate) tally: Tally,
}

impl Loaded {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { latencies: Histogram::new(DIGITS)?, gave_up: 0, tally: Tally::default() })
    }

    fn merge(&mut self, other: Self) -> anyhow::Result<()> {
        self.latencies.add(other.latencies)?;
        self.gave_up += other.gave_up;
        self.tally.merge(other.tally);
        Ok(())
    }
}

/// A load that runs.
pub(crate) struct Running {
    phase: Arc<AtomicU8>,
    thread: JoinHandle<anyhow::Result<Loaded>>,
}

/// Connects all clients and has them begin.
pub(crate) fn start(connector: Connector, workload: Workload, load: Load) -> anyhow::Result<Running> {
    let phase = Arc::new(AtomicU8::new(WARM));
    let (connected, all_connected) = blocking::channel();
    let own = Arc::clone(&phase);
    let thread = std::thread::Builder::new().name("load".to_owned()).spawn(move || {
        let runtime = if connector.is_in_process() {
            tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?
        } else {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?
        };
        runtime.block_on(run(&connector, workload, load, own, connected))
    })?;
    let running = Running { phase, thread };
    match all_connected.recv_timeout(CONNECT_TIME_MAX) {
        Ok(()) => Ok(running),
        Err(_) => Err(running.end().err().unwrap_or_else(|| anyhow::anyhow!("the clients did not connect in time"))),
    }
}

impl Running {
    /// From now on requests that end are counted.
    pub(crate) fn count(&self) {
        self.phase.store(MEASURE, Ordering::Relaxed);
    }

    /// From now on they are not; what runs is waited for by [`Running::end`].
    pub(crate) fn stop(&self) {
        self.phase.store(STOP, Ordering::Relaxed);
    }

    /// Waits until every request has its answer.
    pub(crate) fn end(self) -> anyhow::Result<Loaded> {
        self.stop();
        self.thread.join().map_err(|_| anyhow::anyhow!("the load generator panicked"))?
    }
}

async fn run(
    connector: &Connector,
    workload: Workload,
    load: Load,
    phase: Arc<AtomicU8>,
    connected: blocking::Sender<()>,
) -> anyhow::Result<Loaded> {
    let mut clients = Vec::with_capacity(load.clients);
    for (client, generator) in workload.generators(load.clients, load.seed).into_iter().enumerate() {
        clients.push((connector.connect(client).await?, generator));
    }
    // Whoever started us gives up only after this.
    let _ = connected.send(());
    let (mut senders, mut tasks) = (Vec::new(), Vec::new());
    for (client, generator) in clients {
        let (sender, due) = mpsc::unbounded_channel();
        senders.push(sender);
        let due = load.rate.is_some().then_some(due);
        tasks.push(tokio::spawn(ask(client, generator, Arc::clone(&phase), due)));
    }
    let timetable = load.rate.map(|rate| {
        let phase = Arc::clone(&phase);
        std::thread::spawn(move || timetable(rate, load.seed, &phase, &senders))
    });
    let mut all = Loaded::new()?;
    let mut failed = None;
    for task in tasks {
        match task.await? {
            Ok(loaded) => all.merge(loaded)?,
            Err(error) => {
                // Without this client the others are not what was asked for.
                phase.store(STOP, Ordering::Relaxed);
                failed.get_or_insert(error);
            }
        }
    }
    if let Some(timetable) = timetable {
        timetable.join().map_err(|_| anyhow::anyhow!("the timetable panicked"))?;
    }
    failed.map_or(Ok(all), Err)
}

/// One client: asks, waits, asks again.
async fn ask(
    mut client: Client,
    mut generator: Generator,
    phase: Arc<AtomicU8>,
    mut due: Option<mpsc::UnboundedReceiver<Instant>>,
) -> anyhow::Result<Loaded> {
    let mut loaded = Loaded::new()?;
    while phase.load(Ordering::Relaxed) != STOP {
        let (id, operation) = generator.next();
        let began = match &mut due {
            None => Instant::now(),
            Some(due) => match due.recv().await {
                Some(time) => time,
                None => break,
            },
        };
        let mut ended = client.request(&id, &operation).await.with_context(|| format!("request {id}"))?;
        while ended == Ended::GaveUp {
            // It has an outcome, so it is asked for again by another name. Its client has waited all the time.
            loaded.tally.add(&operation, ended);
            loaded.gave_up += u64::from(phase.load(Ordering::Relaxed) == MEASURE);
            let id = generator.next_id();
            ended = client.request(&id, &operation).await.with_context(|| format!("request {id}"))?;
        }
        if phase.load(Ordering::Relaxed) == MEASURE {
            loaded.latencies.record(u64::try_from(began.elapsed().as_nanos())?)?;
        }
        loaded.tally.add(&operation, ended);
    }
    Ok(loaded)
}

/// Tells clients in turn that a request is due, at random times that have nothing to do with answers (Poisson).
fn timetable(rate: f64, seed: u64, phase: &AtomicU8, clients: &[mpsc::UnboundedSender<Instant>]) {
    let mut dice = random::dice(seed, usize::MAX);
    let mut due = Instant::now();
    for client in clients.iter().cycle() {
        if phase.load(Ordering::Relaxed) == STOP {
            return;
        }
        // The interval of a Poisson process is distributed exponentially.
        let chance: f64 = dice.random();
        due += Duration::from_secs_f64(-(1.0 - chance).ln() / rate);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // A client that failed is reported by its task.
        let _ = client.send(due);
    }
}
