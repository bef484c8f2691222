//! What a world is made of. Everything follows from the seed.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tandem_model::expression::Expression;
use tandem_model::limits::Limits;
use tandem_model::slot::SlotCount;
use tandem_model::topology::{Body, Egress, Endpoint, Function, HttpMatch, Protocol, Reply, Route, Topology};
use tandem_store::simulated::{CrashPoint, Faults};

use crate::program::generate::Shape;
use crate::program::{ORDER, OUT};

/// Slots of the data. Few, since a process that starts looks into each of them.
const SLOTS: u16 = 16;
/// Deadline of requests that name none, in milliseconds.
pub const DEADLINE_MS: u64 = 10_000;
/// Far more than the deadline of a request, and the longest wait of a message.
const CONVERGENCE: Duration = Duration::from_mins(1);
/// The same, and how often the store is searched for messages that nobody told of.
const CONVERGENCE_OF_PODS: Duration = Duration::from_mins(3);
/// Handlers that requests are routed to.
const HANDLERS: [&str; 3] = ["run", "snapshot", "look"];
/// Operations of a life, of which one may be its last: a start takes some dozens.
const OPERATIONS_MAX: u64 = 600;

/// How a life of the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifeEnds {
    /// With the world.
    Never,
    /// It dies at an operation on the store.
    AtOperation(u64, CrashPoint),
    /// It dies after so many milliseconds, wherever it is.
    KilledAfter(u64),
    /// It is told to stop after so many milliseconds.
    StoppedAfter(u64),
}

/// What happens to workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It dies, and is back after so many milliseconds.
    Dies(u64),
    /// It gives no sign of life for so many milliseconds.
    Freezes(u64),
    /// It says something that breaks the protocol: one of several things.
    TalksNonsense(u8),
}

/// A runtime loses its streams to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parting {
    /// When, in virtual milliseconds.
    pub at_ms: u64,
    /// Which one.
    pub pod: usize,
    /// How long it cannot open new ones. Zero: not at all.
    pub for_ms: u64,
}

/// A world before it begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What everything follows from.
    pub seed: u64,
    /// Clients, each with one request after the other.
    pub clients: usize,
    /// Requests of each client.
    pub requests: usize,
    /// What programs look like.
    pub shape: Shape,
    /// Faults of the store, until it is calm.
    pub faults: Faults,
    /// How lives end, in order. Those after the last one end with the world.
    pub lives: Vec<LifeEnds>,
    /// Lives of the process in which there are two of them on the store at the same time, from the first one on.
    pub rival_lives: usize,
    /// Runtimes that share the store and know each other. One: there is nobody else to know.
    pub pods: usize,
    /// When runtimes lose their streams to each other.
    pub partings: Vec<Parting>,
    /// When, in virtual milliseconds, all runtimes of a life but the first are told to stop, one after the other.
    pub stops: Vec<u64>,
    /// Longest time between an answer and the next request of a client, in milliseconds.
    pub think_ms_max: u64,
    /// Workers, each of which runs all functions.
    pub workers: usize,
    /// Longest time that a message between runtime and worker travels, in milliseconds.
    pub latency_ms_max: u64,
    /// What happens to workers: when, in virtual milliseconds, to whom, and what.
    pub trouble: Vec<(u64, usize, Trouble)>,
    /// From this virtual time on nothing goes wrong any more, in milliseconds.
    pub calm_after_ms: u64,
    /// Everything that is in flight has to end so long after that, in virtual time.
    pub convergence: Duration,
    /// Longest time between two looks at the store, in milliseconds.
    pub sample_every_ms: u64,
    /// How often clients do something unusual with a request, in percent.
    pub tricks_percent: u32,
    /// Attempts of a flow that meets conflicts.
    pub attempts_max: u32,
    /// Flows in flight at one time.
    pub flows_in_flight_max: usize,
    /// Keep the trace as lines.
    pub keep_lines: bool,
}

