//! Watches: fill the world, and say what has changed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use kube::api::{Api, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt, watcher::Config};
use strum::IntoEnumIterator;
use tandem_crds::resources::Kind;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::child::{ChildKind, Watched};
use crate::context::Context;
use crate::key::{Key, ObjectKey, Text};
use crate::kubeapi::resource_of;
use crate::names::managed_selector;
use crate::process::gates::Gates;
use crate::world::cache::{Change, place};

/// How often it is looked whether the cluster knows an optional kind by now.
const DISCOVERY_PERIOD: Duration = Duration::from_secs(30);
/// Objects in one page of a list. All of a page is in memory at a time, many times as large as what is kept of it.
const PAGE_SIZE: u32 = 50;
/// The same where only metadata comes.
const PAGE_SIZE_METADATA: u32 = 250;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A kind of ours.
    Ours(Kind),
    /// A kind of child.
    Child(ChildKind),
    /// Pods of runtimes and functions.
    Pods,
}

impl Subject {
    /// `functions.tandem.dev`
    pub fn name(self) -> String {
        let resource = match self {
            Self::Ours(kind) => resource_of(kind),
            Self::Child(kind) => kind.resource(),
            Self::Pods => return "pods".to_owned(),
        };
        if resource.group.is_empty() { resource.plural } else { format!("{}.{}", resource.plural, resource.group) }
    }

    /// Everything that every cluster has to know.
    pub fn required() -> Vec<Self> {
        let ours = Kind::ALL.into_iter().map(Self::Ours);
        let children = ChildKind::iter().filter(|kind| !kind.is_optional()).map(Self::Child);
        ours.chain(children).chain([Self::Pods]).collect()
    }
}

/// One watch: of a subject, in one namespace or in all.
#[derive(Clone, Debug)]
pub struct Watch {
    /// What.
    pub subject: Subject,
    /// Where; everywhere without it.
    pub scope: Option<Text>,
}

/// Watches everything that every cluster knows, until `shutdown`; optional kinds as soon as the cluster knows them. Every watch
/// opens its gate once it has seen what there is.
pub fn start(context: &Arc<Context>, scopes: &[Option<Text>], gates: &Arc<Gates>, shutdown: &CancellationToken) {
    for subject in Subject::required() {
        for scope in scopes {
            spawn(context, Watch { subject, scope: scope.clone() }, gates, shutdown);
        }
    }
    for kind in ChildKind::iter().filter(|kind| kind.is_optional()) {
        let (context, gates, shutdown) = (Arc::clone(context), Arc::clone(gates), shutdown.clone());
        let scopes = scopes.to_vec();
        gates.wait(format!("discovery of {}", Subject::Child(kind).name()), "not asked for yet");
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = discover(&context, kind, &scopes, &gates, &shutdown) => {}
            }
        });
    }
}

/// Waits until the cluster knows `kind`, and watches it from then on.
async fn discover(
    context: &Arc<Context>,
    kind: ChildKind,
    scopes: &[Option<Text>],
    gates: &Arc<Gates>,
    shutdown: &CancellationToken,
) {
    let gate = format!("discovery of {}", Subject::Child(kind).name());
    loop {
        let known = context.writer.client().list_api_group_resources(&kind.api_version()).await;
        match known {
            Ok(list) if list.resources.iter().any(|resource| resource.kind == kind.kind()) => {
                for scope in scopes {
                    spawn(context, Watch { subject: Subject::Child(kind), scope: scope.clone() }, gates, shutdown);
                }
                context.world.known_kinds.lock().insert(kind);
                gates.open(&gate);
                wake_all(context);
                return;
            }
            Ok(_) => gates.open(&gate),
            Err(kube::Error::Api(status)) if status.code == 404 => gates.open(&gate),
            Err(error) => debug!(kind = kind.kind(), %error, "not discovered"),
        }
        tokio::time::sleep(DISCOVERY_PERIOD).await;
    }
}

/// What waits for a kind may go on.
fn wake_all(context: &Context) {
    let runtimes = context.world.runtimes.known(None).into_iter().map(|place| (Kind::Runtime, place));
    let routes = context.world.routes.known(None).into_iter().map(|place| (Kind::Route, place));
    for (kind, (namespace, name)) in runtimes.chain(routes) {
        context.queue.add(Key::Object(ObjectKey::new(kind, namespace, name)));
    }
}

