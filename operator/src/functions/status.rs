//! What is said about a function: a pure function of its generation, its children, its rollout, and what pods say.

use jiff::Timestamp;
use tandem_crds::resources::Kind;
use tandem_crds::resources::function::DeletionPolicy;
use tandem_crds::resources::status::{FunctionStatus, RevisionState, RevisionStatus};

use crate::child::{ChildKind, Workload};
use crate::conditions::{Finding, conditions};
use crate::context::Context;
use crate::diagnosis;
use crate::functions::revision::{child_name, is_alive, url};
use crate::functions::rollout::is_placed_alike;
use crate::graph::Graph;
use crate::key::{ObjectKey, Text};
use crate::names::label;
use crate::pods::Reports;
use crate::reasons::{self, Effect, Reason};
use crate::world::PodView;
use crate::world::children::Family;

/// What a status is made of.
pub struct Observed<'a> {
    /// The function.
    pub key: &'a ObjectKey,
    /// Its generation.
    pub generation: Option<i64>,
    /// The graph of its namespace.
    pub graph: &'a Graph,
    /// Its children.
    pub family: Family,
    /// Its pods.
    pub pods: Vec<PodView>,
    /// The pods of the runtime that take requests.
    pub runtime_pods: Vec<Text>,
    /// What they say.
    pub reports: &'a Reports,
    /// What the pods of the runtime have served last.
    pub is_served: bool,
    /// Its revisions.
    pub revisions: &'a [RevisionStatus],
    /// The revision that the spec asks for.
    pub target: Option<String>,
    /// Why it cannot be made, or not now.
    pub finding: Option<Finding>,
}

impl<'a> Observed<'a> {
    /// What the world says about a function.
    pub fn new(
        context: &Context,
        key: &'a ObjectKey,
        generation: Option<i64>,
        graph: &'a Graph,
        reports: &'a Reports,
    ) -> Self {
        let runtime = graph.runtime.clone().unwrap_or_default();
        let runtime = context.world.pods.of(&ObjectKey::new(Kind::Runtime, key.namespace.clone(), runtime));
        let ready = runtime.into_iter().filter(|pod| pod.is_ready && !pod.is_deleting);
        Self {
            key,
            generation,
            graph,
            family: context.world.children.of(key),
            pods: context.world.pods.of(key),
            runtime_pods: ready.map(|pod| pod.name).collect(),
            reports,
            is_served: context.world.serves_function(&key.namespace, &key.name),
            revisions: &[],
            target: None,
            finding: None,
        }
    }

    fn workload(&self, revision: &str) -> Option<&Workload> {
        let name = Text::from(child_name(&self.key.name, revision));
        self.family.get(&(ChildKind::Deployment, name))?.workload.as_ref()
    }
}

/// What is said beside a function that is ready and would keep what it is told to delete.
const STATE_STAYS: &str = "; its state stays when it is deleted: deletionPolicy of a Function is not acted on";

/// The status.
pub fn status(observed: &Observed<'_>, previous: Option<&FunctionStatus>, now: Timestamp) -> FunctionStatus {
    let (mut finding, also) = findings(observed, now);
    let spec = observed.graph.accepted.functions.get(&observed.key.name);
    if finding.is_ready() && spec.is_some_and(|spec| spec.deletion_policy == DeletionPolicy::Delete) {
        finding = Finding::new(finding.reason, finding.message + STATE_STAYS);
    }
    let known = previous.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let active = observed.revisions.iter().find(|one| one.state == RevisionState::Active);
    let endpoint = spec.and_then(|spec| spec.endpoint.as_ref()).map(|endpoint| endpoint.url.clone());
    let own = active.map(|one| url(&observed.key.namespace, &observed.key.name, &one.revision));
    let target = observed.target.as_deref().and_then(|target| observed.workload(target));
    let ready = observed.revisions.iter().filter_map(|one| observed.workload(&one.revision)).map(|w| w.ready).sum();
    let has_pods = observed.target.is_some() || !observed.revisions.is_empty();
    FunctionStatus {
        observed_generation: observed.generation,
        conditions: conditions(&finding, also.as_ref(), observed.generation, known, now),
        url: endpoint.or(own),
        replicas: has_pods.then(|| target.map_or(0, |workload| workload.replicas)),
        ready_workers: has_pods.then_some(ready),
        selector: observed.target.as_deref().map(|revision| selector(&observed.key.name, revision)),
        active_revision: active.map(|one| one.revision.clone()),
        revisions: observed.revisions.to_vec(),
    }
}

/// Whether `after` tells nothing but how far it is on the way that `before` told of already: it is not ready, nothing keeps it
/// from becoming so, and nobody acts on it.
pub fn is_mere_progress(before: &FunctionStatus, after: &FunctionStatus) -> bool {
    let is_moving = |status: &FunctionStatus| {
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
        let reason = ready.filter(|ready| ready.status == "False").and_then(|ready| Reason::named(&ready.reason));
        reason.is_some_and(|reason| reason.effect == Effect::Moving || reason.name == reasons::RUNTIME_NOT_READY.name)
    };
    before.observed_generation == after.observed_generation
        && is_moving(before)
        && is_moving(after)
        && is_placed_alike(&before.revisions, &after.revisions)
}

