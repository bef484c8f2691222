//! A whole runtime in one deterministic thread, with faults and crashes from a seed.
//!
//! ```text
//! clients ─http::Request─▶ ingress ─▶ runtime ─▶ simulated store        one life: a tokio runtime with paused time
//!                                       ⇅ frames over simulated links
//!                                     SDK with the functions of `program`
//! ```
//!
//! Everything runs in one thread, on virtual time that jumps to the next thing that happens. Chance comes from the
//! seed alone, so the same seed gives the same trace. A crash is the end of a tokio runtime with all of its tasks, at
//! whatever await they are; what survives is the simulated disk, and what clients remember of what they sent.
//!
//! | module | concept |
//! | --- | --- |
//! | [`plan`] | what a world is made of, from a seed |
//! | [`client`] | who sends requests, and repeats, changes and cancels them |
//! | [`network`] | simulated streams between runtimes: slow, cut, parted |
//! | [`workers`] | simulated links to functions: slow, cut, frozen, or full of nonsense |
//! | [`trace`] | what happened, to be compared and shown |

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::StreamExt;
use futures_util::future::select_all;
use futures_util::stream::FuturesUnordered;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use tandem_runtime::clock::Clock;
use tandem_runtime::members;
use tandem_runtime::metrics::Metrics;
use tandem_runtime::peers::PeerOptions;
use tandem_runtime::runtime::{Options, Runtime};
use tandem_store::Store;
use tandem_store::simulated::{CrashPoint, FaultCounts, Faults, SimulatedDisk, SimulatedStore};
use tokio::time::{Instant, sleep, sleep_until};

use crate::model::judge::{History, Sample, Verdict, judge};
use crate::model::observed::Observed;

use client::{Client, Clients};
use network::Network;
use plan::{LifeEnds, Plan};
use trace::Trace;
use workers::Workers;

pub(crate) mod alarms;
pub mod client;
pub mod network;
pub mod plan;
pub mod trace;
pub mod workers;

/// How often it is looked at whether messages have drained.
pub(crate) const DRAIN_POLL: Duration = Duration::from_millis(200);
/// Wait before a process that could not start is started again.
pub(crate) const START_AGAIN: Duration = Duration::from_millis(100);
/// Sets what chance decides in the world apart from what it decides in the plan.
const WORLD: u64 = 1 << 40;
/// Lives of the process in one world. Those that do not begin are lives, too.
const LIVES_MAX: usize = 1_000;
/// How long a process that is told to stop lets flows end.
pub(crate) const STOP_GRACE: Duration = Duration::from_millis(500);

/// What happened in a world.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The seed that it followed from.
    pub seed: u64,
    /// Digest of everything that happened.
    pub trace: u64,
    /// How many things happened.
    pub events: u64,
    /// How long it took, in virtual milliseconds.
    pub virtual_ms: u64,
    /// How often each thing really happened, faults among them.
    pub counts: BTreeMap<String, u64>,
    /// What was found.
    pub verdict: Verdict,
    /// The trace, if it was asked for.
    #[serde(skip)]
    pub lines: Vec<String>,
}

impl Report {
    /// Whether nothing was found that must not be.
    pub fn is_good(&self) -> bool {
        self.verdict.violations_found == 0
    }

    /// The command that does it all again.
    pub fn replay(&self) -> String {
        format!("cargo run --release -p tandem-verify -- simulate --seed {}", self.seed)
    }
}

/// Runs the world of a seed to its end, and judges it.
pub fn run(plan: &Plan) -> Report {
    let trace = Trace::new(plan.keep_lines);
    let alarms = alarms::Alarms::default();
    let mut world = World::new(plan, trace.clone());
    alarms.watch(|| world.run());
    let mut history = world.history();
    let (end, problem) = match Observed::of_versioned(world.disk.versioned_rows()) {
        Ok(end) => (end, None),
        Err(problem) => (Observed::default(), Some(problem)),
    };
    history.end = end;
    let mut verdict = judge(&history);
    for problem in world.problems.drain(..).chain(problem).chain(alarms.take()) {
        verdict.violations_found += 1;
        verdict.violations.push(problem);
    }
    trace.count_all(&store_counts(&world.disk.counts()));
    let (digest, events) = trace.digest(world.disk.trace_digest());
    let (counts, lines) = trace.into_parts();
    Report { seed: plan.seed, trace: digest, events, virtual_ms: world.base_ms, counts, verdict, lines }
}

