//! The figures of runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Arguments;

/// The figures of all runs that were kept, by the number of functions.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) runs: BTreeMap<usize, Run>,
}

impl Results {
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(file)?)?)
    }

    pub(crate) fn put(&mut self, run: Run) {
        self.runs.insert(run.functions, run);
    }
}

/// One run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) functions: usize,
    pub(crate) routes: usize,
    pub(crate) namespaces: usize,
    pub(crate) writers: usize,
    /// Processors of the machine.
    pub(crate) processors: usize,
    /// Load average before it.
    pub(crate) load_before: String,
    /// What went on meanwhile, as whoever measured it says.
    #[serde(default)]
    pub(crate) remark: String,
    pub(crate) script: Option<Script>,
    pub(crate) storm: Storm,
    pub(crate) cold_start: ColdStart,
    pub(crate) reaction: Option<Reaction>,
    pub(crate) drift_ms: Option<Times>,
    pub(crate) rest: Option<Rest>,
    pub(crate) invalid: Option<Invalid>,
}

/// What the script took.
#[derive(Debug, Default, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "names say the unit")]
pub(crate) struct Script {
    /// Only the children.
    pub(crate) children_seconds: f64,
    /// CPU of the API server and etcd meanwhile.
    pub(crate) children_server_cpu_seconds: f64,
    /// The resources, their children, and the statuses of both: once each.
    pub(crate) everything_seconds: f64,
    /// CPU of the API server and etcd meanwhile.
    pub(crate) everything_server_cpu_seconds: f64,
}

/// Everything applied at once.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Storm {
    /// Until everything was applied.
    pub(crate) applied_seconds: f64,
    /// Until everything was ready.
    pub(crate) ready_seconds: f64,
    /// From the apply of a resource until it was ready.
    pub(crate) ready_ms: Times,
    pub(crate) cpu_seconds: f64,
    /// CPU of the API server and etcd until everything was ready.
    pub(crate) server_cpu_seconds: f64,
    pub(crate) memory_before_kib: u64,
    pub(crate) memory_after_kib: u64,
    pub(crate) peak_kib: u64,
    /// Calls of the operator, by resource and verb.
    pub(crate) calls: BTreeMap<String, u64>,
    /// Topologies that pods were told.
    pub(crate) pushes: u64,
}

/// The start over everything.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ColdStart {
    pub(crate) idle_seconds: f64,
    pub(crate) writes: u64,
    pub(crate) cpu_seconds: f64,
    pub(crate) memory_kib: u64,
    pub(crate) peak_kib: u64,
}

/// Edits.
#[derive(Debug, Default, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "names say the unit")]
pub(crate) struct Reaction {
    /// From an edit of `replicas` until the Deployment has them.
    pub(crate) child_ms: Times,
    /// From there on until the status is about the edit, and ready.
    pub(crate) status_ms: Times,
    /// From an edit of `image` until the Deployment of the revision is there.
    pub(crate) revision_ms: Times,
    /// Until the revision serves.
    pub(crate) active_ms: Times,
}

/// Nothing to do.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Rest {
    pub(crate) calls_a_minute: f64,
    pub(crate) writes: u64,
    pub(crate) millicores: f64,
    pub(crate) memory_before_kib: u64,
    pub(crate) memory_after_kib: u64,
}

/// Resources that are wrong.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Invalid {
    pub(crate) count: usize,
    /// Until all of them said so.
    pub(crate) told_seconds: f64,
    /// Other resources about which something else was said.
    pub(crate) others_touched: usize,
    /// Edits of others beside them.
    pub(crate) reaction: Reaction,
}

/// Percentiles of times, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) count: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Times {
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(index).map(|time| rounded(time.as_secs_f64() * 1_000.0)).unwrap_or_default()
        };
        Self { count: times.len(), p50: at(50), p99: at(99), max: at(100) }
    }
}

pub(crate) fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

impl Run {
    pub(crate) fn new(arguments: &Arguments) -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            functions: arguments.resources,
            routes: arguments.routes,
            namespaces: arguments.namespaces,
            writers: arguments.writers,
            processors: std::thread::available_parallelism().map(usize::from).unwrap_or_default(),
            remark: arguments.remark.clone(),
            load_before: load.split(' ').next().unwrap_or_default().to_owned(),
            ..Self::default()
        }
    }

    /// All resources.
    pub(crate) fn resources(&self) -> usize {
        self.functions + self.routes + self.namespaces
    }

    /// Memory that a resource takes, in KiB: what the process holds more than before the first one.
    #[expect(clippy::cast_precision_loss, reason = "counts of this size are exact")]
    pub(crate) fn kib_a_resource(&self) -> f64 {
        self.storm.memory_after_kib.saturating_sub(self.storm.memory_before_kib) as f64 / self.resources().max(1) as f64
    }

    /// Writes of the operator for a function and all that comes with it.
    #[expect(clippy::cast_precision_loss, reason = "counts of this size are exact")]
    pub(crate) fn calls_a_resource(&self) -> f64 {
        self.storm.calls.values().sum::<u64>() as f64 / self.resources().max(1) as f64
    }

    /// For the terminal.
    pub(crate) fn summary(&self) -> String {
        let mut text = format!("{self:#?}\n");
        if let Some(script) = &self.script {
            text += &format!(
                "ratio to children: {:.2}, to everything: {:.2}; of CPU with that of servers: {:.2}, {:.2}\n",
                self.storm.ready_seconds / script.children_seconds,
                self.storm.ready_seconds / script.everything_seconds,
                (self.storm.server_cpu_seconds + self.storm.cpu_seconds) / script.children_server_cpu_seconds,
                (self.storm.server_cpu_seconds + self.storm.cpu_seconds) / script.everything_server_cpu_seconds
            );
        }
        text + &format!(
            "KiB a resource: {:.2}, calls a resource: {:.2}",
            self.kib_a_resource(),
            self.calls_a_resource()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let times = Times::of((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!((times.count, times.p50, times.p99, times.max), (200, 100.0, 198.0, 200.0));
        assert_eq!(Times::of(Vec::new()).count, 0);
    }
}
