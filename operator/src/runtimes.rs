//! `FunctionRuntime`: the pods that run the flows of a namespace.
//!
//! dereference ([`reconcile`]) → validate ([`validate`]) → build ([`build`]) → apply → prune → status ([`status`])

use std::collections::BTreeSet;

use tandem_crds::resources::FunctionRuntime;

use crate::child::{ChildKind, Owner};
use crate::conditions::Finding;
use crate::context::Context;
use crate::key::ObjectKey;
use crate::kubeapi::Error;
use crate::queue::Outcome;
use crate::world::Held;
use crate::{failure, resync};

pub mod build;
pub mod configuration;
pub mod network;
pub mod pods;
pub mod status;
#[cfg(test)]
mod tests;
pub mod validate;

/// Brings the children and the status of a runtime to what its spec says.
pub async fn reconcile(context: &Context, key: &ObjectKey) -> Result<Outcome, Error> {
    let Some(held) = context.world.runtimes.get(&key.namespace, &key.name) else { return Ok(Outcome::Done) };
    // Without a graph nothing can be said yet; it wakes everybody up when it is there.
    let Some(graph) = context.world.graph(&key.namespace) else {
        context.touch_graph(&key.namespace);
        return Ok(Outcome::Done);
    };
    if held.is_deleting() || context.is_too_early(key, &graph, held.metadata().generation) {
        return Ok(Outcome::Done);
    }
    let owner = Owner { key: key.clone(), uid: held.uid().to_owned() };
    let family = context.world.children.of(key);
    let references = validate::References { world: &context.world, settings: &context.settings, family: &family };
    let valid = validate::validate(&owner, &graph, &references);
    let (applied, finding) = match &valid {
        Err(finding) => (Ok(()), Some(finding.clone())),
        Ok(valid) => {
            let applied = context.apply(key, &build::build(&owner, valid), &BTreeSet::new()).await;
            let finding = applied.as_ref().err().map(|error| failure::finding(error));
            (applied, finding)
        }
    };
    write_status(context, key, &held, &graph, finding).await?;
    applied?;
    Ok(Outcome::After(resync::pause()))
}

async fn write_status(
    context: &Context,
    key: &ObjectKey,
    held: &Held<FunctionRuntime>,
    graph: &crate::graph::Graph,
    finding: Option<Finding>,
) -> Result<(), Error> {
    let family = context.world.children.of(key);
    let workload = family.get(&(ChildKind::StatefulSet, key.name.clone())).and_then(|live| live.workload.clone());
    let pods = context.world.pods.of(key);
    let reports = context.world.reports.lock().get(&key.namespace).cloned().unwrap_or_default();
    let previous = held.good().and_then(|runtime| runtime.status.as_ref());
    let observed = status::Observed {
        name: &key.name,
        generation: held.metadata().generation,
        graph,
        workload: workload.as_ref(),
        pods: &pods,
        reports: &reports,
        finding,
    };
    let status = status::status(&observed, previous, (context.clock)());
    let is_written = context.write_status(key, held.uid(), previous, &status).await?;
    if is_written {
        let conditions = previous.map(|status| status.conditions.as_slice()).unwrap_or_default();
        crate::events::transition(context, key, held.uid(), conditions, &status.conditions).await;
    }
    Ok(())
}
