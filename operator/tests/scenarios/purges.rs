//! What is stored goes with its runtime where the policy says so, and stays everywhere else.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::{ApiServer, Harness, objects};

const RUNTIMES: &str = "tandem.dev/functionruntimes";
const JOB: (&str, &str) = ("batch/jobs", "default-purge");

/// A runtime on TiKV whose state goes with it.
fn runtime() -> Value {
    let mut runtime = objects::runtime();
    runtime["spec"]["deletionPolicy"] = "Delete".into();
    runtime
}

/// A runtime on a volume whose state goes with it.
fn on_volume() -> Value {
    let mut runtime = runtime();
    runtime["spec"]["store"] = json!({"embedded": {"volume": {"size": "1Gi"}}});
    runtime["spec"]["replicas"] = 1.into();
    runtime
}

async fn running(harness: &Harness, runtime: &Value) {
    harness.apply(runtime);
    for object in objects::shop().into_iter().skip(1) {
        harness.apply(&object);
    }
    harness.settle().await;
    assert_eq!(harness.conditions("functionruntimes", "default"), ["Ready=True Ready"]);
}

fn claim_place(name: &str) -> (String, String, String) {
    ("persistentvolumeclaims".to_owned(), "shop".to_owned(), name.to_owned())
}

/// What the controller of StatefulSets makes.
fn claim(harness: &Harness, owner: &str) {
    let labels = json!({"app.kubernetes.io/instance": owner, "app.kubernetes.io/name": "tandem-runtime"});
    let metadata = json!({"name": "data-default-0", "namespace": "shop", "labels": labels});
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata});
    harness.server.store(&claim_place("data-default-0"), None, claim);
}

/// Positions in what the operator wrote.
fn order(writes: &[String], wanted: &[&str]) -> Vec<usize> {
    let at = |wanted: &&str| writes.iter().position(|write| write.contains(*wanted));
    wanted.iter().map(|one| at(one).unwrap_or_else(|| panic!("{one} is not among {writes:#?}"))).collect()
}

#[tokio::test(start_paused = true)]
async fn pods_end_then_a_job_purges_then_the_runtime_is_gone() {
    let harness = Harness::new();
    running(&harness, &runtime()).await;
    let held = harness.get(RUNTIMES, "default").unwrap();
    assert_eq!(held["metadata"]["finalizers"], json!(["tandem.dev/state"]));
    harness.forget_writes();
    harness.delete(&runtime());
    harness.settle().await;
    assert_eq!(harness.get(RUNTIMES, "default"), None);
    assert_eq!(harness.get(JOB.0, JOB.1), None, "it has done its work");
    let left: Vec<_> =
        harness.server.lock().objects.keys().filter(|place| place.0 != "events.k8s.io/events").cloned().collect();
    let is_of_runtime = |place: &&(String, String, String)| place.2.starts_with("default");
    assert_eq!(left.iter().find(is_of_runtime), None, "nothing of it is left");
    let writes = harness.writes();
    let steps = ["DELETE apps/statefulsets", "PATCH batch/jobs", "PATCH tandem.dev/functionruntimes shop/default"];
    assert!(order(&writes, &steps).is_sorted(), "{writes:#?}");
    harness.apply(&runtime());
    harness.settle().await;
    assert_eq!(harness.conditions("functionruntimes", "default"), ["Ready=True Ready"], "it can be made anew");
}

#[tokio::test(start_paused = true)]
async fn without_the_policy_there_is_neither_finalizer_nor_job() {
    let harness = Harness::new();
    running(&harness, &objects::runtime()).await;
    assert_eq!(harness.get(RUNTIMES, "default").unwrap()["metadata"].get("finalizers"), None);
    harness.delete(&objects::runtime());
    harness.settle().await;
    assert_eq!(harness.get(RUNTIMES, "default"), None);
    assert!(!harness.writes().iter().any(|write| write.contains("jobs") || write.contains("persistentvolumeclaims")));
}

