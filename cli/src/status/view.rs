//! What is shown, as `-o json` prints it: a pure function of what was gathered.

use serde::Serialize;
use serde_json::Value;

use super::gather::{Asked, Gathered, Revision as Reported, field};
use crate::cluster::is_true;

/// A namespace.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    pub(super) namespace: String,
    /// Whether everything below is.
    pub(super) ready: bool,
    /// Whether the namespace has a runtime, shown or not.
    #[serde(skip)]
    pub(super) has_runtime: bool,
    /// The first one serves the namespace.
    pub(super) runtimes: Vec<Runtime>,
    pub(super) functions: Vec<Function>,
    pub(super) routes: Vec<Route>,
    pub(super) egresses: Vec<Egress>,
}

/// How a resource is, as its conditions say.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    pub(super) health: Health,
    /// Of the condition that makes the health what it is.
    pub(super) reason: String,
    pub(super) message: String,
    /// It serves, although something else is as `health` says.
    pub(super) serves: bool,
}

/// How something is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Health {
    Ready,
    Reconciling,
    Stalled,
    NotReady,
}

/// A `FunctionRuntime`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Runtime {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) state: State,
    /// `tikv` or `embedded`.
    pub(super) store: &'static str,
    pub(super) replicas: i64,
    pub(super) ready_replicas: i64,
    /// What the resources of the namespace compile to.
    pub(super) topology_revision: Option<String>,
    /// What every ready pod serves; nothing while they differ.
    pub(super) serving_revision: Option<String>,
    pub(super) pods: Vec<Pod>,
}

/// A pod of a runtime.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) ready: bool,
    /// `Running`, `ImagePullBackOff`
    pub(super) state: String,
    pub(super) restarts: i32,
    /// Whether it told what follows.
    pub(super) answered: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) member: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) serving_revision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) store_ready: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) store_problem: Option<String>,
}

/// A `Function`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Function {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) state: State,
    pub(super) revisions: Vec<Revision>,
}

/// A revision of a function. Counts are of the pods that answered, since each was started.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Revision {
    /// Empty if somebody else runs the workers.
    #[serde(rename = "revision")]
    pub(super) name: String,
    /// `Active`, `Ramping`; nothing if the operator does not run the workers.
    pub(super) state: Option<String>,
    /// Percent of the new flows.
    pub(super) weight: Option<i64>,
    /// Workers that the pod with the fewest has shaken hands with. Nothing if no pod answered.
    pub(super) workers_ready: Option<u64>,
    /// Calls that ended.
    pub(super) calls: u64,
    /// Those that broke, ran out of time or lost their worker.
    pub(super) failures: u64,
    /// Why a worker is not connected, as the first pod says that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

/// A `FunctionRoute`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Route {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) state: State,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) function: String,
    pub(super) handler: String,
}

/// A `FunctionEgress`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Egress {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) state: State,
}

impl State {
    /// Whether nothing has to be done about it.
    pub(super) fn is_fine(&self) -> bool {
        match self.health {
            Health::Ready => true,
            Health::Reconciling => self.serves,
            Health::Stalled | Health::NotReady => false,
        }
    }
}

impl View {
    /// Whether there is nothing to show.
    pub(super) fn is_empty(&self) -> bool {
        self.runtimes.is_empty() && self.functions.is_empty() && self.routes.is_empty() && self.egresses.is_empty()
    }

    /// What has this name, and what belongs to it: to a runtime everything, to a function its routes.
    pub(super) fn only(mut self, name: &str) -> Self {
        if self.runtimes.first().is_some_and(|runtime| runtime.name == name) {
            self.runtimes.truncate(1);
        } else {
            self.runtimes.retain(|runtime| runtime.name == name);
            self.functions.retain(|function| function.name == name);
            let has_function = !self.functions.is_empty();
            self.routes.retain(|route| route.name == name || (has_function && route.function == name));
            self.egresses.retain(|egress| egress.name == name);
        }
        self.ready = self.is_fine();
        self
    }

    fn is_fine(&self) -> bool {
        self.states().all(|(_, _, state)| state.is_fine())
    }

    /// Every resource: its kind in a word, its name, how it is.
    pub(super) fn states(&self) -> impl Iterator<Item = (&'static str, &str, &State)> {
        let runtimes = self.runtimes.iter().map(|one| ("runtime", one.name.as_str(), &one.state));
        let functions = self.functions.iter().map(|one| ("function", one.name.as_str(), &one.state));
        let routes = self.routes.iter().map(|one| ("route", one.name.as_str(), &one.state));
        let egresses = self.egresses.iter().map(|one| ("egress", one.name.as_str(), &one.state));
        runtimes.chain(functions).chain(routes).chain(egresses)
    }
}

/// See the module.
pub(super) fn view(gathered: &Gathered) -> View {
    let objects = &gathered.objects;
    let pods = objects.runtimes.first().and_then(|runtime| gathered.pods.get(name(runtime)));
    let pods = pods.map(Vec::as_slice).unwrap_or_default();
    let mut view = View {
        namespace: gathered.namespace.clone(),
        ready: true,
        has_runtime: !objects.runtimes.is_empty(),
        runtimes: objects.runtimes.iter().map(|object| runtime(object, gathered)).collect(),
        functions: objects.functions.iter().map(|object| function(object, pods)).collect(),
        routes: objects.routes.iter().map(route).collect(),
        egresses: objects.egresses.iter().map(egress).collect(),
    };
    view.ready = view.is_fine();
    view
}

fn name(object: &Value) -> &str {
    field(object, "/metadata/name")
}

