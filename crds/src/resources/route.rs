//! `FunctionRoute`: a way in.
#![allow(unreachable_pub, reason = "KubeSchema derives a public helper inside a function for each type")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resources::duration::Duration;
use crate::resources::status::Status;
use crate::resources::{NAME_MESSAGE, NAME_RULE};

/// HTTP methods a route may take.
pub const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// What a host looks like; `*.` may stand for its first label.
pub const HOST_PATTERN: &str = "^([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// A way in: maps HTTP requests to a handler of a function, and says which instance they are for.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tandem.dev",
    version = "v1alpha1",
    kind = "FunctionRoute",
    namespaced,
    shortname = "fnroute",
    category = "tandem",
    status = "Status",
    derive = "PartialEq",
    doc = "A way in: maps HTTP requests to a handler of a function, and says which instance they are for.",
    validation = Rule::new(NAME_RULE).message(NAME_MESSAGE),
    printcolumn(name = "Method", type_ = "string", json_path = ".spec.http.method"),
    printcolumn(name = "Path", type_ = "string", json_path = ".spec.http.path"),
    printcolumn(name = "Function", type_ = "string", json_path = ".spec.to.function"),
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.http.host", priority = 1),
    printcolumn(name = "Handler", type_ = "string", json_path = ".spec.to.handler", priority = 1),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct FunctionRouteSpec {
    /// Which HTTP requests it takes. Two routes must not take the same request.
    pub http: Http,
    /// Which handler runs.
    pub to: Target,
    /// A CEL expression for the key of the instance, for example `request.path.orderId`. It sees `request.path`,
    /// `request.query`, `request.headers` (names in lower case), `request.method` and, if `body` is `Json`,
    /// `request.body`.
    #[schemars(length(min = 1, max = 1024))]
    pub key: String,
    /// A CEL expression for the id of the request, by which a repeated request is recognised. Without it: the
    /// `Idempotency-Key` header, or an id that is made for the request and returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    #[schemars(length(min = 1, max = 1024))]
    pub idempotency_key: Option<String>,
    /// `Wait`: answer with the outcome (a client may ask for the other with `Prefer: respond-async`). `Accept`: answer
    /// 202 at once, with the address where the outcome will be.
    #[serde(default)]
    pub reply: Reply,
    /// How long the flow may take, from acceptance to durable: at least `1ms`, at most `60s`. Without it: the runtime's
    /// `limits.deadline`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    pub deadline: Option<Duration>,
    /// `Json`: the body must be JSON, an empty one is `null`. `Raw`: any bytes, handed over with their media type;
    /// expressions do not see them.
    #[serde(default)]
    pub body: Body,
}

/// Method and path, and the way there from outside of the cluster.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.gateway) || !has(self.ingressClassName)")
        .message("only one of gateway and ingressClassName may be set"),
    validation = Rule::new("has(self.host) || !(has(self.gateway) || has(self.ingressClassName))")
        .message("gateway and ingressClassName need a host")
)]
pub struct Http {
    /// The method, in upper case.
    #[schemars(extend("enum" = METHODS))]
    pub method: String,
    /// The path, for example `/orders/{orderId}`. `{name}` takes one segment, `{*name}` at the end takes the rest.
    /// `/flows` and `/egress` belong to the runtime.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/"))]
    pub path: String,
    /// The host by which it is reached from outside of the cluster. A cluster makes an HTTPRoute for it if `gateway` is set,
    /// and an Ingress otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 253), regex(pattern = HOST_PATTERN))]
    pub host: Option<String>,
    /// The Gateway that leads to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Gateway")]
    pub gateway: Option<Gateway>,
    /// The class of its Ingress; the default one of the cluster without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 253))]
    pub ingress_class_name: Option<String>,
}

/// Names a Gateway of the Gateway API.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace; that of the route without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// One of its listeners; all that fit without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 253))]
    pub section_name: Option<String>,
}

/// A handler of a function.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Name of a `Function` of the same namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub function: String,
    /// Name of one of its handlers.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z][A-Za-z0-9_-]*$"))]
    pub handler: String,
}

/// When a route answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Reply {
    #[default]
    #[allow(missing_docs, reason = "a documented variant would turn the schema's enum into oneOf; see the field")]
    Wait,
    #[allow(missing_docs, reason = "see `Wait`")]
    Accept,
}

/// How a route understands the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Body {
    #[default]
    #[allow(missing_docs, reason = "a documented variant would turn the schema's enum into oneOf; see the field")]
    Json,
    #[allow(missing_docs, reason = "see `Json`")]
    Raw,
}
