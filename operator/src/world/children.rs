//! What the operator has made, by the resource that it belongs to.

use std::collections::{BTreeMap, HashMap};

use kube::ResourceExt;
use kube::api::DynamicObject;
use tandem_crds::resources::Kind;

use crate::child::{ChildKind, Live};
use crate::key::{ObjectKey, Text};
use crate::names::label;
use crate::world::Shared;

/// The children of one resource.
pub type Family = BTreeMap<(ChildKind, Text), Live>;

/// See the module.
#[derive(Debug, Default)]
pub struct Children {
    families: Shared<HashMap<ObjectKey, Family>>,
    /// Children that others have written to, and the contents at which the operator has taken back what is its own.
    pub settled: Shared<HashMap<(ObjectKey, ChildKind, String), Text>>,
}

impl Children {
    /// The children of `owner`.
    pub fn of(&self, owner: &ObjectKey) -> Family {
        self.families.lock().get(owner).cloned().unwrap_or_default()
    }

    /// Takes in a child. Returns its owner if something about it is new.
    pub fn put(&self, kind: ChildKind, object: &DynamicObject) -> Option<ObjectKey> {
        let owner = owner_of(object)?;
        let live = Live::read(kind, object);
        self.remember(&owner, kind, &object.name_any(), live).then_some(owner)
    }

    /// Takes in what the API server answered. Returns whether something is new.
    pub fn remember(&self, owner: &ObjectKey, kind: ChildKind, name: &str, live: Live) -> bool {
        let mut families = self.families.lock();
        let family = families.entry(owner.clone()).or_default();
        let key = (kind, Text::from(name));
        let version = |live: &Live| live.resource_version.parse::<u64>().ok();
        if let Some(old) = family.get(&key)
            && (*old == live || (old.uid == live.uid && version(old) > version(&live)))
        {
            return false;
        }
        family.insert(key, live);
        true
    }

    /// Forgets a child. Returns its owner if it was known.
    pub fn remove(&self, kind: ChildKind, object: &DynamicObject) -> Option<ObjectKey> {
        let owner = owner_of(object)?;
        self.forget(&owner, kind, &object.name_any()).then_some(owner)
    }

    /// Forgets a child of `owner`.
    pub fn forget(&self, owner: &ObjectKey, kind: ChildKind, name: &str) -> bool {
        let mut families = self.families.lock();
        let Some(family) = families.get_mut(owner) else { return false };
        let was_known = family.remove(&(kind, Text::from(name))).is_some();
        if family.is_empty() {
            families.remove(owner);
        }
        was_known
    }

    /// All children of `kind` in `scope` (all namespaces without one).
    pub fn known(&self, kind: ChildKind, scope: Option<&str>) -> Vec<(ObjectKey, Text)> {
        let families = self.families.lock();
        let of_scope = families.iter().filter(|(owner, _)| scope.is_none_or(|scope| scope == &*owner.namespace));
        let children = of_scope.flat_map(|(owner, family)| family.keys().map(move |key| (owner, key)));
        children.filter(|(_, (of, _))| *of == kind).map(|(owner, (_, name))| (owner.clone(), name.clone())).collect()
    }
}

/// Whose child an object is, by its labels.
pub fn owner_of(object: &DynamicObject) -> Option<ObjectKey> {
    let labels = object.metadata.labels.as_ref()?;
    let kinds = [(label::FUNCTION, Kind::Function), (label::ROUTE, Kind::Route), (label::RUNTIME, Kind::Runtime)];
    let (kind, name) = kinds.into_iter().find_map(|(label, kind)| Some((kind, labels.get(label)?)))?;
    Some(ObjectKey::new(kind, object.namespace().unwrap_or_default(), name.as_str()))
}
