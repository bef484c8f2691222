//! The pods of runtimes and functions: as little of each as decisions need.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;

use crate::key::{ObjectKey, Text};
use crate::names::{PURGE, label};
use crate::world::Shared;
use crate::world::children::owner_of;

/// What counts of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodView {
    /// Its name.
    pub name: Text,
    /// Its address; nothing before it has one.
    pub address: Option<Text>,
    /// `status.phase`
    pub phase: Text,
    /// Whether its condition `Ready` is true.
    pub is_ready: bool,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// Whether it removes state, and runs no flows.
    pub is_purge: bool,
    /// The revision of the function that it is of.
    pub revision: Option<Text>,
    /// Conditions that are false: type, reason, message.
    pub missing: Vec<Lack>,
    /// What its containers wait for, or how they ended.
    pub containers: Vec<ContainerView>,
    /// What its node still prepares before any container; nothing once that is done.
    pub preparing: Option<Preparing>,
}

/// A pod that has a node, which does not have its volumes or its network yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preparing {
    /// Since it has a node.
    pub since: Timestamp,
    /// The Secrets and ConfigMaps that it mounts and cannot be without: `Secret tikv-client`.
    pub mounts: Vec<Text>,
}

impl Preparing {
    /// Volumes come before the sandbox, and the sandbox before images: as long as it is not there, no image is being pulled.
    fn read(object: &DynamicObject) -> Option<Self> {
        let conditions = object.data["status"]["conditions"].as_array()?;
        let of = |type_: &str, status: &str| conditions.iter().find(|c| c["type"] == type_ && c["status"] == status);
        of("PodReadyToStartContainers", "False")?;
        let since = of("PodScheduled", "True")?["lastTransitionTime"].as_str()?.parse().ok()?;
        let volumes = object.data["spec"]["volumes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let named = |field: &str, name: &str, kind: &str| -> Vec<Text> {
            let sources = volumes.iter().map(|volume| &volume[field]).filter(|source| source["optional"] != true);
            sources.filter_map(|source| Some(format!("{kind} {}", source[name].as_str()?).into())).collect()
        };
        let mut mounts = named("secret", "secretName", "Secret");
        mounts.extend(named("configMap", "name", "ConfigMap"));
        Some(Self { since, mounts })
    }
}

/// A condition of a pod that does not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lack {
    /// `PodScheduled`
    pub type_: Text,
    /// `Unschedulable`
    pub reason: Text,
    /// In words.
    pub message: Text,
}

/// What a container waits for, or how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerView {
    /// Its name.
    pub name: Text,
    /// Its image, while it waits.
    pub image: Option<Text>,
    /// Reason of `state.waiting`, such as `ImagePullBackOff`.
    pub waiting: Option<Text>,
    /// Message of `state.waiting`.
    pub message: Option<Text>,
    /// Exit code of the last end.
    pub exit_code: Option<i64>,
    /// How it ended last, such as `OOMKilled`.
    pub ended: Option<Text>,
    /// How often it was started again.
    pub restarts: i64,
    /// The last line that a purge has said, if it failed. What other containers say differs from time to time.
    pub said: Option<Text>,
}

impl PodView {
    /// What counts of `object`.
    pub fn read(object: &DynamicObject) -> Self {
        let status = &object.data["status"];
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(Text::from);
        let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let holds = |type_: &str| conditions.iter().any(|c| c["type"] == type_ && c["status"] == "True");
        let missing = conditions.iter().filter(|condition| condition["status"] == "False").map(|condition| Lack {
            type_: text(&condition["type"]).unwrap_or_default(),
            reason: text(&condition["reason"]).unwrap_or_default(),
            message: text(&condition["message"]).unwrap_or_default(),
        });
        let is_purge = object.labels().get(label::COMPONENT).is_some_and(|component| component == PURGE);
        let last_line = |value: &Value| text(value)?.trim_end().lines().last().map(Text::from);
        let lists = ["initContainerStatuses", "containerStatuses"];
        let containers = lists.iter().flat_map(|list| status[*list].as_array().into_iter().flatten());
        Self {
            name: object.name_any().into(),
            address: text(&status["podIP"]),
            phase: text(&status["phase"]).unwrap_or_default(),
            is_ready: holds("Ready"),
            is_deleting: object.metadata.deletion_timestamp.is_some(),
            is_purge,
            revision: object.labels().get(label::REVISION).map(|revision| revision.as_str().into()),
            missing: missing.collect(),
            containers: containers
                .map(|container| ContainerView {
                    name: text(&container["name"]).unwrap_or_default(),
                    image: text(&container["image"]).filter(|_| container["state"]["waiting"].is_object()),
                    waiting: text(&container["state"]["waiting"]["reason"]),
                    message: text(&container["state"]["waiting"]["message"]),
                    exit_code: container["lastState"]["terminated"]["exitCode"].as_i64(),
                    ended: text(&container["lastState"]["terminated"]["reason"]),
                    restarts: container["restartCount"].as_i64().unwrap_or_default(),
                    said: is_purge.then(|| last_line(&container["lastState"]["terminated"]["message"])).flatten(),
                })
                .collect(),
            preparing: Preparing::read(object),
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Pods {
    owners: Shared<HashMap<ObjectKey, BTreeMap<Text, PodView>>>,
}

impl Pods {
    /// The pods of `owner`, by name.
    pub fn of(&self, owner: &ObjectKey) -> Vec<PodView> {
        self.owners.lock().get(owner).map(|pods| pods.values().cloned().collect()).unwrap_or_default()
    }

    /// Takes in a pod. Returns its owner if something about it is new.
    pub fn put(&self, object: &DynamicObject) -> Option<ObjectKey> {
        let owner = owner_of(object)?;
        let view = PodView::read(object);
        let mut owners = self.owners.lock();
        let pods = owners.entry(owner.clone()).or_default();
        if pods.get(&view.name) == Some(&view) {
            return None;
        }
        pods.insert(view.name.clone(), view);
        Some(owner)
    }

    /// Forgets a pod. Returns its owner.
    pub fn remove(&self, object: &DynamicObject) -> Option<ObjectKey> {
        let owner = owner_of(object)?;
        self.forget(&owner, &object.name_any());
        Some(owner)
    }

    /// Forgets a pod of `owner`.
    pub fn forget(&self, owner: &ObjectKey, name: &str) {
        let mut owners = self.owners.lock();
        if let Some(pods) = owners.get_mut(owner) {
            pods.remove(name);
            if pods.is_empty() {
                owners.remove(owner);
            }
        }
    }

    /// All pods in `scope` (all namespaces without one).
    pub fn known(&self, scope: Option<&str>) -> Vec<(ObjectKey, Text)> {
        let owners = self.owners.lock();
        let of_scope = owners.iter().filter(|(owner, _)| scope.is_none_or(|scope| scope == &*owner.namespace));
        of_scope.flat_map(|(owner, pods)| pods.keys().map(move |name| (owner.clone(), name.clone()))).collect()
    }
}
