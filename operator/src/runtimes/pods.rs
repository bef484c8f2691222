//! The StatefulSet of a runtime.

use serde_json::{Value, json};

use crate::child::{Child, ChildKind, Owner};
use crate::names::{
    ADMIN_PORT, CONFIGURATION_DIRECTORY, CONFIGURATION_KEY, DATA_DIRECTORY, INGRESS_PORT, PEER_PORT, RUNTIME_USER,
    TIKV_TLS_DIRECTORY, TOPOLOGY_DIRECTORY, annotation, label,
};
use crate::pod_template::{self, Pod};
use crate::runtimes::build::{
    COMPONENT, account_name, configuration_name, pods_name, selector, store_kind, topology_name,
};
use crate::runtimes::validate::Valid;

/// How long a pod that is to end takes requests still, in seconds. Nodes take a moment to hear that it is not to be sent any
/// more, and until then new connections would be refused.
const LEAVING_SECONDS: i64 = 3;
/// How long a pod has to leave, end flows, hand over and stop, in seconds: the drain grace of the runtime and some more.
const TERMINATION_GRACE_SECONDS: i64 = 60;

/// The pods of the runtime. `configuration` is the digest of their configuration: another one starts them anew.
pub fn stateful_set(owner: &Owner, valid: &Valid, configuration: &str) -> Child {
    let name = &*owner.key.name;
    let mut spec = json!({
        "replicas": valid.replicas,
        "serviceName": pods_name(name),
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": selector(owner)},
        "template": template(owner, valid, configuration),
    });
    if let Some(claim) = claim(owner, valid) {
        spec["volumeClaimTemplates"] = json!([claim]);
    }
    let mut child = owner.child(ChildKind::StatefulSet, name, COMPONENT, json!({"spec": spec}));
    // Tells the operator of tomorrow what the data is in.
    child.object["metadata"]["annotations"] = json!({annotation::STORE: store_kind(&valid.spec)});
    child.volatile = valid.spec.autoscaling.is_some().then_some("/spec/replicas");
    child
}

fn template(owner: &Owner, valid: &Valid, configuration: &str) -> Value {
    let name = &*owner.key.name;
    let mut pod = Pod::new(owner, COMPONENT, selector(owner), valid.spec.pod_template.as_ref());
    pod.annotate(annotation::CONFIGURATION, configuration);
    let mut spec = json!({
        "serviceAccountName": account_name(name),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": TERMINATION_GRACE_SECONDS,
        "securityContext": pod_template::pod_security(Some(RUNTIME_USER)),
        "containers": [container(valid)],
        "volumes": volumes(owner, valid),
    });
    pod.complete(&mut spec)
}

fn container(valid: &Valid) -> Value {
    let args = [format!("--config={CONFIGURATION_DIRECTORY}/{CONFIGURATION_KEY}")];
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let port = |name: &str, port: u16| json!({"name": name, "containerPort": port, "protocol": "TCP"});
    let probe = |path: &str, period: i32, failures: i32| {
        json!({
            "httpGet": {"path": path, "port": "admin"},
            "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures,
        })
    };
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true});
    let mut mounts = vec![mount("configuration", CONFIGURATION_DIRECTORY), mount("topology", TOPOLOGY_DIRECTORY)];
    match &valid.spec.store.tikv {
        None => mounts.push(json!({"name": "data", "mountPath": DATA_DIRECTORY})),
        Some(tikv) if tikv.tls_secret_name.is_some() => mounts.push(mount("tikv-tls", TIKV_TLS_DIRECTORY)),
        Some(_) => {}
    }
    mounts.push(json!({"name": "tmp", "mountPath": "/tmp"}));
    let mut container = json!({
        "name": "runtime",
        "image": valid.image,
        "args": args,
        "ports": [port("http", INGRESS_PORT), port("admin", ADMIN_PORT), port("peer", PEER_PORT)],
        // A store may take a while to open: only then does the liveness probe begin.
        "startupProbe": probe("/livez", 1, 120),
        "livenessProbe": probe("/livez", 10, 6),
        "readinessProbe": probe("/readyz", 1, 3),
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVING_SECONDS}}},
        "securityContext": pod_template::container_security(),
        "volumeMounts": mounts,
    });
    // A runtime that has its store for itself refuses to be told how others find it.
    if valid.spec.store.tikv.is_some() {
        container["env"] = json!([
            field("TANDEM_MEMBER", "metadata.name"),
            field("POD_IP", "status.podIP"),
            {"name": "TANDEM_ADVERTISE", "value": format!("$(POD_IP):{PEER_PORT}")},
        ]);
    }
    if let Some(resources) = &valid.spec.resources {
        container["resources"] = json!(resources);
    }
    container
}

fn volumes(owner: &Owner, valid: &Valid) -> Value {
    let name = &*owner.key.name;
    let mut volumes = vec![
        json!({"name": "configuration", "configMap": {"name": configuration_name(name)}}),
        json!({"name": "topology", "configMap": {"name": topology_name(name)}}),
        json!({"name": "tmp", "emptyDir": {}}),
    ];
    if let Some(embedded) = &valid.spec.store.embedded
        && embedded.volume.is_none()
    {
        volumes.push(json!({"name": "data", "emptyDir": {}}));
    }
    let secret = valid.spec.store.tikv.as_ref().and_then(|tikv| tikv.tls_secret_name.as_deref());
    if let Some(secret) = secret {
        volumes.push(json!({"name": "tikv-tls", "secret": {"secretName": secret}}));
    }
    volumes.into()
}

/// The volume of the embedded store. It stays when the runtime is deleted.
fn claim(owner: &Owner, valid: &Valid) -> Option<Value> {
    let volume = valid.spec.store.embedded.as_ref()?.volume.as_ref()?;
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": volume.size}}});
    if let Some(class) = &volume.storage_class_name {
        spec["storageClassName"] = class.as_str().into();
    }
    let mut labels = selector(owner);
    labels[label::PART_OF] = "tandem".into();
    Some(
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "labels": labels}, "spec": spec}),
    )
}
