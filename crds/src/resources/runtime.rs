//! `FunctionRuntime`: the pods that run flows.
#![allow(unreachable_pub, reason = "KubeSchema derives a public helper inside a function for each type")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tandem_model::limits::Limits;
use tandem_model::slot::SlotCount;
use tandem_model::topology::Topology;

use crate::resources::duration::Duration;
use crate::resources::function::DeletionPolicy;
use crate::resources::pod::{ContainerResources, PodTemplate, QUANTITY_PATTERN};
use crate::resources::status::RuntimeStatus;
use crate::resources::{NAME_MESSAGE, NAME_RULE};

/// Most pods of a runtime.
pub const REPLICAS_MAX: i32 = 100;
/// Most slots of a runtime.
pub const SLOTS_MAX: i32 = 16_384;
/// Longest time that records are kept, in milliseconds (a leap year).
pub const RETENTION_MS_MAX: u64 = 366 * 24 * 3600 * 1000;
/// Shortest time that records are kept, in milliseconds.
pub const RETENTION_MS_MIN: u64 = 1_000;

/// Runs the flows of a namespace. There is at most one; without one, everything has its default.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tandem.dev",
    version = "v1alpha1",
    kind = "FunctionRuntime",
    namespaced,
    shortname = "fnrt",
    category = "tandem",
    status = "RuntimeStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    derive = "PartialEq",
    doc = "Runs the flows of a namespace. There is at most one; without one, everything has its default.",
    validation = Rule::new(NAME_RULE).message(NAME_MESSAGE),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Topology", type_ = "string", json_path = ".status.topologyRevision", priority = 1),
    printcolumn(name = "Serving", type_ = "string", json_path = ".status.servingRevision", priority = 1),
    printcolumn(name = "Slots", type_ = "integer", json_path = ".spec.slots", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.store) || !has(self.store.embedded) || !has(self.replicas) || self.replicas <= 1")
        .message("the embedded store belongs to one process: replicas must be at most 1, or the store tikv"),
    validation = Rule::new("!has(self.autoscaling) || !has(self.store) || !has(self.store.embedded)")
        .message("the embedded store belongs to one process: it cannot be scaled")
)]
pub struct FunctionRuntimeSpec {
    /// How many pods run flows. The embedded store has one.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 100))]
    pub replicas: i32,
    /// The container image of its pods. Without it: the one that the operator was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Where state lives.
    #[serde(default)]
    pub store: Store,
    /// How many slots the data is laid out in. Fixed for ever once data is stored.
    #[serde(default = "default_slots")]
    #[schemars(range(min = 1, max = 16_384))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("slots is immutable: data is laid out by it"))]
    pub slots: i32,
    /// Bounds of every flow. Exceeding one ends the flow with an outcome that names it.
    #[serde(default)]
    pub limits: RuntimeLimits,
    /// How long the outcome of a request can be asked for, and a repeated request is recognised: at least `1s`, at most
    /// `8784h` (a year).
    #[serde(default = "default_retention")]
    pub retention: Duration,
    /// What each pod is promised, and what it may use at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ContainerResources")]
    pub resources: Option<ContainerResources>,
    /// Lets the load decide how many pods there are; `replicas` does not count then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Autoscaling")]
    pub autoscaling: Option<Autoscaling>,
    /// Makes a PodMonitor, by which Prometheus finds the pods. Needs the definitions of the Prometheus operator.
    #[serde(default)]
    pub pod_monitor: bool,
    /// Changes to its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PodTemplate")]
    pub pod_template: Option<PodTemplate>,
    /// What happens to everything that it has stored when the resource is deleted. `Retain`: it stays, and a runtime of the
    /// same name and store finds it again. `Delete`: it is removed for ever, before the resource is gone.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

impl Default for FunctionRuntimeSpec {
    fn default() -> Self {
        Self {
            replicas: default_replicas(),
            image: None,
            store: Store::default(),
            slots: default_slots(),
            limits: RuntimeLimits::default(),
            retention: default_retention(),
            resources: None,
            autoscaling: None,
            pod_monitor: false,
            pod_template: None,
            deletion_policy: DeletionPolicy::default(),
        }
    }
}

/// Where state lives: exactly one of the fields. What is stored in one kind of store does not move to another.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.embedded) != has(self.tikv)")
        .message("exactly one store must be named: embedded or tikv"),
    validation = Rule::new("has(self.embedded) == has(oldSelf.embedded)")
        .message("the kind of store is immutable: what is stored would be left behind")
)]
pub struct Store {
    /// An engine inside the runtime, on its own volume: one machine, one replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Embedded")]
    pub embedded: Option<Embedded>,
    /// A TiKV cluster, which all pods of the runtime share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Tikv")]
    pub tikv: Option<Tikv>,
}

impl Default for Store {
    fn default() -> Self {
        Self { embedded: Some(Embedded::default()), tikv: None }
    }
}

/// The embedded store.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Embedded {
    /// The volume that it is on in a cluster. Without it, state ends with the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Volume")]
    pub volume: Option<Volume>,
}

