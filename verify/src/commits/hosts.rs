//! Processes with a store each, and what goes wrong with them.

use std::cell::RefCell;

use futures_util::future::join_all;
use tandem_store_tikv::retry::Timeouts;
use tandem_store_tikv::simulated::{Life, SimulatedClient, SimulatedCluster};
use tandem_store_tikv::store::ClusterStore;
use tokio::time::{Duration, sleep};

use super::plan::{Plan, Trouble};

/// The store under test.
pub type TestedStore = ClusterStore<SimulatedClient>;

/// A process.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its store.
    pub store: TestedStore,
}

impl Host {
    /// A new process.
    pub fn new(cluster: &SimulatedCluster, timeouts: Timeouts) -> Self {
        Self { store: ClusterStore::new(cluster.process(), timeouts) }
    }

    /// Its number.
    pub fn process(&self) -> usize {
        self.store.cluster().process()
    }

    /// Returns when it is dead.
    pub async fn died(&self) {
        self.store.cluster().cluster().until(self.process(), Life::Dead).await;
    }

    /// Whether it is dead.
    pub fn is_dead(&self) -> bool {
        self.store.cluster().cluster().life(self.process()) == Life::Dead
    }
}

/// The processes of a world. Whoever asks for one that is dead gets its successor.
#[derive(Debug)]
pub struct Hosts {
    cluster: SimulatedCluster,
    timeouts: Timeouts,
    places: RefCell<Vec<Host>>,
}

impl Hosts {
    /// All processes of a plan.
    pub fn new(cluster: &SimulatedCluster, plan: &Plan) -> Self {
        let hosts = (0..plan.processes).map(|_| Host::new(cluster, plan.timeouts)).collect();
        Self { cluster: cluster.clone(), timeouts: plan.timeouts, places: RefCell::new(hosts) }
    }

    /// The process at a place.
    pub fn at(&self, place: usize) -> Host {
        let mut hosts = self.places.borrow_mut();
        let place = place % hosts.len();
        if hosts[place].is_dead() {
            hosts[place] = Host::new(&self.cluster, self.timeouts);
        }
        hosts[place].clone()
    }

    /// Lets everything happen that the plan says, each at its time.
    pub async fn trouble(&self, plan: &Plan) {
        join_all(plan.trouble.iter().map(|(at_ms, trouble)| async {
            sleep(Duration::from_millis(*at_ms)).await;
            self.happen(*trouble).await;
        }))
        .await;
    }

    async fn happen(&self, trouble: Trouble) {
        self.cluster.note(&format!("{trouble:?}"));
        match trouble {
            Trouble::Dies(place) => self.cluster.set_life(self.at(place).process(), Life::Dead),
            Trouble::Freezes(place, for_ms) => {
                let process = self.at(place).process();
                self.cluster.set_life(process, Life::Frozen);
                sleep(Duration::from_millis(for_ms)).await;
                self.cluster.set_life(process, Life::Alive);
            }
            Trouble::IsCutOff(place, node, cut, for_ms) => {
                let process = self.at(place).process();
                self.cluster.cut(process, node, Some(cut));
                sleep(Duration::from_millis(for_ms)).await;
                self.cluster.cut(process, node, None);
            }
            Trouble::StoreStops(store, for_ms) => self.cluster.stop_store(store, for_ms),
            Trouble::OracleStops(for_ms) => self.cluster.stop_oracle(for_ms),
            Trouble::ClockLeaps(leap_ms) => self.cluster.leap(leap_ms),
        }
    }
}
