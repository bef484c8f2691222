//! What a run is made of. All that is chosen follows from the seed; what happens when does not.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::site::{Application, Function};
use super::worker::Protocol;
use crate::jobs::{Habits, Times};
use crate::program::generate::Shape;
use crate::program::{ORDER, OUT};

/// Most requests of one run: the judge keeps the state after each of them.
const REQUESTS_MAX: usize = 12_000;
/// When clients do something unusual.
const TIMES: Times = Times {
    deadline_ms_max: 1_000,
    again_ms_max: 300,
    cancel_ms_max: 100,
    patience_ms_min: 5,
    patience_ms_more: 1_000,
};

/// A run before it begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What everything follows from.
    pub seed: u64,
    /// How long faults go on.
    pub seconds: u64,
    /// Tells on the terminal what happens.
    pub tells: bool,
    /// Now and then a kill takes what was written since an earlier one: to see that this is noticed.
    pub forgets: bool,
    /// Processes are killed, and freeze. Without, nothing goes wrong but what clients and programs do.
    pub kills: bool,
}

impl Plan {
    /// A run of a seed.
    pub fn of(seed: u64, seconds: u64) -> Self {
        Self { seed, seconds, tells: false, forgets: false, kills: true }
    }
}

/// What programs run, and where.
#[derive(Clone, Debug)]
pub(crate) struct Cast {
    /// How its clients behave, of whose requests there may be more than there is time for.
    pub(crate) habits: Habits,
    pub(crate) application: Application,
}

const STATES: &[(&str, &str, &str)] = &[("value", "Value", "Integer"), ("entries", "Map", "Integer")];

impl Cast {
    /// What follows from a seed, for so long.
    pub(crate) fn of(seed: u64, seconds: u64) -> Self {
        let random = &mut SmallRng::seed_from_u64(seed);
        let shape = Shape {
            keys: *[2, 3, 8, 16].choose(random).unwrap_or(&3),
            scans: random.random_bool(0.3),
            bad_code: random.random_bool(0.4),
            sends: random.random_bool(0.8),
            sleep_ms_max: *[0, 2, 20].choose(random).unwrap_or(&2),
        };
        let clients = random.random_range(6..=20);
        let protocols = [Protocol::Grpc, Protocol::Http];
        let mut protocol = || *protocols.choose(random).unwrap_or(&Protocol::Grpc);
        let workers = vec![protocol(), protocol()];
        let of_runtime = Some(protocol());
        let think_ms_max = *[5, 20, 60].choose(random).unwrap_or(&20);
        // So many that their requests last to the end.
        let lasting = 2 * clients as u64 * seconds * 1_000 / REQUESTS_MAX as u64;
        Self {
            habits: Habits {
                shape,
                clients,
                requests: REQUESTS_MAX / clients,
                think_ms_max: lasting.max(think_ms_max),
                tricks_percent: *[5, 10, 30].choose(random).unwrap_or(&10),
                times: TIMES,
            },
            application: Application {
                functions: vec![
                    Function {
                        name: "node",
                        handlers: &[("run", "Serializable"), ("snapshot", "Snapshot"), ("look", "ReadOnly")],
                        states: STATES,
                        worker: 0,
                    },
                    Function { name: "leaf", handlers: &[("run", "Serializable")], states: STATES, worker: 1 },
                ],
                egresses: &[ORDER, OUT],
                workers,
                of_runtime: of_runtime.filter(|_| random.random_bool(0.4)),
            },
        }
    }
}

/// The functions of histories. They are there for the SDK only.
pub(crate) fn histories(seed: u64) -> Application {
    const ENTER: [(&str, &str); 3] = [("run", "Serializable"), ("snapshot", "Snapshot"), ("look", "ReadOnly")];
    const LIST: &[(&str, &str)] =
        &[ENTER[0], ENTER[1], ENTER[2], ("append", "Serializable"), ("undo", "Serializable"), ("read", "ReadOnly")];
    let session = Function { name: "session", handlers: &ENTER, states: &[], worker: 0 };
    let list = Function { name: "list", handlers: LIST, states: &[("elements", "Value", "Any")], worker: 1 };
    let log = Function { name: "log", handlers: LIST, states: &[("places", "Map", "Integer")], worker: 1 };
    let has_more = SmallRng::seed_from_u64(seed).random_bool(0.4);
    Application {
        functions: vec![session, list, log],
        egresses: &[],
        workers: vec![Protocol::Grpc, Protocol::Grpc],
        of_runtime: has_more.then_some(Protocol::Grpc),
    }
}
