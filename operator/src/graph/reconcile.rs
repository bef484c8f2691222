//! Compiles a namespace again, and tells everybody whose view of it has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use kube::Resource;
use serde::de::DeserializeOwned;
use tandem_crds::bundle::Workers;
use tandem_crds::resources::Kind;
use tokio::time::Instant;
use tracing::{error, info};

use crate::child::ChildKind;
use crate::context::Context;
use crate::functions::revision;
use crate::graph::bundle::{self, Packed};
use crate::graph::evaluate::{Present, evaluate};
use crate::graph::{Accepted, Graph, Name};
use crate::key::{Key, ObjectKey, Text};
use crate::kubeapi;
use crate::names::BUNDLE_KEY;
use crate::queue::Outcome;
use crate::runtimes::build::topology_name;
use crate::world::{Cache, Held, World};

/// Compiles `namespace` again.
pub async fn reconcile(context: &Context, namespace: &Text) -> Result<Outcome, kubeapi::Error> {
    let world = &context.world;
    // Before anything is read: what changes from here on is for the next time.
    context.dirty.lock().remove(namespace);
    let (runtime, mut present) = present(world, namespace);
    let generations = Arc::new(std::mem::take(&mut present.generations));
    let before = match world.graph(namespace) {
        Some(graph) => graph,
        None => last_good(context, namespace, runtime.as_deref()).await?,
    };
    let start = Instant::now();
    let evaluated = evaluate(&present, &before.accepted);
    let mut graph = Graph {
        runtime,
        accepted: Arc::new(evaluated.accepted),
        problems: Arc::new(evaluated.problems),
        outdated: Arc::new(evaluated.outdated),
        bundle: None,
        generations,
        cost: Duration::ZERO,
    };
    if graph.accepted.runtime.is_some() {
        let workers = workers(context, namespace, &graph.accepted);
        let now_ms = u64::try_from((context.clock)().as_millisecond()).unwrap_or_default();
        match bundle::pack(namespace, &graph.accepted, workers, before.bundle.as_ref(), now_ms) {
            Ok(packed) => graph.bundle = Some(packed),
            // What came from JSON can be written as JSON. Should it not, the last bundle serves.
            Err(error) => {
                error!(%namespace, %error, "topology cannot be written");
                graph.bundle.clone_from(&before.bundle);
            }
        }
    }
    graph.cost = start.elapsed();
    publish(context, namespace, &before, graph);
    Ok(Outcome::Done)
}

/// What there is in a namespace, oldest first, and which runtime serves it.
pub fn present(world: &World, namespace: &str) -> (Option<Text>, Present) {
    let mut present = Present::default();
    let mut runtimes = sorted(&world.runtimes, namespace);
    note(Kind::Runtime, &runtimes, &mut present.generations);
    runtimes.truncate(1);
    let runtime = runtimes.first().map(|runtime| name_of(runtime));
    present.runtime = good(Kind::Runtime, &runtimes, |runtime| &runtime.spec, &mut present.unreadable).pop();
    let functions = sorted(&world.functions, namespace);
    note(Kind::Function, &functions, &mut present.generations);
    present.functions = good(Kind::Function, &functions, |function| &function.spec, &mut present.unreadable);
    let routes = sorted(&world.routes, namespace);
    note(Kind::Route, &routes, &mut present.generations);
    present.routes = good(Kind::Route, &routes, |route| &route.spec, &mut present.unreadable);
    let egresses = sorted(&world.egresses, namespace);
    note(Kind::Egress, &egresses, &mut present.generations);
    present.egresses = good(Kind::Egress, &egresses, |egress| &egress.spec, &mut present.unreadable);
    (runtime, present)
}

fn note<T: Resource>(kind: Kind, list: &[Arc<Held<T>>], generations: &mut BTreeMap<Name, i64>) {
    generations.extend(list.iter().filter_map(|held| Some(((kind, name_of(held)), held.metadata().generation?))));
}

fn name_of<T: Resource>(held: &Held<T>) -> Text {
    held.metadata().name.as_deref().unwrap_or_default().into()
}

/// What is not on its way out, oldest first.
fn sorted<T: Resource<DynamicType = ()> + DeserializeOwned>(cache: &Cache<T>, namespace: &str) -> Vec<Arc<Held<T>>> {
    let mut list = cache.list(namespace);
    list.retain(|held| !held.is_deleting());
    list.sort_by(|a, b| a.age().cmp(&b.age()));
    list
}

fn good<T: Resource, S: Clone>(
    kind: Kind,
    list: &[Arc<Held<T>>],
    spec: impl Fn(&T) -> &S,
    unreadable: &mut Vec<((Kind, Text), String)>,
) -> Vec<(Text, Arc<S>)> {
    let mut specs = Vec::new();
    for held in list {
        match &**held {
            Held::Good(resource) => specs.push((name_of(held), Arc::new(spec(resource).clone()))),
            Held::Bad { error, .. } => unreadable.push(((kind, name_of(held)), error.clone())),
        }
    }
    specs
}