struct World<'a> {
    plan: &'a Plan,
    trace: Trace,
    disk: SimulatedDisk,
    clients: Clients,
    samples: Vec<Sample>,
    problems: Vec<String>,
    /// Virtual time at which the life began that runs now.
    base_ms: u64,
    lives: usize,
    random: SmallRng,
}

/// Wall time of a life: that of the store.
struct StoreClock(SimulatedStore);

impl Clock for StoreClock {
    fn unix_ms(&self) -> u64 {
        self.0.unix_ms()
    }
}

/// A process that runs.
struct Process {
    runtime: Runtime<SimulatedStore>,
    store: SimulatedStore,
    router: Router,
}

/// How a life ended.
enum Ended {
    /// The process is gone; the next life begins.
    Gone,
    /// Everything is done.
    Done,
    /// What was in flight did not end in time.
    Stuck(String),
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan, trace: Trace) -> Self {
        let mut random = SmallRng::seed_from_u64(plan.seed.wrapping_add(WORLD));
        let clients = Clients::new(plan, &trace, SmallRng::from_rng(&mut random));
        let disk = SimulatedDisk::new(plan.seed);
        Self { plan, trace, disk, clients, samples: Vec::new(), problems: Vec::new(), base_ms: 0, lives: 0, random }
    }

    /// Lives, one after the other, until everything is done.
    fn run(&mut self) {
        while self.lives < LIVES_MAX {
            let life_seed = self.random.random();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return self.problems.push(format!("no tokio runtime: {error}")),
            };
            self.lives += 1;
            let (ended, lasted) = runtime.block_on(async {
                let began = Instant::now();
                self.trace.begin_life(self.base_ms, began);
                let ended = self.life(life_seed).await;
                (ended, began.elapsed())
            });
            self.base_ms += u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
            drop(runtime);
            match ended {
                Ended::Gone => {}
                Ended::Done => return,
                Ended::Stuck(why) => return self.problems.push(why),
            }
        }
        self.problems.push(format!("no process lived long enough, in {LIVES_MAX} lives"));
    }

    async fn life(&mut self, seed: u64) -> Ended {
        let is_calm = self.base_ms >= self.plan.calm_after_ms;
        let mut random = SmallRng::seed_from_u64(seed);
        let ends = self.plan.lives.get(self.lives - 1).copied().filter(|_| !is_calm).unwrap_or(LifeEnds::Never);
        let workers = Workers::new(self.plan, &self.trace, random.random());
        let has_rival = !is_calm && self.lives <= self.plan.rival_lives;
        let network = Network::new(self.plan, &self.trace, self.plan.seed.wrapping_add(seed));
        let mut processes = Vec::new();
        for number in 0..if has_rival { 2 } else { self.plan.pods } {
            let store = self.disk.open(if is_calm { Faults::none() } else { self.plan.faults });
            if let LifeEnds::AtOperation(number, point) = ends {
                store.crash_at(number, point);
            }
            let peers = (self.plan.pods > 1).then(|| peer_options(&network, number));
            match self.start(store, &workers, peers, random.random()).await {
                Ok(process) => {
                    network.add(number, process.runtime.clone());
                    processes.push(process);
                }
                Err(ended) => {
                    network.end();
                    return ended;
                }
            }
        }
        if has_rival {
            self.trace.tick("rivals", "two processes work on the store");
        }
        let ended = self.lived(&processes, &workers, &network, ends, random).await;
        // They know the network, and it knows them.
        network.end();
        ended
    }

    async fn start(
        &self,
        store: SimulatedStore,
        workers: &Workers,
        peers: Option<PeerOptions>,
        seed: u64,
    ) -> Result<Process, Ended> {
        let options = Options {
            clock: Arc::new(StoreClock(store.clone())),
            metrics: Metrics::new(),
            dial: Arc::new(workers.clone()),
            seed: Some(seed),
            peers,
        };
        let started = tokio::select! {
            biased;
            () = store.crashed() => return Err(gone(&self.trace, "crash-at-start")),
            started = Runtime::start(options, store.clone(), self.plan.topology()) => started,
        };
        match started {
            Ok(runtime) => {
                let router = tandem_runtime::ingress::router(runtime.clone(), Arc::clone(runtime.metrics()));
                Ok(Process { runtime, store, router })
            }
            Err(error) => {
                self.trace.tick("start-failed", &error.to_string());
                sleep(START_AGAIN).await;
                Err(Ended::Gone)
            }
        }
    }

    async fn lived(
        &mut self,
        processes: &[Process],
        workers: &Workers,
        network: &Network<SimulatedStore>,
        ends: LifeEnds,
        mut random: SmallRng,
    ) -> Ended {
        let (plan, base_ms, disk, trace, clients) = (self.plan, self.base_ms, &self.disk, &self.trace, &self.clients);
        let looks = looks(plan, disk, trace, &mut self.samples, SmallRng::from_rng(&mut random));
        let trouble = workers.trouble(plan, base_ms, SmallRng::from_rng(&mut random));
        let routers: Vec<Router> = processes.iter().map(|process| process.router.clone()).collect();
        let has_rival = processes.len() > 1 && plan.pods == 1;
        let parted = network.trouble(plan, base_ms);
        let stops = stops(plan, base_ms, processes, trace);
        let done = async {
            let mut running: FuturesUnordered<_> =
                clients.all().iter().map(|client: &Client| client.run(clients, &routers)).collect();
            while running.next().await.is_some() {}
            // Of two processes, one does not know the messages that the other released: the next life finds them.
            if has_rival { gone(trace, "rivals-end") } else { drained(plan, disk, trace).await }
        };
        let rivals_end = async {
            sleep(Duration::from_millis(plan.calm_after_ms.saturating_sub(base_ms))).await;
            if !has_rival {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = crashed(processes) => gone(trace, "crash"),
            () = death(ends, processes, trace) => gone(trace, "process-gone"),
            ended = done => ended,
            () = rivals_end => gone(trace, "rivals-end"),
            stuck = watchdog(plan, clients, trace) => Ended::Stuck(stuck),
            never = async {
                let calm = calm(plan, base_ms, processes, workers, network, trace);
                tokio::join!(calm, looks, trouble, parted, stops).0
            } => match never {},
        }
    }

    fn history(&mut self) -> History {
        for problem in self.trace.take_alarms() {
            self.problems.push(problem);
        }
        History {
            asked: self.clients.asked(),
            samples: std::mem::take(&mut self.samples),
            end: Observed::default(),
            workers_lost: true,
            had_rivals: self.plan.rival_lives > 0 || self.plan.pods > 1,
            keeps_lanes: self.plan.rival_lives == 0,
        }
    }
}