/// A volume that a cluster provides.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("the volume is immutable: a StatefulSet cannot change its claims"))]
pub struct Volume {
    /// How large it is, for example `10Gi`.
    #[schemars(length(min = 1, max = 32), regex(pattern = QUANTITY_PATTERN))]
    pub size: String,
    /// Name of a StorageClass; the default one of the cluster without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

/// A TiKV cluster.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.prefix) ? self.prefix : '') == (has(oldSelf.prefix) ? oldSelf.prefix : '')")
        .message("prefix is immutable: what is stored would be left behind"),
    validation = Rule::new("(has(self.keyspace) ? self.keyspace : '') == (has(oldSelf.keyspace) ? oldSelf.keyspace : '')")
        .message("keyspace is immutable: what is stored would be left behind")
)]
pub struct Tikv {
    /// Where its placement drivers (PD) listen, as `HOST:PORT`. One that answers is enough; it names the others.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 255)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub endpoints: Vec<String>,
    /// What all keys of this runtime begin with. Without it: namespace and name of the runtime. Two runtimes on one cluster
    /// must not share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9][-A-Za-z0-9_./]*$"))]
    pub prefix: Option<String>,
    /// The keyspace, on a cluster with API version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9][-A-Za-z0-9_]*$"))]
    pub keyspace: Option<String>,
    /// A Secret of the same namespace with `ca.crt`, `tls.crt` and `tls.key` for mutual TLS. Without it nothing is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 253))]
    pub tls_secret_name: Option<String>,
    /// How far back `asOf` reads reach: at least `10m`, at most `168h`. Without it: `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    pub history: Option<Duration>,
}

/// How the load decides on the number of pods.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.minReplicas <= self.maxReplicas").message("minReplicas must not be above maxReplicas"))]
pub struct Autoscaling {
    /// Fewest pods.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 100))]
    pub min_replicas: i32,
    /// Most pods.
    #[schemars(range(min = 1, max = 100))]
    pub max_replicas: i32,
    /// How much of the processor time that they request the pods shall use on average, in percent.
    #[serde(default = "default_cpu_percent")]
    #[schemars(range(min = 1, max = 100))]
    pub cpu_percent: i32,
}

fn default_replicas() -> i32 {
    1
}

fn default_cpu_percent() -> i32 {
    70
}

/// Bounds of every flow.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeLimits {
    /// Largest body of a request, payload of a call or send, and result, in bytes.
    #[schemars(range(min = 1_024, max = 8_388_608))]
    pub payload_bytes_max: i64,
    /// Largest state value or map entry, in bytes.
    #[schemars(range(min = 1_024, max = 8_388_608))]
    pub value_bytes_max: i64,
    /// Calls on one path from the entry down, the entry included.
    #[schemars(range(min = 1, max = 256))]
    pub call_depth_max: i32,
    /// Calls and spawns of one flow together.
    #[schemars(range(min = 1, max = 100_000))]
    pub calls_max: i32,
    /// Calls of one handler that run at the same time.
    #[schemars(range(min = 1, max = 10_000))]
    pub fan_out_max: i32,
    /// Rows one flow may write (states, sends, egress records).
    #[schemars(range(min = 1, max = 100_000))]
    pub writes_max: i32,
    /// Bytes one flow may write.
    #[schemars(range(min = 1_024, max = 67_108_864))]
    pub write_bytes_max: i64,
    /// Entries one scan may return; the worker asks again for more.
    #[schemars(range(min = 1, max = 100_000))]
    pub scan_entries_max: i32,
    /// Flows in the runtime at one time; more are told 429.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub flows_in_flight_max: i32,
    /// Attempts of one flow when it conflicts; then its outcome is CONFLICT.
    #[schemars(range(min = 1, max = 1_000))]
    pub attempts_max: i32,
    /// Deadline of a flow whose route names none: at least `1ms`, at most `60s`.
    pub deadline: Duration,
}

impl Default for RuntimeLimits {
    fn default() -> Self {
        let model = Limits::default();
        Self {
            payload_bytes_max: wide(model.payload_bytes_max),
            value_bytes_max: wide(model.value_bytes_max),
            call_depth_max: narrow(model.call_depth_max),
            calls_max: narrow(model.calls_max),
            fan_out_max: narrow(model.fan_out_max),
            writes_max: narrow(model.writes_max),
            write_bytes_max: wide(model.write_bytes_max),
            scan_entries_max: narrow(model.scan_entries_max),
            flows_in_flight_max: narrow(model.flows_in_flight_max),
            attempts_max: i32::try_from(model.attempts_max).unwrap_or(i32::MAX),
            deadline: Duration::from_milliseconds(model.deadline_ms),
        }
    }
}

/// The model's defaults are small; a default that did not fit would be refused by the schema's own bounds.
fn narrow(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// See [`narrow`].
fn wide(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn default_slots() -> i32 {
    i32::from(SlotCount::DEFAULT.get())
}

fn default_retention() -> Duration {
    Duration::from_milliseconds(Topology::RETENTION_MS)
}
