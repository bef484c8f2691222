//! What the operator has made, by the resource that it belongs to.

use std::collections::{BTreeMap, HashMap};

use kube::ResourceExt;
use kube::api::DynamicObject;
use tandem_crds::resources::Kind;

use crate::child::{ChildKind, Live};
use crate::key::{ObjectKey, Text};
use crate::names::label;
use crate::world::Shared;

/// Kind and name of a child.
type Member = (ChildKind, Text);

/// The children of one resource, as they are kept.
type Members = Box<[(Member, Live)]>;

/// The children of one resource.
pub type Family = BTreeMap<Member, Live>;

/// See the module.
#[derive(Debug, Default)]
pub struct Children {
    /// Lists in the order of their keys: a map of two would take as much memory as one of eleven.
    families: Shared<HashMap<ObjectKey, Members>>,
    /// Children that others have written to, and the contents at which the operator has taken back what is its own.
    pub settled: Shared<HashMap<(ObjectKey, ChildKind, String), Text>>,
}

impl Children {
    /// The children of `owner`.
    pub fn of(&self, owner: &ObjectKey) -> Family {
        self.families.lock().get(owner).map(|family| family.iter().cloned().collect()).unwrap_or_default()
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
        let version = |live: &Live| live.resource_version.parse::<u64>().ok();
        match position(family, kind, name) {
            Ok(at) => {
                let old = &mut family[at].1;
                if *old == live || (old.uid == live.uid && version(old) > version(&live)) {
                    return false;
                }
                *old = live;
            }
            Err(at) => {
                let mut list = std::mem::take(family).into_vec();
                list.insert(at, ((kind, Text::from(name)), live));
                *family = list.into_boxed_slice();
            }
        }
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
        let Ok(at) = position(family, kind, name) else { return false };
        let mut list = std::mem::take(family).into_vec();
        list.remove(at);
        if list.is_empty() {
            families.remove(owner);
        } else {
            *family = list.into_boxed_slice();
        }
        true
    }

    /// All children of `kind` in `scope` (all namespaces without one).
    pub fn known(&self, kind: ChildKind, scope: Option<&str>) -> Vec<(ObjectKey, Text)> {
        let families = self.families.lock();
        let of_scope = families.iter().filter(|(owner, _)| scope.is_none_or(|scope| scope == &*owner.namespace));
        let children = of_scope.flat_map(|(owner, family)| family.iter().map(move |(key, _)| (owner, key)));
        children.filter(|(_, (of, _))| *of == kind).map(|(owner, (_, name))| (owner.clone(), name.clone())).collect()
    }
}

/// Where a child is in the list, or would be.
fn position(family: &[(Member, Live)], kind: ChildKind, name: &str) -> Result<usize, usize> {
    family.binary_search_by(|((of, known), _)| (*of, &**known).cmp(&(kind, name)))
}

/// Whose child an object is, by its labels.
pub fn owner_of(object: &DynamicObject) -> Option<ObjectKey> {
    let labels = object.metadata.labels.as_ref()?;
    let kinds = [(label::FUNCTION, Kind::Function), (label::ROUTE, Kind::Route), (label::RUNTIME, Kind::Runtime)];
    let (kind, name) = kinds.into_iter().find_map(|(label, kind)| Some((kind, labels.get(label)?)))?;
    Some(ObjectKey::new(kind, object.namespace().unwrap_or_default(), name.as_str()))
}
