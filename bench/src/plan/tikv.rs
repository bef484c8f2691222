//! Which measurements there are on stores that speak TiKV's protocol.

use super::{Benchmark, CLIENTS, CLIENTS_USUAL, Case, SKEW, transfer};
use crate::options::Options;
use crate::system::System;
use crate::workload::Workload;

/// Fewer than on the embedded store, so that loading them takes less time than measuring. Still so many that two of 256
/// clients seldom want the same.
const KEYS: u32 = 20_000;
const STEPS: u32 = 50_000;
/// Creditors of transfers.
pub(crate) const THETAS: [f64; 3] = [0.0, SKEW, 0.999];
/// Calls of a chain.
pub(crate) const CALLS: [usize; 2] = [1, 9];

/// Counters under a uniform choice.
pub(crate) fn counter() -> Workload {
    Workload::Counter { keys: KEYS, theta: 0.0, functions: 0 }
}

/// Counters that read: all the same instance, or each its own.
pub(crate) fn reading(all_the_same: bool) -> Workload {
    Workload::Reading { keys: KEYS, read: if all_the_same { 1 } else { KEYS } }
}

/// So many calls in a row.
pub(crate) fn chain(calls: usize) -> Workload {
    Workload::Chain { calls, steps: STEPS }
}

/// The cases of a benchmark.
pub(super) fn cases(benchmark: Benchmark, options: &Options) -> Vec<Case> {
    let case = |workload, clients, systems: &[System]| Case {
        systems: systems.to_vec(),
        ..Case::new(benchmark, workload, clients)
    };
    let (pair, three) = ([System::Tikv, System::BareTikv], [System::Tikv, System::TikvThree, System::BareTikv]);
    let usual = options.clients_or(&[CLIENTS_USUAL]);
    match benchmark {
        Benchmark::T1 => {
            let uniform = options.clients_or(&CLIENTS).into_iter().map(|clients| {
                let counter = Workload::Counter { keys: options.keys.unwrap_or(KEYS), theta: 0.0, functions: 0 };
                match clients {
                    1 => case(counter, 1, &[pair[0], pair[1], System::TikvFloor, System::EmptyCall]),
                    2..CLIENTS_USUAL => case(counter, clients, &pair),
                    _ => case(counter, clients, &three),
                }
            });
            let other = [super::hot_counter(), reading(false), reading(true)];
            let other = other.into_iter().flat_map(|workload| usual.iter().map(move |clients| (workload, *clients)));
            uniform.chain(other.map(|(workload, clients)| case(workload, clients, &pair))).collect()
        }
        Benchmark::T2 => {
            let thetas = if options.quick { &THETAS[..1] } else { &THETAS[..] };
            let of =
                |theta: &f64| usual.iter().map(|clients| case(transfer(*theta), *clients, &three)).collect::<Vec<_>>();
            thetas.iter().flat_map(of).collect()
        }
        _ => {
            let clients = options.clients_or(&[1, CLIENTS_USUAL]);
            let of = |calls| clients.iter().map(|clients| case(chain(calls), *clients, &pair)).collect::<Vec<_>>();
            CALLS.into_iter().flat_map(of).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::options;
    use super::*;

    #[test]
    fn there_is_a_place_for_each_system_of_a_case() {
        for benchmark in [Benchmark::T1, Benchmark::T2, Benchmark::T3] {
            for case in cases(benchmark, &options(&[])) {
                let stored = case.systems.iter().filter(|system| system.is_on_tikv()).count();
                assert!((2..=crate::system::stores::PLACES).contains(&stored), "{case:?}");
            }
        }
    }

    #[test]
    fn floor_is_measured_at_one_client_and_several_runtimes_at_many() {
        let cases = cases(Benchmark::T1, &options(&[]));
        let with = |system| cases.iter().filter(move |case| case.systems.contains(&system)).map(|case| case.clients);
        assert_eq!(with(System::TikvFloor).collect::<Vec<_>>(), [1]);
        assert_eq!(with(System::TikvThree).collect::<Vec<_>>(), [64, 256]);
        assert_eq!(cases.len(), 7);
    }

    #[test]
    fn quick_leaves_out_most() {
        assert_eq!(cases(Benchmark::T2, &options(&["--quick"])).len(), 1);
        assert!(cases(Benchmark::T1, &options(&["--quick"])).iter().all(|case| case.clients <= 16));
    }
}
