//! What a world of committers is made of. Everything follows from the seed.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tandem_store_tikv::retry::Timeouts;
use tandem_store_tikv::simulated::{Cut, Faults, Node, Shape};
use tokio::time::Duration;

/// Sets what chance decides in the plan apart from what it decides in the world.
const PLAN: u64 = 1 << 41;
/// Where regions may end when the world begins.
const BORDERS: [&str; 8] = ["b", "l/1", "l~", "p/", "q", "t/0/m", "t/1", "t~q000020"];
/// How long everything may take once nothing goes wrong any more, in virtual time.
const CONVERGENCE: Duration = Duration::from_mins(1);

/// Something that goes wrong once, and is over after a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A process is killed; another one takes its place.
    Dies(usize),
    /// A process stands still for so many milliseconds, and does not know.
    Freezes(usize, u64),
    /// Messages between a process and a node get lost, for so many milliseconds.
    IsCutOff(usize, Node, Cut, u64),
    /// A store is down for so many milliseconds.
    StoreStops(usize, u64),
    /// The placement driver is down for so many milliseconds.
    OracleStops(u64),
    /// Timestamps leap ahead of the clock by so many milliseconds.
    ClockLeaps(u64),
}

/// A world.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything that chance decides.
    pub seed: u64,
    /// Stores and regions.
    pub shape: Shape,
    /// Processes at a time.
    pub processes: usize,
    /// Committers of each process.
    pub committers: usize,
    /// Transactions of each committer.
    pub transactions: usize,
    /// Accounts between which money goes to and fro.
    pub accounts: usize,
    /// Lists, each in one key.
    pub lists: usize,
    /// Lists, each with a row for an element.
    pub tables: usize,
    /// Pairs of which at most one is there.
    pub pairs: usize,
    /// What happens to requests.
    pub faults: Faults,
    /// What happens once, and when in virtual milliseconds.
    pub trouble: Vec<(u64, Trouble)>,
    /// Limits of the store.
    pub timeouts: Timeouts,
    /// Longest wait of a committer between two transactions, and within one.
    pub think_ms_max: u64,
    /// So many of a hundred callers go before they have their answer.
    pub leaving_percent: u32,
    /// Nothing goes wrong any more after so much virtual time.
    pub calm_after_ms: u64,
    /// How long everything may take from then on.
    pub convergence: Duration,
    /// Whether the trace is kept as lines.
    pub keep_lines: bool,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let random = &mut SmallRng::seed_from_u64(seed.wrapping_add(PLAN));
        let stores = random.random_range(1..=3);
        let processes = random.random_range(1..=3);
        let calm_after_ms = *[500, 3_000, 15_000, 40_000].choose(random).unwrap_or(&500);
        let troubles = *[0, 0, 1, 2, 5].choose(random).unwrap_or(&0);
        let trouble = (0..troubles).map(|_| trouble(random, processes, stores, calm_after_ms)).collect();
        Self {
            seed,
            shape: shape(random, stores),
            processes,
            committers: random.random_range(1..=5),
            transactions: random.random_range(3..=14),
            accounts: random.random_range(2..=6),
            lists: random.random_range(1..=4),
            tables: random.random_range(1..=2),
            pairs: random.random_range(1..=2),
            faults: faults(random),
            trouble,
            timeouts: timeouts(random),
            think_ms_max: *[0, 5, 50, 2_000].choose(random).unwrap_or(&5),
            leaving_percent: *[0, 0, 5, 20].choose(random).unwrap_or(&0),
            calm_after_ms,
            convergence: CONVERGENCE,
            keep_lines: false,
        }
    }

    /// The same, and nothing goes wrong.
    #[must_use]
    pub fn quiet(self) -> Self {
        Self { faults: Faults::latency(2), trouble: Vec::new(), leaving_percent: 0, calm_after_ms: 0, ..self }
    }
}

fn shape(random: &mut SmallRng, stores: usize) -> Shape {
    let share = *[0.0, 0.3, 1.0].choose(random).unwrap_or(&0.0);
    let borders = BORDERS.iter().filter(|_| random.random_bool(share)).map(|border| (*border).into()).collect();
    Shape { stores, borders }
}

fn timeouts(random: &mut SmallRng) -> Timeouts {
    let call_ms = *[100, 1_000, 3_000].choose(random).unwrap_or(&1_000);
    let operation_ms = *[1_000, 4_000, 10_000].choose(random).unwrap_or(&4_000);
    Timeouts { call: Duration::from_millis(call_ms), operation: Duration::from_millis(operation_ms) }
}

fn faults(random: &mut SmallRng) -> Faults {
    let (all, latency) = (Faults::all(), Faults::latency(random.random_range(0..6)));
    match random.random_range(0..10) {
        0 => latency,
        1 | 2 => Faults { latency_ms_max: latency.latency_ms_max, ..all },
        3 => Faults::storm(),
        4 => Faults { region_error: 1_000, region_change: 500, ..latency },
        5 => Faults { request_lost: 300, answer_lost: 600, delay_ms_max: 20, ..latency },
        6 => Faults { late: 800, late_ms_max: 20_000, delay_ms_max: 20, ..latency },
        7 => Faults { commit_pushed: 4_000, one_phase_refused: 5_000, ..latency },
        8 => Faults { store_restart: 100, oracle_restart: 60, restart_ms_max: 4_000, ..latency },
        _ => Faults { delay: 3_000, delay_ms_max: 4_000, ..latency },
    }
}

fn trouble(random: &mut SmallRng, processes: usize, stores: usize, calm_after_ms: u64) -> (u64, Trouble) {
    let process = random.random_range(0..processes);
    let store = random.random_range(0..stores);
    let for_ms = *[50, 1_000, 8_000, 30_000].choose(random).unwrap_or(&50);
    let node = if random.random_range(0..3) == 0 { Node::Oracle } else { Node::Store(store) };
    let cut = *[Cut::Both, Cut::Answers, Cut::Requests].choose(random).unwrap_or(&Cut::Both);
    let what = match random.random_range(0..8) {
        0 | 1 => Trouble::Dies(process),
        2 | 3 => Trouble::Freezes(process, for_ms),
        4 | 5 => Trouble::IsCutOff(process, node, cut, for_ms),
        6 => Trouble::StoreStops(store, for_ms),
        _ if random.random() => Trouble::OracleStops(for_ms),
        _ => Trouble::ClockLeaps(for_ms),
    };
    (random.random_range(0..calm_after_ms), what)
}
