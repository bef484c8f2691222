//! `FunctionRoute`: a way in, and the way there from outside of the cluster.
//!
//! dereference ([`reconcile`]) → validate → build ([`build`]) → apply → prune → status

use std::collections::BTreeSet;

use tandem_crds::resources::status::Status;
use tandem_crds::resources::{FunctionRouteSpec, Kind};

use crate::child::{ChildKind, Owner};
use crate::conditions::{Finding, conditions};
use crate::context::Context;
use crate::graph::Graph;
use crate::key::{ObjectKey, Text};
use crate::kubeapi::Error;
use crate::queue::Outcome;
use crate::{failure, functions, reasons, resync};

pub mod build;
#[cfg(test)]
mod tests;

/// Brings the children and the status of a route to what its spec says.
pub async fn reconcile(context: &Context, key: &ObjectKey) -> Result<Outcome, Error> {
    let Some(held) = context.world.routes.get(&key.namespace, &key.name) else { return Ok(Outcome::Done) };
    let Some(graph) = context.world.graph(&key.namespace) else {
        context.touch_graph(&key.namespace);
        return Ok(Outcome::Done);
    };
    if held.is_deleting() || context.is_too_early(key, &graph, held.metadata().generation) {
        return Ok(Outcome::Done);
    }
    let owner = Owner { key: key.clone(), uid: held.uid().to_owned() };
    let is_served = context.world.is_served(&graph, &key.namespace, |accepted| accepted.routes.get(&key.name));
    let mut applied = Ok(());
    let finding = match validate(key, &graph) {
        Err(finding) => {
            if graph.runtime.is_none() {
                applied = context.apply(key, &[], &BTreeSet::new()).await;
            }
            finding
        }
        Ok((runtime, spec)) => {
            let children = build::build(&owner, &runtime, &spec, |kind| context.world.knows(kind));
            applied = context.apply(key, &children, &BTreeSet::new()).await;
            match &applied {
                Err(error) => failure::finding(error),
                Ok(()) if is_served && lacks_gateway(context, &spec) => Finding::new(
                    &reasons::DEFINITION_MISSING,
                    "the cluster does not know HTTPRoute of gateway.networking.k8s.io/v1",
                ),
                Ok(()) if is_served => match refusal(context, key) {
                    Some(refusal) => Finding::new(&reasons::GATEWAY_REFUSED, &*refusal),
                    None => Finding::new(&reasons::READY, "the runtime serves it"),
                },
                Ok(()) => Finding::new(&reasons::RUNTIME_NOT_READY, "no pod of the runtime serves it yet"),
            }
        }
    };
    let outdated = graph.outdated.contains(&(Kind::Route, key.name.clone()));
    let also = outdated.then(|| graph.finding(Kind::Route, &key.name)).flatten();
    let previous = held.good().and_then(|route| route.status.as_ref());
    let known = previous.map(|status| status.conditions.as_slice()).unwrap_or_default();
    if failure::is_quiet(&applied, known) {
        return applied.map(|()| Outcome::Done);
    }
    let generation = held.metadata().generation;
    let conditions = conditions(&finding, also.as_ref(), generation, known, (context.clock)());
    let status = Status { observed_generation: generation, conditions };
    if context.write_status(key, held.uid(), previous, &status).await? {
        crate::events::transition(context, key, held.uid(), known, &status.conditions).await;
    }
    applied?;
    Ok(Outcome::After(resync::pause()))
}

/// What the gateway says against the route.
fn refusal(context: &Context, key: &ObjectKey) -> Option<Text> {
    let family = context.world.children.of(key);
    family.get(&(ChildKind::HttpRoute, key.name.clone()))?.refusal.clone()
}

fn lacks_gateway(context: &Context, spec: &FunctionRouteSpec) -> bool {
    spec.http.host.is_some() && spec.http.gateway.is_some() && !context.world.knows(ChildKind::HttpRoute)
}

/// The runtime that serves the route, and the spec that serves. Pure.
fn validate(key: &ObjectKey, graph: &Graph) -> Result<(String, std::sync::Arc<FunctionRouteSpec>), Finding> {
    let Some(runtime) = &graph.runtime else { return Err(functions::validate::no_runtime()) };
    let Some(spec) = graph.accepted.routes.get(&key.name) else {
        let pending = || Finding::new(&reasons::RETRYING, "the graph of the namespace is not compiled yet");
        return Err(graph.finding(Kind::Route, &key.name).unwrap_or_else(pending));
    };
    Ok((runtime.to_string(), std::sync::Arc::clone(spec)))
}
