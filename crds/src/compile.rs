//! Compiles resources to a topology: the checks on the whole graph, all problems at once.
//!
//! **Invariant:** pure. The same resources give the same topology and the same problems, in the same order, wherever
//! they came from: the operator, `tandem dev` and the checker in a pipeline share this one function.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kube::ResourceExt;
use tandem_model::ids::FunctionName;
use tandem_model::topology::{Egress, Topology};

use crate::codes::{self, Code};
use crate::load::{Resources, Sourced};
use crate::problem::{self, ObjectName, Problem};
use crate::resources::duration::Duration;
use crate::resources::runtime::{RETENTION_MS_MAX, RETENTION_MS_MIN};
use crate::resources::{Function, FunctionEgress, Kind};

mod expressions;
mod functions;
mod history;
mod paths;
mod routes;
mod runtimes;

/// What resources compile to.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// What a runtime runs.
    pub topology: Topology,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Problem>,
}

/// Compiles `resources`. With `previous`, the topology that runs now, what stored data cannot follow is refused, too.
/// An error holds all problems, warnings included, ordered by place and object.
pub fn compile(resources: &Resources, previous: Option<&Topology>) -> Result<Compiled, Vec<Problem>> {
    let mut problems = Problems::default();
    let index = FunctionIndex::new(resources);
    let topology = topology(resources, &index, &mut problems);
    check_namespaces(resources, &mut problems);
    if resources.functions.is_empty() && !resources.is_empty() && !undecoded(resources, Kind::Function) {
        problems.add(Problem::new(&codes::NO_FUNCTIONS, "", "no Function is declared"));
    }
    if let Some(previous) = previous {
        let runtime = resources.runtimes.first();
        history::Comparison { index: &index, runtime, next: &topology, previous }.check(&mut problems);
    }
    let mut found = problems.found;
    problem::sort(&mut found);
    if found.iter().any(Problem::is_error) {
        return Err(found);
    }
    Ok(Compiled { topology, warnings: found })
}

fn topology(resources: &Resources, index: &FunctionIndex<'_>, problems: &mut Problems) -> Topology {
    let runtime = runtimes::compile(&resources.runtimes, problems);
    let functions = functions::compile(&resources.functions, index, problems);
    let default_deadline_ms = runtime.limits.deadline_ms;
    let surroundings = routes::Surroundings { index, functions: &functions, default_deadline_ms };
    let routes = routes::compile(&resources.routes, &surroundings, problems);
    let egresses = egresses(&resources.egresses, problems);
    Topology {
        format: Topology::FORMAT,
        slots: runtime.slots,
        limits: runtime.limits,
        retention_ms: runtime.retention_ms,
        functions,
        routes,
        egresses,
    }
}

fn egresses(
    declared: &[Sourced<FunctionEgress>],
    problems: &mut Problems,
) -> BTreeMap<tandem_model::ids::EgressName, Egress> {
    let mut egresses = BTreeMap::new();
    for egress in declared {
        let mut subject = Subject::new(Kind::Egress, egress, problems);
        let stream = egress.resource.spec.stream.as_ref();
        if stream.is_none() && !egress.damaged {
            subject.problem(&codes::NO_WAY_OUT, "spec", "no way out is named");
        }
        let retention_ms = stream.and_then(|stream| {
            subject.duration("spec.stream.retention", &stream.retention, RETENTION_MS_MIN..=RETENTION_MS_MAX)
        });
        if let (Some(name), Some(stream_retention_ms)) = (subject.name(), retention_ms) {
            subject.insert(&mut egresses, name, Egress { stream_retention_ms });
        }
    }
    egresses
}

fn check_namespaces(resources: &Resources, problems: &mut Problems) {
    fn namespaces<'a, T: ResourceExt + 'a>(of: &'a [Sourced<T>]) -> impl Iterator<Item = String> + 'a {
        of.iter().map(|sourced| sourced.resource.namespace().unwrap_or_default())
    }
    let all: BTreeSet<String> = namespaces(&resources.runtimes)
        .chain(namespaces(&resources.functions))
        .chain(namespaces(&resources.routes))
        .chain(namespaces(&resources.egresses))
        .collect();
    if all.len() > 1 {
        let named = |name: &String| if name.is_empty() { "(none)".to_owned() } else { name.clone() };
        let listed = all.iter().map(named).collect::<Vec<_>>().join(", ");
        let message = format!("the resources are from several namespaces: {listed}");
        problems.add(Problem::new(&codes::SEVERAL_NAMESPACES, "", message));
    }
}

/// Whether some resource of `kind` could not be decoded.
fn undecoded(resources: &Resources, kind: Kind) -> bool {
    resources.undecoded.iter().any(|object| object.kind == kind)
}

/// Collects what is wrong.
#[derive(Debug, Default)]
struct Problems {
    found: Vec<Problem>,
}

impl Problems {
    fn add(&mut self, problem: Problem) {
        self.found.push(problem);
    }
}

/// The resource that is being compiled: problems are about it.
struct Subject<'a, T> {
    object: ObjectName,
    sourced: &'a Sourced<T>,
    problems: &'a mut Problems,
}

