//! What controllers and kubelets would do, and what runtime pods would say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::{Value, json};
use tandem_crds::bundle::Bundle;
use tandem_operator::pods::{Answer, FunctionReport, Link, LinkError, Report, RevisionReport, StoreReport};

use super::server::{ApiServer, Place};

/// A Job has one pod, which succeeds, unless every purge fails.
pub(crate) fn run_job(server: &ApiServer, place: &Place, object: &Value) {
    let fails = server.lock().purge_fails.clone();
    let pod_place = ("pods".to_owned(), place.1.clone(), format!("{}-x7k2p", place.2));
    let ended = fails.as_ref().map(|(code, said)| json!({"exitCode": code, "reason": "Error", "message": said}));
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": pod_place.2, "namespace": place.1, "labels": object["spec"]["template"]["metadata"]["labels"],
            "ownerReferences": [{"uid": object["metadata"]["uid"], "kind": "Job", "name": place.2, "apiVersion": "v1"}],
        },
        "status": {"phase": "Running", "containerStatuses": [
            {"name": "purge", "lastState": ended.map_or_else(|| json!({}), |ended| json!({"terminated": ended}))}
        ]},
    });
    let old = server.lock().objects.get(&pod_place).cloned();
    server.store(&pod_place, old.as_ref(), pod);
    let status = if fails.is_some() { json!({"active": 1}) } else { json!({"succeeded": 1}) };
    if object.get("status") != Some(&status) {
        let mut new = object.clone();
        new["status"] = status;
        server.store(place, Some(object), new);
    }
}

/// A workload becomes ready at once, with pods.
pub(crate) fn run_workload(server: &ApiServer, place: &Place, object: &Value) {
    if place.0 == "batch/jobs" {
        return run_job(server, place, object);
    }
    let is_workload = place.0 == "apps/statefulsets" || place.0 == "apps/deployments";
    if !is_workload {
        return;
    }
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
    let image = &object["spec"]["template"]["spec"]["containers"][0]["image"];
    let is_unprepared = place.0 == "apps/statefulsets" && server.lock().is_mount_missing;
    let is_bad = image.as_str().is_some_and(|image| image.contains("bad"));
    let ready = if is_bad || is_unprepared { 0 } else { wanted };
    let status = json!({
        "observedGeneration": object["metadata"]["generation"], "replicas": wanted,
        "readyReplicas": ready, "updatedReplicas": wanted,
    });
    if object.get("status") == Some(&status) {
        return;
    }
    let mut new = object.clone();
    new["status"] = status;
    server.store(place, Some(object), new);
    for index in 0..wanted {
        let name = format!("{}-{index}", place.2);
        let address = format!("10.{}.{}", place.0.len(), name);
        let is = |holds: bool| if holds { "True" } else { "False" };
        let conditions = json!([
            {"type": "Ready", "status": is(ready > index)},
            {"type": "PodReadyToStartContainers", "status": is(!is_unprepared)},
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2027-01-15T08:00:00Z"},
        ]);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": place.1, "labels": object["spec"]["template"]["metadata"]["labels"],
                "ownerReferences": [{"uid": object["metadata"]["uid"], "kind": "x", "name": place.2, "apiVersion": "v1"}],
            },
            "spec": {"volumes": object["spec"]["template"]["spec"]["volumes"]},
            "status": {"phase": "Running", "podIP": address, "conditions": conditions},
        });
        let pod_place = ("pods".to_owned(), place.1.clone(), name);
        let old = server.lock().objects.get(&pod_place).cloned();
        let was_unprepared = old.as_ref().is_some_and(|old| old["status"]["conditions"][1]["status"] == "False");
        if old.is_none() {
            server.store(&pod_place, None, pod);
        } else if was_unprepared && !is_unprepared {
            let mut new = old.clone().unwrap_or_default();
            new["status"] = pod["status"].clone();
            server.store(&pod_place, old.as_ref(), new);
        }
    }
}

/// Runtime pods that take every topology, and shake hands with every worker.
#[derive(Default)]
pub(crate) struct Runtimes {
    state: Mutex<BTreeMap<String, Bundle>>,
    /// Invocations and failures, by revision.
    pub(crate) counts: Mutex<BTreeMap<String, (u64, u64)>>,
    /// Revisions whose workers nobody can reach.
    pub(crate) unreachable: Mutex<Vec<String>>,
    pub(crate) pushes: Mutex<usize>,
}

impl Runtimes {
    pub(crate) fn bundle(&self) -> Option<Bundle> {
        self.state.lock().unwrap().values().next().cloned()
    }

    fn revision(&self, name: &str) -> RevisionReport {
        let (invocations, failures) = self.counts.lock().unwrap().get(name).copied().unwrap_or_default();
        let is_there = !self.unreachable.lock().unwrap().iter().any(|revision| revision == name);
        let workers_ready = u32::from(is_there);
        RevisionReport { revision: name.to_owned(), workers_ready, problem: None, invocations, failures }
    }
}

/// The way to them.
pub(crate) struct Direct(pub(crate) Arc<Runtimes>);

impl Link for Direct {
    fn push<'a>(&'a self, address: &'a str, bundle: Bytes) -> Answer<'a, ()> {
        Box::pin(async move {
            let bundle = Bundle::read(&bundle).map_err(|error| LinkError::Refused(error.to_string()))?;
            *self.0.pushes.lock().unwrap() += 1;
            self.0.state.lock().unwrap().insert(address.to_owned(), bundle);
            Ok(())
        })
    }

    fn report<'a>(&'a self, address: &'a str) -> Answer<'a, Report> {
        Box::pin(async move {
            let bundle = self.0.state.lock().unwrap().get(address).cloned();
            let Some(bundle) = bundle else { return Ok(Report::default()) };
            let functions = bundle.workers().iter().map(|(name, revisions)| FunctionReport {
                name: name.clone(),
                revisions: revisions.iter().map(|one| self.0.revision(&one.revision)).collect(),
            });
            Ok(Report {
                revision: bundle.revision().to_owned(),
                member: address.to_owned(),
                problem: None,
                store: StoreReport { ready: true, problem: None },
                functions: functions.collect(),
            })
        })
    }
}
