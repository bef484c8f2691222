//! Explanations for people.

use std::fmt::Write;

use super::cycles::Step;
use super::edges::Relation;
use super::orders::Orders;
use super::{Element, Isolation, Operation, Status, Transaction};

/// Elements of a list that are printed; of a longer one, the last so many.
const ELEMENTS_MAX: usize = 12;

/// What a transaction is called.
pub(super) fn name(transaction: usize) -> String {
    format!("T{transaction}")
}

/// A list as people write it.
pub(super) fn list(elements: &[Element]) -> String {
    let shown = &elements[elements.len().saturating_sub(ELEMENTS_MAX)..];
    let words: Vec<String> = shown.iter().map(Element::to_string).collect();
    let cut = if shown.len() < elements.len() { "..., " } else { "" };
    format!("[{cut}{}]", words.join(", "))
}

/// A whole circle: why each must come before the next, and who they are.
pub(super) fn circle(history: &[Transaction], orders: &Orders<'_>, steps: &[Step]) -> String {
    let mut text = String::from("a circle:");
    for step in steps {
        let _ = write!(text, "\n  {} before {}: {}", name(step.from), name(step.to), because(history, orders, step));
    }
    for step in steps {
        let _ = write!(text, "\n  {}", transaction(step.from, &history[step.from]));
    }
    text
}

fn because(history: &[Transaction], orders: &Orders<'_>, step: &Step) -> String {
    let (from, to) = (name(step.from), name(step.to));
    let list_name = orders.lists.get(step.key).map_or("", |versions| versions.name);
    let element = step.element;
    match step.relation {
        Relation::Follows => format!("{to} appended {element} to {list_name} behind what {from} had appended"),
        Relation::Sees => format!("{to} saw {element} in {list_name}, which {from} had appended"),
        Relation::Misses => format!("{from} did not see {element} in {list_name}, which {to} appended"),
        Relation::Process => format!("process {} did {from} first, then {to}", history[step.from].process),
        Relation::Time => {
            let (completed, invoked) = (history[step.from].completed, history[step.to].invoked);
            format!("{from} was answered (at {completed}) before {to} was asked for (at {invoked})")
        }
        Relation::Same => String::new(),
    }
}

fn transaction(place: usize, content: &Transaction) -> String {
    let mut text = format!("{}:", name(place));
    for operation in &content.operations {
        let _ = match operation {
            Operation::Append { key, element } => write!(text, " append({key}, {element})"),
            Operation::Read { key, elements } => write!(text, " read({key}) = {}", list(elements)),
        };
    }
    let end = match content.status {
        Status::Committed => content.completed.to_string(),
        Status::Aborted => format!("{}, aborted", content.completed),
        Status::Unknown => "unknown".to_owned(),
    };
    let _ = write!(text, "; process {}, {} to {end}", content.process, content.invoked);
    if content.isolation == Isolation::Snapshot {
        text.push_str(", of snapshot isolation");
    }
    text
}
