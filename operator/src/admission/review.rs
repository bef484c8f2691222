//! What is said about a change of a resource: let in or not, and what it would do. Pure.
//!
//! Resources may arrive in any order, so what another resource can still mend is no reason to refuse: a route whose
//! function is not there yet is let in with a warning. Refused is what only another edit of the resource itself can mend.

use std::collections::BTreeSet;
use std::sync::Arc;

use tandem_crds::codes::{self, Code};
use tandem_crds::problem::Problem;
use tandem_crds::resources::function::DeletionPolicy;
use tandem_crds::resources::{FunctionEgressSpec, FunctionRouteSpec, FunctionRuntimeSpec, FunctionSpec, Kind};

use crate::functions::revision::revision;
use crate::graph::evaluate::{Evaluated, Present, evaluate};
use crate::graph::{Accepted, Name};
use crate::key::Text;

/// Most warnings; the API server cuts more off.
const WARNINGS_MAX: usize = 16;
/// Longest warning, in characters; the API server cuts longer ones off.
const WARNING_CHARACTERS_MAX: usize = 256;
/// What another resource can mend.
static MENDED_ELSEWHERE: [&Code; 6] = [
    &codes::AMBIGUOUS_ROUTE,
    &codes::NO_FUNCTIONS,
    &codes::SEVERAL_RUNTIMES,
    &codes::UNKNOWN_CALLER,
    &codes::UNKNOWN_FUNCTION,
    &codes::UNKNOWN_HANDLER,
];

/// A spec of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    /// Of a `FunctionRuntime`.
    Runtime(Arc<FunctionRuntimeSpec>),
    /// Of a `Function`.
    Function(Arc<FunctionSpec>),
    /// Of a `FunctionRoute`.
    Route(Arc<FunctionRouteSpec>),
    /// Of a `FunctionEgress`.
    Egress(Arc<FunctionEgressSpec>),
}

/// A change that somebody wants to make.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The name of the resource.
    pub name: Text,
    /// What it was. Nothing if it is new.
    pub before: Option<Spec>,
    /// What it will be. Nothing if it is deleted.
    pub after: Option<Spec>,
    /// Whether it is only a question.
    pub dry_run: bool,
}

/// What the API server is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why it is not let in.
    pub refusal: Option<String>,
    /// What its user should know.
    pub warnings: Vec<String>,
}

impl Spec {
    fn kind(&self) -> Kind {
        match self {
            Self::Runtime(_) => Kind::Runtime,
            Self::Function(_) => Kind::Function,
            Self::Route(_) => Kind::Route,
            Self::Egress(_) => Kind::Egress,
        }
    }
}

/// What a change of what is `present` does, when `serving` is what serves now.
pub fn review(present: &Present, serving: &Accepted, change: &Change) -> Verdict {
    let Some(spec) = change.after.as_ref().or(change.before.as_ref()) else { return Verdict::default() };
    let own: Name = (spec.kind(), change.name.clone());
    let before = evaluate(present, serving);
    let after = evaluate(&changed(present, &own, change.after.as_ref()), serving);
    let mut verdict = Verdict::default();
    let errors = problems(&after, &own).filter(|problem| problem.is_error());
    let (later, now): (Vec<&Problem>, Vec<&Problem>) =
        errors.partition(|problem| MENDED_ELSEWHERE.iter().any(|code| code.code == problem.code));
    if change.after.is_some() && !now.is_empty() {
        verdict.refusal = Some(now.iter().map(|problem| line(problem)).collect::<Vec<_>>().join("\n"));
        return verdict;
    }
    let mut warnings: Vec<String> =
        later.into_iter().map(|problem| format!("not served yet: {}", line(problem))).collect();
    warnings.extend(problems(&after, &own).filter(|problem| !problem.is_error()).map(line));
    warnings.extend(
        harmed(&before, &after, &own)
            .map(|(name, problem)| format!("{} {} would be served no more: {}", name.0.name(), name.1, line(problem))),
    );
    warnings.extend(plan(change));
    verdict.warnings = warnings.iter().take(WARNINGS_MAX).map(|text| cut(text)).collect();
    verdict
}

fn problems<'a>(evaluated: &'a Evaluated, name: &Name) -> impl Iterator<Item = &'a Problem> {
    evaluated.problems.get(name).into_iter().flatten()
}

/// What is wrong with others that was not wrong with them before.
fn harmed<'a>(
    before: &'a Evaluated,
    after: &'a Evaluated,
    own: &'a Name,
) -> impl Iterator<Item = (&'a Name, &'a Problem)> {
    let others = after.problems.iter().filter(move |(name, _)| *name != own);
    let all = others.flat_map(|(name, problems)| problems.iter().map(move |problem| (name, problem)));
    all.filter(|(name, problem)| problem.is_error() && !problems(before, name).any(|known| known == *problem))
}

