//! Who may reach the pods of a runtime, and those of its functions. What is not named is denied.

use serde_json::{Value, json};

use crate::child::{Child, ChildKind, Owner};
use crate::names::{ADMIN_PORT, INGRESS_PORT, PEER_PORT, WORKER_PORT, label};
use crate::runtimes::build::{COMPONENT, selector};
use crate::runtimes::validate::Valid;

/// The label of a namespace that holds its name; the API server sets it.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// One policy for the runtime's pods, and one for the workers of all functions of the namespace.
pub fn policies(owner: &Owner, valid: &Valid) -> [Child; 2] {
    let name = &*owner.key.name;
    let own_pods = json!({"podSelector": {"matchLabels": selector(owner)}});
    let mut admin = vec![
        own_pods.clone(),
        json!({"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: &*valid.operator_namespace}}}),
    ];
    if valid.spec.pod_monitor {
        let prometheus = json!({"matchLabels": {label::NAME: "prometheus"}});
        admin.push(json!({"namespaceSelector": {}, "podSelector": prometheus}));
    }
    let runtime = json!({
        "podSelector": {"matchLabels": selector(owner)},
        "policyTypes": ["Ingress"],
        "ingress": [
            {"ports": ports(INGRESS_PORT)},
            {"from": [own_pods], "ports": ports(PEER_PORT)},
            {"from": admin, "ports": ports(ADMIN_PORT)},
        ],
    });
    let workers = json!({
        "podSelector": {"matchLabels": {label::NAME: "tandem-function"}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [own_pods], "ports": ports(WORKER_PORT)}],
    });
    [
        owner.child(ChildKind::NetworkPolicy, name, COMPONENT, json!({"spec": runtime})),
        owner.child(ChildKind::NetworkPolicy, &format!("{name}-workers"), COMPONENT, json!({"spec": workers})),
    ]
}

fn ports(port: u16) -> Value {
    json!([{"port": port, "protocol": "TCP"}])
}
