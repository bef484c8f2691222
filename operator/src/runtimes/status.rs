//! What is said about a runtime: a pure function of its generation, its children, and what its pods say.

use jiff::Timestamp;
use tandem_crds::problem::Problem;
use tandem_crds::resources::Kind;
use tandem_crds::resources::status::{RuntimeStatus, STATUS_PROBLEMS_MAX, StatusProblem};

use crate::child::Workload;
use crate::conditions::{Finding, conditions};
use crate::diagnosis;
use crate::graph::Graph;
use crate::pods::Reports;
use crate::reasons::{self, Effect};
use crate::world::PodView;

/// What a status is made of.
pub struct Observed<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its generation.
    pub generation: Option<i64>,
    /// The graph of its namespace.
    pub graph: &'a Graph,
    /// Its StatefulSet.
    pub workload: Option<&'a Workload>,
    /// Its pods.
    pub pods: &'a [PodView],
    /// What they say.
    pub reports: &'a Reports,
    /// Why it cannot be made, or not now.
    pub finding: Option<Finding>,
}

/// The status.
pub fn status(observed: &Observed<'_>, previous: Option<&RuntimeStatus>, now: Timestamp) -> RuntimeStatus {
    let serves = observed.graph.runtime.as_deref() == Some(observed.name);
    let topology = observed.graph.bundle.as_ref().filter(|_| serves).map(|packed| packed.revision.clone());
    let serving = serving(observed);
    let (finding, also) = findings(observed, topology.as_deref(), serving.as_deref(), now);
    let known = previous.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let workload = observed.workload.cloned().unwrap_or_default();
    RuntimeStatus {
        observed_generation: observed.generation,
        conditions: conditions(&finding, also.as_ref(), observed.generation, known, now),
        replicas: Some(workload.replicas),
        ready_replicas: Some(workload.ready),
        selector: serves.then(|| selector(observed.name)),
        topology_revision: topology,
        serving_revision: serving,
        problems: if serves { problems(observed.graph) } else { Vec::new() },
    }
}

/// The labels of the pods, as an autoscaler reads them.
fn selector(name: &str) -> String {
    use crate::names::label;
    format!("{}=tandem-runtime,{}={name},{}=runtime", label::NAME, label::INSTANCE, label::COMPONENT)
}

/// The revision that every ready pod serves.
fn serving(observed: &Observed<'_>) -> Option<String> {
    let mut ready = observed.pods.iter().filter(|pod| pod.is_ready && !pod.is_deleting);
    let revision = observed.reports.revision(&ready.next()?.name)?;
    ready.all(|pod| observed.reports.revision(&pod.name) == Some(revision)).then(|| revision.to_owned())
}

fn findings(
    observed: &Observed<'_>,
    topology: Option<&str>,
    serving: Option<&str>,
    now: Timestamp,
) -> (Finding, Option<Finding>) {
    let state = state(observed, topology, serving, now);
    let Some(finding) = &observed.finding else {
        let outdated = observed.graph.outdated.contains(&(Kind::Runtime, observed.name.into()));
        let invalid = outdated.then(|| observed.graph.finding(Kind::Runtime, observed.name)).flatten();
        return (state, invalid);
    };
    // What serves goes on serving while its spec is stuck: the pods have the last good one.
    if state.is_ready() && finding.reason.effect == Effect::Stalled {
        return (state, Some(finding.clone()));
    }
    (finding.clone(), None)
}

fn state(observed: &Observed<'_>, topology: Option<&str>, serving: Option<&str>, now: Timestamp) -> Finding {
    let Some(workload) = observed.workload else {
        return Finding::new(&reasons::STARTING, "the StatefulSet is being made");
    };
    if workload.wanted == 0 {
        return Finding::new(&reasons::SCALED_TO_ZERO, "replicas is 0: nothing runs");
    }
    if workload.ready < workload.wanted
        && let Some(finding) = diagnosis::diagnose(observed.pods, workload, observed.reports, now)
    {
        return finding;
    }
    if !workload.is_settled() {
        let reason = if workload.ready == 0 { &reasons::STARTING } else { &reasons::UPDATING };
        let message = format!(
            "{} of {} pods are ready, {} of them as the spec says now",
            workload.ready, workload.wanted, workload.updated
        );
        return Finding::new(reason, message);
    }
    if topology != serving {
        if let Some(finding) = observed.reports.pods.values().find_map(diagnosis::refused_topology) {
            return finding;
        }
        let message = "not every pod serves the last topology yet";
        return Finding::new(&reasons::TOPOLOGY_SPREADING, message);
    }
    let errors = errors(observed.graph).count();
    if errors > 0 {
        let message =
            format!("{errors} problems keep resources of the namespace from being served: see status.problems");
        return Finding::new(&reasons::PROBLEMS_ELSEWHERE, message);
    }
    let lasting = observed
        .graph
        .accepted
        .runtime
        .as_ref()
        .is_none_or(|(_, spec)| spec.store.embedded.as_ref().is_none_or(|embedded| embedded.volume.is_some()));
    let warning = if lasting { "" } else { "; its state ends with the pod, because spec.store.embedded has no volume" };
    Finding::new(&reasons::READY, format!("every pod is ready and serves the last topology{warning}"))
}

fn errors(graph: &Graph) -> impl Iterator<Item = &Problem> {
    graph.problems.values().flatten().filter(|problem| problem.is_error())
}

fn problems(graph: &Graph) -> Vec<StatusProblem> {
    const MESSAGE_CHARACTERS_MAX: usize = 1_000;
    let shown = errors(graph).take(STATUS_PROBLEMS_MAX);
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    shown
        .map(|problem| StatusProblem {
            code: problem.code.to_owned(),
            object: cut(&problem.object, 320),
            field: cut(&problem.field, 512),
            message: cut(&format!("{}; {}", problem.message, problem.help), MESSAGE_CHARACTERS_MAX),
        })
        .collect()
}
