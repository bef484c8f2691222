//! The four kinds of `tandem.dev/v1alpha1`. Schema, rules, defaults and columns come from these types alone.
//!
//! Texts in a spec (names, durations, expressions) stay unchecked text here: the API server checks them by the schema,
//! and [`crate::compile`] turns them into the checked types of the model, reporting every problem instead of the first.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub mod duration;
pub mod egress;
pub mod function;
pub mod pod;
pub mod route;
pub mod runtime;
pub mod status;

pub use egress::{FunctionEgress, FunctionEgressSpec};
pub use function::{Function, FunctionSpec};
pub use route::{FunctionRoute, FunctionRouteSpec};
pub use runtime::{FunctionRuntime, FunctionRuntimeSpec};

/// API group of every kind.
pub const GROUP: &str = "tandem.dev";
/// The version that is served and stored.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of every kind.
pub const API_VERSION: &str = "tandem.dev/v1alpha1";

/// Rule on `metadata.name` of every kind: a name is also a label value, a row key and a part of a URL.
pub(crate) const NAME_RULE: &str =
    "self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')";
/// What [`NAME_RULE`] says to people.
pub(crate) const NAME_MESSAGE: &str =
    "metadata.name must have 1 to 63 of a-z, 0-9 and '-', and start and end with a letter or digit";

/// A kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `FunctionRuntime`
    Runtime,
    /// `Function`
    Function,
    /// `FunctionRoute`
    Route,
    /// `FunctionEgress`
    Egress,
}

impl Kind {
    /// All kinds, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::Function, Self::Route, Self::Egress, Self::Runtime];

    /// The `kind` field.
    pub fn name(self) -> &'static str {
        match self {
            Self::Runtime => "FunctionRuntime",
            Self::Function => "Function",
            Self::Route => "FunctionRoute",
            Self::Egress => "FunctionEgress",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Its definition, as a cluster needs it.
    pub fn definition(self) -> CustomResourceDefinition {
        match self {
            Self::Runtime => FunctionRuntime::crd(),
            Self::Function => Function::crd(),
            Self::Route => FunctionRoute::crd(),
            Self::Egress => FunctionEgress::crd(),
        }
    }
}
