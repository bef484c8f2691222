//! Can the workers of a function be made as it is? Pure.

use std::sync::Arc;

use tandem_crds::resources::{FunctionSpec, Kind};

use crate::child::Owner;
use crate::conditions::Finding;
use crate::functions::revision::revision;
use crate::graph::Graph;
use crate::reasons;

/// A function that can be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Valid {
    /// The spec that serves: the present one, or the last good one.
    pub spec: Arc<FunctionSpec>,
    /// What makes its pods; nothing if somebody else runs its workers.
    pub revision: Option<String>,
}

/// Checks what the graph says about it.
pub fn validate(owner: &Owner, graph: &Graph) -> Result<Valid, Finding> {
    let name = &owner.key.name;
    if graph.runtime.is_none() {
        return Err(no_runtime());
    }
    let Some(spec) = graph.accepted.functions.get(name) else {
        let finding = graph.finding(Kind::Function, name);
        let pending = || Finding::new(&reasons::RETRYING, "the graph of the namespace is not compiled yet");
        return Err(finding.unwrap_or_else(pending));
    };
    Ok(Valid { spec: Arc::clone(spec), revision: revision(spec) })
}

/// Nothing runs without a runtime.
pub fn no_runtime() -> Finding {
    Finding::new(&reasons::NO_RUNTIME, "the namespace has no FunctionRuntime; apply one to run its functions")
}
