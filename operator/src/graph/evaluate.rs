//! Which specs of a namespace can serve together, and what is wrong with the others. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tandem_crds::codes;
use tandem_crds::compile::{Compiled, compile};
use tandem_crds::load::{Resources, Sourced};
use tandem_crds::problem::{ObjectName, Problem};
use tandem_crds::resources::{Function, FunctionEgress, FunctionRoute, FunctionRuntime, Kind};
use tandem_model::topology::Topology;

use crate::graph::{Accepted, Name};
use crate::key::Text;

/// What there is in a namespace, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// The runtime that serves it. Further ones are none of the graph's business.
    pub runtime: Option<(Text, Arc<tandem_crds::resources::FunctionRuntimeSpec>)>,
    /// The functions.
    pub functions: Vec<(Text, Arc<tandem_crds::resources::FunctionSpec>)>,
    /// The routes.
    pub routes: Vec<(Text, Arc<tandem_crds::resources::FunctionRouteSpec>)>,
    /// The egresses.
    pub egresses: Vec<(Text, Arc<tandem_crds::resources::FunctionEgressSpec>)>,
    /// What is there and cannot be read, and why.
    pub unreadable: Vec<(Name, String)>,
    /// The generation of everything that is there, further runtimes included.
    pub generations: BTreeMap<Name, i64>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluated {
    /// The specs that serve.
    pub accepted: Accepted,
    /// What is wrong, by the resource that causes it.
    pub problems: BTreeMap<Name, Vec<Problem>>,
    /// Resources whose last good spec serves.
    pub outdated: BTreeSet<Name>,
}

/// The topology of what served before, as far as it still compiles.
pub fn topology_of(accepted: &Accepted) -> Option<Topology> {
    let chosen = Chosen::all(accepted);
    compile(&chosen.resources(), None).ok().map(|compiled| compiled.topology)
}

/// Chooses the specs that serve: of `present`, or where it has problems the one in `previous`, or none.
pub fn evaluate(present: &Present, previous: &Accepted) -> Evaluated {
    let topology = topology_of(previous);
    let mut chosen = Chosen::present(present, previous);
    let mut evaluated = Evaluated::default();
    for (name, error) in &present.unreadable {
        let object = ObjectName::new(name.0, &*name.1);
        let problem = Problem::new(&codes::UNREADABLE_RESOURCE, object, error.clone());
        evaluated.problems.insert(name.clone(), vec![problem]);
        if chosen.fall_back(name, previous) {
            evaluated.outdated.insert(name.clone());
        }
    }
    let declared: BTreeSet<Name> = chosen.names();
    // Each round takes at least one spec out, and each resource has at most two specs.
    while !chosen.is_empty() {
        match compile(&chosen.resources(), topology.as_ref()) {
            Ok(compiled) => {
                warn(compiled, &mut evaluated);
                break;
            }
            Err(found) => {
                let removed = blame(found, &declared, &mut evaluated);
                if removed.is_empty() {
                    break;
                }
                for name in removed {
                    evaluated.outdated.remove(&name);
                    if chosen.fall_back(&name, previous) {
                        evaluated.outdated.insert(name);
                    }
                }
            }
        }
    }
    evaluated.accepted = chosen.accepted();
    evaluated.accepted.share(previous);
    evaluated
}

fn warn(compiled: Compiled, evaluated: &mut Evaluated) {
    for warning in compiled.warnings {
        if let Some(name) = name_of(&warning) {
            evaluated.problems.entry(name).or_default().push(warning);
        }
    }
}