impl Plan {
    /// The world of a seed.
    pub fn of(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let random = &mut random;
        let calm_after_ms = random.random_range(2_000..8_000);
        let shape = Shape {
            keys: *[1, 2, 3, 16].choose(random).unwrap_or(&2),
            scans: random.random_bool(0.3),
            bad_code: random.random_bool(0.6),
            sends: random.random_bool(0.7),
            sleep_ms_max: *[0, 5, 50, 400].choose(random).unwrap_or(&5),
        };
        let days = [Faults::none(), Faults::delays(20), Faults::all(), Faults::all(), Faults::storm()];
        let faults = days[random.random_range(0..days.len())];
        let lives = (0..random.random_range(0..4)).map(|_| life(random, calm_after_ms)).collect();
        let workers = random.random_range(1..=3);
        let troubles = *[0, 0, 1, 3, 6].choose(random).unwrap_or(&0);
        let trouble = (0..troubles).map(|_| trouble(random, workers, calm_after_ms)).collect();
        let plan = Self {
            seed,
            clients: *[1, 2, 4, 6, 12].choose(random).unwrap_or(&2),
            requests: random.random_range(2..=8),
            shape,
            faults,
            lives,
            rival_lives: *[0, 0, 0, 0, 1, 2].choose(random).unwrap_or(&0),
            think_ms_max: *[10, 100, calm_after_ms / 4].choose(random).unwrap_or(&100),
            workers,
            latency_ms_max: *[0, 1, 5, 30].choose(random).unwrap_or(&1),
            trouble,
            calm_after_ms,
            convergence: CONVERGENCE,
            sample_every_ms: random.random_range(200..2_000),
            tricks_percent: *[0, 10, 40].choose(random).unwrap_or(&10),
            flows_in_flight_max: *[3, 4_096, 4_096].choose(random).unwrap_or(&4_096),
            attempts_max: *[10, 10, 10, 2].choose(random).unwrap_or(&10),
            pods: 1,
            partings: Vec::new(),
            stops: Vec::new(),
            keep_lines: false,
        };
        plan.with_pods(random)
    }

    /// Perhaps with several runtimes.
    fn with_pods(mut self, random: &mut SmallRng) -> Self {
        let pods = *[1, 1, 2, 3].choose(random).unwrap_or(&1);
        if pods == 1 || self.rival_lives > 0 {
            return self;
        }
        self.pods = pods;
        self.convergence = CONVERGENCE_OF_PODS;
        let until = self.calm_after_ms;
        let partings = *[0, 1, 3, 6].choose(random).unwrap_or(&0);
        self.partings = (0..partings)
            .map(|_| {
                let (at_ms, pod) = (random.random_range(0..until), random.random_range(0..pods));
                Parting { at_ms, pod, for_ms: *[0, 200, 3_000].choose(random).unwrap_or(&0) }
            })
            .collect();
        let stops = random.random_range(0..pods);
        self.stops = (0..stops).map(|_| random.random_range(0..until)).collect();
        self.stops.sort_unstable();
        self
    }

    /// The application that it runs.
    pub fn topology(&self) -> Topology {
        let workers = (0..self.workers).map(|number| Endpoint::new(url(number), Protocol::Grpc)).collect();
        let function = Function { workers, ..Function::default() };
        let functions = ["node", "leaf"].into_iter().filter_map(|name| Some((name.parse().ok()?, function.clone())));
        let egress = Egress { stream_retention_ms: Topology::RETENTION_MS };
        let egresses = [ORDER, OUT].into_iter().filter_map(|name| Some((name.parse().ok()?, egress.clone())));
        let limits = Limits {
            flows_in_flight_max: self.flows_in_flight_max,
            attempts_max: self.attempts_max,
            deadline_ms: DEADLINE_MS,
            ..Limits::default()
        };
        Topology {
            format: Topology::FORMAT,
            slots: SlotCount::new(SLOTS).unwrap_or_default(),
            limits,
            retention_ms: Topology::RETENTION_MS,
            functions: functions.collect(),
            routes: HANDLERS.into_iter().filter_map(route).collect::<BTreeMap<_, _>>(),
            egresses: egresses.collect(),
        }
    }
}

/// The address of a simulated worker.
pub fn url(number: usize) -> String {
    format!("sim://worker-{number}")
}

fn route(handler: &str) -> Option<(tandem_model::ids::RouteName, Route)> {
    let route = Route {
        http: HttpMatch { method: "POST".to_owned(), path: format!("/{handler}/{{key}}") },
        function: "node".parse().ok()?,
        handler: handler.parse().ok()?,
        key: Expression::parse("request.path.key").ok()?,
        idempotency_key: None,
        reply: Reply::Wait,
        deadline_ms: None,
        body: Body::Json,
    };
    Some((handler.parse().ok()?, route))
}

fn life(random: &mut SmallRng, calm_after_ms: u64) -> LifeEnds {
    let after_ms = random.random_range(1..calm_after_ms / 2);
    match random.random_range(0..5) {
        0 => LifeEnds::KilledAfter(after_ms),
        1 => LifeEnds::StoppedAfter(after_ms),
        2 => LifeEnds::AtOperation(random.random_range(1..OPERATIONS_MAX), CrashPoint::Before),
        _ => LifeEnds::AtOperation(random.random_range(1..OPERATIONS_MAX), CrashPoint::After),
    }
}

fn trouble(random: &mut SmallRng, workers: usize, calm_after_ms: u64) -> (u64, usize, Trouble) {
    let what = match random.random_range(0..4) {
        0 | 1 => Trouble::Dies(random.random_range(0..2_000)),
        2 => Trouble::Freezes(*[50, 500, 3_000, 30_000].choose(random).unwrap_or(&50)),
        _ => Trouble::TalksNonsense(random.random_range(0..4)),
    };
    (random.random_range(0..calm_after_ms), random.random_range(0..workers), what)
}
