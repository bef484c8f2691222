//! Figures follow from results, and from nothing else.

use super::*;
use crate::measure::Figures;

fn with(
    results: &mut Results,
    benchmark: &str,
    variant: &str,
    clients: usize,
    system: System,
    figures: &[(&str, f64)],
) {
    let round: Figures = figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    results.add(benchmark, variant, clients, system, &[round]);
}

fn figure(results: &Results, key: &str) -> Figure {
    figures(results).into_iter().find(|figure| figure.key == key).unwrap()
}

#[test]
fn nothing_measured_is_nothing_reached() {
    let all = figures(&Results::default());
    assert_eq!(all.len(), 13 + 13);
    for figure in all {
        assert_eq!((figure.value, figure.is_reached()), (None, None), "{}", figure.key);
        assert_eq!(figure.measured(), "not measured");
    }
}

#[test]
fn rate_is_held_against_bare_transactions_with_a_sync_each() {
    let mut results = Results::default();
    let variant = plan::counter().to_string();
    for (system, rate) in [(System::Tandem, 12_000.0), (System::BareAlone, 4_000.0), (System::BareGrouped, 48_000.0)] {
        with(&mut results, "b1", &variant, 64, system, &[("per_second", rate)]);
    }
    let found = figure(&results, "rate-64");
    assert_eq!((found.value, found.is_reached(), found.target().as_str()), (Some(3.0), Some(true), "≥ 3×"));
    assert!(found.made_of.contains("(0.25×)"), "{}", found.made_of);
    assert_eq!(figure(&results, "rate-256").is_reached(), None);
}

#[test]
fn bounds_hold_in_both_directions() {
    let mut results = Results::default();
    let (counter, transfer) = (plan::counter().to_string(), plan::transfer(0.0).to_string());
    with(&mut results, "b1", &counter, 64, System::Tandem, &[("cpu_us", 299.0), ("written_bytes", 800.0)]);
    with(&mut results, "b1", &counter, 64, System::Postgres, &[("written_bytes", 1_000.0)]);
    with(&mut results, "b2", &transfer, 64, System::Tandem, &[("cpu_us", 451.0), ("written_bytes", 5_000.0)]);
    with(&mut results, "b2", &transfer, 64, System::Postgres, &[("written_bytes", 1_000.0)]);
    assert_eq!(figure(&results, "cpu-counter").is_reached(), Some(true));
    assert_eq!(figure(&results, "cpu-transfer").is_reached(), Some(false));
    let bytes = figure(&results, "bytes");
    assert_eq!((bytes.value, bytes.is_reached()), (Some(5.0), Some(false)), "the worst counts");
}

#[test]
fn latency_skew_calls_memory_and_restart_are_ratios_of_medians() {
    let mut results = Results::default();
    let counter = plan::counter().to_string();
    with(&mut results, "b1", &counter, 1, System::Tandem, &[("p50_ms", 0.6)]);
    with(&mut results, "b1", &counter, 1, System::Floor, &[("p50_ms", 0.5)]);
    for (theta, rate) in [(0.0, 1_000.0), (0.999, 400.0)] {
        with(&mut results, "b2", &plan::transfer(theta).to_string(), 64, System::Tandem, &[("per_second", rate)]);
    }
    for (calls, cpu) in [(1, 100.0), (9, 250.0)] {
        let variant = plan::chain(calls).to_string();
        with(&mut results, "b3", &variant, 64, System::Tandem, &[("cpu_us", cpu)]);
    }
    for (count, memory) in [(10_000, 40.0), (1_000_000, 60.0)] {
        let figures = [("memory_mib.runtime", memory), (RESTART, 0.5)];
        with(&mut results, "b6", &plan::instances(count), 64, System::Tandem, &figures);
    }
    let found = |key| (figure(&results, key).value.unwrap(), figure(&results, key).is_reached().unwrap());
    assert_eq!(found("latency"), (1.2, true));
    assert_eq!(found("skew"), (0.4, false));
    assert_eq!(found("calls"), (2.5, true));
    assert_eq!(found("memory-instances"), (1.5, false));
    assert_eq!(found("restart"), (0.5, true));
}

#[test]
fn tikv_is_held_against_bare_transactions_of_its_client() {
    let mut results = Results::default();
    let counter = plan::tikv::counter().to_string();
    for (system, rate, cpu) in
        [(System::Tikv, 9_000.0, 100.0), (System::BareTikv, 3_000.0, 0.0), (System::TikvThree, 9_000.0, 120.0)]
    {
        with(&mut results, "t1", &counter, 64, system, &[("per_second", rate), ("cpu_us.runtime", cpu)]);
    }
    for (all_the_same, rate) in [(true, 700.0), (false, 1_000.0)] {
        let variant = plan::tikv::reading(all_the_same).to_string();
        with(&mut results, "t1", &variant, 64, System::Tikv, &[("per_second", rate)]);
    }
    for (theta, rate) in [(0.0, 1_000.0), (0.99, 500.0), (0.999, 300.0)] {
        let variant = plan::transfer(theta).to_string();
        with(&mut results, "t2", &variant, 64, System::TikvThree, &[("per_second", rate)]);
    }
    let found = |key| (figure(&results, key).value.unwrap(), figure(&results, key).is_reached().unwrap());
    assert_eq!(found("tikv-rate-64"), (3.0, true));
    assert_eq!(found("tikv-three"), (1.2, false));
    assert_eq!(found("tikv-shared"), (0.7, false));
    assert_eq!(found("tikv-skew-99-three"), (0.5, true));
    assert_eq!(found("tikv-skew-999-three"), (0.3, false));
    assert_eq!(figure(&results, "tikv-skew-99").is_reached(), None);
}

#[test]
fn figures_of_tikv_are_told_from_the_others_by_their_keys() {
    let on_tikv = figures(&Results::default()).iter().filter(|figure| figure.key.starts_with(tikv::KEY)).count();
    assert_eq!(on_tikv, 13);
}
