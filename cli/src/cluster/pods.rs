//! Pods of runtimes and of functions.

use futures_util::io::AsyncBufRead;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod as Object};
use kube::Api;
use kube::api::{ListParams, LogParams};

use super::Cluster;
use super::error::{Asked, Error};

/// The container of a runtime's pod that runs the runtime.
pub(crate) const RUNTIME_CONTAINER: &str = "runtime";
/// The container of a function's pod that runs the worker.
pub(crate) const WORKER_CONTAINER: &str = "worker";
/// What the operator labels its pods with.
const RUNTIME_LABEL: &str = "tandem.dev/runtime";
const FUNCTION_LABEL: &str = "tandem.dev/function";
const COMPONENT_LABEL: &str = "app.kubernetes.io/component";

/// Finds the pods of a runtime.
pub(crate) fn runtime_pods(runtime: &str) -> String {
    format!("{RUNTIME_LABEL}={runtime},{COMPONENT_LABEL}=runtime")
}

/// Finds the pods of all revisions of a function.
pub(crate) fn function_pods(function: &str) -> String {
    format!("{FUNCTION_LABEL}={function},{COMPONENT_LABEL}=worker")
}

/// A pod, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    /// Its name.
    pub(crate) name: String,
    /// Which one of those that have had the name.
    pub(crate) uid: String,
    /// It takes requests.
    pub(crate) is_ready: bool,
    /// Its container runs, so that it can be asked and has logs.
    pub(crate) is_running: bool,
    /// It was deleted, and is on its way out.
    pub(crate) is_ending: bool,
    /// How often its container was started anew.
    pub(crate) restarts: i32,
    /// How it is, in a word: `Running`, `ImagePullBackOff`, `Unschedulable`, `Terminating`.
    pub(crate) state: String,
}

impl Pod {
    fn new(object: &Object) -> Self {
        let status = object.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let holds =
            |type_: &str| conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True");
        let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
        let is_ending = object.metadata.deletion_timestamp.is_some();
        let is_running = containers.iter().any(|one| one.state.as_ref().is_some_and(|state| state.running.is_some()));
        let unscheduled =
            conditions.iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
        let phase = status.and_then(|status| status.phase.clone()).unwrap_or_else(|| "Unknown".to_owned());
        let state = if is_ending {
            "Terminating".to_owned()
        } else if let Some(reason) = containers.iter().find_map(stopped) {
            reason
        } else if let Some(reason) = unscheduled.and_then(|condition| condition.reason.clone()) {
            reason
        } else {
            phase
        };
        Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            uid: object.metadata.uid.clone().unwrap_or_default(),
            is_ready: holds("Ready") && !is_ending,
            is_running,
            is_ending,
            restarts: containers.iter().map(|one| one.restart_count).sum(),
            state,
        }
    }
}

/// Why a container does not run.
fn stopped(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
    waiting.or_else(|| state.terminated.as_ref().and_then(|ended| ended.reason.clone()))
}

impl Cluster {
    /// The pods with these labels, by name.
    pub(crate) async fn pods(&self, labels: &str) -> Result<Vec<Pod>, Error> {
        let asked = Asked { verb: "list", group: String::new(), resource: "pods".to_owned(), name: None };
        let parameters = ListParams::default().labels(labels);
        let found = self.call(&asked, self.pod_api().list(&parameters)).await?;
        let mut pods: Vec<Pod> = found.items.iter().map(Pod::new).collect();
        pods.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(pods)
    }

    /// What a container of a pod has printed.
    pub(crate) async fn log(
        &self,
        pod: &str,
        parameters: &LogParams,
    ) -> Result<impl AsyncBufRead + Unpin + Send + use<>, Error> {
        let asked = Asked::of_pod("get", "pods/log", pod);
        let (api, url) = (self.pod_api(), &self.url);
        let opened = api.log_stream(pod, parameters);
        // Who follows waits for the first line, however long it takes.
        let stream = if parameters.follow {
            opened.await.map_err(|error| Error::new(&asked, url, &self.namespace, error))?
        } else {
            self.call(&asked, opened).await?
        };
        Ok(Box::pin(stream))
    }

    pub(super) fn pod_api(&self) -> Api<Object> {
        Api::namespaced(self.client(), &self.namespace)
    }

    /// The pods of a runtime that can be asked, which there has to be one of.
    pub(crate) async fn ready_pods(&self, runtime: &str) -> Result<Vec<String>, Error> {
        let pods = self.pods(&runtime_pods(runtime)).await?;
        let ready: Vec<String> = pods.iter().filter(|pod| pod.is_ready).map(|pod| pod.name.clone()).collect();
        if ready.is_empty() {
            let states: Vec<String> = pods.iter().map(|pod| format!("{}: {}", pod.name, pod.state)).collect();
            let pods = if states.is_empty() { "it has none".to_owned() } else { states.join(", ") };
            return Err(Error::NoPodReady { runtime: runtime.to_owned(), pods, again: self.again.clone() });
        }
        Ok(ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: &serde_json::Value) -> Pod {
        let object = serde_json::json!({"metadata": {"name": "orders-0"}, "status": status});
        Pod::new(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_pod_is_told_in_a_word() {
        let container = |state: serde_json::Value| serde_json::json!({"name": "runtime", "image": "a", "imageID": "", "ready": false, "restartCount": 2, "state": state});
        let ready = pod(&serde_json::json!({
            "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [container(serde_json::json!({"running": {}}))],
        }));
        assert!(ready.is_ready && ready.is_running);
        assert_eq!((ready.state.as_str(), ready.restarts), ("Running", 2));
        let waiting = container(serde_json::json!({"waiting": {"reason": "ImagePullBackOff"}}));
        let pulling = pod(&serde_json::json!({"phase": "Pending", "containerStatuses": [waiting]}));
        assert!(!pulling.is_ready && !pulling.is_running);
        assert_eq!(pulling.state, "ImagePullBackOff");
        let nowhere = serde_json::json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable"});
        assert_eq!(pod(&serde_json::json!({"phase": "Pending", "conditions": [nowhere]})).state, "Unschedulable");
        assert_eq!(pod(&serde_json::json!({})).state, "Unknown");
    }
}