fn spawn(context: &Arc<Context>, watch: Watch, gates: &Arc<Gates>, shutdown: &CancellationToken) {
    let gate = gate_of(&watch);
    gates.wait(gate, "not listed yet");
    let (context, gates, shutdown) = (Arc::clone(context), Arc::clone(gates), shutdown.clone());
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = run(&context, &watch, &gates) => {}
        }
    });
}

fn gate_of(watch: &Watch) -> String {
    match &watch.scope {
        Some(scope) => format!("{} in {scope}", watch.subject.name()),
        None => watch.subject.name(),
    }
}

type Events = BoxStream<'static, Result<Event<DynamicObject>, watcher::Error>>;

fn events(context: &Context, watch: &Watch) -> Events {
    let client = context.writer.client().clone();
    let api = |resource| -> Api<DynamicObject> { scoped(client.clone(), watch, &resource) };
    let all = Config::default().page_size(PAGE_SIZE);
    let managed = all.clone().labels(&managed_selector());
    let managed_metadata = managed.clone().page_size(PAGE_SIZE_METADATA);
    match watch.subject {
        Subject::Ours(kind) => watcher(api(resource_of(kind)), all).default_backoff().boxed(),
        Subject::Child(kind) if kind.watched() == Watched::Status => {
            watcher(api(kind.resource()), managed).default_backoff().boxed()
        }
        Subject::Child(kind) => {
            let metadata: Api<PartialObjectMeta<DynamicObject>> = scoped(client.clone(), watch, &kind.resource());
            let events = watcher(metadata, managed_metadata).default_backoff();
            events.map_ok(bare).boxed()
        }
        Subject::Pods => {
            let resource = kube::api::ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
            watcher(api(resource), managed).default_backoff().boxed()
        }
    }
}

fn scoped<K>(client: kube::Client, watch: &Watch, resource: &K::DynamicType) -> Api<K>
where
    K: kube::Resource<Scope = kube::core::DynamicResourceScope>,
{
    match &watch.scope {
        Some(namespace) => Api::namespaced_with(client, namespace, resource),
        None => Api::all_with(client, resource),
    }
}

/// An event with nothing but metadata.
fn bare(event: Event<PartialObjectMeta<DynamicObject>>) -> Event<DynamicObject> {
    let object = |meta: PartialObjectMeta<DynamicObject>| DynamicObject {
        types: meta.types,
        metadata: meta.metadata,
        data: serde_json::Value::Null,
    };
    match event {
        Event::Apply(meta) => Event::Apply(object(meta)),
        Event::Delete(meta) => Event::Delete(object(meta)),
        Event::Init => Event::Init,
        Event::InitApply(meta) => Event::InitApply(object(meta)),
        Event::InitDone => Event::InitDone,
    }
}

async fn run(context: &Arc<Context>, watch: &Watch, gates: &Gates) {
    let gate = gate_of(watch);
    let mut events = events(context, watch);
    let mut seen: HashSet<(Text, Text)> = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => seen.clear(),
            Ok(Event::InitApply(object)) => {
                seen.insert(place(&object));
                put(context, watch.subject, object);
            }
            Ok(Event::InitDone) => {
                forget_unseen(context, watch, &seen);
                seen.clear();
                gates.open(&gate);
            }
            Ok(Event::Apply(object)) => put(context, watch.subject, object),
            Ok(Event::Delete(object)) => remove(context, watch.subject, &object),
            Err(error) => {
                context.metrics.watch_errors.inc();
                if gates.is_open(&gate) && !lasts(&error) {
                    debug!(subject = gate, %error, "watch begins anew");
                } else if gates.is_open(&gate) {
                    // What is known stays: that it cannot be seen does not mean that it is gone. Once it can be seen again, a list
                    // says what is left of it, and opens the gate.
                    warn!(subject = gate, error = explain(&error), "cannot be watched any more");
                    gates.wait(gate.clone(), explain(&error));
                    events = self::events(context, watch);
                    seen.clear();
                } else {
                    info!(subject = gate, error = explain(&error), "cannot be watched yet");
                    gates.wait(gate.clone(), explain(&error));
                }
            }
        }
    }
}

