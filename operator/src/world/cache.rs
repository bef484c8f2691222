//! Our resources by namespace and name, as a watch tells them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::key::Text;
use crate::world::Shared;

/// What kubectl leaves in an object, as large as the object itself.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A resource as it is in the cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Held<T> {
    /// It can be read.
    Good(T),
    /// It cannot be read, because its definition in the cluster is of another version.
    Bad {
        /// Who it is.
        metadata: Box<ObjectMeta>,
        /// Why it cannot be read.
        error: String,
    },
}

impl<T: Resource> Held<T> {
    /// Who it is.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Good(resource) => resource.meta(),
            Self::Bad { metadata, .. } => metadata,
        }
    }

    /// The resource, if it can be read.
    pub fn good(&self) -> Option<&T> {
        match self {
            Self::Good(resource) => Some(resource),
            Self::Bad { .. } => None,
        }
    }

    /// `metadata.uid`
    pub fn uid(&self) -> &str {
        self.metadata().uid.as_deref().unwrap_or_default()
    }

    /// Whether it is being deleted.
    pub fn is_deleting(&self) -> bool {
        self.metadata().deletion_timestamp.is_some()
    }

    /// Orders by age, and by name where that is the same.
    pub fn age(&self) -> (Option<i64>, &str) {
        let metadata = self.metadata();
        let created = metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
        (created, metadata.name.as_deref().unwrap_or_default())
    }

    fn version(&self) -> Option<u64> {
        self.metadata().resource_version.as_deref()?.parse().ok()
    }
}

/// How much a change matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Nothing that was not known.
    Nothing,
    /// Only its status or metadata are other ones.
    Status,
    /// It is new, gone, on its way out, or its spec is another one.
    Spec,
}

/// What one namespace has, by name.
type Objects<T> = BTreeMap<Text, Arc<Held<T>>>;

/// See the module.
#[derive(Debug)]
pub struct Cache<T> {
    namespaces: Shared<HashMap<Text, Objects<T>>>,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { namespaces: Shared::default() }
    }
}

impl<T: Resource<DynamicType = ()> + DeserializeOwned> Cache<T> {
    /// The resource of that name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Held<T>>> {
        self.namespaces.lock().get(namespace)?.get(name).cloned()
    }

    /// All of a namespace, by name.
    pub fn list(&self, namespace: &str) -> Vec<Arc<Held<T>>> {
        self.namespaces.lock().get(namespace).map(|objects| objects.values().cloned().collect()).unwrap_or_default()
    }

    /// The names of all of a namespace.
    pub fn names(&self, namespace: &str) -> Vec<Text> {
        self.namespaces.lock().get(namespace).map(|objects| objects.keys().cloned().collect()).unwrap_or_default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.namespaces.lock().values().map(BTreeMap::len).sum()
    }

    /// Shows each of them.
    pub fn each(&self, mut show: impl FnMut(&Held<T>)) {
        for objects in self.namespaces.lock().values() {
            for held in objects.values() {
                show(held);
            }
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in an object. An older one than what is known is left out: a watch may be behind an answer.
    pub fn put(&self, object: DynamicObject) -> Change {
        let held = decode::<T>(object);
        let metadata = held.metadata();
        let namespace: Text = metadata.namespace.as_deref().unwrap_or_default().into();
        let name: Text = metadata.name.as_deref().unwrap_or_default().into();
        let mut namespaces = self.namespaces.lock();
        let objects = namespaces.entry(namespace).or_default();
        let change = match objects.get(&name) {
            None => Change::Spec,
            Some(old) if old.uid() == held.uid() && old.version() > held.version() => return Change::Nothing,
            Some(old) => change(old, &held),
        };
        objects.insert(name, Arc::new(held));
        change
    }

    /// Removes an object.
    pub fn remove(&self, namespace: &str, name: &str) {
        let mut namespaces = self.namespaces.lock();
        if let Some(objects) = namespaces.get_mut(namespace) {
            objects.remove(name);
            if objects.is_empty() {
                namespaces.remove(namespace);
            }
        }
    }

    /// Everything that is known of `scope` (all namespaces without one).
    pub fn known(&self, scope: Option<&str>) -> Vec<(Text, Text)> {
        let namespaces = self.namespaces.lock();
        let of_scope = namespaces.iter().filter(|(namespace, _)| scope.is_none_or(|scope| scope == &***namespace));
        of_scope.flat_map(|(namespace, objects)| objects.keys().map(|name| (namespace.clone(), name.clone()))).collect()
    }
}

fn change<T: Resource>(old: &Held<T>, new: &Held<T>) -> Change {
    let (before, after) = (old.metadata(), new.metadata());
    let is_same = before.uid == after.uid
        && before.generation == after.generation
        && old.is_deleting() == new.is_deleting()
        && old.good().is_some() == new.good().is_some();
    if !is_same {
        Change::Spec
    } else if before.resource_version == after.resource_version {
        Change::Nothing
    } else {
        Change::Status
    }
}

fn decode<T: DeserializeOwned + Resource>(mut object: DynamicObject) -> Held<T> {
    object.metadata.managed_fields = None;
    if let Some(annotations) = &mut object.metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
    let metadata = object.metadata.clone();
    let decoded = serde_json::to_value(object).and_then(serde_json::from_value::<T>);
    match decoded {
        Ok(resource) => Held::Good(resource),
        Err(error) => Held::Bad { metadata: Box::new(metadata), error: error.to_string() },
    }
}

/// The namespace and name of an object.
pub fn place(object: &DynamicObject) -> (Text, Text) {
    (object.namespace().unwrap_or_default().into(), object.name_any().into())
}
