//! Runs the cases of benchmarks, their systems in turn in each round.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

use crate::measure;
use crate::options::Options;
use crate::plan::{self, Benchmark, Case};
use crate::summary::Results;
use crate::system::System;
use crate::system::postgres::Cluster;
use crate::system::stores::{self, Stores};

/// A run of the suite.
struct Suite<'a> {
    options: &'a Options,
    cluster: Option<Arc<Cluster>>,
    has_stores: bool,
    results: Results,
}

/// Runs the benchmarks; all, if none is named.
pub(crate) fn run(benchmarks: &[Benchmark], options: &Options) -> anyhow::Result<Results> {
    fs::create_dir_all(&options.directory)?;
    let benchmarks = if benchmarks.is_empty() { &Benchmark::ALL[..] } else { benchmarks };
    let wanted = |system| options.systems.is_empty() || options.systems.contains(&system);
    let (on_tikv, embedded) = (
        benchmarks.iter().any(|benchmark| benchmark.is_on_tikv()),
        benchmarks.iter().any(|benchmark| !benchmark.is_on_tikv()),
    );
    let has_stores = on_tikv && stores::are_there();
    let cluster = if embedded && wanted(System::Postgres) { cluster(&options.directory) } else { None };
    let mut conditions = conditions(options);
    if embedded {
        let version = cluster.as_ref().map_or_else(|| "left out".to_owned(), |cluster| cluster.version().to_owned());
        conditions.insert("PostgreSQL".to_owned(), version);
    }
    if has_stores {
        conditions.insert("stores".to_owned(), stores::described());
        conditions.insert("regions of each installation".to_owned(), options.regions.to_string());
    }
    let mut suite = Suite { options, cluster, has_stores, results: Results { conditions, ..Results::default() } };
    for benchmark in benchmarks {
        suite.run_all(plan::cases(*benchmark, options))?;
        if *benchmark == Benchmark::Open {
            suite.open_loop()?;
        }
    }
    Ok(suite.results)
}

/// PostgreSQL, or a word about why it is left out.
fn cluster(directory: &Path) -> Option<Arc<Cluster>> {
    match Cluster::start(directory) {
        Ok(Some(cluster)) => return Some(Arc::new(cluster)),
        Ok(None) => eprintln!("PostgreSQL is not installed, so it is left out"),
        Err(error) => eprintln!("PostgreSQL cannot be used here, so it is left out: {error:#}"),
    }
    None
}

impl Suite<'_> {
    fn run_all(&mut self, mut cases: Vec<Case>) -> anyhow::Result<()> {
        cases.retain(|case| self.options.only.as_ref().is_none_or(|only| case.variant.contains(only.as_str())));
        let count = cases.len();
        for (number, mut case) in (1..).zip(cases) {
            case.systems.retain(|system| self.takes_part(*system));
            if case.systems.is_empty() {
                continue;
            }
            let (name, clients) = (case.benchmark.name(), plan::clients(case.clients));
            eprintln!("{name} {number} of {count}: {}, {clients}", case.variant);
            self.run_case(&case)?;
        }
        Ok(())
    }

    fn takes_part(&self, system: System) -> bool {
        let chosen = self.options.systems.is_empty() || self.options.systems.contains(&system);
        chosen && (system != System::Postgres || self.cluster.is_some()) && (!system.is_on_tikv() || self.has_stores)
    }

    fn run_case(&mut self, case: &Case) -> anyhow::Result<()> {
        let mut rounds = vec![Vec::new(); case.systems.len()];
        for round in 1..=self.options.rounds {
            // Each round has stores that are new, and a place in them for each system.
            let on_tikv = case.systems.iter().any(|system| system.is_on_tikv());
            let stores =
                if on_tikv { Some(Stores::start(&self.options.directory, self.options.regions)?) } else { None };
            let mut order: Vec<usize> = (0..case.systems.len()).collect();
            if on_tikv {
                // Those who come later share the stores with the data of others; it is not always the same who does.
                order.rotate_left((round - 1) % case.systems.len());
            }
            for index in order {
                let (system, rounds) = (&case.systems[index], &mut rounds[index]);
                let load = self.options.load(case.clients, case.rate, round);
                let directory = &self.options.directory;
                let running =
                    measure::start(*system, case.workload, directory, self.cluster.as_ref(), stores.as_ref())?;
                let figures = measure::measure(running, case.workload, load, directory, case.restarts);
                let figures = figures.with_context(|| format!("{}, {}", case.variant, system.label()))?;
                eprintln!("  round {round}: {:26} {:8.0}/s", system.label(), figures["per_second"]);
                rounds.push(figures);
            }
        }
        for (system, rounds) in case.systems.iter().zip(&rounds) {
            self.results.add(case.benchmark.name(), &case.variant, case.clients, *system, rounds);
        }
        Ok(())
    }

    /// The rates of the open loop depend on what a closed loop reached.
    fn open_loop(&mut self) -> anyhow::Result<()> {
        if self.saturation().is_none() {
            self.run_all(plan::saturation())?;
        }
        if let Some(saturation) = self.saturation() {
            return self.run_all(plan::open(saturation));
        }
        eprintln!("the open loop needs a rate to begin with, and no system was asked for one");
        Ok(())
    }

    /// What the slowest system does at most.
    fn saturation(&self) -> Option<f64> {
        let variant = plan::counter().to_string();
        let best = |system: System| {
            let entries = self.results.entries.iter();
            let of = entries.filter(|e| e.benchmark == "b1" && e.variant == variant && e.system == system);
            of.filter_map(|entry| entry.median("per_second")).max_by(f64::total_cmp)
        };
        plan::OPEN_SYSTEMS.into_iter().filter_map(best).min_by(f64::total_cmp)
    }
}

/// What a reader has to know about how it was measured.
fn conditions(options: &Options) -> BTreeMap<String, String> {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    [
        ("cores", cores.to_string()),
        ("processor", model.map_or("unknown", |(_, model)| model).to_owned()),
        ("load average before", load.split(' ').next().unwrap_or_default().to_owned()),
        ("kernel", kernel.trim().to_owned()),
        ("seconds of a measurement", options.seconds.to_string()),
        ("seconds of warm-up", options.warm_up.to_string()),
        ("rounds", options.rounds.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}
