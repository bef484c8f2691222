//! What all pods that the operator makes have in common: restricted security, and what users may change.

use serde_json::{Map, Value, json};
use tandem_crds::resources::pod::PodTemplate;

use crate::child::Owner;

/// The `securityContext` of a pod, as the Pod Security level `restricted` has it.
pub fn pod_security(user: Option<i64>) -> Value {
    let mut security = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    if let Some(user) = user {
        security["runAsUser"] = user.into();
        security["runAsGroup"] = user.into();
        security["fsGroup"] = user.into();
    }
    security
}

/// The `securityContext` of a container, as the Pod Security level `restricted` has it.
pub fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
    })
}

/// A pod on its way into a template.
pub struct Pod<'a> {
    labels: Map<String, Value>,
    annotations: Map<String, Value>,
    selector: Value,
    template: Option<&'a PodTemplate>,
}

impl<'a> Pod<'a> {
    /// A pod with the labels of `owner` over those of `template`.
    pub fn new(owner: &Owner, component: &str, selector: Value, template: Option<&'a PodTemplate>) -> Self {
        let texts = |texts: &std::collections::BTreeMap<String, String>| -> Map<String, Value> {
            texts.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect()
        };
        let mut labels = template.map(|template| texts(&template.labels)).unwrap_or_default();
        labels.extend(owner.labels(component));
        let annotations = template.map(|template| texts(&template.annotations)).unwrap_or_default();
        Self { labels, annotations, selector, template }
    }

    /// Sets an annotation.
    pub fn annotate(&mut self, key: &str, value: &str) {
        self.annotations.insert(key.to_owned(), value.into());
    }

    /// Sets a label.
    pub fn label(&mut self, key: &str, value: &str) {
        self.labels.insert(key.to_owned(), value.into());
    }

    /// The template around `spec`, which gets what users may change.
    pub fn complete(self, spec: &mut Value) -> Value {
        let template = self.template.cloned().unwrap_or_default();
        if !template.node_selector.is_empty() {
            spec["nodeSelector"] = json!(template.node_selector);
        }
        if !template.tolerations.is_empty() {
            spec["tolerations"] = json!(template.tolerations);
        }
        if !template.image_pull_secrets.is_empty() {
            spec["imagePullSecrets"] = json!(template.image_pull_secrets);
        }
        if let Some(class) = template.priority_class_name {
            spec["priorityClassName"] = class.into();
        }
        match template.affinity {
            Some(affinity) => spec["affinity"] = Value::Object(affinity),
            None => {
                spec["topologySpreadConstraints"] = json!([{
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": self.selector},
                }]);
            }
        }
        let mut metadata = json!({"labels": self.labels});
        if !self.annotations.is_empty() {
            metadata["annotations"] = Value::Object(self.annotations);
        }
        json!({"metadata": metadata, "spec": spec.clone()})
    }
}
