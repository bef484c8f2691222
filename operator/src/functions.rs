//! `Function`: its workers, one set for each revision that is alive.
//!
//! dereference ([`reconcile`]) → validate ([`validate`]) → build ([`build`]) → apply → prune → status ([`status`])

use std::collections::BTreeSet;

use tandem_crds::resources::status::RevisionStatus;

use crate::child::{ChildKind, Owner};
use crate::context::Context;
use crate::graph::Graph;
use crate::key::ObjectKey;
use crate::kubeapi::Error;
use crate::queue::Outcome;
use crate::{failure, resync};

pub mod build;
pub mod revision;
pub mod rollout;
pub mod status;
#[cfg(test)]
mod tests;
pub mod validate;

/// Brings the workers and the status of a function to what its spec says.
pub async fn reconcile(context: &Context, key: &ObjectKey) -> Result<Outcome, Error> {
    let Some(held) = context.world.functions.get(&key.namespace, &key.name) else {
        context.rollouts.lock().remove(key);
        context.progress.lock().remove(key);
        return Ok(Outcome::Done);
    };
    let Some(graph) = context.world.graph(&key.namespace) else {
        context.touch_graph(&key.namespace);
        return Ok(Outcome::Done);
    };
    let generation = held.metadata().generation;
    if held.is_deleting() || context.is_too_early(key, &graph, generation) {
        return Ok(Outcome::Done);
    }
    let owner = Owner { key: key.clone(), uid: held.uid().to_owned() };
    let known = context.revisions(key);
    let reports = context.world.reports.lock().get(&key.namespace).cloned().unwrap_or_default();
    let mut observed = status::Observed::new(context, key, generation, &graph, &reports);
    let now = (context.clock)();
    let (revisions, applied) = match validate::validate(&owner, &graph) {
        Ok(valid) => {
            let revisions = rollout::advance(&known, &facts(&valid, &observed), now);
            let applied = apply(context, &owner, &valid, &revisions).await;
            observed.finding = applied.as_ref().err().map(failure::finding);
            observed.family = context.world.children.of(key);
            observed.target = valid.revision;
            (revisions, applied)
        }
        Err(finding) => {
            observed.finding = Some(finding);
            without_runtime(context, key, &graph, &known).await
        }
    };
    observed.revisions = &revisions;
    let previous = held.good().and_then(|function| function.status.as_ref());
    let conditions = previous.map(|status| status.conditions.as_slice()).unwrap_or_default();
    if failure::is_quiet(&applied, conditions) {
        return applied.map(|()| Outcome::Done);
    }
    let status = status::status(&observed, previous, now);
    let rollout = graph.accepted.functions.get(&key.name).and_then(|spec| spec.rollout.as_ref());
    let next = rollout::next_look(&revisions, rollout, now).unwrap_or_else(resync::pause);
    if applied.is_ok()
        && previous.is_some_and(|previous| previous != &status && status::is_mere_progress(previous, &status))
        && let Some(left) = context.postpone(key)
    {
        return Ok(Outcome::After(left.min(next)));
    }
    if context.write_status(key, held.uid(), previous, &status).await? {
        crate::events::transition(context, key, held.uid(), conditions, &status.conditions).await;
    }
    // Only what is written counts: after a restart the same bundle comes out.
    if !rollout::is_placed_alike(&revisions, &known) {
        context.touch_graph(&key.namespace);
    }
    context.remember_rollout(key, revisions);
    applied?;
    Ok(Outcome::After(next))
}

fn facts<'a>(valid: &'a validate::Valid, observed: &'a status::Observed<'_>) -> rollout::Facts<'a> {
    rollout::Facts {
        target: valid.revision.as_deref(),
        rollout: valid.spec.rollout.as_ref(),
        runtime_pods: &observed.runtime_pods,
        reports: observed.reports,
        function: &observed.key.name,
    }
}

/// Applies the workers of the revision that the spec asks for, unless it has failed already.
async fn apply(
    context: &Context,
    owner: &Owner,
    valid: &validate::Valid,
    revisions: &[RevisionStatus],
) -> Result<(), Error> {
    let is_target = |one: &&RevisionStatus| Some(&one.revision) == valid.revision.as_ref();
    let has_failed = revisions.iter().find(is_target).is_some_and(|one| !revision::is_alive(one.state));
    let children = if has_failed { Vec::new() } else { build::build(owner, valid) };
    let others = revisions.iter().filter(|one| !is_target(one));
    context.apply(&owner.key, &children, &kept(&owner.key.name, others)).await
}

/// Without a runtime nobody would call the workers: they go. With one, what runs stays while the spec is wrong.
async fn without_runtime(
    context: &Context,
    key: &ObjectKey,
    graph: &Graph,
    known: &[RevisionStatus],
) -> (Vec<RevisionStatus>, Result<(), Error>) {
    if graph.runtime.is_some() {
        return (known.to_vec(), Ok(()));
    }
    (Vec::new(), context.apply(key, &[], &BTreeSet::new()).await)
}

/// Children of revisions that are alive beside the one that the spec asks for: they stay as they are.
fn kept<'a>(function: &str, others: impl Iterator<Item = &'a RevisionStatus>) -> BTreeSet<(ChildKind, String)> {
    let alive = others.filter(|one| revision::is_alive(one.state)).flat_map(|one| {
        let name = revision::child_name(function, &one.revision);
        let kinds = [ChildKind::Deployment, ChildKind::PodDisruptionBudget, ChildKind::Service];
        kinds.map(|kind| (kind, name.clone()))
    });
    alive.collect()
}
