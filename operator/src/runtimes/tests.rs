//! The children of a runtime, whole, as golden files; and what its status says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tandem_crds::resources::{FunctionRuntimeSpec, Kind};

use crate::child::{Child, ChildKind, Owner};
use crate::graph::{Accepted, bundle};
use crate::key::ObjectKey;
use crate::runtimes::build::build;
use crate::runtimes::purge::{job, job_name};
use crate::runtimes::validate::Valid;
use crate::testing::{compare, survives_types};

fn owner() -> Owner {
    Owner { key: ObjectKey::new(Kind::Runtime, "shop", "main"), uid: "uid-1".to_owned() }
}

fn children(spec: &str) -> Vec<Child> {
    let spec: Arc<FunctionRuntimeSpec> = Arc::new(serde_saphyr::from_str(spec).unwrap());
    let accepted = Accepted { runtime: Some(("main".into(), Arc::clone(&spec))), ..Accepted::default() };
    let packed = bundle::pack("shop", &accepted, BTreeMap::new(), None, 7).unwrap();
    let valid = Valid {
        replicas: spec.replicas,
        image: spec.image.clone().unwrap_or_else(|| "localhost/tandem-runtime:dev".to_owned()),
        spec,
        packed,
        operator_namespace: "tandem-system".into(),
        has_pod_monitors: true,
    };
    build(&owner(), &valid)
}

/// The compressed bytes differ with the version of the compressor.
fn without_bytes(mut children: Vec<Child>) -> Vec<Child> {
    for child in &mut children {
        if child.object.get("binaryData").is_some() {
            child.object["binaryData"] = Value::from("...");
        }
    }
    children
}

#[test]
fn a_runtime_on_tikv_with_everything() {
    let spec = "
replicas: 3
image: registry.example/runtime:1
store: {tikv: {endpoints: ['pd-0:2379', 'pd-1:2379'], keyspace: shop, tlsSecretName: tikv-client, history: 2h}}
resources: {requests: {cpu: 500m, memory: 256Mi}, limits: {memory: 1Gi}}
autoscaling: {minReplicas: 2, maxReplicas: 8, cpuPercent: 60}
podMonitor: true
podTemplate:
  labels: {team: shop}
  annotations: {a.example/b: c}
  nodeSelector: {disk: fast}
  tolerations: [{key: dedicated, operator: Exists}]
  imagePullSecrets: [{name: registry}]
  priorityClassName: high
";
    compare("src/runtimes/testdata/tikv.yaml", &without_bytes(children(spec)));
}

#[test]
fn a_runtime_of_defaults() {
    compare("src/runtimes/testdata/defaults.yaml", &without_bytes(children("{}")));
}

#[test]
fn a_job_that_removes_what_a_runtime_has_stored() {
    let spec = "
store: {tikv: {endpoints: ['pd-0:2379'], tlsSecretName: tikv-client}}
image: registry.example/runtime:1
resources: {limits: {memory: 1Gi}}
podTemplate: {imagePullSecrets: [{name: registry}]}
deletionPolicy: Delete
";
    let spec: FunctionRuntimeSpec = serde_saphyr::from_str(spec).unwrap();
    compare("src/runtimes/testdata/purge.yaml", &[job(&owner(), &spec, "localhost/tandem-runtime:dev", "file")]);
    let long = "x".repeat(63);
    assert!(job_name(&long).len() <= 63 && job_name(&long) != job_name(&"y".repeat(63)));
}

#[test]
fn an_embedded_store_on_a_volume() {
    let spec = "{store: {embedded: {volume: {size: 10Gi, storageClassName: fast}}}}";
    let children = children(spec);
    let set = children.iter().find(|child| child.kind == ChildKind::StatefulSet).unwrap();
    assert_eq!(set.object["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"], "fast");
    assert!(!set.object["spec"]["template"]["spec"]["volumes"].to_string().contains("\"data\""));
    survives_types(&children);
}

#[test]
fn what_an_autoscaler_moves_is_no_reason_to_apply() {
    let spec = "{store: {tikv: {endpoints: [a]}}, autoscaling: {maxReplicas: 9}, replicas: 2}";
    let set = |replicas: i64| {
        let mut set = children(spec).into_iter().find(|child| child.kind == ChildKind::StatefulSet).unwrap();
        set.object["spec"]["replicas"] = replicas.into();
        set.digest()
    };
    assert_eq!(set(2), set(5));
}
