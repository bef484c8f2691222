//! Results: of each measurement the median and the extremes of its rounds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::measure::Figures;
use crate::system::System;

/// Median and extremes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// The one in the middle; of an even number the mean of the two in the middle.
    pub(crate) median: f64,
    /// The least.
    pub(crate) min: f64,
    /// The greatest.
    pub(crate) max: f64,
}

impl Spread {
    /// Of `values`. `None` if there are none.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Self { median, min, max })
    }
}

/// What was measured, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// `b1`.
    pub(crate) benchmark: String,
    /// Its parameters: `100000 keys, uniform`.
    pub(crate) variant: String,
    /// Connections.
    pub(crate) clients: usize,
    /// What was measured.
    pub(crate) system: System,
    /// How often.
    pub(crate) rounds: usize,
    /// By name.
    pub(crate) figures: BTreeMap<String, Spread>,
}

/// All that a run of the benchmark gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    /// How it was measured, for people.
    pub(crate) conditions: BTreeMap<String, String>,
    /// In the order of measuring.
    pub(crate) entries: Vec<Entry>,
}

impl Results {
    /// Adds what the rounds of one measurement gave.
    pub(crate) fn add(&mut self, benchmark: &str, variant: &str, clients: usize, system: System, rounds: &[Figures]) {
        let mut by_name: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (name, value) in rounds.iter().flatten() {
            by_name.entry(name.clone()).or_default().push(*value);
        }
        let figures = by_name.into_iter().filter_map(|(name, values)| Some((name, Spread::of(values)?))).collect();
        self.entries.push(Entry {
            benchmark: benchmark.to_owned(),
            variant: variant.to_owned(),
            clients,
            system,
            rounds: rounds.len(),
            figures,
        });
    }

    /// What several runs measured. Conditions are those of a run, so there are none.
    pub(crate) fn together(runs: &[Self]) -> Self {
        let entries = runs.iter().flat_map(|run| run.entries.iter().cloned()).collect();
        Self { conditions: BTreeMap::new(), entries }
    }

    /// The entry of one measurement.
    pub(crate) fn entry(&self, benchmark: &str, variant: &str, clients: usize, system: System) -> Option<&Entry> {
        self.entries.iter().find(|entry| {
            entry.benchmark == benchmark
                && entry.variant == variant
                && entry.clients == clients
                && entry.system == system
        })
    }
}

/// Figures of the whole device: whatever else runs can only add to them, so the least of all rounds is nearest.
const ONLY_ADDED_TO: [&str; 2] = ["written_bytes", "flushes"];

impl Spread {
    /// With what stands for all rounds of the figure `name` in the place of the median.
    pub(crate) fn standing_for(self, name: &str) -> Self {
        if ONLY_ADDED_TO.contains(&name) { Self { median: self.min, ..self } } else { self }
    }
}

impl Entry {
    /// One figure, as it stands for all rounds: the median, or the least of what others can only add to.
    pub(crate) fn figure(&self, name: &str) -> Option<Spread> {
        self.figures.get(name).map(|spread| spread.standing_for(name))
    }

    /// The value of [`Entry::figure`].
    pub(crate) fn median(&self, name: &str) -> Option<f64> {
        self.figure(name).map(|spread| spread.median)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_one_in_the_middle() {
        assert_eq!(Spread::of(Vec::new()), None);
        assert_eq!(Spread::of(vec![3.0, 1.0, 9.0]), Some(Spread { median: 3.0, min: 1.0, max: 9.0 }));
        assert_eq!(Spread::of(vec![4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
    }

    #[test]
    fn least_stands_for_what_others_can_only_add_to() {
        let round = |bytes: f64| Figures::from([("written_bytes".to_owned(), bytes), ("cpu_us".to_owned(), bytes)]);
        let mut results = Results::default();
        results.add("b1", "uniform", 64, System::Tandem, &[round(800.0), round(90_000.0), round(900.0)]);
        let entry = results.entry("b1", "uniform", 64, System::Tandem).unwrap();
        assert_eq!((entry.median("written_bytes"), entry.median("cpu_us")), (Some(800.0), Some(900.0)));
    }

    #[test]
    fn rounds_are_summed_up_by_name() {
        let round = |rate: f64| Figures::from([("per_second".to_owned(), rate)]);
        let mut results = Results::default();
        results.add("b1", "uniform", 64, System::Tandem, &[round(10.0), round(30.0), round(20.0)]);
        let entry = results.entry("b1", "uniform", 64, System::Tandem).unwrap();
        assert_eq!((entry.rounds, entry.median("per_second")), (3, Some(20.0)));
        assert!(results.entry("b1", "uniform", 1, System::Tandem).is_none());
        assert_eq!(entry.median("nothing"), None);
    }

    #[test]
    fn entries_of_several_runs_are_found_in_one() {
        let of = |benchmark: &str| {
            let mut run = Results::default();
            run.add(benchmark, "uniform", 64, System::Tandem, &[]);
            run
        };
        let together = Results::together(&[of("b1"), of("t1")]);
        assert!(together.entry("b1", "uniform", 64, System::Tandem).is_some());
        assert!(together.entry("t1", "uniform", 64, System::Tandem).is_some());
    }
}
