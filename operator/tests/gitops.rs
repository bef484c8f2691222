//! The statuses that health checks for Argo CD and Flux are tested with are statuses that the operator writes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::path::Path;

use tandem_operator::reasons::{Effect, Reason};

#[test]
fn reasons_of_the_samples_are_those_of_the_operator() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/gitops/testdata/statuses.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let conditions: Vec<&str> = text.lines().filter(|line| line.contains("- {type: ")).collect();
    let mut seen = BTreeSet::new();
    for condition in conditions {
        let field = |name: &str| condition.split_once(name).unwrap().1.split([',', '}']).next().unwrap();
        let (type_, holds, name) = (field("type: "), field("status: ") == "\"True\"", field("reason: "));
        let reason = Reason::named(name);
        assert!(reason.is_some(), "no reason of the operator is called {name}");
        let effect = reason.unwrap().effect;
        let fits = !holds
            || match type_ {
                "Ready" => effect == Effect::Ready,
                "Reconciling" => effect == Effect::Moving,
                "Stalled" => effect == Effect::Stalled,
                _ => false,
            };
        assert!(fits, "the operator never writes {type_}=True with the reason {name}");
        seen.insert(name);
    }
    assert!(seen.len() >= 6, "only {seen:?} were looked at");
}