/// What the conditions come to, as kstatus reads them: stuck, then moving, then ready.
fn state(object: &Value) -> State {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array).map(Vec::as_slice);
    let conditions = conditions.unwrap_or_default();
    let find = |type_: &str| conditions.iter().find(|condition| condition["type"] == type_);
    let serves = find("Ready").is_some_and(is_true);
    let generation = object.pointer("/metadata/generation").and_then(Value::as_i64);
    let observed = object.pointer("/status/observedGeneration").and_then(Value::as_i64);
    let of = |health, condition: &Value| State {
        health,
        reason: field(condition, "/reason").to_owned(),
        message: field(condition, "/message").to_owned(),
        serves,
    };
    if !field(object, "/metadata/deletionTimestamp").is_empty() {
        let message = "it is being deleted".to_owned();
        return State { health: Health::Reconciling, reason: "Deleting".to_owned(), message, serves: false };
    }
    if conditions.is_empty() {
        let message = "the operator has not looked at it yet; is it running, and does it look after this namespace?";
        let (reason, message) = ("NotSeen".to_owned(), message.to_owned());
        return State { health: Health::NotReady, reason, message, serves };
    }
    if observed < generation {
        let message = "the operator has not looked at the last change yet".to_owned();
        return State { health: Health::Reconciling, reason: "NotSeen".to_owned(), message, serves: false };
    }
    match (find("Stalled").filter(|one| is_true(one)), find("Reconciling").filter(|one| is_true(one)), find("Ready")) {
        (Some(stalled), _, _) => of(Health::Stalled, stalled),
        (None, Some(reconciling), _) => of(Health::Reconciling, reconciling),
        (None, None, Some(ready)) if serves => of(Health::Ready, ready),
        (None, None, ready) => of(Health::NotReady, ready.unwrap_or(&Value::Null)),
    }
}

fn runtime(object: &Value, gathered: &Gathered) -> Runtime {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    let text = |pointer: &str| Some(field(object, pointer).to_owned()).filter(|text| !text.is_empty());
    let pods = gathered.pods.get(name(object)).map(Vec::as_slice).unwrap_or_default();
    Runtime {
        name: name(object).to_owned(),
        state: state(object),
        store: if object.pointer("/spec/store/tikv").is_some() { "tikv" } else { "embedded" },
        replicas: number("/spec/replicas"),
        ready_replicas: number("/status/readyReplicas"),
        topology_revision: text("/status/topologyRevision"),
        serving_revision: text("/status/servingRevision"),
        pods: pods.iter().map(pod).collect(),
    }
}

fn pod(asked: &Asked) -> Pod {
    let report = asked.answer.as_ref().and_then(|answer| answer.as_ref().ok());
    let error = asked.answer.as_ref().and_then(|answer| answer.as_ref().err().cloned());
    let known = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    Pod {
        name: asked.pod.name.clone(),
        ready: asked.pod.is_ready,
        state: asked.pod.state.clone(),
        restarts: asked.pod.restarts,
        answered: report.is_some(),
        error,
        member: report.and_then(|report| known(&report.member)),
        serving_revision: report.and_then(|report| known(&report.revision)),
        store_ready: report.map(|report| report.store.ready),
        store_problem: report.and_then(|report| report.store.problem.clone()),
    }
}

fn function(object: &Value, pods: &[Asked]) -> Function {
    let name = name(object).to_owned();
    let listed = object.pointer("/status/revisions").and_then(Value::as_array).map(Vec::as_slice);
    let mut revisions: Vec<Revision> = listed.unwrap_or_default().iter().map(declared).collect();
    if object.pointer("/spec/image").is_none() && revisions.is_empty() {
        revisions.push(Revision::default());
    }
    for revision in &mut revisions {
        let reported = reported(pods, &name, &revision.name);
        count(revision, &reported);
    }
    Function { name, state: state(object), revisions }
}

fn declared(revision: &Value) -> Revision {
    Revision {
        name: field(revision, "/revision").to_owned(),
        state: revision["state"].as_str().map(str::to_owned),
        weight: revision["weight"].as_i64(),
        ..Revision::default()
    }
}

/// What each pod that answered says about a revision, by the pod's name.
fn reported<'a>(pods: &'a [Asked], function: &str, revision: &str) -> Vec<(&'a str, Option<&'a Reported>)> {
    let answers =
        pods.iter().filter_map(|asked| Some((asked.pod.name.as_str(), asked.answer.as_ref()?.as_ref().ok()?)));
    let of_function = answers.map(|(pod, report)| (pod, report.functions.iter().find(|known| known.name == function)));
    let of_revision = of_function
        .map(|(pod, known)| (pod, known.and_then(|known| known.revisions.iter().find(|known| known.name == revision))));
    of_revision.collect()
}

fn count(revision: &mut Revision, reported: &[(&str, Option<&Reported>)]) {
    revision.workers_ready = reported.iter().map(|(_, known)| known.map_or(0, |known| known.workers_ready)).min();
    let known = || reported.iter().filter_map(|(pod, known)| known.map(|known| (*pod, known)));
    revision.calls = known().map(|(_, known)| known.invocations).sum();
    revision.failures = known().map(|(_, known)| known.failures).sum();
    revision.problem = known().find_map(|(pod, known)| {
        let problem = known.problem.as_ref()?;
        Some(format!("{}: {} (says {pod})", problem.reason, problem.message))
    });
}

fn route(object: &Value) -> Route {
    Route {
        name: name(object).to_owned(),
        state: state(object),
        method: field(object, "/spec/http/method").to_owned(),
        path: field(object, "/spec/http/path").to_owned(),
        function: field(object, "/spec/to/function").to_owned(),
        handler: field(object, "/spec/to/handler").to_owned(),
    }
}

fn egress(object: &Value) -> Egress {
    Egress { name: name(object).to_owned(), state: state(object) }
}
