//! From nothing to ready, and back.

use super::support::{Harness, objects};

#[tokio::test(start_paused = true)]
async fn an_application_becomes_ready() {
    let harness = Harness::new();
    for object in objects::shop() {
        harness.apply(&object);
    }
    harness.settle().await;
    assert_eq!(harness.conditions("functionruntimes", "default"), ["Ready=True Ready"]);
    assert_eq!(harness.conditions("functions", "order"), ["Ready=True Ready"]);
    assert_eq!(harness.conditions("functions", "cart"), ["Ready=True Ready"]);
    assert_eq!(harness.conditions("functionroutes", "place"), ["Ready=True Ready"]);
    assert_eq!(harness.conditions("functionegresses", "events"), ["Ready=True Ready"]);
    let status = harness.get("tandem.dev/functionruntimes", "default").unwrap()["status"].clone();
    assert_eq!(status["servingRevision"], status["topologyRevision"]);
    assert_eq!(status["servingRevision"], harness.runtimes.bundle().unwrap().revision());
    let stateful_set = harness.get("apps/statefulsets", "default").unwrap();
    assert_eq!(stateful_set["spec"]["replicas"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_second_reconcile_writes_nothing() {
    let harness = Harness::new();
    for object in objects::shop() {
        harness.apply(&object);
    }
    harness.settle().await;
    harness.forget_writes();
    tokio::time::sleep(std::time::Duration::from_mins(25)).await;
    assert_eq!(harness.writes(), <[String; 0]>::default(), "after two rounds of looking at everything");
    let harness = harness.restart();
    tokio::time::sleep(std::time::Duration::from_mins(1)).await;
    assert_eq!(harness.writes(), <[String; 0]>::default(), "after a restart");
}

#[tokio::test(start_paused = true)]
async fn a_bad_edit_of_a_good_object_changes_nothing_but_its_status() {
    let harness = Harness::new();
    for object in objects::shop() {
        harness.apply(&object);
    }
    harness.settle().await;
    let before = harness.runtimes.bundle().unwrap();
    let mut bad = objects::route("place", "order");
    bad["spec"]["key"] = "1 +".into();
    harness.apply(&bad);
    harness.apply(&objects::route("nowhere", "nothing"));
    harness.settle().await;
    assert_eq!(harness.runtimes.bundle().unwrap().revision(), before.revision());
    assert_eq!(harness.conditions("functionroutes", "place"), ["Ready=True Ready", "Stalled=True Invalid"]);
    assert_eq!(harness.conditions("functionroutes", "nowhere"), ["Ready=False FunctionMissing"]);
    assert_eq!(harness.conditions("functionroutes", "fill"), ["Ready=True Ready"]);
    assert_eq!(harness.conditions("functionruntimes", "default"), ["Ready=True ProblemsElsewhere"]);
    let harness = harness.restart();
    harness.settle().await;
    assert_eq!(harness.conditions("functionroutes", "place"), ["Ready=True Ready", "Stalled=True Invalid"]);
    assert_eq!(harness.runtimes.bundle().unwrap().revision(), before.revision());
    harness.apply(&objects::route("place", "order"));
    harness.settle().await;
    assert_eq!(harness.conditions("functionroutes", "place"), ["Ready=True Ready"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_runs_without_a_runtime_and_of_two_the_older_serves() {
    let harness = Harness::new();
    for object in objects::shop().into_iter().skip(1) {
        harness.apply(&object);
    }
    harness.settle().await;
    assert_eq!(harness.conditions("functions", "order"), ["Ready=False NoRuntime"]);
    assert_eq!(harness.conditions("functionroutes", "place"), ["Ready=False NoRuntime"]);
    harness.apply(&objects::runtime());
    harness.settle().await;
    assert_eq!(harness.conditions("functionroutes", "place"), ["Ready=True Ready"]);
    let mut second = objects::runtime();
    second["metadata"]["name"] = "second".into();
    harness.apply(&second);
    harness.settle().await;
    assert_eq!(harness.conditions("functionruntimes", "default"), ["Ready=True Ready"]);
    assert_eq!(
        harness.conditions("functionruntimes", "second"),
        ["Ready=False AnotherRuntime", "Stalled=True AnotherRuntime"]
    );
    harness.delete(&objects::runtime());
    harness.settle().await;
    assert_eq!(harness.conditions("functionruntimes", "second"), ["Ready=True Ready"]);
    assert_eq!(harness.get("apps/statefulsets", "default"), None);
}

#[tokio::test(start_paused = true)]
async fn what_others_change_is_set_right() {
    let harness = Harness::new();
    for object in objects::shop() {
        harness.apply(&object);
    }
    harness.settle().await;
    let place = ("apps/statefulsets".to_owned(), "shop".to_owned(), "default".to_owned());
    let old = harness.server.lock().objects[&place].clone();
    let mut drifted = old.clone();
    drifted["spec"]["podManagementPolicy"] = "OrderedReady".into();
    drifted["metadata"]["managedFields"] = serde_json::json!([
        {"manager": "kubectl-edit", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}}
    ]);
    harness.server.store(&place, Some(&old), drifted);
    harness.settle().await;
    assert_eq!(harness.get("apps/statefulsets", "default").unwrap()["spec"]["podManagementPolicy"], "Parallel");
    harness.server.remove(&("services".to_owned(), "shop".to_owned(), "default".to_owned()));
    harness.settle().await;
    assert!(harness.get("services", "default").is_some(), "it is made again");
}
