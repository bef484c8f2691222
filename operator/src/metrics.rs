//! Everything that the operator counts.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The shortest bucket of durations, in seconds.
const BUCKET_MIN: f64 = 0.001;
/// How many buckets there are; each is twice the one before.
const BUCKETS: u16 = 14;

/// What is reconciled.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    /// A kind of ours, `Graph` or `Pods`.
    pub kind: &'static str,
}

/// Why a reconcile failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ErrorLabel {
    /// A kind of ours, `Graph` or `Pods`.
    pub kind: &'static str,
    /// The variant of the error.
    pub reason: &'static str,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WriteLabel {
    /// The kind of the object.
    pub kind: &'static str,
    /// `apply`, `delete` or `status`.
    pub verb: &'static str,
}

/// See the module.
#[derive(Clone)]
pub struct Metrics {
    /// Finished reconciles.
    pub reconciles: Family<KindLabel, Counter>,
    /// Failed reconciles.
    pub errors: Family<ErrorLabel, Counter>,
    /// How long reconciles take.
    pub duration: Family<KindLabel, Histogram>,
    /// Calls that change the cluster.
    pub writes: Family<WriteLabel, Counter>,
    /// Keys that wait.
    pub queue_depth: Gauge,
    /// Whether this process holds the lease.
    pub is_leader: Gauge,
    /// Resources that are known.
    pub resources: Family<KindLabel, Gauge<i64>>,
    /// Times that a watch had to begin anew.
    pub watch_errors: Counter<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram = || Histogram::new(exponential_buckets(BUCKET_MIN, 2.0, BUCKETS));
        Self {
            reconciles: Family::default(),
            errors: Family::default(),
            duration: Family::new_with_constructor(histogram),
            writes: Family::default(),
            queue_depth: Gauge::default(),
            is_leader: Gauge::default(),
            resources: Family::default(),
            watch_errors: Counter::default(),
        }
    }
}

impl Metrics {
    /// Counts a call that changes the cluster.
    pub fn write(&self, kind: &'static str, verb: &'static str) {
        self.writes.get_or_create(&WriteLabel { kind, verb }).inc();
    }

    /// How many calls changed the cluster.
    pub fn writes_total(&self, verbs: &[&'static str], kinds: &[&'static str]) -> u64 {
        let pairs = kinds.iter().flat_map(|kind| verbs.iter().map(move |verb| WriteLabel { kind, verb }));
        pairs.map(|label| self.writes.get_or_create(&label).get()).sum()
    }

    /// Everything, under its name.
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("tandem_operator");
        registry.register("reconciles", "Finished reconciles", self.reconciles.clone());
        registry.register("reconcile_errors", "Failed reconciles, by the kind of error", self.errors.clone());
        registry.register("reconcile_duration_seconds", "How long reconciles take", self.duration.clone());
        registry.register("writes", "Calls that change the cluster", self.writes.clone());
        registry.register("queue_depth", "Keys that wait to be reconciled", self.queue_depth.clone());
        registry.register("leader", "Whether this process holds the lease", self.is_leader.clone());
        registry.register("resources", "Resources that are known", self.resources.clone());
        registry.register("watch_errors", "Times that a watch had to begin anew", self.watch_errors.clone());
        registry
    }
}
