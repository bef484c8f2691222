//! `Function`: a unit of logic with handlers and state.
#![allow(unreachable_pub, reason = "KubeSchema derives a public helper inside a function for each type")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tandem_model::topology;

use crate::resources::duration::Duration;
use crate::resources::pod::{ContainerResources, PodTemplate, Variable};
use crate::resources::status::FunctionStatus;
use crate::resources::{NAME_MESSAGE, NAME_RULE};

/// Largest `retry.attempts`.
pub const ATTEMPTS_MAX: i32 = 100;
/// Largest `limits.concurrency`.
pub const CONCURRENCY_MAX: i32 = 100_000;
/// Largest `replicas`.
pub const REPLICAS_MAX: i32 = 1_000;
/// Most names in `callers`.
pub const CALLERS_MAX: usize = 256;

/// A named unit of logic with handlers and state, run from user code.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tandem.dev",
    version = "v1alpha1",
    kind = "Function",
    namespaced,
    shortname = "tfn",
    category = "tandem",
    status = "FunctionStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    derive = "PartialEq",
    doc = "A named unit of logic with handlers and state, run from user code.",
    validation = Rule::new(NAME_RULE).message(NAME_MESSAGE),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Workers", type_ = "integer", json_path = ".status.readyWorkers"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.activeRevision"),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image", priority = 1),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec.endpoint.url", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.image) != has(self.endpoint)")
        .message("exactly one of image and endpoint must be set"),
    validation = Rule::new("!has(self.endpoint) || self.endpoint.protocol != 'Http' || has(self.handlers)")
        .message("handlers must be listed, because the Http protocol has no handshake that could tell them")
)]
pub struct FunctionSpec {
    /// The container image of its workers, for a cluster. On a laptop `tandem dev` runs the command that the
    /// `Tandemfile` names for the function instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// A worker that somebody else runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Endpoint")]
    pub endpoint: Option<Endpoint>,
    /// Pins down the handlers. Without it, what the function says in its handshake counts; with it, a worker whose
    /// handshake differs is refused, and routes are checked against it. The `Http` protocol has no handshake: there it is
    /// required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<Handler>")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub handlers: Option<Vec<Handler>>,
    /// Pins down the states. Without it, what the function says in its handshake counts; with the `Http` protocol, there
    /// are none then. A stored state keeps its kind
    /// and type for ever; only a change of the type to `Any` is possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<State>")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub states: Option<Vec<State>>,
    /// What happens when its code fails (breaks, as opposed to rejecting).
    #[serde(default)]
    pub retry: Retry,
    /// Bounds of this function alone.
    #[serde(default)]
    pub limits: FunctionLimits,
    /// Functions that may call it or send to it. Without it, all may. Routes are not callers: an empty list leaves only
    /// the routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub callers: Option<Vec<String>>,
    /// How many workers a cluster runs, of each revision.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 1_000))]
    pub replicas: i32,
    /// Arguments of the image's command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 1024)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub args: Vec<String>,
    /// Variables of the workers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<Variable>,
    /// What each worker is promised, and what it may use at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ContainerResources")]
    pub resources: Option<ContainerResources>,
    /// How a new revision takes over. Without it: at once, as soon as every runtime has shaken hands with its workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Rollout")]
    pub rollout: Option<Rollout>,
    /// Changes to the pods of its workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PodTemplate")]
    pub pod_template: Option<PodTemplate>,
    /// What happens to its state when the resource is deleted. `Retain`: it stays, and a function of the same name finds it
    /// again. `Delete` is not acted on, which a warning says (W206): it stays until its runtime goes with its own.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

impl Default for FunctionSpec {
    fn default() -> Self {
        Self {
            image: None,
            endpoint: None,
            handlers: None,
            states: None,
            retry: Retry::default(),
            limits: FunctionLimits::default(),
            callers: None,
            replicas: default_replicas(),
            args: Vec::new(),
            env: Vec::new(),
            resources: None,
            rollout: None,
            pod_template: None,
            deletion_policy: DeletionPolicy::default(),
        }
    }
}

/// How a new revision takes over, step by step.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// How many of a hundred new flows begin with the new revision, step by step. After the last step it takes all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(range(min = 1, max = 99)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub steps: Vec<i32>,
    /// How long each step lasts.
    #[serde(default = "default_step_duration")]
    pub step_duration: Duration,
    /// How many of a hundred flows that began with the new revision may fail. One more, and it is rolled back.
    #[serde(default = "default_failure_percent_max")]
    #[schemars(range(min = 0, max = 100))]
    pub failure_percent_max: i32,
    /// How many flows must have begun with it before its failures count.
    #[serde(default = "default_requests_min")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_min: i32,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            steps: Vec::new(),
            step_duration: default_step_duration(),
            failure_percent_max: default_failure_percent_max(),
            requests_min: default_requests_min(),
        }
    }
}

