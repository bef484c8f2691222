//! Runs the CEL rules of a schema in process, so that `tandem check` refuses what a cluster would refuse.
//!
//! Rules that compare with the stored object (`oldSelf`) need one; without a cluster there is none, so they are left to
//! the API server. What they protect (slots, states) the compiler checks against the previous topology.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use cel::{Context, Program, Value};
use serde_json::Value as Json;

thread_local! {
    /// Rules are those of our own schemas: a handful, each run for every resource.
    static PROGRAMS: RefCell<HashMap<String, Rc<Program>>> = RefCell::default();
}

/// Messages of the rules directly at `schema` that `value` breaks. Rules of its fields are the caller's affair.
pub(crate) fn broken(schema: &Json, value: &Json) -> Vec<String> {
    let rules = schema["x-kubernetes-validations"].as_array();
    rules.into_iter().flatten().filter_map(|rule| broken_one(rule, value, None)).collect()
}

/// The message of `rule` if `value`, which replaces `old`, breaks it. A rule that cannot be run counts as broken, with
/// the reason.
pub(crate) fn broken_one(rule: &Json, value: &Json, old: Option<&Json>) -> Option<String> {
    let source = rule["rule"].as_str().unwrap_or_default();
    if old.is_none() && source.contains("oldSelf") {
        return None;
    }
    match run(source, value, old) {
        Ok(true) => None,
        Ok(false) => Some(rule["message"].as_str().unwrap_or(source).to_owned()),
        Err(error) => Some(format!("the rule {source:?} cannot be evaluated: {error}")),
    }
}

fn run(source: &str, value: &Json, old: Option<&Json>) -> Result<bool, String> {
    let program = program(source)?;
    let mut context = Context::default();
    context.add_variable("self", value).map_err(|error| error.to_string())?;
    if let Some(old) = old {
        context.add_variable("oldSelf", old).map_err(|error| error.to_string())?;
    }
    match program.execute(&context).map_err(|error| error.to_string())? {
        Value::Bool(holds) => Ok(holds),
        other => Err(format!("it gives {}", other.type_of())),
    }
}

fn program(source: &str) -> Result<Rc<Program>, String> {
    PROGRAMS.with_borrow_mut(|programs| {
        if let Some(program) = programs.get(source) {
            return Ok(Rc::clone(program));
        }
        let program = Rc::new(Program::compile(source).map_err(|error| error.to_string())?);
        programs.insert(source.to_owned(), Rc::clone(&program));
        Ok(program)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_on_the_stored_object_needs_one() {
        let rule = serde_json::json!({"rule": "self == oldSelf", "message": "immutable"});
        let (one, two) = (serde_json::json!(1), serde_json::json!(2));
        assert_eq!(broken_one(&rule, &one, None), None);
        assert_eq!(broken_one(&rule, &one, Some(&one)), None);
        assert_eq!(broken_one(&rule, &one, Some(&two)), Some("immutable".to_owned()));
    }
}
