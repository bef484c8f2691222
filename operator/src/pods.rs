//! The pods of a runtime, as the operator talks to them: they are told their topology, and say how they are.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tandem_crds::resources::Kind;
use tracing::{debug, info};

use crate::context::Context;
use crate::functions::revision;
use crate::graph::reconcile::changed;
use crate::graph::{Graph, Name};
use crate::key::{Key, ObjectKey, Text};
use crate::queue::Outcome;
use crate::world::PodView;

pub mod http;

/// How often pods are asked while something moves.
const PERIOD_MOVING: Duration = Duration::from_secs(1);
/// How often pods are asked otherwise.
const PERIOD_QUIET: Duration = Duration::from_secs(15);

/// What a pod says about itself: the answer of `GET /v1alpha1/topology`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// The revision of the topology that it serves.
    pub revision: String,
    /// Its name among the runtimes.
    pub member: String,
    /// Why the last topology that it was told does not count.
    pub problem: Option<String>,
    /// Whether it reaches its store.
    pub store: StoreReport,
    /// The functions that it knows.
    pub functions: Vec<FunctionReport>,
}

/// Whether a pod reaches its store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StoreReport {
    /// It does.
    pub ready: bool,
    /// Why not.
    pub problem: Option<String>,
}

/// What a pod knows of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionReport {
    /// Its name.
    pub name: String,
    /// Its revisions.
    pub revisions: Vec<RevisionReport>,
}

/// What a pod knows of one revision of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionReport {
    /// Its name.
    pub revision: String,
    /// Workers that it has shaken hands with.
    pub workers_ready: u32,
    /// Why the last one that was tried is not among them.
    pub problem: Option<HandshakeProblem>,
    /// Invocations that ended since the pod was started.
    pub invocations: u64,
    /// Those of them that broke, ran out of time or lost their worker.
    pub failures: u64,
}

impl RevisionReport {
    /// Why the runtime will not take these workers, however often it tries. That one cannot be reached is no refusal: it may
    /// be on its way in or out.
    pub fn refusal(&self) -> Option<&HandshakeProblem> {
        self.problem.as_ref().filter(|problem| !matches!(problem.reason.as_str(), "Unreachable" | "Disconnected"))
    }
}

/// Why a handshake was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HandshakeProblem {
    /// `HandlersDiffer`
    pub reason: String,
    /// In words.
    pub message: String,
}

/// What the pods of one runtime said last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reports {
    /// By name of the pod. A pod that did not answer has none.
    pub pods: BTreeMap<Text, Report>,
}

impl Reports {
    /// The revision that a pod serves.
    pub fn revision(&self, pod: &str) -> Option<&str> {
        self.pods.get(pod).map(|report| report.revision.as_str())
    }

    /// What the pods say about one revision of a function, by pod.
    pub fn of(&self, function: &str, revision: &str) -> BTreeMap<Text, RevisionReport> {
        let reports = self.pods.iter().filter_map(|(pod, report)| {
            let function = report.functions.iter().find(|known| known.name == function)?;
            let known = function.revisions.iter().find(|known| known.revision == revision)?;
            Some((pod.clone(), known.clone()))
        });
        reports.collect()
    }
}

/// Why a pod did not do as it was told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It does not answer.
    #[error("the pod cannot be reached: {0}")]
    Unreachable(String),
    /// It cannot serve the topology.
    #[error("the pod refuses the topology: {0}")]
    Refused(String),
}

/// An answer that is on its way.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, LinkError>> + Send + 'a>>;

/// How pods are reached. Tests have another way than HTTP.
pub trait Link: Send + Sync {
    /// Tells a pod its topology.
    fn push<'a>(&'a self, address: &'a str, bundle: Bytes) -> Answer<'a, ()>;
    /// Asks a pod how it is.
    fn report<'a>(&'a self, address: &'a str) -> Answer<'a, Report>;
}

/// Tells the runtime pods of a namespace their topology, and asks how they are.
pub async fn reconcile(context: &Context, namespace: &Text) -> Outcome {
    let Some(graph) = context.world.graph(namespace) else { return Outcome::Done };
    let Some(runtime) = graph.runtime.clone() else { return Outcome::Done };
    let key = ObjectKey::new(Kind::Runtime, namespace.clone(), runtime);
    let pods = context.world.pods.of(&key);
    let before = context.world.reports.lock().get(namespace).cloned().unwrap_or_default();
    let asked = pods.iter().filter(|pod| !pod.is_deleting).filter_map(|pod| Some((pod, pod.address.clone()?)));
    let answers = join_all(asked.map(|(pod, address)| visit(context, pod, address, &graph))).await;
    let reports = Arc::new(Reports { pods: answers.into_iter().flatten().collect() });
    let is_first = context.world.reports.lock().insert(namespace.clone(), Arc::clone(&reports)).is_none();
    let moved = note_served(context, namespace, &graph, &reports, &pods);
    if let (false, Some(moved)) = (is_first, moved) {
        let mut names = moved;
        if reports != before {
            names.extend(touched(&before, &reports).into_iter().map(|name| (Kind::Function, name.into())));
            names.insert((Kind::Runtime, key.name.clone()));
        }
        for (kind, name) in names {
            context.queue.add(Key::Object(ObjectKey::new(kind, namespace.clone(), name)));
        }
    } else {
        for object in context.world.objects(namespace) {
            context.queue.add(Key::Object(object));
        }
    }
    next_visit(context, &graph, namespace, &reports, &pods)
}

