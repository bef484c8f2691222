//! Pods as clusters show them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::child::Workload;
use crate::diagnosis::diagnose;
use crate::pods::{Report, Reports, StoreReport};
use crate::world::PodView;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn pod(status: &Value) -> PodView {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "main-0", "namespace": "shop"}, "status": status});
    PodView::read(&serde_json::from_value(pod).unwrap())
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({"phase": "Pending", "containerStatuses": [
        {"name": "runtime", "image": "shop/runtime:1", "restartCount": 3, "state": {"waiting": {"reason": reason, "message": message}},
         "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
    ]})
}

fn unscheduled(message: &str) -> Value {
    json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    ]})
}

#[test]
fn pods_that_do_not_come_up_are_explained() {
    let check = |status: Value, expected: Option<&str>| {
        let finding = diagnose(&[pod(&status)], &Workload::default(), &Reports::default(), NOW);
        assert_eq!(finding.map(|finding| finding.reason.name), expected, "{status}");
    };
    check(waiting("ImagePullBackOff", "Back-off"), Some("ImageUnavailable"));
    check(waiting("ErrImagePull", "not found"), Some("ImageUnavailable"));
    check(waiting("CreateContainerConfigError", "secret \"a\" not found"), Some("ContainerRefused"));
    check(waiting("CrashLoopBackOff", "back-off"), Some("Crashing"));
    check(waiting("ContainerCreating", ""), None);
    check(unscheduled("0/3 nodes are available: 3 Insufficient cpu."), Some("Unschedulable"));
    check(unscheduled("pod has unbound immediate PersistentVolumeClaims"), Some("VolumePending"));
    check(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}), None);
}

#[test]
fn a_pod_that_runs_out_of_memory_is_told_what_to_do() {
    let finding =
        diagnose(&[pod(&waiting("CrashLoopBackOff", ""))], &Workload::default(), &Reports::default(), NOW).unwrap();
    assert_eq!(
        finding.message,
        "container runtime ends again and again (OOMKilled, exit code 137); raise its memory limit"
    );
}

#[test]
fn pods_that_are_not_let_in_are_explained() {
    let check = |failure: &str, expected: &str| {
        let workload = Workload { failure: Some(failure.into()), ..Workload::default() };
        assert_eq!(diagnose(&[], &workload, &Reports::default(), NOW).unwrap().reason.name, expected);
    };
    check("pods \"a\" is forbidden: exceeded quota: compute, requested: pods=1", "QuotaExceeded");
    check("pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\": runAsNonRoot", "PodSecurity");
    check("pods \"a\" is invalid: spec: something", "Rejected");
}

#[test]
fn a_store_that_does_not_answer_is_named() {
    let report =
        Report { store: StoreReport { ready: false, problem: Some("no PD answers".to_owned()) }, ..Report::default() };
    let reports = Reports { pods: [("main-0".into(), report)].into() };
    let running = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]});
    let finding = diagnose(&[pod(&running)], &Workload::default(), &reports, NOW).unwrap();
    assert_eq!((finding.reason.name, &*finding.message), ("StoreUnreachable", "no PD answers"));
}

#[test]
fn a_topology_that_a_pod_refuses_is_named() {
    let store = StoreReport { ready: true, problem: None };
    let report = Report { store, problem: Some("the bundle has format 2".to_owned()), ..Report::default() };
    let reports = Reports { pods: [("main-0".into(), report)].into() };
    let running = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]});
    let finding = diagnose(&[pod(&running)], &Workload::default(), &reports, NOW).unwrap();
    assert_eq!((finding.reason.name, &*finding.message), ("TopologyRefused", "the bundle has format 2"));
}

#[test]
fn an_image_that_cannot_be_got_is_named() {
    let pods = [pod(&waiting("ErrImagePull", "not found"))];
    let finding = diagnose(&pods, &Workload::default(), &Reports::default(), NOW).unwrap();
    assert_eq!(finding.message, "the image shop/runtime:1 of container runtime cannot be got");
}

#[test]
fn a_pod_whose_secret_is_missing_is_told_what_it_mounts() {
    let with = |ready: &str| {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "main-0", "namespace": "shop"}});
        pod["spec"] = json!({"volumes": [
            {"name": "configuration", "configMap": {"name": "main-configuration"}},
            {"name": "tikv-tls", "secret": {"secretName": "tikv-client"}},
            {"name": "extra", "secret": {"secretName": "not-needed", "optional": true}},
            {"name": "tmp", "emptyDir": {}},
        ]});
        let scheduled = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": "1970-01-01T00:00:00Z"});
        pod["status"] = waiting("ContainerCreating", "");
        pod["status"]["conditions"] = json!([{"type": "PodReadyToStartContainers", "status": ready}, scheduled]);
        PodView::read(&serde_json::from_value(pod).unwrap())
    };
    let at = |pod: PodView, seconds: i64| {
        diagnose(&[pod], &Workload::default(), &Reports::default(), NOW + SignedDuration::from_secs(seconds))
    };
    assert_eq!(at(with("False"), 29), None, "it may only need time");
    let found = at(with("False"), 30).unwrap();
    assert_eq!(found.reason.name, "MountPending");
    let expected = "a node has not been able to prepare a pod for 30s: check that these exist: Secret tikv-client, \
                    ConfigMap main-configuration";
    assert_eq!(found.message, expected);
    assert_eq!(at(with("True"), 600), None, "its image is being pulled");
}
