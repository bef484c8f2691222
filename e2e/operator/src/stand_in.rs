//! Plays what a cluster without nodes lacks: controllers and kubelets that make workloads ready at once, and the pods of runtimes
//! ([`pods`]), as cheaply as it can. Functions get no pods: nobody asks them anything here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::resource;
use pods::Pods;

pub mod pods;

/// What the operator makes.
pub const MANAGED: &str = "app.kubernetes.io/managed-by=tandem-operator";
/// Writes at one time.
const WRITERS: usize = 16;
/// How long a write is tried again that does not come through.
const TRIES_FOR: Duration = Duration::from_mins(3);
const TRY_EVERY: Duration = Duration::from_millis(200);

/// A Deployment as it was seen.
#[derive(Clone, Copy, Debug)]
pub struct Deployment {
    /// `spec.replicas`
    pub replicas: i64,
    /// When it was seen with these replicas first.
    pub at: Instant,
}

/// See the module. It works as long as it lives.
pub struct StandIn {
    state: Arc<State>,
    _guard: DropGuard,
}

struct State {
    client: Client,
    pods: Pods,
    deployments: Mutex<HashMap<(String, String), Deployment>>,
    changed: Notify,
    end: CancellationToken,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Deployment>> {
        self.deployments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StandIn {
    /// Begins to play.
    pub fn start(client: &Client) -> Self {
        let end = CancellationToken::new();
        let state = Arc::new(State {
            client: client.clone(),
            pods: Pods::new(end.clone()),
            deployments: Mutex::default(),
            changed: Notify::default(),
            end: end.clone(),
        });
        for (kind, plural) in [("Deployment", "deployments"), ("StatefulSet", "statefulsets")] {
            let (state, end) = (Arc::clone(&state), end.clone());
            tokio::spawn(async move { end.run_until_cancelled(workloads(&state, kind, plural)).await });
        }
        Self { state, _guard: end.drop_guard() }
    }

    /// Waits until a Deployment of this name is seen with so many replicas. Says when that was.
    pub async fn deployment(&self, namespace: &str, name: &str, replicas: i64, longest: Duration) -> Option<Instant> {
        let begun = Instant::now();
        let key = (namespace.to_owned(), name.to_owned());
        while begun.elapsed() < longest {
            let changed = self.state.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let seen = self.state.lock().get(&key).copied();
            if let Some(seen) = seen.filter(|seen| seen.replicas == replicas) {
                return Some(seen.at);
            }
            let _ = tokio::time::timeout(longest, changed).await;
        }
        None
    }

    /// How many Deployments were seen.
    pub fn deployments(&self) -> usize {
        self.state.lock().len()
    }

    /// How often pods of runtimes were told a topology.
    pub fn pushes(&self) -> u64 {
        self.state.pods.pushes()
    }
}

async fn workloads(state: &State, kind: &'static str, plural: &str) {
    let api: Api<DynamicObject> = Api::all_with(state.client.clone(), &resource("apps/v1", kind, plural));
    let objects = watcher(api, Config::default().labels(MANAGED)).default_backoff().applied_objects();
    objects
        .for_each_concurrent(WRITERS, |object| async move {
            // What is wrong with a watch, the next attempt shows.
            if let Ok(object) = object {
                visit(state, kind, plural, &object).await;
            }
        })
        .await;
}

async fn visit(state: &State, kind: &'static str, plural: &str, object: &DynamicObject) {
    let namespace = object.namespace().unwrap_or_default();
    let replicas = object.data["spec"]["replicas"].as_i64().unwrap_or(1);
    if kind == "Deployment" {
        note(state, (namespace.clone(), object.name_any()), replicas);
    }
    let status = &object.data["status"];
    let is_up_to_date = status["observedGeneration"].as_i64() == object.metadata.generation
        && status["replicas"].as_i64() == Some(replicas);
    if kind == "StatefulSet" && !is_up_to_date {
        for index in 0..replicas {
            run_pod(state, object, index).await;
        }
    }
    if is_up_to_date {
        return;
    }
    let image = object.data["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
    let ready = if image.contains("broken") { 0 } else { replicas };
    let patch = json!({"status": {
        "observedGeneration": object.metadata.generation, "replicas": replicas, "updatedReplicas": replicas,
        "readyReplicas": ready, "availableReplicas": ready,
    }});
    let api: Api<DynamicObject> =
        Api::namespaced_with(state.client.clone(), &namespace, &resource("apps/v1", kind, plural));
    let (parameters, patch, name) = (PatchParams::default(), Patch::Merge(&patch), object.name_any());
    persist(|| api.patch_status(&name, &parameters, &patch)).await;
}

fn note(state: &State, key: (String, String), replicas: i64) {
    let mut deployments = state.lock();
    if deployments.get(&key).is_none_or(|known| known.replicas != replicas) {
        deployments.insert(key, Deployment { replicas, at: Instant::now() });
        drop(deployments);
        state.changed.notify_waiters();
    }
}

/// Makes the pod of that index of a runtime, with an address where somebody answers.
async fn run_pod(state: &State, set: &DynamicObject, index: i64) {
    let namespace = set.namespace().unwrap_or_default();
    let name = format!("{}-{index}", set.name_any());
    // A port that is taken is no pod that is ready.
    let Ok(address) = state.pods.address(&namespace, &name).await else { return };
    let template = &set.data["spec"]["template"];
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": template["metadata"],
        "spec": template["spec"],
    });
    pod["metadata"]["name"] = name.as_str().into();
    pod["metadata"]["namespace"] = namespace.as_str().into();
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "StatefulSet", "name": set.name_any(), "uid": set.uid(), "controller": true,
    }]);
    let Ok(pod) = serde_json::from_value::<DynamicObject>(pod) else { return };
    let api: Api<DynamicObject> =
        Api::namespaced_with(state.client.clone(), &namespace, &resource("v1", "Pod", "pods"));
    persist(|| async {
        match api.create(&PostParams::default(), &pod).await {
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(pod.clone()),
            other => other,
        }
    })
    .await;
    let status: Value = json!({"status": {
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    let (parameters, patch) = (PatchParams::default(), Patch::Merge(&status));
    persist(|| api.patch_status(&name, &parameters, &patch)).await;
}

/// Tries a write until it comes through, or its object is gone.
async fn persist<F: Future<Output = Result<DynamicObject, kube::Error>>>(write: impl Fn() -> F) {
    let begun = Instant::now();
    while begun.elapsed() < TRIES_FOR {
        match write().await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => return,
            Err(_) => tokio::time::sleep(TRY_EVERY).await,
        }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.state.end.cancel();
    }
}
