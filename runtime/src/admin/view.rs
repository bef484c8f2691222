//! What the admin port says, as JSON: the types that it writes and that the command line reads.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tandem_model::ids::{FlowId, Timestamp};
use tandem_model::outcome::{CallStatus, CallTrace, FlowRecord, Outcome};

use crate::runtime::{InstanceState, RunningFlow};

const MICROSECONDS_PER_MILLISECOND: f64 = 1000.0;

/// A flow that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// The flow.
    pub flow: FlowId,
    /// What the client called the request.
    pub request: String,
    /// The entry instance, as `order/o-1`.
    pub instance: String,
    /// The entry handler.
    pub handler: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it did not commit, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The function that said no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The key of the instance that said no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What the handler returned: JSON, or `{"base64": ...}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// How many times user code was run.
    pub attempts: u32,
    /// When it was accepted, in RFC 3339.
    pub accepted_at: String,
    /// From acceptance to the decision.
    pub duration_ms: f64,
    /// The calls of the last attempt, in the order in which they began.
    pub calls: Vec<Call>,
}

/// One call of a flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// 0 for the entry.
    pub depth: u16,
    /// Whom it addressed, as `inventory/sku-7`.
    pub instance: String,
    /// The handler.
    pub handler: String,
    /// From start to end.
    pub duration_ms: f64,
    /// What became of it.
    pub status: Status,
    /// Why it was rejected or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What became of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// Part of the commit.
    Done,
    /// It returned, but its effects are gone.
    Undone,
    /// It said no.
    Rejected,
    /// It broke.
    Failed,
    /// It was still running when the flow ended.
    Stopped,
}

/// A flow that has not ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// The flow.
    pub flow: FlowId,
    /// The entry instance.
    pub instance: String,
    /// The entry handler.
    pub handler: String,
    /// Always `RUNNING`, where ended flows have their outcome.
    pub state: String,
    /// 0 while it waits for its turn.
    pub attempt: u32,
    /// Since it was accepted.
    pub age_ms: f64,
}

/// Answer of `GET /flows`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flows {
    /// Those that run now.
    pub running: Vec<Running>,
    /// Those that ended, latest first.
    pub flows: Vec<Flow>,
}

/// The stored state of one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The function.
    pub function: String,
    /// The key.
    pub key: String,
    /// As of when, as the store counts.
    pub timestamp: Timestamp,
    /// The same as a time in RFC 3339.
    pub time: String,
    /// States of kind value by name.
    pub values: serde_json::Map<String, Value>,
    /// States of kind map by name, then entries by their key.
    pub entries: serde_json::Map<String, Value>,
    /// There are more entries than were asked for.
    pub more: bool,
}

/// Answer of `GET /state/{function}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Instances {
    /// Keys that have state, if values were not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<String>>,
    /// The instances with their state, if values were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<Vec<State>>,
    /// Where the next page begins: pass it as `after`. Absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl From<&FlowRecord> for Flow {
    fn from(record: &FlowRecord) -> Self {
        let cause = record.cause.as_ref();
        Self {
            flow: record.flow,
            request: record.request.to_string(),
            instance: record.instance.to_string(),
            handler: record.handler.to_string(),
            outcome: record.outcome,
            reason: cause.map(|cause| cause.reason.clone()),
            detail: cause.map(|cause| cause.detail.clone()),
            function: cause.and_then(|cause| cause.function()).map(ToString::to_string),
            key: cause.and_then(|cause| cause.key()).map(ToString::to_string),
            result: record.result.as_ref().map(|payload| json(&payload.bytes)),
            attempts: record.attempts,
            accepted_at: time(record.accepted_unix_ms),
            duration_ms: milliseconds(record.duration_us),
            calls: record.calls.iter().map(Call::from).collect(),
        }
    }
}

impl From<&CallTrace> for Call {
    fn from(call: &CallTrace) -> Self {
        let (status, detail) = match &call.status {
            CallStatus::Done => (Status::Done, None),
            CallStatus::Undone => (Status::Undone, None),
            CallStatus::Rejected(detail) => (Status::Rejected, Some(detail.clone())),
            CallStatus::Failed(detail) => (Status::Failed, Some(detail.clone())),
            CallStatus::Stopped => (Status::Stopped, None),
        };
        let (instance, handler) = (call.instance.to_string(), call.handler.to_string());
        Self { depth: call.depth, instance, handler, duration_ms: milliseconds(call.duration_us), status, detail }
    }
}

impl From<&RunningFlow> for Running {
    fn from(flow: &RunningFlow) -> Self {
        Self {
            flow: flow.flow,
            instance: flow.instance.to_string(),
            handler: flow.handler.to_string(),
            state: "RUNNING".to_owned(),
            attempt: flow.attempt,
            age_ms: milliseconds(u64::try_from(flow.age.as_micros()).unwrap_or(u64::MAX)),
        }
    }
}

impl From<&InstanceState> for State {
    fn from(state: &InstanceState) -> Self {
        let mut entries = serde_json::Map::new();
        for (name, key, value) in &state.entries {
            let of_state = entries.entry(name.as_str()).or_insert_with(|| Value::Object(serde_json::Map::new()));
            if let Value::Object(of_state) = of_state {
                of_state.insert(entry_key(key), json(value));
            }
        }
        Self {
            function: state.instance.function.to_string(),
            key: state.instance.key.to_string(),
            timestamp: state.timestamp,
            time: time(state.timestamp.unix_ms()),
            values: state.values.iter().map(|(name, value)| (name.to_string(), json(value))).collect(),
            entries,
            more: state.more,
        }
    }
}