fn changed(present: &Present, (kind, name): &Name, after: Option<&Spec>) -> Present {
    let mut present = present.clone();
    present.unreadable.retain(|(other, _)| other != &(*kind, name.clone()));
    match (kind, after) {
        (Kind::Runtime, Some(Spec::Runtime(spec))) => present.runtime = Some((name.clone(), Arc::clone(spec))),
        (Kind::Function, Some(Spec::Function(spec))) => put(&mut present.functions, name, Some(spec)),
        (Kind::Route, Some(Spec::Route(spec))) => put(&mut present.routes, name, Some(spec)),
        (Kind::Egress, Some(Spec::Egress(spec))) => put(&mut present.egresses, name, Some(spec)),
        (Kind::Runtime, _) => present.runtime = present.runtime.filter(|(runtime, _)| runtime != name),
        (Kind::Function, _) => put(&mut present.functions, name, None),
        (Kind::Route, _) => put(&mut present.routes, name, None),
        (Kind::Egress, _) => put(&mut present.egresses, name, None),
    }
    present
}

fn put<S>(specs: &mut Vec<(Text, Arc<S>)>, name: &Text, spec: Option<&Arc<S>>) {
    let place = specs.iter().position(|(other, _)| other == name);
    match (place, spec) {
        (Some(place), Some(spec)) => specs[place].1 = Arc::clone(spec),
        (Some(place), None) => drop(specs.remove(place)),
        (None, Some(spec)) => specs.push((name.clone(), Arc::clone(spec))),
        (None, None) => {}
    }
}

/// What would be done, for those who only ask; what cannot be undone, for all.
fn plan(change: &Change) -> BTreeSet<String> {
    let mut plan = BTreeSet::new();
    match (&change.before, &change.after) {
        (Some(Spec::Function(before)), None) if before.deletion_policy == DeletionPolicy::Delete => {
            let message = "stays until its runtime goes with its own: deletionPolicy of a Function is not acted on";
            plan.insert(format!("the state of function {} {message}", change.name));
        }
        (Some(Spec::Runtime(before)), None) if before.deletion_policy == DeletionPolicy::Delete => {
            plan.insert(format!("everything that runtime {} has stored is deleted with it", change.name));
        }
        (before, Some(Spec::Function(after))) if change.dry_run => {
            let before = before.as_ref().and_then(|before| match before {
                Spec::Function(spec) => revision(spec),
                _ => None,
            });
            plan.extend(plan_of_function(before, after));
        }
        (Some(Spec::Runtime(before)), Some(Spec::Runtime(after))) if change.dry_run && before.image != after.image => {
            plan.insert("every pod of the runtime would be replaced, one after the other".to_owned());
        }
        _ => {}
    }
    plan
}

fn plan_of_function(before: Option<String>, after: &FunctionSpec) -> Option<String> {
    let new = revision(after)?;
    match before {
        Some(old) if old == new => Some(format!("revision {new} would stay; no pod would be replaced")),
        Some(old) => {
            let steps = after.rollout.as_ref().map(|rollout| rollout.steps.as_slice()).unwrap_or_default();
            let steps: Vec<String> = steps.iter().chain(&[100]).map(|step| format!("{step} %")).collect();
            Some(format!("revision {new} would take over from {old}: {}", steps.join(", ")))
        }
        None => Some(format!("revision {new} would be started with {} pods", after.replicas)),
    }
}

fn line(problem: &Problem) -> String {
    let field = if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
    format!("{}: {field}{}; {}", problem.code, problem.message, problem.help)
}