fn gone(trace: &Trace, how: &str) -> Ended {
    trace.count(how);
    trace.note(how);
    Ended::Gone
}

/// Returns when one of the processes has died at its store. The others go with it.
async fn crashed(processes: &[Process]) {
    select_all(processes.iter().map(|process| Box::pin(process.store.crashed()))).await;
}

/// Returns when a life ends by the clock.
async fn death(ends: LifeEnds, processes: &[Process], trace: &Trace) {
    match ends {
        LifeEnds::Never | LifeEnds::AtOperation(..) => std::future::pending::<()>().await,
        LifeEnds::KilledAfter(ms) => sleep(Duration::from_millis(ms)).await,
        LifeEnds::StoppedAfter(ms) => {
            sleep(Duration::from_millis(ms)).await;
            trace.tick("stopped", "");
            for process in processes {
                process.runtime.shut_down(STOP_GRACE).await;
            }
        }
    }
}

/// How a runtime of several is reached.
pub(crate) fn peer_options<S: Store>(network: &Network<S>, number: usize) -> PeerOptions {
    PeerOptions {
        name: Some(format!("pod-{number}")),
        address: network::address(number),
        listener: None,
        dial: network.of(number),
        beat: members::BEAT,
        dead_after: members::MEMBER_DEAD_AFTER,
        linger: STOP_GRACE,
    }
}

