//! `FunctionEgress`: a way out.
#![allow(unreachable_pub, reason = "KubeSchema derives a public helper inside a function for each type")]

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::resources::duration::Duration;
use crate::resources::status::Status;
use crate::resources::{NAME_MESSAGE, NAME_RULE};

/// A way out: what functions emit to this name leaves with the commit, and only then.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tandem.dev",
    version = "v1alpha1",
    kind = "FunctionEgress",
    plural = "functionegresses",
    namespaced,
    shortname = "fnegress",
    category = "tandem",
    status = "Status",
    derive = "PartialEq",
    doc = "A way out: what functions emit to this name leaves with the commit, and only then.",
    validation = Rule::new(NAME_RULE).message(NAME_MESSAGE),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Retention", type_ = "string", json_path = ".spec.stream.retention", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.stream)").message("exactly one way out must be named: stream"))]
pub struct FunctionEgressSpec {
    /// Offers the records as server-sent events under `/egress/<name>`. A client that was away resumes where it
    /// stopped, by `Last-Event-ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Stream")]
    pub stream: Option<Stream>,
}

/// Records as server-sent events.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stream {
    /// How long a record can be read after its commit: at least `1s`, at most `8784h` (a year).
    #[serde(default = "default_retention")]
    pub retention: Duration,
}

impl Default for Stream {
    fn default() -> Self {
        Self { retention: default_retention() }
    }
}

fn default_retention() -> Duration {
    Duration("24h".to_owned())
}