impl<'a, T: ResourceExt> Subject<'a, T> {
    fn new(kind: Kind, sourced: &'a Sourced<T>, problems: &'a mut Problems) -> Self {
        let object = ObjectName::new(kind, sourced.resource.name_any());
        Self { object, sourced, problems }
    }

    /// Reports a problem, and hands it out to be made more precise.
    fn problem(&mut self, code: &'static Code, field: &str, message: impl Into<String>) -> &mut Problem {
        let problem = Problem::new(code, &self.object, message).field(field).at(self.sourced.locate(field));
        self.problems.found.push(problem);
        let last = self.problems.found.len() - 1;
        &mut self.problems.found[last]
    }

    /// The resource's own name, checked.
    fn name<N: std::str::FromStr<Err = tandem_model::ids::InvalidName>>(&mut self) -> Option<N> {
        let name = self.object.name.clone();
        self.parse("metadata.name", &name)
    }

    /// A name, checked.
    fn parse<N: std::str::FromStr<Err = tandem_model::ids::InvalidName>>(
        &mut self,
        field: &str,
        name: &str,
    ) -> Option<N> {
        match name.parse() {
            Ok(name) => Some(name),
            Err(error) => {
                self.problem(&codes::INVALID_NAME, field, error.to_string());
                None
            }
        }
    }

    /// A duration in milliseconds, within `allowed`.
    fn duration(&mut self, field: &str, duration: &Duration, allowed: std::ops::RangeInclusive<u64>) -> Option<u64> {
        match duration.milliseconds() {
            Err(error) => {
                self.problem(&codes::INVALID_DURATION, field, error.to_string());
                None
            }
            Ok(milliseconds) if !allowed.contains(&milliseconds) => {
                let [least, most] = [allowed.start(), allowed.end()].map(|bound| Duration::from_milliseconds(*bound));
                let message = format!("{} is {duration}", field.rsplit('.').next().unwrap_or(field));
                self.problem(&codes::DURATION_OUT_OF_BOUNDS, field, message).help =
                    format!("allowed are {least} to {most}");
                None
            }
            Ok(milliseconds) => Some(milliseconds),
        }
    }

    /// A whole number within `allowed`, in the type that the model wants.
    fn number<N: TryFrom<i64>>(
        &mut self,
        field: &str,
        number: i64,
        allowed: std::ops::RangeInclusive<i64>,
    ) -> Option<N> {
        let converted = N::try_from(number).ok().filter(|_| allowed.contains(&number));
        if converted.is_none() {
            let message = format!("{} is {number}", field.rsplit('.').next().unwrap_or(field));
            let help = format!("allowed are {} to {}", allowed.start(), allowed.end());
            self.problem(&codes::LIMIT_OUT_OF_BOUNDS, field, message).help = help;
        }
        converted
    }

    /// Puts the compiled resource into its place, unless another one of its name is there.
    fn insert<N: Ord + std::fmt::Display, V>(&mut self, into: &mut BTreeMap<N, V>, name: N, value: V) {
        if into.contains_key(&name) {
            let message = format!("another {} is named {name}", self.object.kind.name());
            self.problem(&codes::DUPLICATE_OBJECT, "metadata.name", message);
            return;
        }
        into.insert(name, value);
    }
}

/// The function resources by the names that users wrote.
struct FunctionIndex<'a> {
    decoded: HashMap<String, &'a Sourced<Function>>,
    /// Decoded or not: naming one of these is no mistake.
    declared: BTreeSet<String>,
}

impl<'a> FunctionIndex<'a> {
    fn new(resources: &'a Resources) -> Self {
        // Backwards, so that of two with one name the first one stays.
        let functions = resources.functions.iter().rev();
        let decoded: HashMap<_, _> = functions.map(|function| (function.resource.name_any(), function)).collect();
        let undecoded = resources.undecoded.iter().filter(|object| object.kind == Kind::Function);
        let declared = decoded.keys().cloned().chain(undecoded.map(|object| object.name.clone())).collect();
        Self { decoded, declared }
    }

    /// The resource of `name`.
    fn get(&self, name: &FunctionName) -> Option<&'a Sourced<Function>> {
        self.decoded.get(name.as_str()).copied()
    }
}
