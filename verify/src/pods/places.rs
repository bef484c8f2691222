//! Where runtimes are: each has a place, at which another one begins when it is gone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{Request, StatusCode};
use tandem_runtime::clock::Clock;
use tandem_runtime::metrics::Metrics;
use tandem_runtime::runtime::{Options, Runtime};
use tandem_store_tikv::simulated::{Life, SimulatedClient, SimulatedCluster};
use tandem_store_tikv::store::ClusterStore;
use tokio::time::{Duration, sleep};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::plan::{Plan, Trouble};
use crate::world::network::Network;
use crate::world::trace::Trace;
use crate::world::workers::Workers;
use crate::world::{START_AGAIN, STOP_GRACE, peer_options};

/// The store of a runtime.
pub(super) type TestedStore = ClusterStore<SimulatedClient>;

/// Virtual time as the time of day.
struct ClusterClock(SimulatedCluster);

impl Clock for ClusterClock {
    fn unix_ms(&self) -> u64 {
        self.0.now_ms()
    }
}

/// A runtime that runs.
#[derive(Clone)]
struct Running {
    runtime: Runtime<TestedStore>,
    process: usize,
    router: Router,
    gone: CancellationToken,
}

/// What clients come to: whichever runtime is there now.
#[derive(Clone, Default)]
struct Place(Arc<Mutex<Option<Running>>>);

impl Place {
    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn router(&self) -> Router {
        Router::new().fallback(pass).with_state(self.clone())
    }
}

/// Asks the runtime that is there; whoever is at one that goes hears of it.
async fn pass(State(place): State<Place>, request: Request<Body>) -> Response {
    let running = place.lock().clone();
    let Some(running) = running else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    tokio::select! {
        biased;
        () = running.gone.cancelled() => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        answered = running.router.oneshot(request) => {
            let Ok(response) = answered;
            response
        }
    }
}

/// All places of a world.
pub(super) struct Places<'a> {
    pub(super) plan: &'a Plan,
    pub(super) trace: Trace,
    pub(super) cluster: SimulatedCluster,
    pub(super) workers: Workers,
    pub(super) network: Network<TestedStore>,
    all: Vec<Place>,
}

impl<'a> Places<'a> {
    pub(super) fn new(plan: &'a Plan, trace: &Trace, cluster: &SimulatedCluster) -> Self {
        let workers = Workers::new(&plan.life, trace, plan.seed);
        let network = Network::new(&plan.life, trace, plan.seed.wrapping_add(1));
        let all = (0..plan.life.pods).map(|_| Place::default()).collect();
        Self { plan, trace: trace.clone(), cluster: cluster.clone(), workers, network, all }
    }

    /// How clients come to them.
    pub(super) fn routers(&self) -> Vec<Router> {
        self.all.iter().map(Place::router).collect()
    }

    /// A runtime begins at a place, as often as it takes.
    pub(super) async fn start(&self, number: usize) {
        let mut attempt = 0;
        while !self.try_start(number, attempt).await {
            attempt += 1;
            sleep(START_AGAIN).await;
        }
    }

    async fn try_start(&self, number: usize, attempt: u64) -> bool {
        let client = self.cluster.process();
        let process = client.process();
        let store = ClusterStore::new(client, self.plan.timeouts);
        let shares = self.plan.life.pods > 1;
        let seed = self.plan.seed.wrapping_add(u64::try_from(process).unwrap_or_default()).wrapping_add(attempt << 32);
        let options = Options {
            clock: Arc::new(ClusterClock(self.cluster.clone())),
            metrics: Metrics::new(),
            dial: Arc::new(self.workers.clone()),
            seed: Some(seed),
            peers: shares.then(|| peer_options(&self.network, number)),
        };
        match Runtime::start(options, store, self.plan.life.topology()).await {
            Ok(runtime) => {
                self.trace.tick("pod-started", &format!("pod {number} as process {process}"));
                self.network.add(number, runtime.clone());
                let router = tandem_runtime::ingress::router(runtime.clone(), Arc::clone(runtime.metrics()));
                let gone = CancellationToken::new();
                *self.all[number].lock() = Some(Running { runtime, process, router, gone });
                true
            }
            Err(error) => {
                self.trace.tick("start-failed", &error.to_string());
                // What it has begun is gone with it.
                self.cluster.set_life(process, Life::Dead);
                false
            }
        }
    }

    fn process(&self, number: usize) -> Option<usize> {
        self.all[number].lock().as_ref().map(|running| running.process)
    }

    /// The runtime at a place is gone, with all that it was at.
    fn kill(&self, number: usize) -> bool {
        let Some(running) = self.all[number].lock().take() else { return false };
        self.cluster.set_life(running.process, Life::Dead);
        self.network.kill(number);
        running.gone.cancel();
        true
    }

    /// Lets everything happen that the plan says.
    pub(super) async fn happen(&self, trouble: Trouble) {
        self.trace.note(&format!("{trouble:?}"));
        match trouble {
            Trouble::Killed(number, for_ms) => {
                if self.kill(number) {
                    self.trace.tick("pod-killed", "");
                    sleep(Duration::from_millis(for_ms)).await;
                    self.start(number).await;
                }
            }
            Trouble::Stopped(number) => {
                let running = self.all[number].lock().clone();
                let Some(running) = running else { return };
                self.trace.tick("pod-stopped", "");
                running.runtime.shut_down(2 * STOP_GRACE).await;
                if self.process(number) == Some(running.process) && self.kill(number) {
                    self.start(number).await;
                }
            }
            Trouble::Freezes(number, for_ms) => {
                let Some(process) = self.process(number) else { return };
                self.cluster.set_life(process, Life::Frozen);
                sleep(Duration::from_millis(for_ms)).await;
                self.cluster.set_life(process, Life::Alive);
            }
            Trouble::IsCutOff(number, node, cut, for_ms) => {
                let Some(process) = self.process(number) else { return };
                self.cluster.cut(process, node, Some(cut));
                sleep(Duration::from_millis(for_ms)).await;
                self.cluster.cut(process, node, None);
            }
            Trouble::StoreStops(store, for_ms) => self.cluster.stop_store(store, for_ms),
            Trouble::OracleStops(for_ms) => self.cluster.stop_oracle(for_ms),
        }
    }

    /// The world is over: runtimes know the network, and it knows them.
    pub(super) fn end(&self) {
        for place in &self.all {
            let running = place.lock().take();
            drop(running);
        }
        self.network.end();
    }
}
