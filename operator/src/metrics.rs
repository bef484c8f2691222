//! Everything that the operator counts.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use strum::IntoEnumIterator;
use tandem_crds::resources::Kind;

use crate::world::World;

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

/// How a resource is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StateLabel {
    /// A kind of ours.
    pub kind: &'static str,
    /// What its conditions say: see [`State`].
    pub state: &'static str,
}

/// What the conditions of a resource say, in one word. A failure counts more than what serves beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::EnumIter)]
#[strum(serialize_all = "lowercase")]
pub enum State {
    /// Nobody has looked at it yet.
    New,
    /// It works.
    Ready,
    /// It moves.
    Reconciling,
    /// It waits for somebody else.
    Waiting,
    /// As it is, it can never work.
    Stalled,
}

impl State {
    /// The state of a resource with these conditions.
    pub fn of(conditions: &[Condition]) -> Self {
        let holds = |type_: &str| conditions.iter().any(|one| one.type_ == type_ && one.status == "True");
        if conditions.is_empty() {
            Self::New
        } else if holds("Stalled") {
            Self::Stalled
        } else if holds("Ready") {
            Self::Ready
        } else if holds("Reconciling") {
            Self::Reconciling
        } else {
            Self::Waiting
        }
    }
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
    /// `apply`, `delete`, `finalizers` or `status`.
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
    pub resources: Family<StateLabel, Gauge<i64>>,
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

    /// Counts the resources as they are now. Every state is told, so that none is missing where there is nothing in it.
    pub fn count_resources(&self, world: &World) {
        let mut counts: BTreeMap<(&'static str, &'static str), i64> = BTreeMap::new();
        for kind in Kind::ALL {
            counts.extend(State::iter().map(|state| ((kind.name(), state.into()), 0)));
        }
        world.each(|kind, conditions| {
            *counts.entry((kind.name(), State::of(conditions).into())).or_default() += 1;
        });
        for ((kind, state), count) in counts {
            self.resources.get_or_create(&StateLabel { kind, state }).set(count);
        }
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
        registry.register(
            "resources",
            "Resources by what their conditions say: new, ready, reconciling, waiting or stalled",
            self.resources.clone(),
        );
        registry.register("watch_errors", "Times that a watch had to begin anew", self.watch_errors.clone());
        registry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::{Finding, conditions};
    use crate::reasons;

    #[test]
    fn every_reason_is_one_state() {
        use crate::reasons::Effect;
        for reason in reasons::ALL {
            let conditions = conditions(&Finding::new(reason, ""), None, None, &[], jiff::Timestamp::UNIX_EPOCH);
            let expected = match reason.effect {
                Effect::Ready => State::Ready,
                Effect::Moving => State::Reconciling,
                Effect::Waiting => State::Waiting,
                Effect::Stalled => State::Stalled,
            };
            assert_eq!(State::of(&conditions), expected, "{}", reason.name);
        }
        assert_eq!(State::of(&[]), State::New);
    }

    #[test]
    fn what_is_gone_is_counted_no_more() {
        let (metrics, world) = (Metrics::default(), World::default());
        let function = serde_json::json!({
            "apiVersion": "tandem.dev/v1alpha1", "kind": "Function",
            "metadata": {"name": "cart", "namespace": "shop"}, "spec": {"image": "a"},
        });
        world.functions.put(serde_json::from_value(function).expect("it is an object"));
        let new = StateLabel { kind: "Function", state: "new" };
        metrics.count_resources(&world);
        assert_eq!(metrics.resources.get_or_create(&new).get(), 1);
        world.functions.remove("shop", "cart");
        metrics.count_resources(&world);
        assert_eq!(metrics.resources.get_or_create(&new).get(), 0);
    }
}
