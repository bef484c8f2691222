//! Which measurements a benchmark consists of.

use crate::options::Options;
use crate::system::System;
use crate::workload::Workload;

pub(crate) mod tikv;

/// Those that do all workloads.
const USUAL: [System; 4] = [System::Tandem, System::BareAlone, System::BareGrouped, System::Postgres];
/// Zipf's theta of a skewed workload.
const SKEW: f64 = 0.99;
/// Creditors of transfers, from uniform to very skewed.
pub(crate) const THETAS: [f64; 4] = [0.0, 0.8, SKEW, 0.999];
/// Calls of a chain.
pub(crate) const CALLS: [usize; 3] = [1, 3, 9];
/// Clients of counters.
pub(crate) const CLIENTS: [usize; 4] = [1, 16, 64, 256];
/// Clients of the benchmarks that do not vary them.
pub(crate) const CLIENTS_USUAL: usize = 64;
/// Instances that are stored while memory and restart are looked at.
pub(crate) const INSTANCES: [u32; 3] = [10_000, 100_000, 1_000_000];
const INSTANCES_QUICK: [u32; 2] = [1_000, 10_000];
/// Functions that are declared while memory is looked at.
pub(crate) const FUNCTIONS: [u32; 3] = [1, 100, 1_000];
const FUNCTIONS_QUICK: [u32; 2] = [1, 20];
/// Instances of all functions together, however many functions there are.
const FUNCTIONS_INSTANCES: u32 = 10_000;
const KEYS: u32 = 100_000;
const STEPS: u32 = 100_000;

/// A benchmark of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Benchmark {
    /// One keyed counter.
    B1,
    /// An atomic transfer between accounts.
    B2,
    /// Calls in a row.
    B3,
    /// An order with stock, payment and loyalty.
    B4,
    /// Memory, rate and restart with many instances and functions.
    B6,
    /// Latency of counters at fixed rates.
    Open,
    /// One keyed counter, on TiKV.
    T1,
    /// An atomic transfer between accounts, on TiKV.
    T2,
    /// Calls in a row, on TiKV.
    T3,
}

impl Benchmark {
    /// All of the embedded store, in the order of measuring.
    pub(crate) const ALL: [Self; 6] = [Self::B1, Self::B2, Self::B3, Self::B4, Self::Open, Self::B6];

    /// As results have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::B1 => "b1",
            Self::B2 => "b2",
            Self::B3 => "b3",
            Self::B4 => "b4",
            Self::B6 => "b6",
            Self::Open => "open",
            Self::T1 => "t1",
            Self::T2 => "t2",
            Self::T3 => "t3",
        }
    }

    /// Whether it needs stores that speak TiKV's protocol.
    pub(crate) fn is_on_tikv(self) -> bool {
        matches!(self, Self::T1 | Self::T2 | Self::T3)
    }
}

/// One comparison: the same load on several systems.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Case {
    /// Which benchmark it belongs to.
    pub(crate) benchmark: Benchmark,
    /// What tells it from the others of its benchmark.
    pub(crate) variant: String,
    /// What is asked for.
    pub(crate) workload: Workload,
    /// Connections.
    pub(crate) clients: usize,
    /// Requests a second, if they are fixed.
    pub(crate) rate: Option<f64>,
    /// After the load it is killed and started again.
    pub(crate) restarts: bool,
    /// Who is asked, in this order.
    pub(crate) systems: Vec<System>,
}

impl Case {
    fn new(benchmark: Benchmark, workload: Workload, clients: usize) -> Self {
        let (variant, systems) = (workload.to_string(), USUAL.to_vec());
        Self { benchmark, variant, workload, clients, rate: None, restarts: false, systems }
    }
}

/// Counters under a uniform choice, as B1 and the open loop have them.
pub(crate) fn counter() -> Workload {
    Workload::Counter { keys: KEYS, theta: 0.0, functions: 0 }
}

/// One counter that all want.
pub(crate) fn hot_counter() -> Workload {
    Workload::Counter { keys: 1, theta: 0.0, functions: 0 }
}

/// A transfer between two accounts.
pub(crate) fn transfer(theta: f64) -> Workload {
    Workload::Transfer { theta, accounts: 2 }
}

/// So many calls in a row.
pub(crate) fn chain(calls: usize) -> Workload {
    Workload::Chain { calls, steps: STEPS }
}

/// So many clients, in words.
pub(crate) fn clients(count: usize) -> String {
    format!("{count} {}", if count == 1 { "client" } else { "clients" })
}

/// What B6 calls a case with so many instances.
pub(crate) fn instances(count: u32) -> String {
    format!("{count} instances")
}

/// What B6 calls a case with so many functions.
pub(crate) fn functions(count: u32) -> String {
    format!("{count} {}", if count == 1 { "function" } else { "functions" })
}