/// What happens to state when what it belongs to is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a documented variant would turn the schema's enum into oneOf; see the field")]
pub enum DeletionPolicy {
    #[default]
    Retain,
    Delete,
}

fn default_replicas() -> i32 {
    1
}

fn default_step_duration() -> Duration {
    Duration("30s".to_owned())
}

fn default_failure_percent_max() -> i32 {
    5
}

fn default_requests_min() -> i32 {
    20
}

/// Where a worker is, and how to talk to it.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// `http://host:port`; with a path for the HTTP profile, if it does not serve at `/`.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^https?://[^/?#\\s]+(/[^?#\\s]*)?$"))]
    pub url: String,
    /// `Grpc`: the function protocol, one multiplexed stream for each worker. `Http`: one JSON POST for each step, for a
    /// function behind any web framework.
    #[serde(default)]
    pub protocol: Protocol,
}

/// How the runtime talks to a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Protocol {
    #[default]
    #[allow(missing_docs, reason = "a documented variant would turn the schema's enum into oneOf; see the field")]
    Grpc,
    #[allow(missing_docs, reason = "see `Grpc`")]
    Http,
}

impl From<Protocol> for topology::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Grpc => Self::Grpc,
            Protocol::Http => Self::Http,
        }
    }
}

/// One handler.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handler {
    /// Its name in the function's code.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z][A-Za-z0-9_-]*$"))]
    pub name: String,
    /// What a flow that enters here may see of others. `Serializable`: as if flows ran one after the other. `Snapshot`:
    /// one snapshot, write skew is possible. `ReadOnly`: one snapshot and no writes, never waits and never conflicts.
    #[serde(default)]
    pub isolation: Isolation,
    /// How long one invocation may take: at least `1ms`, at most `60s`. Without it: the flow's deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    pub timeout: Option<Duration>,
}

/// What a flow may see of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a documented variant would turn the schema's enum into oneOf; see the field")]
pub enum Isolation {
    #[default]
    Serializable,
    Snapshot,
    ReadOnly,
}

impl From<Isolation> for topology::Isolation {
    fn from(isolation: Isolation) -> Self {
        match isolation {
            Isolation::Serializable => Self::Serializable,
            Isolation::Snapshot => Self::Snapshot,
            Isolation::ReadOnly => Self::ReadOnly,
        }
    }
}

/// One state.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Its name in the function's code.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z][A-Za-z0-9_-]*$"))]
    pub name: String,
    /// `Value`: one value. `Map`: entries by key, of any number.
    #[serde(default)]
    pub kind: StateKind,
    /// What the value, or each entry, is. `Any` is not checked.
    #[serde(default, rename = "type")]
    pub value_type: ValueType,
}

/// One value or many entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a documented variant would turn the schema's enum into oneOf; see the field")]
pub enum StateKind {
    #[default]
    Value,
    Map,
}

impl From<StateKind> for topology::StateKind {
    fn from(kind: StateKind) -> Self {
        match kind {
            StateKind::Value => Self::Value,
            StateKind::Map => Self::Map,
        }
    }
}

/// What a state's values are, as JSON sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a documented variant would turn the schema's enum into oneOf; see the field")]
pub enum ValueType {
    #[default]
    Any,
    Integer,
    Number,
    String,
    Boolean,
    Object,
    Array,
}

impl From<ValueType> for topology::ValueType {
    fn from(value_type: ValueType) -> Self {
        match value_type {
            ValueType::Any => Self::Any,
            ValueType::Integer => Self::Integer,
            ValueType::Number => Self::Number,
            ValueType::String => Self::String,
            ValueType::Boolean => Self::Boolean,
            ValueType::Object => Self::Object,
            ValueType::Array => Self::Array,
        }
    }
}

/// What happens when its code fails.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// How often a flow is run when this function's code fails, the first run included. Then its outcome is FAILED.
    #[serde(default = "default_attempts")]
    #[schemars(range(min = 1, max = 100))]
    pub attempts: i32,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: default_attempts() }
    }
}

fn default_attempts() -> i32 {
    i32::try_from(topology::Function::FAILURE_ATTEMPTS_MAX).unwrap_or(ATTEMPTS_MAX)
}

/// Bounds of one function.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionLimits {
    /// Invocations of it at one time in the whole runtime; more wait.
    #[serde(default = "default_concurrency")]
    #[schemars(range(min = 1, max = 100_000))]
    pub concurrency: i32,
}

impl Default for FunctionLimits {
    fn default() -> Self {
        Self { concurrency: default_concurrency() }
    }
}

fn default_concurrency() -> i32 {
    i32::try_from(topology::Function::CONCURRENCY_MAX).unwrap_or(CONCURRENCY_MAX)
}
