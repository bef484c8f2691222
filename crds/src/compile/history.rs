//! What stored data cannot follow: the new topology against the one that runs now.

use tandem_model::ids::FunctionName;
use tandem_model::topology::{Function, Topology, ValueType};

use crate::codes;
use crate::compile::{Problems, Subject, function_resource};
use crate::load::Resources;
use crate::problem::{ObjectName, Problem};
use crate::resources::Kind;

pub(super) fn check(resources: &Resources, next: &Topology, previous: &Topology, problems: &mut Problems) {
    if next.slots != previous.slots {
        let (from, to) = (previous.slots.get(), next.slots.get());
        let message = format!("slots changes from {from} to {to}; nothing that is stored would be found again");
        match resources.runtimes.first() {
            Some(runtime) => {
                Subject::new(Kind::Runtime, runtime, problems).problem(&codes::SLOTS_CHANGED, "spec.slots", message);
            }
            None => problems.add(Problem::new(&codes::SLOTS_CHANGED, "", message)),
        }
    }
    for (name, before) in &previous.functions {
        match (next.functions.get(name), function_resource(resources, name)) {
            (Some(after), Some(resource)) => {
                let mut subject = Subject::new(Kind::Function, resource, problems);
                check_states(&mut subject, before, after);
            }
            _ => check_removed(resources, name, before, problems),
        }
    }
}

fn check_removed(resources: &Resources, name: &FunctionName, before: &Function, problems: &mut Problems) {
    let object = ObjectName::new(Kind::Function, name.as_str());
    let has_states = before.states.as_ref().is_some_and(|states| !states.is_empty());
    if has_states && !resources.undecoded.contains(&object) {
        let message = "the function is no longer declared; what it stored stays, and nobody can reach it";
        problems.add(Problem::new(&codes::STATE_REMOVED, object, message));
    }
}

fn check_states(subject: &mut Subject<'_, crate::resources::Function>, before: &Function, after: &Function) {
    let (Some(before), Some(after)) = (&before.states, &after.states) else { return };
    let declared = subject.sourced.resource.spec.states.as_deref().unwrap_or_default();
    for (name, old) in before {
        let Some(new) = after.get(name) else {
            if !subject.sourced.damaged {
                subject.problem(
                    &codes::STATE_REMOVED,
                    "spec.states",
                    format!("state \"{name}\" is no longer declared"),
                );
            }
            continue;
        };
        let index = declared.iter().position(|state| state.name == name.as_str()).unwrap_or_default();
        if new.kind != old.kind {
            let message = format!("state \"{name}\" changes from {:?} to {:?}", old.kind, new.kind);
            subject.problem(&codes::STATE_CHANGED, &format!("spec.states[{index}].kind"), message);
        }
        if new.value_type != old.value_type && new.value_type != ValueType::Any {
            let message = format!("state \"{name}\" changes from {:?} to {:?}", old.value_type, new.value_type);
            subject.problem(&codes::STATE_CHANGED, &format!("spec.states[{index}].type"), message);
        }
    }
}