/// Bytes as the JSON they hold, or as `{"base64": ...}`.
pub fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| serde_json::json!({ "base64": base64(bytes) }))
}

/// An entry key as text, or as `0x` and hexadecimal digits if it is none.
pub fn entry_key(key: &[u8]) -> String {
    use std::fmt::Write as _;
    match std::str::from_utf8(key) {
        Ok(text) => text.to_owned(),
        Err(_) => key.iter().fold("0x".to_owned(), |mut text, byte| {
            // Writing into a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        }),
    }
}

/// Milliseconds since 1970 in RFC 3339. Times that no calendar has are shown as the last one it has.
pub fn time(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", time.unwrap_or(jiff::Timestamp::MAX))
}

#[expect(clippy::cast_precision_loss, reason = "durations are far below 2^52 microseconds")]
fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / MICROSECONDS_PER_MILLISECOND
}

/// Standard base 64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let value = (0..3).fold(0, |value, at| (value << 8) | usize::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let digit = char::from(DIGITS[(value >> (18 - 6 * at)) & 63]);
            text.push(if at <= chunk.len() { digit } else { '=' });
        }
    }
    text
}

/// The runtimes on the store, as the one that is asked sees them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Members {
    /// Grows with each change that it saw.
    pub revision: u64,
    /// The id of the one that was asked.
    pub me: u64,
    /// All that are live; none if it has the store to itself.
    pub members: Vec<Member>,
}

/// One runtime.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Names this run of it.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where the others reach it.
    pub address: String,
    /// Version of its program.
    pub version: String,
    /// It takes nothing new.
    pub draining: bool,
    /// How many partitions it owns.
    pub partitions: usize,
}

impl From<&crate::members::Map> for Members {
    fn from(map: &crate::members::Map) -> Self {
        let member = |member: &std::sync::Arc<crate::members::Member>| Member {
            id: member.id.0,
            name: member.name.clone(),
            address: member.address.clone(),
            version: member.version.clone(),
            draining: member.draining,
            partitions: map.owned_by(member.id),
        };
        Self { revision: map.revision, me: map.me.0, members: map.members.iter().map(member).collect() }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tandem_model::ids::Instance;

    use super::*;
    use crate::metrics::testdata;

    #[test]
    fn base64_has_the_vectors_of_rfc_4648() {
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (bytes, text) in vectors {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn record_is_shown_in_camel_case() {
        let mut record = testdata::record(Outcome::Rejected);
        let sku = Instance::parse("inventory", "sku-7").unwrap();
        record.cause = Some(tandem_model::outcome::Cause::new("out-of-stock", "1 left").at(&sku));
        let call = |depth, status| CallTrace {
            depth,
            instance: sku.clone(),
            handler: "reserve".parse().unwrap(),
            duration_us: 400,
            status,
        };
        record.calls = vec![call(0, CallStatus::Undone), call(1, CallStatus::Rejected("1 left".into()))];
        let shown = serde_json::to_value(Flow::from(&record)).unwrap();
        let expected = serde_json::json!({
            "flow": record.flow.to_string(), "request": "r-1", "instance": "order/o-1", "handler": "place",
            "outcome": "REJECTED", "reason": "out-of-stock", "detail": "1 left", "function": "inventory",
            "key": "sku-7", "attempts": 2, "acceptedAt": "2023-11-14T22:13:20.000Z", "durationMs": 3.1,
            "calls": [
                {"depth": 0, "instance": "inventory/sku-7", "handler": "reserve", "durationMs": 0.4, "status": "undone"},
                {"depth": 1, "instance": "inventory/sku-7", "handler": "reserve", "durationMs": 0.4,
                 "status": "rejected", "detail": "1 left"},
            ],
        });
        assert_eq!(shown, expected);
        assert_eq!(serde_json::from_value::<Flow>(shown).unwrap(), Flow::from(&record));
    }

    #[test]
    fn state_shows_bytes_that_are_not_json_or_text() {
        let state = InstanceState {
            instance: Instance::parse("order", "o-1").unwrap(),
            timestamp: Timestamp::at_unix_ms(1_000),
            values: vec![("status".parse().unwrap(), "\"Placed\"".into()), ("raw".parse().unwrap(), "\u{1}".into())],
            entries: vec![
                ("lines".parse().unwrap(), "sku-7".into(), "{\"n\":1}".into()),
                ("lines".parse().unwrap(), Bytes::from_static(&[0xff, 0x01]), "2".into()),
            ],
            more: false,
        };
        let shown = serde_json::to_value(State::from(&state)).unwrap();
        assert_eq!(shown["time"], "1970-01-01T00:00:01.000Z");
        assert_eq!(shown["values"], serde_json::json!({"status": "Placed", "raw": {"base64": "AQ=="}}));
        assert_eq!(shown["entries"], serde_json::json!({"lines": {"sku-7": {"n": 1}, "0xff01": 2}}));
    }

    #[test]
    fn no_time_is_too_far() {
        assert!(time(u64::MAX).starts_with("9999-12-3"));
    }
}
