//! The demo of the example `orders`: it kills the runtime under load, starts it again, and checks thirteen invariants.

use std::process::{Command, Output};

use super::process::{application, example, said};

/// Enough that dozens of orders are under way when the runtime is killed.
const ORDERS: &str = "400";

fn demo(arguments: &[&str]) -> Output {
    let application = application("orders", "inventory, payment, order, cart, loyalty");
    let mut demo = Command::new(example("orders-demo"));
    demo.args(["--orders", ORDERS, "--tandem", env!("CARGO_BIN_EXE_tandem")]).args(arguments);
    demo.arg("--application").arg(application.path()).arg("--data").arg(application.path().join("demo"));
    demo.output().unwrap()
}

#[test]
fn killed_runtime_loses_nothing_and_doubles_nothing() {
    let ended = demo(&[]);
    let said = said(&ended);
    assert!(ended.status.success(), "{}\n{said}", ended.status);
    for expected in ["killed the runtime at order", ": 0 orders lost, 0 doubled", "all 13 invariants hold"] {
        assert!(said.contains(expected), "no {expected:?} in:\n{said}");
    }
}

/// Otherwise the demo would be satisfied with anything.
#[test]
fn one_missing_cent_is_noticed() {
    let ended = demo(&["--tamper", "money", "--seed", "7"]);
    let said = said(&ended);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    let money = said.lines().find(|line| line.contains("money: initial") && !line.contains("after the fact"));
    assert!(money.is_some_and(|line| !line.trim_end().ends_with(" 0")), "{said}");
    assert!(!said.contains("all 13 invariants hold"), "{said}");
}
