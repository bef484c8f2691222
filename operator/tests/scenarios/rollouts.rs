//! A new revision takes over, or does not.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::{Harness, objects};

fn stepwise(image: &str) -> Value {
    let mut function = objects::function("order", image);
    function["spec"]["rollout"] =
        json!({"steps": [10, 50], "stepDuration": "30s", "failurePercentMax": 5, "requestsMin": 20});
    function
}

async fn started() -> (Harness, String) {
    let harness = Harness::new();
    for object in [objects::runtime(), stepwise("order:1"), objects::route("place", "order")] {
        harness.apply(&object);
    }
    harness.settle().await;
    let active = status(&harness)["activeRevision"].as_str().unwrap().to_owned();
    (harness, active)
}

fn status(harness: &Harness) -> Value {
    harness.get("tandem.dev/functions", "order").unwrap()["status"].clone()
}

/// The weights that the runtimes were told, the newest revision last.
fn weights(harness: &Harness, old: &str) -> Vec<u32> {
    let bundle = harness.runtimes.bundle().unwrap();
    let mut revisions = bundle.workers()["order"].clone();
    revisions.sort_by_key(|one| one.revision != old);
    revisions.iter().map(|one| one.weight).collect()
}

#[tokio::test(start_paused = true)]
async fn a_revision_takes_over_step_by_step() {
    let (harness, old) = started().await;
    harness.apply(&stepwise("order:2"));
    let mut seen = Vec::new();
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = weights(&harness, &old);
        if seen.last() != Some(&now) {
            seen.push(now);
        }
    }
    let tail: Vec<_> = seen.iter().skip_while(|weights| **weights != [90, 10]).cloned().collect();
    assert_eq!(tail, [vec![90, 10], vec![50, 50], vec![0, 100], vec![100]], "{seen:?}");
    assert_ne!(status(&harness)["activeRevision"], old.as_str());
    assert_eq!(harness.conditions("functions", "order"), ["Ready=True Ready"]);
    let deployments = harness.server.lock().objects.keys().filter(|place| place.0 == "apps/deployments").count();
    assert_eq!(deployments, 1, "the old workers are gone");
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_fails_is_rolled_back() {
    let (harness, old) = started().await;
    harness.apply(&stepwise("order:2"));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let new =
        status(&harness)["revisions"].as_array().unwrap().iter().find(|one| one["revision"] != old.as_str()).cloned();
    let new = new.unwrap()["revision"].as_str().unwrap().to_owned();
    assert_eq!(weights(&harness, &old), [90, 10]);
    harness.runtimes.counts.lock().unwrap().insert(new.clone(), (40, 10));
    harness.settle().await;
    assert_eq!(weights(&harness, &old), [100]);
    assert_eq!(harness.conditions("functions", "order"), ["Ready=True PreviousRevision", "Stalled=True RolloutFailed"]);
    let harness = harness.restart();
    harness.settle().await;
    assert_eq!(weights(&harness, &old), [100], "it is not tried again");
    harness.apply(&stepwise("order:3"));
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(harness.conditions("functions", "order"), ["Ready=True Ready"]);
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_nobody_shakes_hands_with_gets_no_flows() {
    let (harness, old) = started().await;
    let spec: tandem_crds::resources::FunctionSpec =
        serde_json::from_value(stepwise("order:2")["spec"].clone()).unwrap();
    let new = tandem_operator::functions::revision::revision(&spec).unwrap();
    harness.runtimes.unreachable.lock().unwrap().push(new);
    harness.apply(&stepwise("order:2"));
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(weights(&harness, &old), [100, 0]);
    assert_eq!(
        harness.conditions("functions", "order"),
        ["Ready=True PreviousRevision", "Reconciling=True HandshakePending"]
    );
    // The edit is taken back: the old revision was never out of service.
    harness.apply(&stepwise("order:1"));
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(weights(&harness, &old), [100]);
    assert_eq!(harness.conditions("functions", "order"), ["Ready=True Ready"]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_the_middle_goes_on_where_it_was() {
    let (harness, old) = started().await;
    harness.apply(&stepwise("order:2"));
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(weights(&harness, &old), [50, 50]);
    let harness = harness.restart();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(weights(&harness, &old), [50, 50]);
}

/// So many objects of a kind are there.
fn count(harness: &Harness, kind: &str) -> usize {
    harness.server.lock().objects.keys().filter(|(of, ..)| of == kind).count()
}

#[tokio::test(start_paused = true)]
async fn each_revision_with_several_workers_has_a_budget_as_long_as_it_is_alive() {
    const BUDGETS: &str = "policy/poddisruptionbudgets";
    let two = |image: &str| {
        let mut function = stepwise(image);
        function["spec"]["replicas"] = 2.into();
        function
    };
    let (harness, _) = started().await;
    assert_eq!(count(&harness, BUDGETS), 1, "that of the runtime");
    harness.apply(&two("order:1"));
    harness.settle().await;
    assert_eq!(count(&harness, BUDGETS), 2);
    harness.apply(&two("order:2"));
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!((count(&harness, "apps/deployments"), count(&harness, BUDGETS)), (2, 3), "in the middle of a rollout");
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!((count(&harness, "apps/deployments"), count(&harness, BUDGETS)), (1, 2));
    harness.apply(&stepwise("order:2"));
    harness.settle().await;
    assert_eq!(count(&harness, BUDGETS), 1, "one worker alone is not kept back");
}

#[tokio::test(start_paused = true)]
async fn state_that_stays_in_spite_of_the_deletion_policy_is_spoken_of() {
    let (harness, _) = started().await;
    let message = || status(&harness)["conditions"][0]["message"].as_str().unwrap_or_default().to_owned();
    assert!(!message().contains("deletionPolicy"), "{}", message());
    let mut function = stepwise("order:1");
    function["spec"]["deletionPolicy"] = "Delete".into();
    harness.apply(&function);
    harness.settle().await;
    assert_eq!(harness.conditions("functions", "order"), ["Ready=True Ready"]);
    assert!(message().contains("stays when it is deleted"), "{}", message());
}
