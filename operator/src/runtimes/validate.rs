//! Can the runtime be made as it is? Pure.

use std::sync::Arc;

use tandem_crds::resources::{FunctionRuntimeSpec, Kind};

use crate::child::{ChildKind, Owner};
use crate::conditions::Finding;
use crate::context::Settings;
use crate::graph::{Graph, Packed};
use crate::key::Text;
use crate::reasons;
use crate::world::World;
use crate::world::children::Family;

/// What a runtime refers to.
pub struct References<'a> {
    /// What the cluster has.
    pub world: &'a World,
    /// What the operator was started with.
    pub settings: &'a Settings,
    /// Its children.
    pub family: &'a Family,
}

/// A runtime that can be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Valid {
    /// The spec that serves: the present one, or the last good one.
    pub spec: Arc<FunctionRuntimeSpec>,
    /// Its image.
    pub image: String,
    /// How many pods there are to be now.
    pub replicas: i32,
    /// What they are told.
    pub packed: Arc<Packed>,
    /// The namespace of the operator.
    pub operator_namespace: Text,
    /// Whether the cluster knows PodMonitors.
    pub has_pod_monitors: bool,
}

/// Checks what only the cluster can tell, after the graph has checked the rest.
pub fn validate(owner: &Owner, graph: &Graph, references: &References<'_>) -> Result<Valid, Finding> {
    let name = &*owner.key.name;
    if let Some(serving) = graph.runtime.as_ref().filter(|serving| &***serving != name) {
        let message = format!("FunctionRuntime {serving} is older and serves this namespace; delete one of them");
        return Err(Finding::new(&reasons::ANOTHER_RUNTIME, message));
    }
    let accepted = graph.accepted.runtime.as_ref().filter(|(accepted, _)| &**accepted == name);
    let (Some((_, spec)), Some(packed)) = (accepted, &graph.bundle) else { return Err(problem(graph, name)) };
    if spec.store.embedded.is_some() && (spec.replicas > 1 || spec.autoscaling.is_some()) {
        let message = "the embedded store belongs to one process: set replicas to 1, or use the store tikv";
        return Err(Finding::new(&reasons::SCALE_REFUSED, message));
    }
    if let Some(finding) = store_changed(spec, references.family) {
        return Err(finding);
    }
    let stateful_set = references.family.get(&(ChildKind::StatefulSet, owner.key.name.clone()));
    let live = stateful_set.and_then(|live| live.workload.as_ref()).map(|workload| workload.wanted);
    Ok(Valid {
        replicas: replicas(spec, live),
        image: spec.image.clone().unwrap_or_else(|| references.settings.runtime_image.clone()),
        spec: Arc::clone(spec),
        packed: Arc::clone(packed),
        operator_namespace: references.settings.operator_namespace.as_str().into(),
        has_pod_monitors: references.world.knows(ChildKind::PodMonitor),
    })
}

/// The problems of the runtime itself as one finding.
pub fn problem(graph: &Graph, name: &str) -> Finding {
    graph
        .finding(Kind::Runtime, name)
        .unwrap_or_else(|| Finding::new(&reasons::RETRYING, "the graph of the namespace is not compiled yet"))
}

/// The kind of store is remembered by what was made for it.
fn store_changed(spec: &FunctionRuntimeSpec, family: &Family) -> Option<Finding> {
    let stateful_set = family.iter().find(|((kind, _), _)| *kind == ChildKind::StatefulSet)?.1;
    let was = stateful_set.revision.as_deref()?;
    let is = super::build::store_kind(spec);
    (was != is).then(|| {
        let message = format!("the store was {was} and would become {is}: what is stored would be left behind");
        Finding::new(&reasons::STORE_CHANGED, message)
    })
}

/// An autoscaler decides within its bounds; without one the spec does.
fn replicas(spec: &FunctionRuntimeSpec, live: Option<i32>) -> i32 {
    match &spec.autoscaling {
        None => spec.replicas,
        Some(autoscaling) => {
            let most = autoscaling.max_replicas.max(autoscaling.min_replicas);
            live.unwrap_or(autoscaling.min_replicas).clamp(autoscaling.min_replicas, most)
        }
    }
}
