//! The workers of a function as they should be. Pure, and cannot fail.

use serde_json::{Value, json};
use tandem_crds::resources::FunctionSpec;

use crate::child::{Child, ChildKind, Owner};
use crate::functions::revision::child_name;
use crate::functions::validate::Valid;
use crate::names::{WORKER_PORT, label};
use crate::pod_template::{self, Pod};

/// The part of every child of a function.
pub const COMPONENT: &str = "worker";
/// Tells the SDK where to listen.
const ADDRESS_VARIABLE: &str = "TANDEM_WORKER_ADDRESS";
/// What variables of the operator begin with.
const OWN_PREFIX: &str = "TANDEM_";
/// How long a worker has to finish what it runs.
const TERMINATION_GRACE_SECONDS: i64 = 30;
/// How many old ReplicaSets are kept: a revision has a Deployment of its own.
const HISTORY_LIMIT: i32 = 1;

/// The children for the revision that the spec asks for: none if somebody else runs the workers.
pub fn build(owner: &Owner, valid: &Valid) -> Vec<Child> {
    let Some(revision) = &valid.revision else { return Vec::new() };
    let name = child_name(&owner.key.name, revision);
    let mut children = vec![service(owner, &name, revision)];
    // Of one worker alone there is nothing to keep back: a budget would only keep its node from being drained.
    if valid.spec.replicas > 1 {
        children.push(disruption_budget(owner, &name, revision));
    }
    children.push(deployment(owner, &name, revision, &valid.spec));
    children
}

fn selector(owner: &Owner, revision: &str) -> Value {
    let labels = owner.labels(COMPONENT);
    json!({
        label::NAME: labels[label::NAME],
        label::INSTANCE: labels[label::INSTANCE],
        label::COMPONENT: COMPONENT,
        label::REVISION: revision,
    })
}

fn with_revision(mut child: Child, revision: &str) -> Child {
    child.object["metadata"]["labels"][label::REVISION] = revision.into();
    child
}

/// Names every worker, so that the runtime reaches each of them. One that is not ready yet refuses, and is asked again.
fn service(owner: &Owner, name: &str, revision: &str) -> Child {
    let spec = json!({
        "clusterIP": "None",
        "selector": selector(owner, revision),
        "ports": [{"name": "grpc", "port": WORKER_PORT, "targetPort": "grpc", "protocol": "TCP", "appProtocol": "grpc"}],
    });
    with_revision(owner.child(ChildKind::Service, name, COMPONENT, json!({"spec": spec})), revision)
}

fn disruption_budget(owner: &Owner, name: &str, revision: &str) -> Child {
    let spec = json!({
        "maxUnavailable": 1,
        "selector": {"matchLabels": selector(owner, revision)},
        // A worker that never became ready must not keep a node from being drained.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    });
    with_revision(owner.child(ChildKind::PodDisruptionBudget, name, COMPONENT, json!({"spec": spec})), revision)
}

fn deployment(owner: &Owner, name: &str, revision: &str, spec: &FunctionSpec) -> Child {
    let mut pod = Pod::new(owner, COMPONENT, selector(owner, revision), spec.pod_template.as_ref());
    pod.label(label::REVISION, revision);
    let mut pod_spec = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": TERMINATION_GRACE_SECONDS,
        "securityContext": pod_template::pod_security(None),
        "containers": [container(spec)],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    });
    let spec = json!({
        "replicas": spec.replicas,
        "revisionHistoryLimit": HISTORY_LIMIT,
        "selector": {"matchLabels": selector(owner, revision)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": pod.complete(&mut pod_spec),
    });
    with_revision(owner.child(ChildKind::Deployment, name, COMPONENT, json!({"spec": spec})), revision)
}

fn container(spec: &FunctionSpec) -> Value {
    let own = json!({"name": ADDRESS_VARIABLE, "value": format!("0.0.0.0:{WORKER_PORT}")});
    let theirs = spec.env.iter().filter(|variable| !variable.name.starts_with(OWN_PREFIX)).map(|v| json!(v));
    let mut container = json!({
        "name": "worker",
        "image": spec.image,
        "env": std::iter::once(own).chain(theirs).collect::<Vec<_>>(),
        "ports": [{"name": "grpc", "containerPort": WORKER_PORT, "protocol": "TCP"}],
        "readinessProbe": {"tcpSocket": {"port": "grpc"}, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 3},
        "securityContext": pod_template::container_security(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    });
    if !spec.args.is_empty() {
        container["args"] = json!(spec.args);
    }
    if let Some(resources) = &spec.resources {
        container["resources"] = json!(resources);
    }
    container
}
