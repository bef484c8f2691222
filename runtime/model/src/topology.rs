//! What the resources compile to: everything a runtime needs to know, checked as a whole.
//!
//! A runtime pod reads it from a mounted file; the local mode hands it over in memory. It is JSON, versioned by
//! [`Topology::FORMAT`]; a runtime refuses a newer format than its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::expression::Expression;
use crate::ids::{EgressName, FunctionName, HandlerName, RouteName, StateName};
use crate::limits::Limits;
use crate::slot::SlotCount;

/// The application: its functions, ways in and ways out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Topology {
    /// [`Topology::FORMAT`] of the writer.
    pub format: u32,
    /// How many slots data is laid out in.
    pub slots: SlotCount,
    /// Bounds of every flow.
    pub limits: Limits,
    /// How long request records are kept, in milliseconds.
    pub retention_ms: u64,
    /// By name.
    pub functions: BTreeMap<FunctionName, Function>,
    /// By name.
    pub routes: BTreeMap<RouteName, Route>,
    /// By name.
    pub egresses: BTreeMap<EgressName, Egress>,
}

impl Topology {
    /// The format this code writes and reads.
    pub const FORMAT: u32 = 1;
    /// Retention of request records unless a `FunctionRuntime` says otherwise: 24 hours.
    pub const RETENTION_MS: u64 = 24 * 3600 * 1000;
}

/// One function, as its resource declares it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Function {
    /// Where its workers are. Empty until something that runs them (the operator, `tandem dev`) fills it in.
    pub workers: Vec<Endpoint>,
    /// Percent of new flows by revision of the workers. Of those that are not named, or have 0, none is used as long as
    /// one of the others is connected. Empty: all alike.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<Revision, u32>,
    /// Handlers, if the resource pins them down; otherwise the handshake says.
    pub handlers: Option<BTreeMap<HandlerName, Handler>>,
    /// States, if the resource pins them down; otherwise the handshake says.
    pub states: Option<BTreeMap<StateName, State>>,
    /// Functions that may call it or send to it. `None` means all. Routes are not callers.
    pub callers: Option<Vec<FunctionName>>,
    /// How often a flow is run again when this function's code fails, first run included.
    pub failure_attempts_max: u32,
    /// Invocations of this function at one time in the whole runtime.
    pub concurrency_max: u32,
}

impl Default for Function {
    fn default() -> Self {
        Self {
            workers: Vec::new(),
            weights: BTreeMap::new(),
            handlers: None,
            states: None,
            callers: None,
            failure_attempts_max: Self::FAILURE_ATTEMPTS_MAX,
            concurrency_max: Self::CONCURRENCY_MAX,
        }
    }
}

impl Function {
    /// Runs of a flow whose code fails, unless the resource says otherwise.
    pub const FAILURE_ATTEMPTS_MAX: u32 = 3;
    /// Invocations at one time, unless the resource says otherwise.
    pub const CONCURRENCY_MAX: u32 = 512;
}

/// Where a worker is, and how to talk to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Endpoint {
    /// `http://host:port` (with a path, for the HTTP profile).
    pub url: String,
    /// How to talk to it.
    pub protocol: Protocol,
    /// The revision of the code that it runs; empty where nobody tells revisions apart.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: Revision,
}

impl Endpoint {
    /// A worker of which no revision is known.
    pub fn new(url: impl Into<String>, protocol: Protocol) -> Self {
        Self { url: url.into(), protocol, revision: Revision::new() }
    }
}

/// Names a revision of a function's code. Whoever runs the workers chooses it.
pub type Revision = String;

/// How the runtime talks to a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    /// `tandem.function.v1alpha1`: one multiplexed stream a worker.
    #[default]
    Grpc,
    /// One JSON POST a step: any web framework.
    Http,
}

/// One handler of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Handler {
    /// Serializable unless it says otherwise.
    pub isolation: Isolation,
    /// How long one invocation may take, in milliseconds; the flow's deadline if absent.
    pub timeout_ms: Option<u64>,
}

/// What a flow may see of others. The entry handler's isolation is that of the whole flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Isolation {
    /// As if flows ran one after the other.
    #[default]
    Serializable,
    /// Reads one snapshot; of two flows that write the same row, one runs again. Write skew is possible.
    Snapshot,
    /// Reads one snapshot and writes nothing: never waits, never conflicts.
    ReadOnly,
}

impl Isolation {
    /// The isolation of a flow that a message starts: the message is consumed by the commit, which a flow that only
    /// reads has none of.
    #[must_use]
    pub fn of_message(self) -> Self {
        match self {
            Self::ReadOnly => Self::Snapshot,
            Self::Serializable | Self::Snapshot => self,
        }
    }
}

/// One state of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct State {
    /// One value or many entries.
    pub kind: StateKind,
    /// Of the value, or of each entry.
    pub value_type: ValueType,
}

/// One value or many entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StateKind {
    /// One value.
    #[default]
    Value,
    /// Entries by key.
    Map,
}

/// What a state's values are, as JSON sees them. Changing it makes stored values unreadable, so the compiler refuses
/// every change but the one to `Any`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ValueType {
    /// Any JSON, or bytes that the function alone understands. Not checked.
    #[default]
    Any,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// A text.
    String,
    /// True or false.
    Boolean,
    /// A JSON object.
    Object,
    /// A JSON array.
    Array,
}

/// A way in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Route {
    /// Method and path.
    pub http: HttpMatch,
    /// Which function runs.
    pub function: FunctionName,
    /// Which of its handlers.
    pub handler: HandlerName,
    /// Evaluates to the instance's key.
    pub key: Expression,
    /// Evaluates to the request id. Without it, the `Idempotency-Key` header, else one is made.
    pub idempotency_key: Option<Expression>,
    /// Wait for the outcome, or answer 202 at once.
    pub reply: Reply,
    /// How long the flow may take, in milliseconds; the runtime's default if absent.
    pub deadline_ms: Option<u64>,
    /// How the body is understood.
    pub body: Body,
}

/// Which HTTP requests a route takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpMatch {
    /// Upper case: `POST`.
    pub method: String,
    /// `/orders/{orderId}`; `{*rest}` at the end takes the rest of the path.
    pub path: String,
}

/// When a route answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// With the outcome, unless the client sends `Prefer: respond-async`.
    #[default]
    Wait,
    /// At once with 202 and the flow's address.
    Accept,
}

/// How a route understands the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Must be JSON (an empty body is `null`); `request.body` in expressions.
    #[default]
    Json,
    /// Any bytes, handed over with their media type; no `request.body` in expressions.
    Raw,
}

/// A way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Egress {
    /// Server-sent events under `/egress/{name}`, resumable; records are kept this long, in milliseconds.
    pub stream_retention_ms: u64,
}
