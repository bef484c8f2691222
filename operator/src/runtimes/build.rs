//! The children of a runtime as they should be. Pure, and cannot fail: everything that could was checked before.

use serde_json::{Value, json};
use tandem_crds::resources::FunctionRuntimeSpec;

use crate::child::{Child, ChildKind, Owner, digest};
use crate::names::{ADMIN_PORT, BUNDLE_KEY, CONFIGURATION_KEY, INGRESS_PORT, PEER_PORT, SERVICE_PORT, annotation};
use crate::runtimes::configuration::configuration;
use crate::runtimes::validate::Valid;
use crate::runtimes::{network, pods};

/// The part of every child of a runtime.
pub const COMPONENT: &str = "runtime";

/// Name of the ConfigMap with the topology.
pub fn topology_name(runtime: &str) -> String {
    format!("{runtime}-topology")
}

/// Name of the ConfigMap with the configuration.
pub fn configuration_name(runtime: &str) -> String {
    format!("{runtime}-configuration")
}

/// Name of the ServiceAccount. Not that of the runtime: `default` is the account of everybody else in the namespace.
pub fn account_name(runtime: &str) -> String {
    format!("{runtime}-runtime")
}

/// Name of the Service that names every pod.
pub fn pods_name(runtime: &str) -> String {
    format!("{runtime}-pods")
}

/// `embedded` or `tikv`.
pub fn store_kind(spec: &FunctionRuntimeSpec) -> &'static str {
    if spec.store.tikv.is_some() { "tikv" } else { "embedded" }
}

/// All children, in the order in which they are applied: pods last, so that they find what they need.
pub fn build(owner: &Owner, valid: &Valid) -> Vec<Child> {
    let name = &*owner.key.name;
    let file = configuration(&owner.key.namespace, name, &valid.spec);
    let file_digest = digest(file.as_bytes());
    let mut children = basis(owner, &file).to_vec();
    children.extend([topology(owner, valid), service(owner), pods_service(owner)]);
    children.extend(network::policies(owner, valid));
    children.push(disruption_budget(owner));
    children.push(pods::stateful_set(owner, valid, &file_digest));
    children.extend(autoscaler(owner, valid));
    if valid.spec.pod_monitor && valid.has_pod_monitors {
        children.push(pod_monitor(owner));
    }
    children
}

/// What pods need to reach the store: an account, and a configuration.
pub fn basis(owner: &Owner, file: &str) -> [Child; 2] {
    let name = &*owner.key.name;
    let account = json!({"automountServiceAccountToken": false});
    let configuration = json!({"data": {CONFIGURATION_KEY: file}});
    [
        owner.child(ChildKind::ServiceAccount, &account_name(name), COMPONENT, account),
        owner.child(ChildKind::ConfigMap, &configuration_name(name), COMPONENT, configuration),
    ]
}

/// The labels that select the pods.
pub fn selector(owner: &Owner) -> Value {
    let labels = owner.labels(COMPONENT);
    let kept = ["app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"];
    kept.iter()
        .map(|key| ((*key).to_owned(), labels.get(*key).cloned().unwrap_or_default()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn topology(owner: &Owner, valid: &Valid) -> Child {
    let name = topology_name(&owner.key.name);
    let bytes = k8s_openapi::ByteString(valid.packed.compressed.to_vec());
    let mut child = owner.child(ChildKind::ConfigMap, &name, COMPONENT, json!({"binaryData": {BUNDLE_KEY: bytes}}));
    let revision = valid.packed.revision.as_str();
    child.object["metadata"]["annotations"] = json!({annotation::TOPOLOGY: revision});
    child
}

fn service(owner: &Owner) -> Child {
    let ports = json!([{"name": "http", "port": SERVICE_PORT, "targetPort": "http", "protocol": "TCP"}]);
    let spec = json!({"type": "ClusterIP", "selector": selector(owner), "ports": ports});
    owner.child(ChildKind::Service, &owner.key.name, COMPONENT, json!({"spec": spec}))
}

/// A pod that is not ready yet is named, too: the others have to reach it to let it become ready.
fn pods_service(owner: &Owner) -> Child {
    let port = |name: &str, port: u16| json!({"name": name, "port": port, "targetPort": name, "protocol": "TCP"});
    let spec = json!({
        "clusterIP": "None",
        "publishNotReadyAddresses": true,
        "selector": selector(owner),
        "ports": [port("http", INGRESS_PORT), port("admin", ADMIN_PORT), port("peer", PEER_PORT)],
    });
    owner.child(ChildKind::Service, &pods_name(&owner.key.name), COMPONENT, json!({"spec": spec}))
}

fn disruption_budget(owner: &Owner) -> Child {
    let spec = json!({
        "maxUnavailable": 1,
        "selector": {"matchLabels": selector(owner)},
        // A pod that never became ready must not keep a node from being drained.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    });
    owner.child(ChildKind::PodDisruptionBudget, &owner.key.name, COMPONENT, json!({"spec": spec}))
}

fn autoscaler(owner: &Owner, valid: &Valid) -> Option<Child> {
    let autoscaling = valid.spec.autoscaling.as_ref()?;
    let target = json!({"type": "Utilization", "averageUtilization": autoscaling.cpu_percent});
    let spec = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": &*owner.key.name},
        "minReplicas": autoscaling.min_replicas,
        "maxReplicas": autoscaling.max_replicas,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
    });
    Some(owner.child(ChildKind::HorizontalPodAutoscaler, &owner.key.name, COMPONENT, json!({"spec": spec})))
}

fn pod_monitor(owner: &Owner) -> Child {
    let spec = json!({
        "selector": {"matchLabels": selector(owner)},
        "podMetricsEndpoints": [{"port": "admin", "path": "/metrics"}],
    });
    owner.child(ChildKind::PodMonitor, &owner.key.name, COMPONENT, json!({"spec": spec}))
}