/// The labels of the pods, as an autoscaler reads them.
fn selector(name: &str, revision: &str) -> String {
    format!("{}=tandem-function,{}={name},{}={revision}", label::NAME, label::INSTANCE, label::REVISION)
}

/// How it is; and what is wrong with the present spec while an older one serves.
fn findings(observed: &Observed<'_>, now: Timestamp) -> (Finding, Option<Finding>) {
    let invalid = observed
        .graph
        .outdated
        .contains(&(Kind::Function, observed.key.name.clone()))
        .then(|| observed.graph.finding(Kind::Function, &observed.key.name))
        .flatten();
    let finding = observed.finding.clone();
    if observed.target.is_none() {
        let state = finding.unwrap_or_else(|| served(observed));
        return (state, invalid);
    }
    let (state, problem) = rollout(observed, now);
    match finding {
        // What runs goes on running while its children cannot be brought up to date.
        Some(finding) if state.is_ready() && finding.reason.effect == Effect::Stalled => (state, Some(finding)),
        Some(finding) => (finding, None),
        None => (state, invalid.or(problem)),
    }
}

/// Whether the runtime's pods serve it.
pub fn served(observed: &Observed<'_>) -> Finding {
    if observed.is_served {
        return Finding::new(&reasons::READY, "it is in the topology that the runtime serves");
    }
    Finding::new(&reasons::RUNTIME_NOT_READY, "no pod of the runtime serves it yet")
}

/// How the workers are; and what is wrong with the target while its predecessor serves.
fn rollout(observed: &Observed<'_>, now: Timestamp) -> (Finding, Option<Finding>) {
    let target = observed.target.as_deref().unwrap_or_default();
    let state = observed.revisions.iter().find(|one| one.revision == target).map(|one| one.state).unwrap_or_default();
    let older = observed.revisions.iter().find(|one| one.revision != target && one.weight > 0 && is_alive(one.state));
    let finding = match state {
        RevisionState::Failed => Finding::new(
            &reasons::ROLLOUT_FAILED,
            format!("too many flows failed with revision {target}; it was rolled back"),
        ),
        RevisionState::Ramping => {
            Finding::new(&reasons::ROLLING_OUT, format!("revision {target} takes over step by step"))
        }
        RevisionState::Starting | RevisionState::Active | RevisionState::Draining => workers(observed, target, now),
    };
    match older {
        Some(older) if older.state == RevisionState::Active && !finding.is_ready() => {
            let message = format!("revision {} serves", older.revision);
            (Finding::new(&reasons::PREVIOUS_REVISION, message), Some(finding))
        }
        _ => (finding, None),
    }
}

fn workers(observed: &Observed<'_>, revision: &str, now: Timestamp) -> Finding {
    let Some(workload) = observed.workload(revision) else {
        return Finding::new(&reasons::STARTING, "the workers are being made");
    };
    if workload.wanted == 0 {
        return Finding::new(&reasons::SCALED_TO_ZERO, "replicas is 0: no worker runs");
    }
    let of_revision = observed.pods.iter().filter(|pod| pod.revision.as_deref() == Some(revision)).cloned();
    let pods: Vec<_> = of_revision.collect();
    if workload.ready < workload.wanted
        && let Some(finding) = diagnosis::diagnose(&pods, workload, &Reports::default(), now)
    {
        return finding;
    }
    if workload.ready == 0 {
        return Finding::new(&reasons::STARTING, format!("0 of {} workers are ready", workload.wanted));
    }
    if let Some(finding) = handshake(observed, revision) {
        return finding;
    }
    if !workload.is_settled() {
        let message = format!("{} of {} workers are ready", workload.ready, workload.wanted);
        return Finding::new(&reasons::UPDATING, message);
    }
    if !observed.is_served {
        return served(observed);
    }
    Finding::new(&reasons::READY, format!("{} workers of revision {revision} are ready", workload.ready))
}

/// What keeps the runtime's pods from using the workers.
fn handshake(observed: &Observed<'_>, revision: &str) -> Option<Finding> {
    if observed.runtime_pods.is_empty() {
        return Some(Finding::new(&reasons::RUNTIME_NOT_READY, "no pod of the runtime is ready"));
    }
    let reports = observed.reports.of(&observed.key.name, revision);
    let lacks = |report: &&crate::pods::RevisionReport| report.workers_ready == 0;
    let refused = reports.values().find_map(|report| report.refusal());
    if let Some(problem) = refused.or_else(|| reports.values().filter(lacks).find_map(|report| report.problem.as_ref()))
    {
        return Some(Finding::new(refusal(&problem.reason), &problem.message));
    }
    let shaken = |pod: &&Text| reports.get(*pod).is_some_and(|report| report.workers_ready > 0);
    let count = observed.runtime_pods.iter().filter(shaken).count();
    (count < observed.runtime_pods.len()).then(|| {
        let message = format!("{count} of {} runtime pods have shaken hands with workers", observed.runtime_pods.len());
        Finding::new(&reasons::HANDSHAKE_PENDING, message)
    })
}

fn refusal(reason: &str) -> &'static Reason {
    match reason {
        "HandlersDiffer" => &reasons::HANDLERS_DIFFER,
        "StateIncompatible" => &reasons::STATE_INCOMPATIBLE,
        "Unreachable" => &reasons::WORKERS_UNREACHABLE,
        _ => &reasons::HANDSHAKE_REFUSED,
    }
}
