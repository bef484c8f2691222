//! `FunctionRuntime`: the pods that run the flows of a namespace.
//!
//! dereference ([`reconcile`]) → validate ([`validate`]) → build ([`build`]) → apply → prune → status ([`status`])

use std::collections::BTreeSet;
use std::time::Duration;

use tandem_crds::resources::FunctionRuntime;

use crate::child::{ChildKind, Owner, Workload};
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
pub mod purge;
pub mod status;
#[cfg(test)]
mod tests;
pub mod validate;

/// How often a runtime is looked at whose pods are not all there: nobody says so when they cannot be made.
const UNSETTLED_PERIOD: Duration = Duration::from_secs(5);

/// Brings the children and the status of a runtime to what its spec says.
pub async fn reconcile(context: &Context, key: &ObjectKey) -> Result<Outcome, Error> {
    let Some(held) = context.world.runtimes.get(&key.namespace, &key.name) else {
        return purge::abandoned(context, key).await;
    };
    if held.is_deleting() {
        return purge::reconcile(context, key, &held).await;
    }
    // Without a graph nothing can be said yet; it wakes everybody up when it is there.
    let Some(graph) = context.world.graph(&key.namespace) else {
        context.touch_graph(&key.namespace);
        return Ok(Outcome::Done);
    };
    if context.is_too_early(key, &graph, held.metadata().generation) {
        return Ok(Outcome::Done);
    }
    let owner = Owner { key: key.clone(), uid: held.uid().to_owned() };
    let family = context.world.children.of(key);
    let references = validate::References { world: &context.world, settings: &context.settings, family: &family };
    let valid = validate::validate(&owner, &graph, &references);
    // Before there is any state: what is to be deleted with the resource must not be left behind.
    let mut applied = purge::follow_policy(context, key, &held).await;
    let finding = match &valid {
        Err(finding) => Some(finding.clone()),
        Ok(valid) => {
            if applied.is_ok() {
                applied = context.apply(key, &build::build(&owner, valid), &BTreeSet::new()).await;
            }
            applied.as_ref().err().map(failure::finding)
        }
    };
    let known = held.good().and_then(|runtime| Some(runtime.status.as_ref()?.conditions.as_slice()));
    if failure::is_quiet(&applied, known.unwrap_or_default()) {
        return applied.map(|()| Outcome::Done);
    }
    write_status(context, key, &held, &graph, finding).await?;
    applied?;
    let is_settled =
        context.world.children.of(key).values().all(|live| live.workload.as_ref().is_none_or(Workload::is_settled));
    Ok(Outcome::After(if is_settled { resync::pause() } else { UNSETTLED_PERIOD }))
}

async fn write_status(
    context: &Context,
    key: &ObjectKey,
    held: &Held<FunctionRuntime>,
    graph: &crate::graph::Graph,
    finding: Option<Finding>,
) -> Result<(), Error> {
    let family = context.world.children.of(key);
    let stateful_set = family.get(&(ChildKind::StatefulSet, key.name.clone()));
    let mut workload = stateful_set.and_then(|live| live.workload.clone());
    let pods = context.world.pods.of(key);
    if let Some(workload) = workload.as_mut().filter(|workload| workload.replicas < workload.wanted) {
        // Without the right to read events the reason stays unknown, and everything else is as it is.
        let failure = context.writer.creation_failure(ChildKind::StatefulSet, &key.namespace, &key.name).await;
        workload.failure = failure.ok().flatten().map(Into::into);
    }
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
