//! An operator, and what a user sees of it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tandem_operator::context::{Context, Settings};
use tandem_operator::key::Text;
use tandem_operator::kubeapi::Writer;
use tandem_operator::process::gates::Gates;
use tandem_operator::{controller, watches};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pods::{Direct, Runtimes};
use super::server::{ApiServer, Place};

/// Nothing was written for so long: nothing will be.
const QUIET: Duration = Duration::from_secs(20);
/// It must be quiet by then.
const DEADLINE: Duration = Duration::from_hours(1);
/// How often it is looked.
const STEP: Duration = Duration::from_millis(250);

/// See the module.
pub(crate) struct Harness {
    pub(crate) server: ApiServer,
    pub(crate) runtimes: Arc<Runtimes>,
    shutdown: CancellationToken,
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Harness {
    /// An operator over an empty cluster.
    pub(crate) fn new() -> Self {
        Self::over(ApiServer::default(), Arc::default())
    }

    /// An operator that has just started over a cluster.
    pub(crate) fn over(server: ApiServer, runtimes: Arc<Runtimes>) -> Self {
        let settings =
            Settings { runtime_image: "runtime:1".to_owned(), operator_namespace: "tandem-system".to_owned() };
        let start = Instant::now();
        let clock = Arc::new(move || {
            jiff::Timestamp::from_second(1_800_000_000).unwrap()
                + jiff::SignedDuration::try_from(start.elapsed()).unwrap()
        });
        let writer = Writer::new(server.client());
        let context = Arc::new(Context::new(writer, Arc::new(Direct(Arc::clone(&runtimes))), settings, clock));
        let (gates, shutdown) = (Arc::new(Gates::default()), CancellationToken::new());
        watches::start(&context, &[None::<Text>], &gates, &shutdown);
        let stop = shutdown.clone();
        tokio::spawn(async move {
            gates.all_open().await;
            controller::run(context, stop).await;
        });
        Self { server, runtimes, shutdown }
    }

    /// Ends this operator and starts another one.
    pub(crate) fn restart(self) -> Self {
        self.shutdown.cancel();
        Self::over(self.server.clone(), Arc::clone(&self.runtimes))
    }

    /// What `kubectl apply` does.
    pub(crate) fn apply(&self, object: &Value) {
        let place = place(object);
        let old = self.server.lock().objects.get(&place).cloned();
        let mut new = old.clone().unwrap_or_else(|| object.clone());
        new["spec"] = object["spec"].clone();
        self.server.store(&place, old.as_ref(), new);
    }

    /// What `kubectl delete` does.
    pub(crate) fn delete(&self, object: &Value) {
        self.server.remove(&place(object));
    }

    /// Waits until nothing is written any more.
    pub(crate) async fn settle(&self) {
        let start = Instant::now();
        let mut last = (self.writes().len(), self.server.lock().version, Instant::now());
        while last.2.elapsed() < QUIET {
            tokio::time::sleep(STEP).await;
            let now = (self.writes().len(), self.server.lock().version);
            if now != (last.0, last.1) {
                last = (now.0, now.1, Instant::now());
            }
            assert!(
                start.elapsed() < DEADLINE,
                "it never becomes quiet: {:#?}",
                self.writes().iter().rev().take(20).collect::<Vec<_>>()
            );
        }
    }

    /// Waits until the server has crashed, or all is quiet.
    pub(crate) async fn settle_or_crash(&self) {
        let start = Instant::now();
        while !self.server.lock().has_crashed && start.elapsed() < QUIET * 4 {
            tokio::time::sleep(STEP).await;
        }
    }

    /// Every write of operators so far.
    pub(crate) fn writes(&self) -> Vec<String> {
        self.server.lock().writes.clone()
    }

    /// Forgets the writes so far.
    pub(crate) fn forget_writes(&self) {
        self.server.lock().writes.clear();
    }

    /// An object of namespace `shop`.
    pub(crate) fn get(&self, resource: &str, name: &str) -> Option<Value> {
        self.server.lock().objects.get(&(resource.to_owned(), "shop".to_owned(), name.to_owned())).cloned()
    }

    /// `Ready=True Ready`, and so on.
    pub(crate) fn conditions(&self, resource: &str, name: &str) -> Vec<String> {
        let object = self.get(&format!("tandem.dev/{resource}"), name).unwrap_or_default();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        conditions
            .iter()
            .map(|c| format!("{}={} {}", text(&c["type"]), text(&c["status"]), text(&c["reason"])))
            .collect()
    }

    /// Compares everything that there is, and shows the first difference.
    #[track_caller]
    pub(crate) fn assert_is(&self, expected: &[Value], situation: &str) {
        let found = self.snapshot();
        let names = |of: &[Value]| of.iter().map(|one| format!("{} {}", one[0], one[2])).collect::<Vec<_>>();
        assert_eq!(names(&found), names(expected), "{situation}");
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found, expected, "{situation}");
        }
    }

    /// Everything that there is, without what differs from run to run.
    pub(crate) fn snapshot(&self) -> Vec<Value> {
        let state = self.server.lock();
        let mut snapshot = Vec::new();
        for ((resource, namespace, name), object) in &state.objects {
            if resource == "events.k8s.io/events" {
                continue;
            }
            let mut object = object.clone();
            for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "ownerReferences"] {
                object["metadata"].as_object_mut().unwrap().remove(field);
            }
            if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
                annotations.remove("tandem.dev/applied");
            }
            // The bundle has its place in the order of bundles in it; its revision is in an annotation.
            object.as_object_mut().unwrap().remove("binaryData");
            forget_times(&mut object["status"]);
            snapshot.push(json!([resource, namespace, name, object]));
        }
        snapshot
    }
}

fn forget_times(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for key in ["lastTransitionTime", "since", "observedGeneration"] {
                object.remove(key);
            }
            object.values_mut().for_each(forget_times);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_times),
        _ => {}
    }
}

fn place(object: &Value) -> Place {
    let plural = match object["kind"].as_str().unwrap() {
        "FunctionRuntime" => "functionruntimes",
        "Function" => "functions",
        "FunctionRoute" => "functionroutes",
        "FunctionEgress" => "functionegresses",
        other => panic!("{other} is none of ours"),
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (format!("tandem.dev/{plural}"), text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
}
