//! `tandem check` against a cluster: the objects of a namespace, with files put over them, compiled together.
//!
//! [`overlay`] and [`compare`] are pure; only [`read`] asks the cluster.

use std::collections::BTreeSet;

use kube::ResourceExt;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tandem_crds::check::{Report, report};
use tandem_crds::codes;
use tandem_crds::compile::compile;
use tandem_crds::load::{Loaded, Resources, Sourced};
use tandem_crds::problem::{ObjectName, Problem};
use tandem_crds::resources::Kind;
use tandem_model::topology::Topology;

use crate::cluster::Objects;

/// What came of it.
#[derive(Debug)]
pub(super) struct Checked {
    /// Everything that the files would change, or what the cluster has, if there are no files.
    pub(super) report: Report,
    /// Problems of the cluster's own objects that the files neither make nor mend.
    pub(super) before: Vec<Problem>,
}

/// The objects of a cluster, decoded, without what the operator says about them. What cannot be decoded is a problem of its own.
pub(super) fn decode(objects: &Objects) -> Loaded {
    let mut loaded = Loaded::default();
    let (resources, problems) = (&mut loaded.resources, &mut loaded.problems);
    for kind in Kind::ALL {
        for object in objects.of(kind) {
            let decoded = match kind {
                Kind::Runtime => add(object, &mut resources.runtimes),
                Kind::Function => add(object, &mut resources.functions),
                Kind::Route => add(object, &mut resources.routes),
                Kind::Egress => add(object, &mut resources.egresses),
            };
            if let Err(error) = decoded {
                let name = ObjectName::new(kind, object["metadata"]["name"].as_str().unwrap_or_default());
                problems.push(Problem::new(&codes::UNREADABLE_RESOURCE, &name, error.to_string()));
                resources.undecoded.push(name);
            }
        }
    }
    loaded
}

fn add<T: DeserializeOwned>(object: &Value, list: &mut Vec<Sourced<T>>) -> Result<(), serde_json::Error> {
    let metadata = &object["metadata"];
    let object = json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"], "spec": object["spec"],
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
    });
    list.push(Sourced::new(T::deserialize(object)?));
    Ok(())
}

/// The one namespace that files name, if they name one and no other.
pub(super) fn namespace_of(files: &Resources) -> Option<String> {
    fn named<T: ResourceExt>(list: &[Sourced<T>]) -> impl Iterator<Item = String> + '_ {
        list.iter().filter_map(|one| one.resource.namespace())
    }
    let all = named(&files.runtimes).chain(named(&files.functions));
    let all: BTreeSet<String> = all.chain(named(&files.routes)).chain(named(&files.egresses)).collect();
    let mut all = all.into_iter();
    all.next().filter(|_| all.next().is_none())
}

/// Puts files over what is in the namespace, as `kubectl apply` does.
pub(super) fn overlay(cluster: &Loaded, mut files: Loaded, namespace: &str) -> Loaded {
    let broken: BTreeSet<(Kind, String)> =
        files.resources.undecoded.iter().map(|object| (object.kind, object.name.clone())).collect();
    let (base, over) = (&cluster.resources, &mut files.resources);
    put(&base.runtimes, &mut over.runtimes, namespace, Kind::Runtime, &broken);
    put(&base.functions, &mut over.functions, namespace, Kind::Function, &broken);
    put(&base.routes, &mut over.routes, namespace, Kind::Route, &broken);
    put(&base.egresses, &mut over.egresses, namespace, Kind::Egress, &broken);
    let replaced = names(over);
    let kept = base.undecoded.iter().filter(|object| !replaced.contains(&object.to_string())).cloned();
    over.undecoded.extend(kept);
    let is_there = |problem: &&Problem| !replaced.contains(&problem.object);
    files.problems.extend(cluster.problems.iter().filter(is_there).cloned());
    files
}

/// The objects of the cluster come first: of two that cannot be together, the one in the file is to blame.
fn put<T: ResourceExt + Clone>(
    base: &[Sourced<T>],
    over: &mut Vec<Sourced<T>>,
    namespace: &str,
    kind: Kind,
    broken: &BTreeSet<(Kind, String)>,
) {
    for one in over.iter_mut() {
        one.resource.meta_mut().namespace.get_or_insert_with(|| namespace.to_owned());
    }
    let is_replaced = |name: &str| {
        broken.contains(&(kind, name.to_owned())) || over.iter().any(|one| one.resource.name_any() == name)
    };
    let kept: Vec<Sourced<T>> = base.iter().filter(|one| !is_replaced(&one.resource.name_any())).cloned().collect();
    over.splice(0..0, kept);
}

/// `Function order`, as problems name their object.
fn names(resources: &Resources) -> BTreeSet<String> {
    fn of<'a, T: ResourceExt + 'a>(kind: Kind, list: &'a [Sourced<T>]) -> impl Iterator<Item = String> + 'a {
        let from_files = list.iter().filter(|one| one.source.is_some());
        from_files.map(move |one| ObjectName::new(kind, one.resource.name_any()).to_string())
    }
    let decoded = of(Kind::Runtime, &resources.runtimes).chain(of(Kind::Function, &resources.functions));
    let decoded = decoded.chain(of(Kind::Route, &resources.routes)).chain(of(Kind::Egress, &resources.egresses));
    decoded.chain(resources.undecoded.iter().map(ToString::to_string)).collect()
}

/// What the namespace serves now, as far as can be told: its objects without those that have problems. What is stored
/// was written by these.
fn serving(cluster: &Resources) -> Option<Topology> {
    let mut resources = cluster.clone();
    // Each round takes something out.
    loop {
        let found = match compile(&resources, None) {
            Ok(compiled) => return Some(compiled.topology),
            Err(found) => found,
        };
        let before = resources.len();
        let blamed: BTreeSet<String> =
            found.into_iter().filter(Problem::is_error).map(|problem| problem.object).collect();
        drop_blamed(&mut resources.runtimes, Kind::Runtime, &blamed);
        drop_blamed(&mut resources.functions, Kind::Function, &blamed);
        drop_blamed(&mut resources.routes, Kind::Route, &blamed);
        drop_blamed(&mut resources.egresses, Kind::Egress, &blamed);
        if resources.len() == before || resources.is_empty() {
            return None;
        }
    }
}

fn drop_blamed<T: ResourceExt>(list: &mut Vec<Sourced<T>>, kind: Kind, blamed: &BTreeSet<String>) {
    list.retain(|one| !blamed.contains(&ObjectName::new(kind, one.resource.name_any()).to_string()));
}

/// Compiles the cluster's objects with `files` over them, and tells apart what was so before.
pub(super) fn compare(cluster: &Loaded, files: Option<Loaded>, namespace: &str) -> Checked {
    let alone = report(cluster.clone(), None);
    let Some(files) = files else { return Checked { report: alone, before: Vec::new() } };
    let previous = serving(&cluster.resources);
    let mut checked = report(overlay(cluster, files, namespace), previous.as_ref());
    let is_old = |problem: &Problem| problem.location.is_none() && alone.problems.contains(problem);
    let (before, new): (Vec<_>, Vec<_>) = checked.problems.into_iter().partition(is_old);
    checked.problems = new;
    Checked { report: checked, before }
}

#[cfg(test)]
mod tests;
