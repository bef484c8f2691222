//! Which specs serve together, and who is to blame for the others.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use serde_json::{Value, json};
use tandem_crds::resources::Kind;

use crate::graph::Accepted;
use crate::graph::evaluate::{Evaluated, Present, evaluate};

fn spec<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

#[derive(Default, Clone)]
struct World(Present);

impl World {
    fn function(mut self, name: &str, value: Value) -> Self {
        self.0.functions.retain(|(known, _)| &**known != name);
        self.0.functions.push((name.into(), spec(value)));
        self
    }

    fn route(mut self, name: &str, path: &str, function: &str) -> Self {
        self.0.routes.retain(|(known, _)| &**known != name);
        let to = json!({"function": function, "handler": "place"});
        let http = json!({"method": "POST", "path": path});
        self.0.routes.push((name.into(), spec(json!({"http": http, "to": to, "key": "'a'"}))));
        self
    }

    fn unreadable(mut self, kind: Kind, name: &str) -> Self {
        self.0.functions.retain(|(known, _)| &**known != name);
        self.0.unreadable.push(((kind, name.into()), "no field image".to_owned()));
        self
    }

    fn after(&self, previous: &Accepted) -> Evaluated {
        evaluate(&self.0, previous)
    }
}

fn shop() -> World {
    World::default().function("order", json!({"image": "order:1"})).route("place", "/orders", "order")
}

fn blamed(evaluated: &Evaluated) -> Vec<String> {
    let all = evaluated.problems.iter().flat_map(|((kind, name), problems)| {
        problems.iter().filter(|problem| problem.is_error()).map(move |p| format!("{} {name} {}", kind.name(), p.code))
    });
    all.collect()
}

fn serving(evaluated: &Evaluated) -> Vec<String> {
    let functions = evaluated.accepted.functions.keys();
    functions.chain(evaluated.accepted.routes.keys()).map(ToString::to_string).collect()
}

#[test]
fn a_bad_object_leaves_the_good_ones() {
    let evaluated = shop().route("nowhere", "/x", "nothing").after(&Accepted::default());
    assert_eq!(blamed(&evaluated), ["FunctionRoute nowhere E104"]);
    assert_eq!(serving(&evaluated), ["order", "place"]);
}

#[test]
fn a_bad_edit_leaves_the_last_good_spec() {
    let good = shop().after(&Accepted::default()).accepted;
    let bad = shop().function("order", json!({"image": "order:2", "retry": {"attempts": 0}})).after(&good);
    assert_eq!(blamed(&bad), ["Function order E114"]);
    assert_eq!(bad.accepted, good);
    assert!(bad.outdated.contains(&(Kind::Function, "order".into())));
    // The same again, as after every change of something else.
    let world = shop().function("order", json!({"image": "order:2", "retry": {"attempts": 0}}));
    assert_eq!(world.after(&bad.accepted), bad);
}

#[test]
fn the_newer_spec_of_two_that_collide_is_to_blame() {
    let world = shop().route("later", "/other", "order");
    let good = world.after(&Accepted::default()).accepted;
    // The older object is edited so that it takes what the newer one has.
    let evaluated = world.route("place", "/other", "order").after(&good);
    assert!(
        blamed(&evaluated).iter().all(|blame| blame.starts_with("FunctionRoute place ")),
        "{:?}",
        evaluated.problems
    );
    assert_eq!(evaluated.accepted, good);
}

#[test]
fn what_depends_on_a_bad_function_says_so() {
    let evaluated =
        shop().function("order", json!({"image": "o", "retry": {"attempts": 0}})).after(&Accepted::default());
    assert_eq!(blamed(&evaluated), ["Function order E114", "FunctionRoute place E104"]);
    let problem = &evaluated.problems[&(Kind::Route, "place".into())][0];
    assert_eq!(problem.message, "Function order has problems itself");
}

#[test]
fn what_cannot_be_read_serves_as_it_was_read_last() {
    let good = shop().after(&Accepted::default()).accepted;
    let evaluated = shop().unreadable(Kind::Function, "order").after(&good);
    assert_eq!(blamed(&evaluated), ["Function order E011"]);
    assert_eq!(evaluated.accepted, good);
}

#[test]
fn stored_state_keeps_its_type() {
    let with =
        |kind: &str| shop().function("order", json!({"image": "o", "states": [{"name": "total", "type": kind}]}));
    let good = with("Integer").after(&Accepted::default()).accepted;
    let evaluated = with("String").after(&good);
    assert_eq!(evaluated.accepted, good);
    assert_eq!(blamed(&evaluated).len(), 1);
}
