//! What a world of runtimes on TiKV is made of. Everything follows from the seed.

use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tandem_store::keys;
use tandem_store_tikv::retry::Timeouts;
use tandem_store_tikv::simulated::{Cut, Faults, Node, Shape};

use crate::program::generate;
use crate::world::plan::{Parting, Plan as Life};

/// Sets what chance decides here apart from what it decides in the plan of clients.
const PLAN: u64 = 1 << 43;
/// Far more than the deadline of a request, the longest wait of a message, and how often the store is searched for
/// messages that nobody told of.
const CONVERGENCE: Duration = Duration::from_mins(4);
/// Most runtimes.
const PODS_MAX: usize = 3;

/// What happens once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The runtime at a place is gone, wherever it was, and another one begins after so many milliseconds.
    Killed(usize, u64),
    /// It is told to stop, and begins again.
    Stopped(usize),
    /// It does not reach the store for so many milliseconds, and goes on then as if nothing had been.
    Freezes(usize, u64),
    /// It loses one of the cluster's nodes for so many milliseconds, in one direction or in both.
    IsCutOff(usize, Node, Cut, u64),
    /// A store is down for so many milliseconds.
    StoreStops(usize, u64),
    /// There are no timestamps for so many milliseconds.
    OracleStops(u64),
}

/// A world before it begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What everything follows from.
    pub seed: u64,
    /// Clients, programs, workers, and the streams between runtimes.
    pub life: Life,
    /// The cluster.
    pub shape: Shape,
    /// Faults of requests to the cluster, until it is calm.
    pub faults: Faults,
    /// Limits of the store.
    pub timeouts: Timeouts,
    /// What happens, and when in virtual milliseconds.
    pub trouble: Vec<(u64, Trouble)>,
}

impl Plan {
    /// The world of a seed.
    pub fn of(seed: u64) -> Self {
        let random = &mut SmallRng::seed_from_u64(seed.wrapping_add(PLAN));
        let (pods, stores) = (random.random_range(1..=PODS_MAX), random.random_range(1..=3));
        let life = life(random, seed, pods);
        let troubles = *[0, 1, 2, 4].choose(random).unwrap_or(&1);
        let until = life.calm_after_ms;
        let trouble = (0..troubles).map(|_| (random.random_range(0..until), trouble(random, pods, stores))).collect();
        let timeouts = Timeouts { call: Duration::from_secs(1), operation: Duration::from_secs(4) };
        Self { seed, life, shape: shape(random, stores), faults: faults(random), timeouts, trouble }
    }

    /// The same, and nothing goes wrong.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.life.partings.clear();
        self.life.trouble.clear();
        self.life.calm_after_ms = 1_000;
        Self { faults: Faults::latency(2), trouble: Vec::new(), ..self }
    }
}

fn life(random: &mut SmallRng, seed: u64, pods: usize) -> Life {
    let calm_after_ms = random.random_range(3_000..12_000);
    let partings = *[0, 0, 2, 4].choose(random).unwrap_or(&0);
    let partings: Vec<Parting> = (0..partings)
        .map(|_| Parting {
            at_ms: random.random_range(0..calm_after_ms),
            pod: random.random_range(0..pods),
            for_ms: *[0, 200, 3_000].choose(random).unwrap_or(&0),
        })
        .collect();
    let shape = generate::Shape {
        keys: *[1, 2, 3, 16].choose(random).unwrap_or(&2),
        scans: random.random_bool(0.3),
        bad_code: random.random_bool(0.3),
        sends: random.random_bool(0.7),
        sleep_ms_max: *[0, 5, 50].choose(random).unwrap_or(&5),
    };
    Life {
        shape,
        clients: *[2, 4, 6].choose(random).unwrap_or(&2),
        requests: random.random_range(2..=6),
        pods,
        partings,
        calm_after_ms,
        convergence: CONVERGENCE,
        lives: Vec::new(),
        rival_lives: 0,
        stops: Vec::new(),
        ..Life::of(seed)
    }
}

fn shape(random: &mut SmallRng, stores: usize) -> Shape {
    let slots = *[0, 1, 4].choose(random).unwrap_or(&1);
    let mut borders: Vec<Bytes> =
        (0..slots).map(|_| Bytes::copy_from_slice(&random.random_range(0..16_u16).to_be_bytes())).collect();
    borders.push(keys::meta(""));
    borders.sort();
    borders.dedup();
    Shape { stores, borders }
}

fn faults(random: &mut SmallRng) -> Faults {
    let latency = Faults::latency(random.random_range(0..4));
    match random.random_range(0..7) {
        0 => latency,
        1 | 2 => Faults { latency_ms_max: latency.latency_ms_max, ..Faults::all() },
        3 => Faults { request_lost: 200, answer_lost: 500, delay_ms_max: 20, ..latency },
        4 => Faults { late: 400, late_ms_max: 10_000, delay_ms_max: 20, ..latency },
        5 => {
            Faults { commit_pushed: 2_000, one_phase_refused: 5_000, region_error: 500, region_change: 300, ..latency }
        }
        _ => Faults { delay: 2_000, delay_ms_max: 300, ..latency },
    }
}

fn trouble(random: &mut SmallRng, pods: usize, stores: usize) -> Trouble {
    let (place, for_ms) = (random.random_range(0..pods), *[100, 1_000, 8_000].choose(random).unwrap_or(&100));
    match random.random_range(0..8) {
        0..=2 => Trouble::Killed(place, for_ms),
        3 => Trouble::Stopped(place),
        4 => Trouble::Freezes(place, for_ms),
        5 => {
            let node = if random.random() { Node::Oracle } else { Node::Store(random.random_range(0..stores)) };
            let cut = *[Cut::Both, Cut::Requests, Cut::Answers].choose(random).unwrap_or(&Cut::Both);
            Trouble::IsCutOff(place, node, cut, for_ms)
        }
        6 => Trouble::StoreStops(random.random_range(0..stores), for_ms / 4),
        _ => Trouble::OracleStops(for_ms / 4),
    }
}