/// What served before this process: it is in the cluster.
async fn last_good(context: &Context, namespace: &str, runtime: Option<&str>) -> Result<Graph, kubeapi::Error> {
    let Some(runtime) = runtime else { return Ok(Graph::default()) };
    let name = topology_name(runtime);
    let object = context.writer.read(ChildKind::ConfigMap, namespace, &name).await?;
    let data = object.map(|object| object.data["binaryData"][BUNDLE_KEY].clone());
    let bytes = data.and_then(|data| serde_json::from_value::<ByteString>(data).ok());
    let read = bytes.and_then(|bytes| Packed::read(bytes.0).ok());
    let Some((packed, bundle)) = read else { return Ok(Graph::default()) };
    let accepted = Arc::new(bundle::accepted(&bundle));
    Ok(Graph { accepted, bundle: Some(Arc::new(packed)), ..Graph::default() })
}

/// Where the workers of functions with an image are, as their rollouts stand.
fn workers(context: &Context, namespace: &str, accepted: &Accepted) -> BTreeMap<String, Vec<Workers>> {
    let with_image = accepted.functions.iter().filter(|(_, spec)| spec.image.is_some());
    let placed = with_image.map(|(name, _)| {
        let key = ObjectKey::new(Kind::Function, namespace, name.clone());
        let revisions = context.revisions(&key);
        let alive = revisions.iter().filter(|one| revision::is_alive(one.state)).map(|one| Workers {
            revision: one.revision.clone(),
            url: revision::url(namespace, name, &one.revision),
            weight: u32::try_from(one.weight).unwrap_or_default(),
        });
        (name.to_string(), alive.collect::<Vec<_>>())
    });
    placed.filter(|(_, revisions)| !revisions.is_empty()).collect()
}

/// Makes a graph known, and wakes up those whose view of it has changed.
fn publish(context: &Context, namespace: &Text, before: &Graph, graph: Graph) {
    let revision = |graph: &Graph| graph.bundle.as_ref().map(|packed| packed.revision.clone());
    let is_first = context.world.graph(namespace).is_none();
    let has_moved = is_first || before.runtime != graph.runtime;
    let has_changed = revision(before) != revision(&graph);
    let mut touched: BTreeSet<(Kind, Text)> = BTreeSet::new();
    let names = before.problems.keys().chain(graph.problems.keys());
    touched.extend(names.filter(|name| before.problems.get(*name) != graph.problems.get(*name)).cloned());
    touched.extend(before.outdated.symmetric_difference(&graph.outdated).cloned());
    let names = before.generations.keys().chain(graph.generations.keys());
    touched.extend(names.filter(|name| before.generations.get(*name) != graph.generations.get(*name)).cloned());
    touched.extend(changed(&before.accepted.functions, &graph.accepted.functions).map(|name| (Kind::Function, name)));
    touched.extend(changed(&before.accepted.routes, &graph.accepted.routes).map(|name| (Kind::Route, name)));
    touched.extend(changed(&before.accepted.egresses, &graph.accepted.egresses).map(|name| (Kind::Egress, name)));
    if let Some(runtime) = &graph.runtime {
        touched.insert((Kind::Runtime, runtime.clone()));
    }
    if has_changed && let Some(revision) = revision(&graph) {
        info!(%namespace, revision, problems = graph.problems.len(), "topology compiled");
    }
    let is_empty = graph.runtime.is_none() && context.world.objects(namespace).is_empty();
    if is_empty {
        context.world.graphs.lock().remove(namespace);
        context.world.reports.lock().remove(namespace);
        context.world.served.lock().remove(namespace);
        return;
    }
    context.world.graphs.lock().insert(namespace.clone(), graph);
    if has_moved {
        for object in context.world.objects(namespace) {
            context.queue.add(Key::Object(object));
        }
    } else {
        for (kind, name) in touched {
            context.queue.add(Key::Object(ObjectKey::new(kind, namespace.clone(), name)));
        }
    }
    if has_changed || has_moved {
        context.queue.add(Key::Pods(namespace.clone()));
    }
}

/// What is in one of them only, or is another one.
pub fn changed<'a, S: PartialEq>(
    before: &'a BTreeMap<Text, Arc<S>>,
    after: &'a BTreeMap<Text, Arc<S>>,
) -> impl Iterator<Item = Text> + 'a {
    let names = before.keys().chain(after.keys());
    let is_same = |before: &Arc<S>, after: &Arc<S>| Arc::ptr_eq(before, after) || before == after;
    let has_changed = move |name: &&Text| match (before.get(*name), after.get(*name)) {
        (Some(before), Some(after)) => !is_same(before, after),
        (before, after) => before.is_some() || after.is_some(),
    };
    names.filter(has_changed).cloned()
}