fn cut(text: &str) -> String {
    text.chars().take(WARNING_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use tandem_crds::load::load_text;

    use super::*;

    const FUNCTION: &str =
        "kind: Function\nmetadata: {name: order}\nspec: {image: 'shop/order:1', handlers: [{name: place}]}";
    const ROUTE: &str = "kind: FunctionRoute\nmetadata: {name: place}\n\
                         spec: {http: {method: POST, path: '/o/{id}'}, to: {function: order, handler: place}, key: request.path.id}";

    fn spec(text: &str) -> Spec {
        let mut loaded = load_text("test", &format!("apiVersion: tandem.dev/v1alpha1\n{text}\n")).resources;
        let function = loaded.functions.pop().map(|one| Spec::Function(Arc::new(one.resource.spec)));
        let route = loaded.routes.pop().map(|one| Spec::Route(Arc::new(one.resource.spec)));
        let runtime = loaded.runtimes.pop().map(|one| Spec::Runtime(Arc::new(one.resource.spec)));
        function.or(route).or(runtime).expect("it is one")
    }

    fn present(texts: &[&str]) -> Present {
        let mut present = Present::default();
        for text in texts {
            match spec(text) {
                Spec::Function(spec) => present.functions.push(("order".into(), spec)),
                Spec::Route(spec) => present.routes.push(("place".into(), spec)),
                Spec::Runtime(spec) => present.runtime = Some(("main".into(), spec)),
                Spec::Egress(_) => {}
            }
        }
        present
    }

    fn change(name: &str, before: Option<&str>, after: Option<&str>) -> Change {
        Change { name: name.into(), before: before.map(spec), after: after.map(spec), dry_run: false }
    }

    fn reviewed(texts: &[&str], change: &Change) -> Verdict {
        let present = present(texts);
        let serving = evaluate(&present, &Accepted::default()).accepted;
        review(&present, &serving, change)
    }

    #[test]
    fn what_is_right_is_let_in_without_a_word() {
        assert_eq!(reviewed(&[FUNCTION], &change("place", None, Some(ROUTE))), Verdict::default());
    }

    #[test]
    fn what_another_resource_can_mend_is_let_in_with_a_warning() {
        let verdict = reviewed(&[], &change("place", None, Some(ROUTE)));
        assert_eq!(verdict.refusal, None);
        assert!(verdict.warnings.iter().any(|warning| warning.starts_with("not served yet: E104")), "{verdict:?}");
    }

    #[test]
    fn what_only_an_edit_can_mend_is_refused() {
        let wrong = ROUTE.replace("request.path.id", "request.path.nobody");
        let verdict = reviewed(&[FUNCTION], &change("place", None, Some(&wrong)));
        assert!(verdict.refusal.as_ref().is_some_and(|refusal| refusal.contains("E110")), "{verdict:?}");
    }

    #[test]
    fn those_who_would_be_harmed_are_named() {
        let verdict = reviewed(&[FUNCTION, ROUTE], &change("order", Some(FUNCTION), None));
        assert_eq!(verdict.refusal, None, "it may be deleted");
        let warning = verdict.warnings.first().expect("there is one");
        assert!(warning.starts_with("FunctionRoute place would be served no more: E104"), "{warning}");
        let renamed = FUNCTION.replace("name: place", "name: other");
        let verdict = reviewed(&[FUNCTION, ROUTE], &change("order", Some(FUNCTION), Some(&renamed)));
        assert!(verdict.warnings.iter().any(|warning| warning.contains("E105")), "{verdict:?}");
    }

    #[test]
    fn what_becomes_of_state_is_said_to_all() {
        let runtime = "kind: FunctionRuntime\nmetadata: {name: main}\nspec: {deletionPolicy: Delete}";
        let verdict = reviewed(&[runtime], &change("main", Some(runtime), None));
        assert_eq!(verdict.warnings, ["everything that runtime main has stored is deleted with it"]);
        let delete = FUNCTION.replace("image:", "deletionPolicy: Delete, image:");
        let verdict = reviewed(&[&delete], &change("order", Some(&delete), None));
        let [warning] = verdict.warnings.as_slice() else { panic!("{verdict:?}") };
        assert!(warning.starts_with("the state of function order stays"), "{warning}");
        let verdict = reviewed(&[], &change("order", None, Some(&delete)));
        assert_eq!(verdict.refusal, None);
        assert!(verdict.warnings.iter().any(|warning| warning.starts_with("W206: spec.deletionPolicy")), "{verdict:?}");
    }

    #[test]
    fn a_dry_run_tells_the_plan() {
        let newer = FUNCTION.replace("order:1'", "order:2', rollout: {steps: [10, 50]}");
        let plan = |before: Option<&str>, after: &str| {
            let change = Change { dry_run: true, ..change("order", before, Some(after)) };
            reviewed(before.as_slice(), &change).warnings
        };
        assert!(plan(None, FUNCTION)[0].contains("would be started with 1 pods"), "{:?}", plan(None, FUNCTION));
        let told = plan(Some(FUNCTION), &newer);
        assert!(told[0].contains("would take over from") && told[0].ends_with("10 %, 50 %, 100 %"), "{told:?}");
        assert!(plan(Some(FUNCTION), FUNCTION)[0].contains("no pod would be replaced"));
        let quiet = change("order", Some(FUNCTION), Some(&newer));
        assert_eq!(reviewed(&[FUNCTION], &quiet), Verdict::default());
    }
}
