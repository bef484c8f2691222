//! `FunctionRuntime`: the pods that run flows.
#![allow(unreachable_pub, reason = "KubeSchema derives a public helper inside a function for each type")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tandem_model::limits::Limits;
use tandem_model::slot::SlotCount;
use tandem_model::topology::Topology;

use crate::resources::duration::Duration;
use crate::resources::status::Status;
use crate::resources::{NAME_MESSAGE, NAME_RULE};

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
    status = "Status",
    derive = "PartialEq",
    doc = "Runs the flows of a namespace. There is at most one; without one, everything has its default.",
    validation = Rule::new(NAME_RULE).message(NAME_MESSAGE),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Slots", type_ = "integer", json_path = ".spec.slots", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct FunctionRuntimeSpec {
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
}

impl Default for FunctionRuntimeSpec {
    fn default() -> Self {
        Self {
            store: Store::default(),
            slots: default_slots(),
            limits: RuntimeLimits::default(),
            retention: default_retention(),
        }
    }
}

/// Where state lives: exactly one of the fields.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.embedded)").message("exactly one store must be named: embedded"))]
pub struct Store {
    /// An engine inside the runtime, on its own volume: one machine, one replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Embedded")]
    pub embedded: Option<Embedded>,
}

impl Default for Store {
    fn default() -> Self {
        Self { embedded: Some(Embedded {}) }
    }
}

/// The embedded store. It has nothing to set.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Embedded {}

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
