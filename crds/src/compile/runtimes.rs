//! The runtime's part of a topology: slots, limits, retention.

use tandem_model::limits::{DEADLINE_MS_MAX, Limits};
use tandem_model::slot::SlotCount;
use tandem_model::topology::Topology;

use crate::codes;
use crate::compile::{Problems, Subject};
use crate::load::Sourced;
use crate::resources::runtime::{REPLICAS_MAX, RETENTION_MS_MAX, RETENTION_MS_MIN, RuntimeLimits, SLOTS_MAX};
use crate::resources::{FunctionRuntime, Kind};

/// What a `FunctionRuntime` says.
pub(super) struct Runtime {
    pub(super) slots: SlotCount,
    pub(super) limits: Limits,
    pub(super) retention_ms: u64,
}

const BYTES_MIN: i64 = 1 << 10;
/// A payload and a value must fit together into one message of the function protocol, which has at most 16 MiB.
const PAYLOAD_BYTES_MAX: i64 = 8 << 20;
const WRITE_BYTES_MAX: i64 = 64 << 20;
const DEPTH_MAX: i64 = 256;
const FAN_OUT_MAX: i64 = 10_000;
const COUNT_MAX: i64 = 100_000;
const FLOWS_MAX: i64 = 1_000_000;
const ATTEMPTS_MAX: i64 = 1_000;

/// Compiles the one runtime that may be there; every further one is a problem.
pub(super) fn compile(runtimes: &[Sourced<FunctionRuntime>], problems: &mut Problems) -> Runtime {
    let mut compiled =
        Runtime { slots: SlotCount::DEFAULT, limits: Limits::default(), retention_ms: Topology::RETENTION_MS };
    for (index, runtime) in runtimes.iter().enumerate() {
        let mut subject = Subject::new(Kind::Runtime, runtime, problems);
        subject.name::<tandem_model::ids::FunctionName>();
        if index > 0 {
            subject.problem(&codes::SEVERAL_RUNTIMES, "metadata.name", "there is another FunctionRuntime");
            continue;
        }
        let spec = &runtime.resource.spec;
        if spec.store.embedded.is_none() == spec.store.tikv.is_none() && !runtime.damaged {
            subject.problem(&codes::NO_STORE, "spec.store", "no store is named");
        }
        subject.number::<i32>("spec.replicas", spec.replicas.into(), 0..=REPLICAS_MAX.into());
        if let Some(slots) = subject.number("spec.slots", spec.slots.into(), 1..=SLOTS_MAX.into()) {
            compiled.slots = SlotCount::new(slots).unwrap_or_default();
        }
        let retention = subject.duration("spec.retention", &spec.retention, RETENTION_MS_MIN..=RETENTION_MS_MAX);
        compiled.retention_ms = retention.unwrap_or(compiled.retention_ms);
        compiled.limits = limits(&spec.limits, &mut subject);
    }
    compiled
}

fn limits(spec: &RuntimeLimits, subject: &mut Subject<'_, FunctionRuntime>) -> Limits {
    let mut limits = Limits::default();
    let bytes = [
        ("payloadBytesMax", spec.payload_bytes_max, &mut limits.payload_bytes_max, BYTES_MIN, PAYLOAD_BYTES_MAX),
        ("valueBytesMax", spec.value_bytes_max, &mut limits.value_bytes_max, BYTES_MIN, PAYLOAD_BYTES_MAX),
        ("callDepthMax", spec.call_depth_max.into(), &mut limits.call_depth_max, 1, DEPTH_MAX),
        ("callsMax", spec.calls_max.into(), &mut limits.calls_max, 1, COUNT_MAX),
        ("fanOutMax", spec.fan_out_max.into(), &mut limits.fan_out_max, 1, FAN_OUT_MAX),
        ("writesMax", spec.writes_max.into(), &mut limits.writes_max, 1, COUNT_MAX),
        ("writeBytesMax", spec.write_bytes_max, &mut limits.write_bytes_max, BYTES_MIN, WRITE_BYTES_MAX),
        ("scanEntriesMax", spec.scan_entries_max.into(), &mut limits.scan_entries_max, 1, COUNT_MAX),
        ("flowsInFlightMax", spec.flows_in_flight_max.into(), &mut limits.flows_in_flight_max, 1, FLOWS_MAX),
    ];
    for (name, value, target, least, most) in bytes {
        if let Some(value) = subject.number(&format!("spec.limits.{name}"), value, least..=most) {
            *target = value;
        }
    }
    let attempts = subject.number("spec.limits.attemptsMax", spec.attempts_max.into(), 1..=ATTEMPTS_MAX);
    limits.attempts_max = attempts.unwrap_or(limits.attempts_max);
    let deadline = subject.duration("spec.limits.deadline", &spec.deadline, 1..=DEADLINE_MS_MAX);
    limits.deadline_ms = deadline.unwrap_or(limits.deadline_ms);
    limits
}