/// Books problems on the resources that cause them. Returns those whose spec cannot serve. Routes are blamed only once
/// functions are right: what a route lacks may come back with the last good spec of its function.
fn blame(found: Vec<Problem>, declared: &BTreeSet<Name>, evaluated: &mut Evaluated) -> BTreeSet<Name> {
    let errors = found.into_iter().filter(Problem::is_error).filter_map(|problem| Some((name_of(&problem)?, problem)));
    let (causes, rest): (Vec<_>, Vec<_>) =
        errors.partition(|((kind, _), _)| matches!(kind, Kind::Runtime | Kind::Function));
    let mut removed = BTreeSet::new();
    for (name, mut problem) in if causes.is_empty() { rest } else { causes } {
        removed.insert(name.clone());
        if problem.code == codes::UNKNOWN_FUNCTION.code
            && let Some(function) = declared
                .iter()
                .find(|(kind, name)| *kind == Kind::Function && problem.message.contains(&format!("{:?}", &**name)))
        {
            problem.message = format!("Function {} has problems itself", function.1);
            "see its status".clone_into(&mut problem.help);
        }
        // The last good spec of a resource may have the same problem again.
        let problems = evaluated.problems.entry(name).or_default();
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    removed
}

/// The resource that a problem is about.
fn name_of(problem: &Problem) -> Option<Name> {
    let (kind, name) = problem.object.split_once(' ')?;
    Some((Kind::from_name(kind)?, name.into()))
}

/// One spec for each resource that has any.
struct Chosen {
    runtime: Option<Sourced<FunctionRuntime>>,
    functions: Vec<Sourced<Function>>,
    routes: Vec<Sourced<FunctionRoute>>,
    egresses: Vec<Sourced<FunctionEgress>>,
}

impl Chosen {
    /// What is there. What has not changed comes first: of two that cannot be together the newer spec is to blame.
    fn present(present: &Present, previous: &Accepted) -> Self {
        let runtime = present.runtime.as_ref();
        Self {
            runtime: runtime.map(|(name, spec)| source(FunctionRuntime::new(name, (**spec).clone()))),
            functions: unchanged_first(&present.functions, &previous.functions, |name, spec| {
                source(Function::new(name, spec.clone()))
            }),
            routes: unchanged_first(&present.routes, &previous.routes, |name, spec| {
                source(FunctionRoute::new(name, spec.clone()))
            }),
            egresses: unchanged_first(&present.egresses, &previous.egresses, |name, spec| {
                source(FunctionEgress::new(name, spec.clone()))
            }),
        }
    }

    fn all(accepted: &Accepted) -> Self {
        let functions = accepted.functions.iter().map(|(n, s)| (n.clone(), Arc::clone(s))).collect();
        let routes = accepted.routes.iter().map(|(n, s)| (n.clone(), Arc::clone(s))).collect();
        let egresses = accepted.egresses.iter().map(|(n, s)| (n.clone(), Arc::clone(s))).collect();
        let runtime = accepted.runtime.clone();
        Self::present(&Present { runtime, functions, routes, egresses, ..Present::default() }, accepted)
    }

    fn resources(&self) -> Resources {
        Resources {
            runtimes: self.runtime.iter().cloned().collect(),
            functions: self.functions.clone(),
            routes: self.routes.clone(),
            egresses: self.egresses.clone(),
            undecoded: Vec::new(),
        }
    }

    fn names(&self) -> BTreeSet<Name> {
        fn named<'a, T: kube::ResourceExt + 'a>(kind: Kind, of: &'a [Sourced<T>]) -> impl Iterator<Item = Name> + 'a {
            of.iter().map(move |one| (kind, one.resource.name_any().into()))
        }
        let runtime = self.runtime.as_slice();
        let functions = named(Kind::Runtime, runtime).chain(named(Kind::Function, &self.functions));
        functions.chain(named(Kind::Route, &self.routes)).chain(named(Kind::Egress, &self.egresses)).collect()
    }

    fn is_empty(&self) -> bool {
        self.runtime.is_none() && self.functions.is_empty() && self.routes.is_empty() && self.egresses.is_empty()
    }

    /// Replaces the spec of a resource by the last good one, if that is another one; takes it out otherwise. Returns
    /// whether it was replaced.
    fn fall_back(&mut self, (kind, name): &Name, previous: &Accepted) -> bool {
        match kind {
            Kind::Runtime => {
                let old = previous.runtime.as_ref().filter(|(old, _)| old == name).map(|(_, spec)| spec);
                let mut list: Vec<_> = self.runtime.take().into_iter().collect();
                let replaced = replace(&mut list, name, old, |s| FunctionRuntime::new(name, s), |r| &r.spec);
                self.runtime = list.pop();
                replaced
            }
            Kind::Function => {
                let old = previous.functions.get(name);
                replace(&mut self.functions, name, old, |s| Function::new(name, s), |r| &r.spec)
            }
            Kind::Route => {
                let old = previous.routes.get(name);
                replace(&mut self.routes, name, old, |s| FunctionRoute::new(name, s), |r| &r.spec)
            }
            Kind::Egress => {
                let old = previous.egresses.get(name);
                replace(&mut self.egresses, name, old, |s| FunctionEgress::new(name, s), |r| &r.spec)
            }
        }
    }

    fn accepted(self) -> Accepted {
        let name = |name: &Option<String>| Text::from(name.as_deref().unwrap_or_default());
        Accepted {
            runtime: self.runtime.map(|r| (name(&r.resource.metadata.name), Arc::new(r.resource.spec))),
            functions: collect(self.functions, |f| (name(&f.metadata.name), f.spec)),
            routes: collect(self.routes, |r| (name(&r.metadata.name), r.spec)),
            egresses: collect(self.egresses, |e| (name(&e.metadata.name), e.spec)),
        }
    }
}

fn collect<T, S>(list: Vec<Sourced<T>>, split: impl Fn(T) -> (Text, S)) -> BTreeMap<Text, Arc<S>> {
    list.into_iter().map(|one| split(one.resource)).map(|(name, spec)| (name, Arc::new(spec))).collect()
}

fn source<T>(resource: T) -> Sourced<T> {
    Sourced::new(resource)
}

fn unchanged_first<S: PartialEq, T>(
    present: &[(Text, Arc<S>)],
    previous: &BTreeMap<Text, Arc<S>>,
    resource: impl Fn(&str, &S) -> T,
) -> Vec<T> {
    let is_unchanged = |(name, spec): &&(Text, Arc<S>)| previous.get(name).is_some_and(|old| old == spec);
    let (unchanged, changed): (Vec<_>, Vec<_>) = present.iter().partition(is_unchanged);
    unchanged.into_iter().chain(changed).map(|(name, spec)| resource(name, spec)).collect()
}

/// See [`Chosen::fall_back`]. What is replaced goes to the front: it is the older one now.
fn replace<T: kube::ResourceExt, S: Clone + PartialEq>(
    list: &mut Vec<Sourced<T>>,
    name: &str,
    old: Option<&Arc<S>>,
    resource: impl Fn(S) -> T,
    spec: impl Fn(&T) -> &S,
) -> bool {
    let at = list.iter().position(|one| one.resource.name_any() == name);
    let current = at.map(|at| list.remove(at));
    let Some(old) = old else { return false };
    if current.is_some_and(|current| spec(&current.resource) == &**old) {
        return false;
    }
    list.insert(0, Sourced::new(resource((**old).clone())));
    true
}
