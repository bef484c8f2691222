//! All resources of a namespace as one unit: compiled together, by the same code as `tandem check`.
//!
//! **Invariant:** a resource with problems never takes down one without: it is left out, or its last good spec serves on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tandem_crds::codes::{self, Code};
use tandem_crds::problem::Problem;
use tandem_crds::resources::{FunctionEgressSpec, FunctionRouteSpec, FunctionRuntimeSpec, FunctionSpec, Kind};

use crate::conditions::Finding;
use crate::key::Text;
use crate::reasons;

pub mod bundle;
pub mod evaluate;
pub mod reconcile;
#[cfg(test)]
mod tests;

pub use bundle::Packed;

/// Names a resource within its namespace.
pub type Name = (Kind, Text);

/// The specs that serve.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Accepted {
    /// The one runtime.
    pub runtime: Option<(Text, Arc<FunctionRuntimeSpec>)>,
    /// By name.
    pub functions: BTreeMap<Text, Arc<FunctionSpec>>,
    /// By name.
    pub routes: BTreeMap<Text, Arc<FunctionRouteSpec>>,
    /// By name.
    pub egresses: BTreeMap<Text, Arc<FunctionEgressSpec>>,
}

impl Accepted {
    /// Takes every spec that is the same in `other` from there, so that it is in memory once, and found to be the same at once.
    pub fn share(&mut self, other: &Self) {
        fn share_all<S: PartialEq>(specs: &mut BTreeMap<Text, Arc<S>>, others: &BTreeMap<Text, Arc<S>>) {
            for (name, spec) in specs.iter_mut() {
                if let Some(same) = others.get(name).filter(|other| other == &spec) {
                    *spec = Arc::clone(same);
                }
            }
        }
        if self.runtime == other.runtime {
            self.runtime.clone_from(&other.runtime);
        }
        share_all(&mut self.functions, &other.functions);
        share_all(&mut self.routes, &other.routes);
        share_all(&mut self.egresses, &other.egresses);
    }
}

/// What the resources of a namespace come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// The oldest `FunctionRuntime`: the one that serves the namespace, whether its spec is right or not.
    pub runtime: Option<Text>,
    /// The specs that serve.
    pub accepted: Arc<Accepted>,
    /// What is wrong, by the resource that causes it. Warnings are among it.
    pub problems: Arc<BTreeMap<Name, Vec<Problem>>>,
    /// Resources whose last good spec serves instead of the present one.
    pub outdated: Arc<BTreeSet<Name>>,
    /// What the pods of the runtime are told. Nothing without a runtime.
    pub bundle: Option<Arc<Packed>>,
    /// The generation of each resource that was compiled. Of an edit that is not among them nothing can be said yet.
    pub generations: Arc<BTreeMap<Name, i64>>,
    /// How long the last compilation took: the next one waits longer where it takes long.
    pub cost: Duration,
}

impl Graph {
    /// Whether the resource was compiled as it is in that generation.
    pub fn has_seen(&self, kind: Kind, name: &Text, generation: Option<i64>) -> bool {
        self.generations.get(&(kind, name.clone())).copied() == generation
    }

    /// What is wrong with one resource, warnings left out.
    pub fn errors(&self, kind: Kind, name: &str) -> Vec<&Problem> {
        let problems = self.problems.get(&(kind, Text::from(name)));
        problems.into_iter().flatten().filter(|problem| problem.is_error()).collect()
    }

    /// What is wrong with one resource, as one finding; nothing if nothing is.
    pub fn finding(&self, kind: Kind, name: &str) -> Option<Finding> {
        let errors = self.errors(kind, name);
        let first = errors.first()?;
        let is_all = |code: &Code| errors.iter().all(|problem| problem.code == code.code);
        let reason = if is_all(&codes::UNKNOWN_FUNCTION) {
            &reasons::FUNCTION_MISSING
        } else if is_all(&codes::UNREADABLE_RESOURCE) {
            &reasons::UNREADABLE
        } else {
            &reasons::INVALID
        };
        let field = if first.field.is_empty() { String::new() } else { format!("{}: ", first.field) };
        let more = if errors.len() > 1 { format!(" (and {} more problems)", errors.len() - 1) } else { String::new() };
        let serving = if self.serves(kind, name) { "; the last good spec serves" } else { "" };
        let message = format!("{}: {field}{}; {}{more}{serving}", first.code, first.message, first.help);
        Some(Finding::new(reason, message))
    }

    /// Whether a spec of the resource serves.
    pub fn serves(&self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::Runtime => self.accepted.runtime.as_ref().is_some_and(|(runtime, _)| &**runtime == name),
            Kind::Function => self.accepted.functions.contains_key(name),
            Kind::Route => self.accepted.routes.contains_key(name),
            Kind::Egress => self.accepted.egresses.contains_key(name),
        }
    }
}
