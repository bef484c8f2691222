//! Which pictures the page has.

use crate::plan::{self, CALLS, CLIENTS, CLIENTS_USUAL, FUNCTIONS, INSTANCES, OPEN_CLIENTS, SHARES, THETAS, tikv};
use crate::summary::{Results, Spread};
use crate::svg::{Chart, Series};
use crate::system::System;
use crate::workload::Workload;

const SYSTEMS: &[System] = &[System::Tandem, System::BareAlone, System::BareGrouped, System::Postgres];
const ON_TIKV: &[System] = &[System::Tikv, System::TikvThree, System::BareTikv];
/// What stands below a group of bars, and where its values are: benchmark, variant, clients.
type Group = (String, &'static str, String, usize);

/// All pictures, by name.
pub(crate) fn all(results: &Results) -> Vec<(&'static str, Chart)> {
    let skewed = Workload::Counter { keys: 100_000, theta: 0.99, functions: 0 };
    let counters = |workload: Workload| {
        CLIENTS.map(|clients| (plan::clients(clients), "b1", workload.to_string(), clients)).to_vec()
    };
    let at = |benchmark, workload: Workload, name: String| (name, benchmark, workload.to_string(), CLIENTS_USUAL);
    let transfers = THETAS.map(|theta| at("b2", plan::transfer(theta), format!("theta {theta}"))).to_vec();
    let chains = CALLS.map(|calls| at("b3", plan::chain(calls), format!("{calls} calls"))).to_vec();
    let orders = [false, true].map(|skewed| Workload::Checkout { skewed });
    let orders = orders.map(|workload| at("b4", workload, workload.to_string())).to_vec();
    let costs = vec![
        at("b1", plan::counter(), "counter".to_owned()),
        at("b2", plan::transfer(0.0), "transfer".to_owned()),
        at("b3", plan::chain(CALLS[2]), "9 calls".to_owned()),
        at("b4", Workload::Checkout { skewed: false }, "checkout".to_owned()),
    ];
    let compare = |title: &str, figure: &str, groups: &[Group]| by_system(results, SYSTEMS, title, figure, groups);
    let mut all = vec![
        ("b1-uniform", compare("B1, requests/s, 100,000 keys, uniform", "per_second", &counters(plan::counter()))),
        ("b1-zipf", compare("B1, requests/s, 100,000 keys, Zipf 0.99", "per_second", &counters(skewed))),
        ("b1-hot", compare("B1, requests/s, one hot key", "per_second", &counters(plan::hot_counter()))),
        ("b2-rate", compare("B2, transfers/s, 64 clients", "per_second", &transfers)),
        ("b3-cpu", compare("B3, CPU µs of a flow, 64 clients", "cpu_us", &chains)),
        ("b4-rate", compare("B4, orders/s, 64 clients", "per_second", &orders)),
        ("cpu", compare("CPU µs of a request without the load generator, 64 clients", "cpu_us", &costs)),
        ("bytes", compare("Bytes written for a request, 64 clients", "written_bytes", &costs)),
        ("open-latency", open(results)),
        ("b6-memory", memory(results)),
    ];
    all.extend(on_tikv(results));
    all
}

/// Those of the stores that speak TiKV's protocol.
fn on_tikv(results: &Results) -> Vec<(&'static str, Chart)> {
    let counters = |workload: Workload| {
        CLIENTS.map(|clients| (plan::clients(clients), "t1", workload.to_string(), clients)).to_vec()
    };
    let at = |benchmark, workload: Workload, name: String| (name, benchmark, workload.to_string(), CLIENTS_USUAL);
    let kinds = vec![
        at("t1", tikv::counter(), "nothing read".to_owned()),
        at("t1", tikv::reading(false), "each its own".to_owned()),
        at("t1", tikv::reading(true), "all the same".to_owned()),
        at("t1", plan::hot_counter(), "one hot key".to_owned()),
    ];
    let transfers = tikv::THETAS.map(|theta| at("t2", plan::transfer(theta), format!("theta {theta}"))).to_vec();
    let [one, nine] = tikv::CALLS.map(|calls| at("t3", tikv::chain(calls), format!("{calls} calls")));
    let costs = vec![
        at("t1", tikv::counter(), "counter".to_owned()),
        at("t2", plan::transfer(0.0), "transfer".to_owned()),
        one,
        nine,
    ];
    let compare = |title: &str, figure: &str, groups: &[Group]| by_system(results, ON_TIKV, title, figure, groups);
    vec![
        ("t1-uniform", compare("T1, requests/s, 20,000 keys, uniform", "per_second", &counters(tikv::counter()))),
        ("t1-reading", compare("T1, requests/s, 64 clients", "per_second", &kinds)),
        ("t2-rate", compare("T2, transfers/s, 64 clients", "per_second", &transfers)),
        ("t-cpu", compare("CPU µs of a request, stores and PD included, 64 clients", "cpu_us", &costs)),
        ("t-bytes", compare("Bytes that stores wrote for a request, 64 clients", "stored_bytes", &costs)),
    ]
}

fn look(results: &Results, benchmark: &str, variant: &str, clients: usize, from: (System, &str)) -> Option<Spread> {
    results.entry(benchmark, variant, clients, from.0)?.figure(from.1)
}

/// A bar for each system.
fn by_system(results: &Results, systems: &[System], title: &str, figure: &str, groups: &[Group]) -> Chart {
    let of = |system| {
        let values = groups.iter();
        values
            .map(move |(_, benchmark, variant, clients)| look(results, benchmark, variant, *clients, (system, figure)))
    };
    Chart {
        title: title.to_owned(),
        groups: groups.iter().map(|(name, ..)| name.clone()).collect(),
        series: systems
            .iter()
            .map(|system| Series { name: system.label().to_owned(), values: of(*system).collect() })
            .collect(),
    }
}

/// p50 and p99 at each share.
fn open(results: &Results) -> Chart {
    let groups: Vec<(f64, &str)> =
        SHARES.into_iter().flat_map(|share| [(share, "p50_ms"), (share, "p99_ms")]).collect();
    let series = plan::OPEN_SYSTEMS.map(|system| {
        let values = groups.iter();
        let values = values.map(|(of, name)| look(results, "open", &plan::share(*of), OPEN_CLIENTS, (system, name)));
        Series { name: system.label().to_owned(), values: values.collect() }
    });
    let name = |(share, figure): &(f64, &str)| format!("{:.0} %, {}", share * 100.0, figure.trim_end_matches("_ms"));
    Chart {
        title: "Latency in ms at fixed rates, shares of the saturation of the slowest".to_owned(),
        groups: groups.iter().map(name).collect(),
        series: series.to_vec(),
    }
}

/// Memory of the runtime before and under load.
fn memory(results: &Results) -> Chart {
    let variants: Vec<String> =
        INSTANCES.into_iter().map(plan::instances).chain(FUNCTIONS.into_iter().map(plan::functions)).collect();
    let of = |name: &str, figure| Series {
        name: name.to_owned(),
        values: variants
            .iter()
            .map(|variant| look(results, "b6", variant, CLIENTS_USUAL, (System::Tandem, figure)))
            .collect(),
    };
    let series =
        vec![of("before the first request", "memory_at_rest_mib.runtime"), of("at 64 clients", "memory_mib.runtime")];
    Chart { title: "B6, memory of the runtime in MiB".to_owned(), groups: variants, series }
}
