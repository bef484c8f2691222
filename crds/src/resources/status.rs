//! What an operator says about resources: the status that all kinds share, and what runtimes and functions add to it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an operator found out about a resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The generation of the spec that this status speaks of. Older than `metadata.generation`: the operator has not
    /// seen the last edit yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 0))]
    pub observed_generation: Option<i64>,
    /// `Ready` sums up; `Reconciling` and `Stalled` tell "still moving" from "can never work as it is".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

/// The status of a `FunctionRuntime`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 0))]
    pub observed_generation: Option<i64>,
    /// `Ready` sums up; `Reconciling` and `Stalled` tell "still moving" from "can never work as it is".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
    /// Pods that exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 0))]
    pub replicas: Option<i32>,
    /// Pods that take requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 0))]
    pub ready_replicas: Option<i32>,
    /// The labels of its pods, for an autoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 1024))]
    pub selector: Option<String>,
    /// The revision of the topology that its resources compile to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 64))]
    pub topology_revision: Option<String>,
    /// The revision that every ready pod says it serves. Absent while they differ, or say nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 64))]
    pub serving_revision: Option<String>,
    /// What is wrong with the resources of its namespace: the first ones, if there are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub problems: Vec<StatusProblem>,
}

/// Most entries of `status.problems`.
pub const STATUS_PROBLEMS_MAX: usize = 32;

/// What is wrong with one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusProblem {
    /// The code of the problem, as `tandem check --explain` knows it.
    #[schemars(length(max = 16))]
    pub code: String,
    /// The resource: `FunctionRoute place-order`.
    #[schemars(length(max = 320))]
    pub object: String,
    /// The field; empty if the whole resource is meant.
    #[schemars(length(max = 512))]
    pub field: String,
    /// What is wrong, and what to do.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// The status of a `Function`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FunctionStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 0))]
    pub observed_generation: Option<i64>,
    /// `Ready` sums up; `Reconciling` and `Stalled` tell "still moving" from "can never work as it is".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
    /// Where the runtime reaches its workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 1024))]
    pub url: Option<String>,
    /// Pods of the revision that the spec asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 0))]
    pub replicas: Option<i32>,
    /// Workers that are ready, of all revisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 0))]
    pub ready_workers: Option<i32>,
    /// The labels of its pods, for an autoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 1024))]
    pub selector: Option<String>,
    /// The revision that new flows begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 64))]
    pub active_revision: Option<String>,
    /// Every revision that is alive, and the one that failed last. The operator continues from here after a restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["revision"]))]
    pub revisions: Vec<RevisionStatus>,
}

/// Most entries of `status.revisions`.
pub const STATUS_REVISIONS_MAX: usize = 8;

/// One revision of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// Its name: a digest of what makes its pods.
    #[schemars(length(min = 1, max = 16))]
    pub revision: String,
    /// How many of a hundred new flows begin with it.
    #[schemars(range(min = 0, max = 100))]
    pub weight: i32,
    /// `Starting` until every runtime has shaken hands with its workers, `Ramping` while its share grows, `Active`, `Draining`
    /// while flows in flight end, `Failed` if it was rolled back.
    pub state: RevisionState,
    /// Since when it is in this state with this weight.
    #[schemars(length(max = 40))]
    pub since: String,
}

/// Where a revision is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a documented variant would turn the schema's enum into oneOf; see the field")]
pub enum RevisionState {
    #[default]
    Starting,
    Ramping,
    Active,
    Draining,
    Failed,
}

/// The schema of `metav1.Condition`, as a list that merges by `type`, so that two writers can own different ones.
fn conditions_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "type": {"type": "string", "maxLength": 316, "description": "What the condition is about, for example `Ready`."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it holds."},
                "reason": {
                    "type": "string", "minLength": 1, "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    "description": "Why, in one word for programs.",
                },
                "message": {"type": "string", "maxLength": 32768, "description": "Why, for people, and what to do."},
                "lastTransitionTime": {"type": "string", "format": "date-time", "description": "When `status` last changed."},
                "observedGeneration": {
                    "type": "integer", "format": "int64", "minimum": 0,
                    "description": "The generation of the spec that the condition speaks of.",
                },
            },
        },
    })
}
