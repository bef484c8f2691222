//! Every bound, by name. Those a user may change are in [`Limits`]; the constants are part of the format or protect the process.

use serde::{Deserialize, Serialize};

/// Longest name of a function, handler, state, route or egress, in bytes (a DNS label).
pub const NAME_BYTES_MAX: usize = 63;
/// Longest key of an instance, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest key of an entry of a map state, in bytes.
pub const ENTRY_KEY_BYTES_MAX: usize = 1024;
/// Longest request id or idempotency key, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 255;
/// Longest human text in a rejection or failure, in bytes; longer is cut.
pub const DETAIL_BYTES_MAX: usize = 1024;
/// Calls of one flow that are kept for `GET /flows/{id}`; more are counted, not listed.
pub const TRACE_CALLS_MAX: usize = 64;
/// Largest flow deadline a route or request may ask for, in milliseconds.
pub const DEADLINE_MS_MAX: u64 = 60_000;
/// Longest delay of a send, in milliseconds (one year).
pub const SEND_DELAY_MS_MAX: u64 = 366 * 24 * 3600 * 1000;
/// States of one function.
pub const STATES_MAX: usize = 64;
/// Handlers of one function.
pub const HANDLERS_MAX: usize = 64;

/// Bounds of one runtime, from `FunctionRuntime.spec.limits`. Exceeding one ends the flow with an outcome that names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Limits {
    /// Largest body of a request, payload of a call or send, and result, in bytes.
    pub payload_bytes_max: usize,
    /// Largest state value or map entry, in bytes.
    pub value_bytes_max: usize,
    /// Calls on one path from the entry down, the entry included.
    pub call_depth_max: usize,
    /// Calls and spawns of one flow together.
    pub calls_max: usize,
    /// Calls of one handler that run at the same time.
    pub fan_out_max: usize,
    /// Rows one flow may write (states, sends, egress records).
    pub writes_max: usize,
    /// Bytes one flow may write.
    pub write_bytes_max: usize,
    /// Entries one scan may return; the worker asks again for more.
    pub scan_entries_max: usize,
    /// Flows in the runtime at one time; more are told 429.
    pub flows_in_flight_max: usize,
    /// Attempts of one flow when it conflicts; then its outcome is CONFLICT.
    pub attempts_max: u32,
    /// Deadline of a flow whose route names none, in milliseconds.
    pub deadline_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            payload_bytes_max: 1 << 20,
            value_bytes_max: 1 << 20,
            call_depth_max: 32,
            calls_max: 1_000,
            fan_out_max: 256,
            writes_max: 1_000,
            write_bytes_max: 4 << 20,
            scan_entries_max: 1_000,
            flows_in_flight_max: 4_096,
            attempts_max: 10,
            deadline_ms: 10_000,
        }
    }
}
