//! Children: objects that the operator makes, as it wants them and as a cluster has them.

use kube::api::{ApiResource, DynamicObject};
use serde_json::{Map, Value, json};
use tandem_crds::resources::Kind;

use crate::key::{ObjectKey, Text};
use crate::names::{FIELD_MANAGER, annotation, label};

/// How many hexadecimal digits of a digest are kept.
const DIGEST_DIGITS: usize = 16;

/// A kind of object that the operator makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, strum::IntoStaticStr, strum::EnumIter)]
pub enum ChildKind {
    /// Identity without rights.
    ServiceAccount,
    /// Configuration and topology.
    ConfigMap,
    /// How something is reached.
    Service,
    /// Who may reach whom.
    NetworkPolicy,
    /// How many pods a drain of a node leaves.
    PodDisruptionBudget,
    /// The pods of a runtime.
    StatefulSet,
    /// The workers of one revision of a function.
    Deployment,
    /// Scales a runtime.
    HorizontalPodAutoscaler,
    /// A way in from outside.
    Ingress,
    /// Removes state.
    Job,
    /// How Prometheus finds a runtime. Only if its definition is in the cluster.
    PodMonitor,
    /// A way in from outside. Only if its definition is in the cluster.
    HttpRoute,
}

/// What is watched of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Only the metadata.
    Metadata,
    /// All of it, of which the status is kept.
    Status,
}

impl ChildKind {
    /// Group, version, kind and plural.
    fn names(self) -> [&'static str; 4] {
        match self {
            Self::ServiceAccount => ["", "v1", "ServiceAccount", "serviceaccounts"],
            Self::ConfigMap => ["", "v1", "ConfigMap", "configmaps"],
            Self::Service => ["", "v1", "Service", "services"],
            Self::NetworkPolicy => ["networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"],
            Self::PodDisruptionBudget => ["policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"],
            Self::StatefulSet => ["apps", "v1", "StatefulSet", "statefulsets"],
            Self::Deployment => ["apps", "v1", "Deployment", "deployments"],
            Self::HorizontalPodAutoscaler => {
                ["autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"]
            }
            Self::Ingress => ["networking.k8s.io", "v1", "Ingress", "ingresses"],
            Self::Job => ["batch", "v1", "Job", "jobs"],
            Self::PodMonitor => ["monitoring.coreos.com", "v1", "PodMonitor", "podmonitors"],
            Self::HttpRoute => ["gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"],
        }
    }

    /// How the API calls it.
    pub fn resource(self) -> ApiResource {
        let [group, version, kind, plural] = self.names();
        ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: self.api_version(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        }
    }

    /// `apps/v1`
    pub fn api_version(self) -> String {
        let [group, version, ..] = self.names();
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
    }

    /// The `kind` field.
    pub fn kind(self) -> &'static str {
        self.names()[2]
    }

    /// Whether a cluster may not know it.
    pub fn is_optional(self) -> bool {
        matches!(self, Self::PodMonitor | Self::HttpRoute)
    }

    /// Whether it makes pods.
    pub fn has_pods(self) -> bool {
        matches!(self, Self::StatefulSet | Self::Deployment | Self::Job)
    }

    /// What is watched.
    pub fn watched(self) -> Watched {
        match self {
            Self::StatefulSet | Self::Deployment | Self::Job | Self::HttpRoute => Watched::Status,
            Self::ServiceAccount
            | Self::ConfigMap
            | Self::Service
            | Self::NetworkPolicy
            | Self::PodDisruptionBudget
            | Self::HorizontalPodAutoscaler
            | Self::Ingress
            | Self::PodMonitor => Watched::Metadata,
        }
    }
}

/// What all children of one resource have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The resource.
    pub key: ObjectKey,
    /// Its `metadata.uid`.
    pub uid: String,
}

impl Owner {
    /// The label by which children of it are found, and its value.
    pub fn label(&self) -> (&'static str, &str) {
        (owner_label(self.key.kind), &self.key.name)
    }

    /// The labels of a child that has that part.
    pub fn labels(&self, component: &str) -> Map<String, Value> {
        let (owner, name) = self.label();
        let program = match self.key.kind {
            Kind::Function => "tandem-function",
            Kind::Runtime | Kind::Route | Kind::Egress => "tandem-runtime",
        };
        let pairs = [
            (label::NAME, program),
            (label::INSTANCE, name),
            (label::COMPONENT, component),
            (label::PART_OF, "tandem"),
            (label::MANAGED_BY, FIELD_MANAGER),
            (owner, name),
        ];
        pairs.into_iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect()
    }

