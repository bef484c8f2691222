//! `Function`: its workers, one set for each revision that is alive.
//!
//! dereference ([`reconcile`]) → validate ([`validate`]) → build ([`build`]) → apply → prune → status ([`status`])

use std::collections::BTreeSet;
use std::time::Duration;

use crate::child::{ChildKind, Owner};
use crate::context::Context;
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

/// How often a rollout is looked at while it moves: pods' reports wake it up, too.
const ROLLOUT_PERIOD: Duration = Duration::from_secs(1);

/// Brings the workers and the status of a function to what its spec says.
pub async fn reconcile(context: &Context, key: &ObjectKey) -> Result<Outcome, Error> {
    let Some(held) = context.world.functions.get(&key.namespace, &key.name) else {
        context.rollouts.lock().remove(key);
        return Ok(Outcome::Done);
    };
    let Some(graph) = context.world.graph(&key.namespace) else {
        context.touch_graph(&key.namespace);
        return Ok(Outcome::Done);
    };
    if held.is_deleting() || context.is_too_early(key, &graph, held.metadata().generation) {
        return Ok(Outcome::Done);
    }
    let now = (context.clock)();
    let owner = Owner { key: key.clone(), uid: held.uid().to_owned() };
    let reports = context.world.reports.lock().get(&key.namespace).cloned().unwrap_or_default();
    let known = context.revisions(key);
    let valid = validate::validate(&owner, &graph);
    let mut observed = status::Observed::new(context, key, held.metadata().generation, &graph, &reports);
    let mut applied = Ok(());
    let mut revisions = known.clone();
    match &valid {
        Err(finding) => observed.finding = Some(finding.clone()),
        Ok(valid) => {
            let facts = rollout::Facts {
                target: valid.revision.as_deref(),
                rollout: valid.spec.rollout.as_ref(),
                runtime_pods: &observed.runtime_pods,
                reports: &reports,
                function: &key.name,
            };
            revisions = rollout::advance(&known, &facts, now);
            let kept = kept(&key.name, &revisions);
            let failed = revisions
                .iter()
                .any(|one| Some(&one.revision) == valid.revision.as_ref() && !revision::is_alive(one.state));
            let children = if failed { Vec::new() } else { build::build(&owner, valid) };
            applied = context.apply(key, &children, &kept).await;
            observed.finding = applied.as_ref().err().map(failure::finding);
            observed.family = context.world.children.of(key);
        }
    }
    observed.revisions = &revisions;
    observed.target = valid.as_ref().ok().and_then(|valid| valid.revision.clone());
    let previous = held.good().and_then(|function| function.status.as_ref());
    let status = status::status(&observed, previous, now);
    if context.write_status(key, held.uid(), previous, &status).await? {
        let conditions = previous.map(|status| status.conditions.as_slice()).unwrap_or_default();
        crate::events::transition(context, key, held.uid(), conditions, &status.conditions).await;
    }
    // Only what is written counts: after a restart the same bundle comes out.
    if revisions != known {
        context.touch_graph(&key.namespace);
    }
    context.rollouts.lock().insert(key.clone(), revisions.clone());
    applied?;
    if revisions.iter().any(|one| revision::is_moving(one.state)) {
        return Ok(Outcome::After(ROLLOUT_PERIOD));
    }
    Ok(Outcome::After(resync::pause()))
}

/// Children of revisions that are alive beside the one that the spec asks for: they stay as they are.
fn kept(function: &str, revisions: &[tandem_crds::resources::status::RevisionStatus]) -> BTreeSet<(ChildKind, String)> {
    BTreeSet::from_iter(revisions.iter().filter(|one| revision::is_alive(one.state)).flat_map(|one| {
        let name = revision::child_name(function, &one.revision);
        [(ChildKind::Deployment, name.clone()), (ChildKind::Service, name)]
    }))
}
