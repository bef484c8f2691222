//! What tests of builders have in common.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;

use k8s_openapi::api;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::child::{Child, ChildKind};

/// Compares children with a file of the crate; `UPDATE_GOLDEN=1` writes it.
#[track_caller]
pub(crate) fn compare(file: &str, children: &[Child]) {
    survives_types(children);
    let documents: Vec<String> = children.iter().map(|child| serde_saphyr::to_string(&child.object).unwrap()).collect();
    let text = documents.join("---\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == text, "{file} differs: UPDATE_GOLDEN=1 cargo test -p tandem-operator");
}

/// Builders write JSON; what Kubernetes' own types do not know would get lost there.
#[track_caller]
pub(crate) fn survives_types(children: &[Child]) {
    for child in children {
        let mut object = child.object.clone();
        if object["binaryData"] == "..." {
            object.as_object_mut().unwrap().remove("binaryData");
        }
        let again = match child.kind {
            ChildKind::ServiceAccount => typed::<api::core::v1::ServiceAccount>(&object),
            ChildKind::ConfigMap => typed::<api::core::v1::ConfigMap>(&object),
            ChildKind::Service => typed::<api::core::v1::Service>(&object),
            ChildKind::NetworkPolicy => typed::<api::networking::v1::NetworkPolicy>(&object),
            ChildKind::PodDisruptionBudget => typed::<api::policy::v1::PodDisruptionBudget>(&object),
            ChildKind::StatefulSet => typed::<api::apps::v1::StatefulSet>(&object),
            ChildKind::Deployment => typed::<api::apps::v1::Deployment>(&object),
            ChildKind::HorizontalPodAutoscaler => typed::<api::autoscaling::v2::HorizontalPodAutoscaler>(&object),
            ChildKind::Ingress => typed::<api::networking::v1::Ingress>(&object),
            ChildKind::Job => typed::<api::batch::v1::Job>(&object),
            ChildKind::PodMonitor | ChildKind::HttpRoute => object.clone(),
        };
        assert_eq!(again, object, "{} {}", child.kind.kind(), child.name);
    }
}

fn typed<T: Serialize + DeserializeOwned>(object: &Value) -> Value {
    serde_json::to_value(serde_json::from_value::<T>(object.clone()).unwrap()).unwrap()
}