    /// `metadata` of a child.
    pub fn metadata(&self, name: &str, component: &str) -> Value {
        json!({
            "name": name,
            "namespace": &*self.key.namespace,
            "labels": self.labels(component),
            "ownerReferences": [{
                "apiVersion": tandem_crds::resources::API_VERSION,
                "kind": self.key.kind.name(),
                "name": &*self.key.name,
                "uid": self.uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        })
    }

    /// A child of `kind`, with `rest` beside its metadata.
    pub fn child(&self, kind: ChildKind, name: &str, component: &str, rest: Value) -> Child {
        let mut object = json!({"apiVersion": kind.api_version(), "kind": kind.kind()});
        object["metadata"] = self.metadata(name, component);
        if let (Value::Object(object), Value::Object(rest)) = (&mut object, rest) {
            object.extend(rest);
        }
        Child { kind, name: name.into(), object, volatile: None }
    }
}

/// The label that names the owner of a child.
pub fn owner_label(kind: Kind) -> &'static str {
    match kind {
        Kind::Runtime => label::RUNTIME,
        Kind::Function => label::FUNCTION,
        Kind::Route | Kind::Egress => label::ROUTE,
    }
}

/// A child as it should be: the full object.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// Its kind.
    pub kind: ChildKind,
    /// Its name; its namespace is that of its owner.
    pub name: Text,
    /// All of it, without the digest.
    pub object: Value,
    /// A pointer to a value that somebody else moves (an autoscaler the number of replicas): applied, and no reason to apply.
    pub volatile: Option<&'static str>,
}

impl Child {
    /// A digest of everything that is wanted, except for what somebody else moves.
    pub fn digest(&self) -> String {
        let text = match self.volatile {
            None => self.object.to_string(),
            Some(pointer) => {
                let mut object = self.object.clone();
                if let Some(value) = object.pointer_mut(pointer) {
                    *value = Value::Null;
                }
                object.to_string()
            }
        };
        digest(text.as_bytes())
    }

    /// The object to apply: with its digest.
    pub fn to_apply(&self, digest: &str) -> Value {
        let mut object = self.object.clone();
        object["metadata"]["annotations"][annotation::APPLIED] = Value::from(digest);
        object
    }

    /// What [`Live::marks`] is if nobody changed its labels and owner.
    pub fn marks(&self) -> u64 {
        let labels = self.object["metadata"]["labels"].as_object();
        let labels =
            labels.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()));
        let owner = self.object["metadata"]["ownerReferences"][0]["uid"].as_str().unwrap_or_default();
        marks(labels, owner)
    }
}

/// The first digits of the BLAKE3 digest of `bytes`.
pub fn digest(bytes: &[u8]) -> String {
    let mut digits = blake3::hash(bytes).to_hex().to_string();
    digits.truncate(DIGEST_DIGITS);
    digits
}

/// A child as the cluster has it: as little of it as decisions need.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Live {
    /// `metadata.uid`
    pub uid: Text,
    /// `metadata.resourceVersion`
    pub resource_version: Text,
    /// The digest that was applied last.
    pub digest: Text,
    /// A digest of our labels and the owner.
    pub marks: u64,
    /// Somebody else has written fields beside the metadata and the status.
    pub is_foreign: bool,
    /// Another one, other contents: the generation where there is one, which a status does not change.
    pub contents: Text,
    /// It is being deleted.
    pub is_deleting: bool,
    /// The revision of the topology or of the function that it is of, or the kind of store that it was made for.
    pub revision: Option<Text>,
    /// Of a kind that has pods: what its status says of them.
    pub workload: Option<Workload>,
    /// Of an HTTPRoute: why a gateway does not take it as it is now.
    pub refusal: Option<Text>,
}

/// What a StatefulSet, Deployment or Job says about its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// `metadata.generation`
    pub generation: i64,
    /// `status.observedGeneration`
    pub observed_generation: i64,
    /// `spec.replicas`
    pub wanted: i32,
    /// `status.replicas`
    pub replicas: i32,
    /// `status.readyReplicas`
    pub ready: i32,
    /// `status.updatedReplicas`
    pub updated: i32,
    /// Succeeded pods of a Job.
    pub succeeded: i32,
    /// Failed pods of a Job.
    pub failed: i32,
    /// Message of the condition `ReplicaFailure`, which says why pods cannot be made.
    pub failure: Option<Text>,
}

impl Workload {
    /// Whether all pods that are wanted are there, of the last form, and ready.
    pub fn is_settled(&self) -> bool {
        self.observed_generation >= self.generation
            && self.updated >= self.wanted
            && self.ready >= self.wanted
            && self.replicas == self.wanted
    }
}