/// Remembers what ready pods serve. Returns the resources for which that is something else than before; nothing if it may be so
/// for all.
fn note_served(
    context: &Context,
    namespace: &Text,
    graph: &Graph,
    reports: &Reports,
    pods: &[PodView],
) -> Option<BTreeSet<Name>> {
    let mut served = context.world.served.lock();
    let ready: Vec<_> = pods.iter().filter(|pod| pod.is_ready && !pod.is_deleting).collect();
    let said: Vec<_> = ready.iter().filter_map(|pod| reports.revision(&pod.name)).collect();
    if said.is_empty() {
        return served.remove(namespace).is_none().then(BTreeSet::new);
    }
    let is_last = graph.bundle.as_ref().is_some_and(|packed| said.contains(&packed.revision.as_str()));
    if !is_last {
        return Some(BTreeSet::new());
    }
    let before = served.insert(namespace.clone(), Arc::clone(&graph.accepted))?;
    drop(served);
    let after = &graph.accepted;
    if Arc::ptr_eq(&before, after) {
        return Some(BTreeSet::new());
    }
    if before.runtime != after.runtime {
        return None;
    }
    // Of a function it counts only whether they know it.
    let functions = changed(&before.functions, &after.functions)
        .filter(|name| before.functions.contains_key(name) != after.functions.contains_key(name))
        .map(|name| (Kind::Function, name));
    let routes = changed(&before.routes, &after.routes).map(|name| (Kind::Route, name));
    let egresses = changed(&before.egresses, &after.egresses).map(|name| (Kind::Egress, name));
    Some(functions.chain(routes).chain(egresses).collect())
}

/// Functions about which something else is said now, counters included.
fn touched(before: &Reports, after: &Reports) -> BTreeSet<String> {
    fn by_name(reports: &Reports) -> BTreeMap<(&str, &str), &FunctionReport> {
        let all = reports.pods.iter();
        all.flat_map(|(pod, report)| report.functions.iter().map(move |one| ((&**pod, one.name.as_str()), one)))
            .collect()
    }
    let (before, after) = (by_name(before), by_name(after));
    let names = before.keys().chain(after.keys());
    let moved = names.filter(|name| before.get(*name) != after.get(*name)).map(|(_, function)| (*function).to_owned());
    moved.collect()
}

/// Tells one pod its topology if it serves another one, and asks how it is.
async fn visit(context: &Context, pod: &PodView, address: Text, graph: &Graph) -> Option<(Text, Report)> {
    let report = match context.link.report(&address).await {
        Ok(report) => report,
        Err(error) => {
            debug!(pod = %pod.name, %error, "no report");
            return None;
        }
    };
    let Some(packed) = graph.bundle.as_ref().filter(|packed| packed.revision != report.revision) else {
        return Some((pod.name.clone(), report));
    };
    match context.link.push(&address, packed.compressed.clone()).await {
        Ok(()) => {
            info!(pod = %pod.name, revision = packed.revision, "topology pushed");
            let report = context.link.report(&address).await.unwrap_or(report);
            Some((pod.name.clone(), report))
        }
        Err(error) => {
            info!(pod = %pod.name, %error, "topology not pushed");
            Some((pod.name.clone(), report))
        }
    }
}

/// Soon while pods are behind or a rollout is on its way.
fn next_visit(context: &Context, graph: &Graph, namespace: &Text, reports: &Reports, pods: &[PodView]) -> Outcome {
    let Some(packed) = &graph.bundle else { return Outcome::Done };
    if pods.is_empty() {
        return Outcome::Done;
    }
    let is_behind = pods.iter().any(|pod| reports.revision(&pod.name) != Some(packed.revision.as_str()));
    let is_rolling = waits_for_workers(reports)
        || graph.accepted.functions.keys().any(|name| {
            let key = ObjectKey::new(Kind::Function, namespace.clone(), name.clone());
            context.revisions(&key).iter().any(|one| revision::is_moving(one.state))
        });
    Outcome::After(if is_behind || is_rolling { PERIOD_MOVING } else { PERIOD_QUIET })
}

fn waits_for_workers(reports: &Reports) -> bool {
    let known = reports.pods.values().flat_map(|report| &report.functions);
    known.flat_map(|known| &known.revisions).any(|revision| revision.workers_ready == 0)
}

/// How pods are reached, shared.
pub type SharedLink = Arc<dyn Link>;
