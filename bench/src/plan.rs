//! Which measurements a benchmark consists of.

use crate::system::System;
use crate::workload::Workload;

/// Those that do all workloads.
const USUAL: [System; 4] = [System::Tandem, System::BareAlone, System::BareGrouped, System::Postgres];
/// Zipf's theta of a skewed workload.
const SKEW: f64 = 0.99;
/// Clients of the benchmarks that do not vary them.
const CLIENTS: usize = 64;
const KEYS: u32 = 100_000;

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
}

/// One comparison: the same load on several systems.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Case {
    /// `b1`.
    pub(crate) benchmark: &'static str,
    /// What is asked for.
    pub(crate) workload: Workload,
    /// Connections.
    pub(crate) clients: usize,
    /// Who is asked, in this order.
    pub(crate) systems: Vec<System>,
}

impl Case {
    fn new(benchmark: &'static str, workload: Workload, clients: usize) -> Self {
        Self { benchmark, workload, clients, systems: USUAL.to_vec() }
    }
}

/// The cases of a benchmark. `clients` and `keys` replace those that belong to it.
pub(crate) fn cases(benchmark: Benchmark, clients: &[usize], keys: Option<u32>) -> Vec<Case> {
    let or = |usual: &[usize]| if clients.is_empty() { usual.to_vec() } else { clients.to_vec() };
    let workloads: Vec<Workload> = match benchmark {
        Benchmark::B1 => return counters(&or(&[1, 16, 64, 256]), keys.unwrap_or(KEYS)),
        Benchmark::B2 => {
            let thetas = [0.0, 0.8, SKEW, 0.999].map(|theta| Workload::Transfer { theta, accounts: 2 });
            let wider = [4, 8].map(|accounts| Workload::Transfer { theta: 0.0, accounts });
            thetas.into_iter().chain(wider).collect()
        }
        Benchmark::B3 => [1, 3, 9].map(|calls| Workload::Chain { calls }).to_vec(),
        Benchmark::B4 => [false, true].map(|skewed| Workload::Checkout { skewed }).to_vec(),
    };
    let name = match benchmark {
        Benchmark::B1 => "b1",
        Benchmark::B2 => "b2",
        Benchmark::B3 => "b3",
        Benchmark::B4 => "b4",
    };
    let with = |workload| or(&[CLIENTS]).into_iter().map(move |clients| Case::new(name, workload, clients));
    workloads.into_iter().flat_map(with).collect()
}

fn counters(clients: &[usize], keys: u32) -> Vec<Case> {
    let mut cases = Vec::new();
    for (keys, theta) in [(keys, 0.0), (keys, SKEW), (1, 0.0)] {
        for clients in clients {
            let mut case = Case::new("b1", Workload::Counter { keys, theta, functions: 0 }, *clients);
            if *clients == 1 && theta == 0.0 && keys > 1 {
                case.systems.extend([System::Floor, System::EmptyCall]);
            }
            cases.push(case);
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floor_of_latency_is_measured_once_at_one_client() {
        let cases = cases(Benchmark::B1, &[], None);
        assert_eq!(cases.len(), 12);
        let with_floor: Vec<_> = cases.iter().filter(|case| case.systems.contains(&System::Floor)).collect();
        assert_eq!(with_floor.len(), 1);
        assert_eq!(with_floor[0].clients, 1);
    }

    #[test]
    fn clients_can_be_chosen() {
        assert!(cases(Benchmark::B2, &[7], None).iter().all(|case| case.clients == 7));
        assert_eq!(cases(Benchmark::B3, &[1, 2], None).len(), 6);
    }
}