/// Whether it lasts until somebody does something: the definition is gone, or a right.
fn lasts(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => matches!(status.code, 403 | 404),
        _ => false,
    }
}

/// What is missing, for people.
fn explain(error: &watcher::Error) -> String {
    let inner = match error {
        watcher::Error::InitialListFailed(inner)
        | watcher::Error::WatchStartFailed(inner)
        | watcher::Error::WatchFailed(inner) => inner,
        watcher::Error::WatchError(status) => return status.message.clone(),
        watcher::Error::NoResourceVersion => return "the API server gives no resource version".to_owned(),
    };
    match inner {
        kube::Error::Api(status) if status.code == 404 => "the cluster has no such definition".to_owned(),
        kube::Error::Api(status) => status.message.clone(),
        _ => "the API server cannot be reached".to_owned(),
    }
}

/// Takes in an object, and wakes up who depends on it.
pub fn put(context: &Context, subject: Subject, object: DynamicObject) {
    match subject {
        Subject::Ours(kind) => {
            let (namespace, name) = place(&object);
            let is_leaving = object.metadata.deletion_timestamp.is_some();
            let change = match kind {
                Kind::Runtime => context.world.runtimes.put(object),
                Kind::Function => context.world.functions.put(object),
                Kind::Route => context.world.routes.put(object),
                Kind::Egress => context.world.egresses.put(object),
            };
            context.changed(ObjectKey::new(kind, namespace, name), change, is_leaving);
        }
        Subject::Child(kind) => {
            if let Some(owner) = context.world.children.put(kind, &object) {
                context.queue.add(Key::Object(owner));
            }
        }
        Subject::Pods => {
            if let Some(owner) = context.world.pods.put(&object) {
                pod_changed(context, owner);
            }
        }
    }
}

fn pod_changed(context: &Context, owner: ObjectKey) {
    if owner.kind == Kind::Runtime {
        context.queue.add(Key::Pods(owner.namespace.clone()));
    }
    context.queue.add(Key::Object(owner));
}

/// Forgets an object, and wakes up who depends on it.
pub fn remove(context: &Context, subject: Subject, object: &DynamicObject) {
    let (namespace, name) = place(object);
    match subject {
        Subject::Ours(kind) => remove_ours(context, kind, namespace, name),
        Subject::Child(kind) => {
            if let Some(owner) = context.world.children.remove(kind, object) {
                context.queue.add(Key::Object(owner));
            }
        }
        Subject::Pods => {
            if let Some(owner) = context.world.pods.remove(object) {
                pod_changed(context, owner);
            }
        }
    }
}

fn remove_ours(context: &Context, kind: Kind, namespace: Text, name: Text) {
    match kind {
        Kind::Runtime => context.world.runtimes.remove(&namespace, &name),
        Kind::Function => context.world.functions.remove(&namespace, &name),
        Kind::Route => context.world.routes.remove(&namespace, &name),
        Kind::Egress => context.world.egresses.remove(&namespace, &name),
    }
    let key = ObjectKey::new(kind, namespace, name);
    context.rivals.forget(&key);
    context.changed(key, Change::Spec, true);
}

/// Forgets what a new list does not have any more.
fn forget_unseen(context: &Context, watch: &Watch, seen: &HashSet<(Text, Text)>) {
    let scope = watch.scope.as_deref();
    let world = &context.world;
    match watch.subject {
        Subject::Ours(kind) => {
            let known = match kind {
                Kind::Runtime => world.runtimes.known(scope),
                Kind::Function => world.functions.known(scope),
                Kind::Route => world.routes.known(scope),
                Kind::Egress => world.egresses.known(scope),
            };
            for (namespace, name) in known.into_iter().filter(|place| !seen.contains(place)) {
                remove_ours(context, kind, namespace, name);
            }
        }
        Subject::Child(kind) => {
            for (owner, name) in world.children.known(kind, scope) {
                if !seen.contains(&(owner.namespace.clone(), name.clone())) {
                    world.children.forget(&owner, kind, &name);
                    context.queue.add(Key::Object(owner));
                }
            }
        }
        Subject::Pods => {
            for (owner, name) in world.pods.known(scope) {
                if !seen.contains(&(owner.namespace.clone(), name.clone())) {
                    world.pods.forget(&owner, &name);
                    pod_changed(context, owner);
                }
            }
        }
    }
}
