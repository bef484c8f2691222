//! What stored data cannot follow: the new topology against the one that runs now.

use tandem_model::ids::FunctionName;
use tandem_model::topology::{Function, Topology, ValueType};

use crate::codes;
use crate::compile::{FunctionIndex, Problems, Subject};
use crate::load::Sourced;
use crate::problem::{ObjectName, Problem};
use crate::resources::{FunctionRuntime, Kind};

/// What is compared.
pub(super) struct Comparison<'a> {
    pub(super) index: &'a FunctionIndex<'a>,
    pub(super) runtime: Option<&'a Sourced<FunctionRuntime>>,
    pub(super) next: &'a Topology,
    pub(super) previous: &'a Topology,
}

impl Comparison<'_> {
    pub(super) fn check(&self, problems: &mut Problems) {
        self.check_slots(problems);
        for (name, before) in &self.previous.functions {
            match (self.next.functions.get(name), self.index.get(name)) {
                (Some(after), Some(resource)) => {
                    check_states(&mut Subject::new(Kind::Function, resource, problems), before, after);
                }
                _ => self.check_removed(name, before, problems),
            }
        }
    }

    fn check_slots(&self, problems: &mut Problems) {
        let (from, to) = (self.previous.slots.get(), self.next.slots.get());
        if from == to {
            return;
        }
        let message = format!("slots changes from {from} to {to}; nothing that is stored would be found again");
        match self.runtime {
            Some(runtime) => {
                Subject::new(Kind::Runtime, runtime, problems).problem(&codes::SLOTS_CHANGED, "spec.slots", message);
            }
            None => problems.add(Problem::new(&codes::SLOTS_CHANGED, "", message)),
        }
    }

    fn check_removed(&self, name: &FunctionName, before: &Function, problems: &mut Problems) {
        let has_states = before.states.as_ref().is_some_and(|states| !states.is_empty());
        if has_states && !self.index.declared.contains(name.as_str()) {
            let object = ObjectName::new(Kind::Function, name.as_str());
            let message = "the function is no longer declared; what it stored stays, and nobody can reach it";
            problems.add(Problem::new(&codes::STATE_REMOVED, object, message));
        }
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