#[tokio::test(start_paused = true)]
async fn a_purge_that_fails_is_named_and_goes_on_when_it_can() {
    let harness = Harness::new();
    running(&harness, &runtime()).await;
    let said = "looking\nerror: failed to reach the TiKV at pd:2379, prefix shop/default\n";
    harness.server.lock().purge_fails = Some((1, said.to_owned()));
    harness.delete(&runtime());
    harness.settle().await;
    assert_eq!(harness.conditions("functionruntimes", "default"), ["Ready=False PurgeFailed"]);
    let status = harness.get(RUNTIMES, "default").unwrap()["status"].clone();
    let message = status["conditions"][0]["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("error: failed to reach the TiKV at pd:2379, prefix shop/default; "), "{message}");
    assert!(message.contains("tandem.dev/state"), "{message}");
    harness.server.lock().purge_fails = None;
    let place = (JOB.0.to_owned(), "shop".to_owned(), JOB.1.to_owned());
    let job = harness.server.lock().objects[&place].clone();
    super::support::pods::run_job(&harness.server, &place, &job);
    harness.settle().await;
    assert_eq!(harness.get(RUNTIMES, "default"), None);
}

#[tokio::test(start_paused = true)]
async fn the_policy_can_be_changed_to_the_last_moment() {
    let harness = Harness::new();
    running(&harness, &runtime()).await;
    harness.apply(&objects::runtime());
    harness.settle().await;
    let finalizers = harness.get(RUNTIMES, "default").unwrap()["metadata"]["finalizers"].clone();
    assert!(finalizers.as_array().is_none_or(Vec::is_empty), "{finalizers}");
    harness.apply(&runtime());
    harness.settle().await;
    harness.server.lock().purge_fails = Some((3, "error: runtimes are alive".to_owned()));
    harness.delete(&runtime());
    harness.settle().await;
    assert!(harness.get(RUNTIMES, "default").is_some());
    harness.apply(&objects::runtime());
    harness.settle().await;
    assert_eq!(harness.get(RUNTIMES, "default"), None, "it keeps its state, and goes");
}

#[tokio::test(start_paused = true)]
async fn a_job_of_an_earlier_runtime_of_that_name_does_not_count() {
    let harness = Harness::new();
    running(&harness, &runtime()).await;
    let mut stale = json!({
        "apiVersion": "batch/v1", "kind": "Job", "status": {"succeeded": 1}, "spec": {"template": {"metadata": {}}},
        "metadata": {"name": JOB.1, "namespace": "shop", "ownerReferences": [{"uid": "uid-of-old"}], "labels": {
            "app.kubernetes.io/managed-by": "tandem-operator", "tandem.dev/runtime": "default",
        }},
    });
    stale["metadata"]["annotations"]["tandem.dev/applied"] = "0123456789abcdef".into();
    let place = (JOB.0.to_owned(), "shop".to_owned(), JOB.1.to_owned());
    harness.server.lock().fault =
        Some(Box::new(|call| (call.is_write() && call.resource == "batch/jobs").then_some(503)));
    harness.delete(&runtime());
    harness.server.store(&place, None, stale);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(harness.get(RUNTIMES, "default").is_some(), "it has taken the old Job for its own");
    harness.server.lock().fault = None;
    tokio::time::sleep(Duration::from_mins(10)).await;
    harness.settle().await;
    assert_eq!(harness.get(RUNTIMES, "default"), None);
    let writes = harness.writes();
    assert!(order(&writes, &["DELETE batch/jobs", "PATCH batch/jobs"]).is_sorted(), "{writes:#?}");
}

#[tokio::test(start_paused = true)]
async fn children_that_are_deleted_before_their_runtime_do_not_hold_up_a_purge() {
    let harness = Harness::new();
    running(&harness, &runtime()).await;
    harness.delete(&runtime());
    // What the garbage collector does with `--cascade=foreground`: whatever has the resource as its owner goes, at any time.
    for _ in 0..20 {
        let uid = harness.get(RUNTIMES, "default").map(|runtime| runtime["metadata"]["uid"].clone());
        let owned: Vec<_> = {
            let state = harness.server.lock();
            let is_owned = |child: &Value| Some(&child["metadata"]["ownerReferences"][0]["uid"]) == uid.as_ref();
            state.objects.iter().filter(|(_, child)| is_owned(child)).map(|(place, _)| place.clone()).collect()
        };
        for place in owned {
            harness.server.remove(&place);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    harness.settle().await;
    assert_eq!(harness.get(RUNTIMES, "default"), None);
    assert!(harness.writes().iter().any(|write| write.starts_with("PATCH batch/jobs")));
}

#[tokio::test(start_paused = true)]
async fn a_finalizer_that_is_removed_by_hand_gives_up() {
    let harness = Harness::new();
    running(&harness, &runtime()).await;
    harness.server.lock().purge_fails = Some((1, "error: failed".to_owned()));
    harness.delete(&runtime());
    harness.settle().await;
    let place = (RUNTIMES.to_owned(), "shop".to_owned(), "default".to_owned());
    let held = harness.server.lock().objects[&place].clone();
    let mut free = held.clone();
    free["metadata"]["finalizers"] = json!([]);
    harness.server.store(&place, Some(&held), free);
    harness.server.remove(&place);
    harness.settle().await;
    assert_eq!(harness.get(JOB.0, JOB.1), None, "it would remove state for ever");
}

#[tokio::test(start_paused = true)]
async fn a_prefix_that_somebody_else_uses_is_not_purged() {
    let harness = Harness::new();
    running(&harness, &runtime()).await;
    let mut other = objects::runtime();
    other["metadata"]["namespace"] = "other".into();
    other["spec"]["store"]["tikv"]["prefix"] = "shop/default".into();
    harness.apply(&other);
    harness.settle().await;
    harness.delete(&runtime());
    harness.settle().await;
    assert_eq!(harness.conditions("functionruntimes", "default"), ["Ready=False PurgeFailed"]);
    assert_eq!(harness.get(JOB.0, JOB.1), None);
    harness.delete(&other);
    harness.settle().await;
    assert_eq!(harness.get(RUNTIMES, "default"), None);
}

#[tokio::test(start_paused = true)]
async fn the_volume_of_the_embedded_store_goes_with_its_runtime() {
    let harness = Harness::new();
    running(&harness, &on_volume()).await;
    claim(&harness, "default");
    harness.forget_writes();
    harness.delete(&on_volume());
    harness.settle().await;
    assert_eq!(
        (harness.get("persistentvolumeclaims", "data-default-0"), harness.get(RUNTIMES, "default")),
        (None, None)
    );
    let steps = ["DELETE apps/statefulsets", "DELETE persistentvolumeclaims", "PATCH tandem.dev/functionruntimes shop"];
    assert!(order(&harness.writes(), &steps).is_sorted());
    assert!(!harness.writes().iter().any(|write| write.contains("batch/jobs")));
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_somebody_else_stays() {
    let harness = Harness::new();
    running(&harness, &on_volume()).await;
    claim(&harness, "somebody");
    harness.delete(&on_volume());
    harness.settle().await;
    assert_eq!(harness.get(RUNTIMES, "default"), None);
    assert!(harness.get("persistentvolumeclaims", "data-default-0").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_deleted_is_not_held_up() {
    let harness = Harness::new();
    running(&harness, &runtime()).await;
    harness.server.lock().ending = Some("shop".to_owned());
    harness.delete(&runtime());
    harness.settle().await;
    assert_eq!(harness.get(RUNTIMES, "default"), None);
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_any_write_of_a_purge_comes_to_the_same() {
    for store in [runtime(), on_volume()] {
        let harness = Harness::new();
        running(&harness, &store).await;
        claim(&harness, "default");
        let applied = harness.writes().len();
        harness.delete(&store);
        harness.settle().await;
        let expected = harness.snapshot();
        let writes = harness.writes().len() - applied;
        assert!(writes > 10, "{writes}");
        for crash_after in 1..=writes {
            let harness = Harness::over(ApiServer::default(), Arc::default());
            running(&harness, &store).await;
            claim(&harness, "default");
            harness.forget_writes();
            harness.server.lock().crash_after = Some(crash_after);
            harness.delete(&store);
            harness.settle_or_crash().await;
            {
                let mut state = harness.server.lock();
                state.crash_after = None;
                state.has_crashed = false;
            }
            let harness = harness.restart();
            harness.settle().await;
            harness.assert_is(&expected, &format!("after write {crash_after}"));
        }
    }
}
