//! Whole runtimes, one to three, on a simulated TiKV cluster, in one deterministic thread.
//!
//! ```text
//! clients ─http::Request─▶ places ─▶ runtimes ─▶ ClusterStore ─messages─▶ SimulatedCluster
//!                                     ⇅ frames over simulated streams, to each other and to workers
//! ```
//!
//! Clients, programs, workers and the judge are those of [`crate::world`]; the store is that of [`crate::commits`]. Requests
//! to the cluster are lost, late and doubled; regions move; runtimes are killed at whatever they are, stand still, lose
//! nodes of the cluster and each other, and are told to stop; each begins again under its name. What a killed runtime
//! still does in memory reaches nobody. The same seed gives the same trace of everything that clients, runtimes and streams
//! do, and when.
//!
//! | module | concept |
//! | --- | --- |
//! | [`plan`] | what a world is made of, from a seed |
//! | `places` | where runtimes are, and what goes wrong with them |

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tandem_store::{KeyRange, Snapshot, Store};
use tandem_store_tikv::simulated::SimulatedCluster;
use tandem_store_tikv::store::ClusterStore;
use tokio::time::{Instant, sleep, timeout};

use crate::model::judge::{History, Sample, judge};
use crate::model::observed::Observed;
use crate::world::alarms::Alarms;
use crate::world::client::Clients;
use crate::world::trace::Trace;
use crate::world::{self, DRAIN_POLL, watchdog};

use places::Places;
use plan::Plan;

mod places;
pub mod plan;

/// Sets what chance decides in the world apart from what it decides in the plan.
const WORLD: u64 = 1 << 44;
/// How long a world may take at most. One that takes longer is stuck.
const WORLD_MAX: Duration = Duration::from_mins(60);

/// What happened in a world.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Report(pub world::Report);

impl Report {
    /// Whether nothing was found that must not be.
    pub fn is_good(&self) -> bool {
        self.0.is_good()
    }

    /// The command that does it all again.
    pub fn replay(&self) -> String {
        format!("cargo run --release -p tandem-verify -- pods --seed {}", self.0.seed)
    }
}

/// Runs the world of a seed to its end, and judges it.
pub fn run(plan: &Plan) -> Report {
    let trace = Trace::new(plan.life.keep_lines);
    let (alarms, mut problems) = (Alarms::default(), Vec::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let mut report = world::Report { seed: plan.seed, ..world::Report::default() };
    match runtime {
        Ok(runtime) => alarms.watch(|| {
            let cluster = runtime.block_on(async {
                let cluster = SimulatedCluster::new(plan.seed, &plan.shape);
                trace.begin_life(0, Instant::now());
                let ended = timeout(WORLD_MAX, Box::pin(world(plan, &trace, &cluster))).await;
                let (history, problem) = ended.unwrap_or_else(|_| (None, Some("the world is stuck".to_owned())));
                problems.extend(problem);
                report.verdict = history.map(|history| judge(&history)).unwrap_or_default();
                report.virtual_ms = cluster.now_ms();
                cluster
            });
            let counts = cluster.counts();
            trace.count_all(&counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect());
            // The order of keys within one request to the cluster is not part of it.
            (report.trace, report.events) = trace.digest(0);
        }),
        Err(error) => problems.push(format!("no tokio runtime: {error}")),
    }
    problems.extend(trace.take_alarms());
    problems.extend(alarms.take());
    for problem in problems {
        report.verdict.violations_found += 1;
        report.verdict.violations.push(problem);
    }
    (report.counts, report.lines) = trace.into_parts();
    Report(report)
}

/// Everything, to the end.
async fn world(plan: &Plan, trace: &Trace, cluster: &SimulatedCluster) -> (Option<History>, Option<String>) {
    let mut random = SmallRng::seed_from_u64(plan.seed.wrapping_add(WORLD));
    let clients = Clients::new(&plan.life, trace, SmallRng::from_rng(&mut random));
    let places = Places::new(plan, trace, cluster);
    let mut samples = Vec::new();
    cluster.set_faults(plan.faults);
    join_all((0..plan.life.pods).map(|number| places.start(number))).await;
    let routers = places.routers();
    let looks = looks(plan, trace, cluster, &mut samples, SmallRng::from_rng(&mut random));
    let workers = places.workers.trouble(&plan.life, cluster.now_ms(), SmallRng::from_rng(&mut random));
    let parted = places.network.trouble(&plan.life, cluster.now_ms());
    let calm = async {
        sleep(Duration::from_millis(plan.life.calm_after_ms)).await;
        cluster.calm();
        places.workers.calm();
        places.network.calm();
        trace.note("calm");
    };
    let trouble = join_all(plan.trouble.iter().map(|(at_ms, trouble)| async {
        sleep(Duration::from_millis(*at_ms)).await;
        places.happen(*trouble).await;
    }));
    let asking = join_all(clients.all().iter().map(|client| client.run(&clients, &routers)));
    let done = async {
        tokio::join!(asking, trouble, calm);
        end(plan, trace, cluster).await
    };
    let ended = tokio::select! {
        biased;
        ended = done => ended,
        stuck = watchdog(&plan.life, &clients, trace) => Err(stuck),
        never = async { tokio::join!(looks, workers, parted).0 } => match never {},
    };
    places.end();
    let (end, problem) = match ended {
        Ok(end) => (end, None),
        Err(problem) => return (None, Some(problem)),
    };
    let history =
        History { asked: clients.asked(), samples, end, workers_lost: true, had_rivals: true, keeps_lanes: true };
    (Some(history), problem)
}

/// Looks at the store now and then, whenever no transaction is half way.
async fn looks(
    plan: &Plan,
    trace: &Trace,
    cluster: &SimulatedCluster,
    samples: &mut Vec<Sample>,
    mut random: SmallRng,
) -> std::convert::Infallible {
    loop {
        sleep(Duration::from_millis(random.random_range(1..=plan.life.sample_every_ms))).await;
        if !cluster.locks().is_empty() {
            continue;
        }
        match Observed::of_versioned(cluster.rows()) {
            Ok(rows) => {
                let at = trace.tick("sample", &format!("{} commits", rows.order.len()));
                samples.push(Sample { at, rows });
            }
            Err(problem) => trace.alarm(&problem),
        }
    }
}

/// When all clients are done: messages end, locks go, and what is stored then.
async fn end(plan: &Plan, trace: &Trace, cluster: &SimulatedCluster) -> Result<Observed, String> {
    trace.note("all clients are done");
    let observer = ClusterStore::new(cluster.process(), plan.timeouts);
    let everything = KeyRange { start: Bytes::new(), end: None };
    let until = Instant::now() + plan.life.convergence;
    loop {
        // Whoever reads clears what those have left who are gone.
        let read = async { observer.snapshot().await?.scan(&everything, usize::MAX, false).await };
        let is_read = read.await.is_ok();
        // Runtimes write as long as they live, so a moment between two transactions has to do.
        let mut waiting = Vec::new();
        if is_read && cluster.locks().is_empty() {
            let rows = Observed::of_versioned(cluster.rows())?;
            if rows.waiting.is_empty() {
                trace.note("done");
                return Ok(rows);
            }
            waiting = rows.waiting.iter().map(|message| message.to.to_string()).collect();
        }
        if Instant::now() > until {
            let counts: BTreeMap<_, _> = cluster.counts();
            return Err(format!(
                "not at rest after {:?}: messages wait for {waiting:?}; {counts:?}",
                plan.life.convergence
            ));
        }
        sleep(DRAIN_POLL).await;
    }
}