/// The cases of a benchmark that need to know nothing of others.
pub(crate) fn cases(benchmark: Benchmark, options: &Options) -> Vec<Case> {
    let mut workloads: Vec<Workload> = match benchmark {
        Benchmark::B1 => return counters(options),
        Benchmark::B6 => return growth(options),
        Benchmark::Open => return Vec::new(),
        Benchmark::T1 | Benchmark::T2 | Benchmark::T3 => return tikv::cases(benchmark, options),
        Benchmark::B2 => {
            let wider = [4, 8].map(|accounts| Workload::Transfer { theta: 0.0, accounts });
            THETAS.map(transfer).into_iter().chain(wider).collect()
        }
        Benchmark::B3 => CALLS.map(chain).to_vec(),
        Benchmark::B4 => [false, true].map(|skewed| Workload::Checkout { skewed }).to_vec(),
    };
    if options.quick {
        workloads = [workloads.first().copied(), workloads.last().copied()].into_iter().flatten().collect();
    }
    let usual: &[usize] = if benchmark == Benchmark::B3 { &[1, CLIENTS_USUAL] } else { &[CLIENTS_USUAL] };
    let clients = options.clients_or(usual);
    let with = |workload| clients.iter().map(move |clients| Case::new(benchmark, workload, *clients));
    workloads.into_iter().flat_map(with).collect()
}

fn counters(options: &Options) -> Vec<Case> {
    let (clients, many) = (options.clients_or(&CLIENTS), options.keys.unwrap_or(KEYS));
    let mut cases = Vec::new();
    for (keys, theta) in [(many, 0.0), (many, SKEW), (1, 0.0)] {
        for clients in &clients {
            let mut case = Case::new(Benchmark::B1, Workload::Counter { keys, theta, functions: 0 }, *clients);
            if *clients == 1 && theta == 0.0 && keys > 1 {
                case.systems.extend([System::Floor, System::EmptyCall]);
            }
            cases.push(case);
        }
    }
    cases
}

fn growth(options: &Options) -> Vec<Case> {
    let (stored, declared) =
        if options.quick { (&INSTANCES_QUICK[..], &FUNCTIONS_QUICK[..]) } else { (&INSTANCES[..], &FUNCTIONS[..]) };
    let clients = options.clients_or(&[CLIENTS_USUAL]).pop().unwrap_or(CLIENTS_USUAL);
    let case = |workload, variant, restarts| Case {
        variant,
        restarts,
        systems: vec![System::Tandem],
        ..Case::new(Benchmark::B6, workload, clients)
    };
    let stored = stored
        .iter()
        .map(|count| case(Workload::Counter { keys: *count, theta: 0.0, functions: 0 }, instances(*count), true));
    let declared = declared.iter().map(|count| {
        let keys = FUNCTIONS_INSTANCES / Workload::busy(*count);
        case(Workload::Counter { keys, theta: 0.0, functions: *count }, functions(*count), false)
    });
    stored.chain(declared).collect()
}

/// Shares of the saturation of the slowest system that the open loop asks for.
pub(crate) const SHARES: [f64; 2] = [0.3, 0.7];
/// Who takes part in the open loop.
pub(crate) const OPEN_SYSTEMS: [System; 3] = [System::Tandem, System::BareGrouped, System::Postgres];
/// Connections of the open loop: enough that one is free when a request is due.
pub(crate) const OPEN_CLIENTS: usize = 128;

/// What the open loop calls a share.
pub(crate) fn share(share: f64) -> String {
    format!("{:.0} % of the saturation of the slowest", share * 100.0)
}

/// The cases of the open loop, if the slowest system does so many requests a second at most.
pub(crate) fn open(saturation: f64) -> Vec<Case> {
    let case = |of: f64| Case {
        variant: share(of),
        rate: Some(saturation * of),
        systems: OPEN_SYSTEMS.to_vec(),
        ..Case::new(Benchmark::Open, counter(), OPEN_CLIENTS)
    };
    SHARES.map(case).to_vec()
}

/// What has to be measured before the open loop, if B1 was not.
pub(crate) fn saturation() -> Vec<Case> {
    let case = |clients| Case { systems: OPEN_SYSTEMS.to_vec(), ..Case::new(Benchmark::B1, counter(), clients) };
    CLIENTS[2..].iter().copied().map(case).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    pub(super) fn options(arguments: &[&str]) -> Options {
        let line = Line::parse_from(["bench"].iter().chain(arguments));
        line.options.adjusted()
    }

    #[test]
    fn floor_of_latency_is_measured_once_at_one_client() {
        let cases = cases(Benchmark::B1, &options(&[]));
        assert_eq!(cases.len(), 12);
        let with_floor: Vec<_> = cases.iter().filter(|case| case.systems.contains(&System::Floor)).collect();
        assert_eq!(with_floor.len(), 1);
        assert_eq!((with_floor[0].clients, with_floor[0].workload), (1, counter()));
    }

    #[test]
    fn clients_can_be_chosen() {
        assert!(cases(Benchmark::B2, &options(&["--clients", "7"])).iter().all(|case| case.clients == 7));
        assert_eq!(cases(Benchmark::B3, &options(&["--clients", "1,2"])).len(), 6);
    }

    #[test]
    fn quick_is_small() {
        let quick = options(&["--quick"]);
        assert!(quick.seconds < 1.0 && quick.rounds == 1);
        assert!(cases(Benchmark::B6, &quick).iter().all(|case| !case.variant.contains("1000000")));
        assert_eq!(cases(Benchmark::B2, &quick).len(), 2);
    }

    #[test]
    fn open_loop_asks_for_shares() {
        let rates: Vec<_> = open(1_000.0).iter().map(|case| case.rate).collect();
        assert_eq!(rates, [Some(300.0), Some(700.0)]);
    }
}
