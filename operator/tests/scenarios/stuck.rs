//! Pods that wait for something that is not there, and that the operator has no right to look for.

use std::time::Duration;

use serde_json::json;

use super::support::{Harness, objects};

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_missing_is_named_after_a_while_and_forgotten_when_it_is_there() {
    let harness = Harness::new();
    harness.server.lock().is_mount_missing = true;
    let mut runtime = objects::runtime();
    runtime["spec"]["store"] = json!({"tikv": {"endpoints": ["pd:2379"], "tlsSecretName": "tikv-client"}});
    harness.apply(&runtime);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(
        harness.conditions("functionruntimes", "default"),
        ["Ready=False Starting", "Reconciling=True Starting"]
    );
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(harness.conditions("functionruntimes", "default"), ["Ready=False MountPending"]);
    let status = harness.get("tandem.dev/functionruntimes", "default").unwrap()["status"].clone();
    let message = status["conditions"][0]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("check that these exist: Secret tikv-client, ConfigMap default-"), "{message}");
    // It says the same as long as it lasts.
    harness.settle().await;
    harness.forget_writes();
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(harness.writes(), <[String; 0]>::default());
    harness.server.lock().is_mount_missing = false;
    let place = ("apps/statefulsets".to_owned(), "shop".to_owned(), "default".to_owned());
    let old = harness.server.lock().objects[&place].clone();
    let mut new = old.clone();
    new["status"] = json!({});
    harness.server.store(&place, Some(&old), new);
    harness.settle().await;
    assert_eq!(harness.conditions("functionruntimes", "default"), ["Ready=True Ready"]);
}