impl Live {
    /// What counts of `object`.
    pub fn read(kind: ChildKind, object: &DynamicObject) -> Self {
        let metadata = &object.metadata;
        let text = |map: &Option<std::collections::BTreeMap<String, String>>, key: &str| -> Option<Text> {
            map.as_ref()?.get(key).map(|value| value.as_str().into())
        };
        let no_labels = std::collections::BTreeMap::new();
        let labels = metadata.labels.as_ref().unwrap_or(&no_labels);
        let ours = labels.iter().filter(|(key, _)| is_ours(key)).map(|(key, value)| (key.as_str(), value.as_str()));
        let owner = metadata.owner_references.as_ref().and_then(|owners| owners.first());
        Self {
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
            resource_version: metadata.resource_version.as_deref().unwrap_or_default().into(),
            digest: text(&metadata.annotations, annotation::APPLIED).unwrap_or_default(),
            marks: marks(ours, owner.map(|owner| owner.uid.as_str()).unwrap_or_default()),
            is_foreign: is_foreign(object),
            contents: match metadata.generation {
                Some(generation) => generation.to_string().into(),
                None => metadata.resource_version.as_deref().unwrap_or_default().into(),
            },
            is_deleting: metadata.deletion_timestamp.is_some(),
            revision: text(&metadata.labels, label::REVISION)
                .or_else(|| text(&metadata.annotations, annotation::TOPOLOGY))
                .or_else(|| text(&metadata.annotations, annotation::STORE)),
            workload: kind.has_pods().then(|| workload(object)),
            refusal: (kind == ChildKind::HttpRoute).then(|| refusal(object)).flatten(),
        }
    }
}

fn is_ours(label: &str) -> bool {
    label.starts_with("app.kubernetes.io/") || label.starts_with("tandem.dev/")
}

fn marks<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>, owner: &str) -> u64 {
    let mut sorted: Vec<_> = labels.collect();
    sorted.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for text in sorted.iter().flat_map(|(key, value)| [*key, *value]).chain([owner]) {
        hasher.update(text.as_bytes());
        hasher.update(&[0]);
    }
    let hash = hasher.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_be_bytes(first)
}

/// Whether somebody beside the operator owns fields of what the object is for. Writers of `/status` and `/scale` do not count.
fn is_foreign(object: &DynamicObject) -> bool {
    let entries = object.metadata.managed_fields.as_deref().unwrap_or_default();
    entries.iter().any(|entry| {
        let is_ours = entry.manager.as_deref() == Some(FIELD_MANAGER);
        let is_part = entry.subresource.as_deref().is_some_and(|name| !name.is_empty());
        let fields = entry.fields_v1.as_ref().and_then(|fields| fields.0.as_object());
        let writes = fields.is_some_and(|fields| fields.keys().any(|key| key != "f:metadata" && key != "f:status"));
        !is_ours && !is_part && writes
    })
}

/// What the first gateway says that does not accept the route, or cannot resolve what it refers to. What was said of an earlier
/// generation does not count.
fn refusal(object: &DynamicObject) -> Option<Text> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let generation = object.metadata.generation;
    list(&object.data["status"]["parents"]).into_iter().find_map(|parent| {
        let conditions = list(&parent["conditions"]);
        let refused = conditions.iter().find(|condition| {
            let counts = condition["type"] == "Accepted" || condition["type"] == "ResolvedRefs";
            counts && condition["status"] == "False" && condition["observedGeneration"].as_i64() >= generation
        })?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (gateway, reason) = (text(&parent["parentRef"]["name"]), text(&refused["reason"]));
        Some(format!("gateway {gateway}: {reason}: {}", text(&refused["message"])).into())
    })
}

fn workload(object: &DynamicObject) -> Workload {
    let data = &object.data;
    let count = |value: &Value| value.as_i64().and_then(|count| i32::try_from(count).ok()).unwrap_or_default();
    let status = &data["status"];
    let failure = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "ReplicaFailure" && condition["status"] == "True");
    Workload {
        generation: object.metadata.generation.unwrap_or_default(),
        observed_generation: status["observedGeneration"].as_i64().unwrap_or_default(),
        wanted: data["spec"]["replicas"].as_i64().and_then(|count| i32::try_from(count).ok()).unwrap_or(1),
        replicas: count(&status["replicas"]),
        ready: count(&status["readyReplicas"]),
        updated: count(&status["updatedReplicas"]),
        succeeded: count(&status["succeeded"]),
        failed: count(&status["failed"]),
        failure: failure.and_then(|condition| condition["message"].as_str()).map(Text::from),
    }
}