/// Tells all runtimes but the first to stop, when the plan says so.
async fn stops(plan: &Plan, base_ms: u64, processes: &[Process], trace: &Trace) -> Infallible {
    let began = Instant::now();
    let ahead = plan.stops.iter().filter(|at_ms| **at_ms >= base_ms);
    for (at_ms, process) in ahead.zip(processes.iter().skip(1)) {
        sleep_until(began + Duration::from_millis(at_ms - base_ms)).await;
        trace.tick("pod-stopped", "");
        process.runtime.shut_down(2 * STOP_GRACE).await;
    }
    std::future::pending().await
}

/// Lets nothing go wrong any more from some time on.
async fn calm(
    plan: &Plan,
    base_ms: u64,
    processes: &[Process],
    workers: &Workers,
    network: &Network<SimulatedStore>,
    trace: &Trace,
) -> Infallible {
    sleep(Duration::from_millis(plan.calm_after_ms.saturating_sub(base_ms))).await;
    for process in processes {
        process.store.set_faults(Faults::none());
    }
    workers.calm();
    network.calm();
    trace.note("calm");
    std::future::pending().await
}

/// Looks at the store now and then, as long as it is not calm.
async fn looks(
    plan: &Plan,
    disk: &SimulatedDisk,
    trace: &Trace,
    samples: &mut Vec<Sample>,
    mut random: SmallRng,
) -> Infallible {
    loop {
        sleep(Duration::from_millis(random.random_range(1..=plan.sample_every_ms))).await;
        if trace.now_ms() > plan.calm_after_ms {
            return std::future::pending().await;
        }
        match Observed::of_versioned(disk.versioned_rows()) {
            Ok(rows) => {
                let at = trace.tick("sample", &format!("{} commits", rows.order.len()));
                samples.push(Sample { at, rows });
            }
            Err(problem) => trace.alarm(&problem),
        }
    }
}

/// Waits until all messages have ended.
async fn drained(plan: &Plan, disk: &SimulatedDisk, trace: &Trace) -> Ended {
    let began = Instant::now();
    loop {
        match Observed::of_versioned(disk.versioned_rows()) {
            Ok(rows) if rows.waiting.is_empty() => {
                trace.note("done");
                return Ended::Done;
            }
            Ok(rows) if began.elapsed() > plan.convergence => {
                let which: Vec<String> = rows.waiting.iter().map(|message| message.to.to_string()).collect();
                let after = plan.convergence;
                return Ended::Stuck(format!("messages still wait after {after:?}: {which:?}"));
            }
            Ok(_) => {}
            Err(problem) => return Ended::Stuck(problem),
        }
        sleep(DRAIN_POLL).await;
    }
}

/// Returns if no client learns anything for too long once faults have stopped.
pub(crate) async fn watchdog(plan: &Plan, clients: &Clients, trace: &Trace) -> String {
    let mut known = clients.known();
    let mut since = Instant::now();
    loop {
        sleep(DRAIN_POLL).await;
        let is_calm = trace.now_ms() >= plan.calm_after_ms;
        if clients.known() != known || !is_calm || clients.are_done() {
            known = clients.known();
            since = Instant::now();
        }
        if since.elapsed() > plan.convergence {
            let after = plan.convergence;
            return format!("no client learned anything for {after:?}; they wait for {:?}", clients.waiting());
        }
    }
}

fn store_counts(counts: &FaultCounts) -> BTreeMap<String, u64> {
    let named = [
        ("store-conflict", counts.conflict),
        ("store-delay", counts.delay),
        ("store-late-answer", counts.late_answer),
        ("store-undetermined-before", counts.undetermined_before),
        ("store-undetermined-after", counts.undetermined_after),
        ("store-undetermined-open", counts.undetermined_open),
        ("store-open-applied", counts.open_applied),
        ("store-open-dropped", counts.open_dropped),
        ("store-read-unavailable", counts.read_unavailable),
        ("store-commit-unavailable", counts.commit_unavailable),
        ("store-commit-full", counts.commit_full),
        ("store-crash", counts.crash),
    ];
    named.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

/// For plans: where a life dies.
pub type Point = CrashPoint;
