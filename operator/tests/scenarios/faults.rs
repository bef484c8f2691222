//! An API server that answers with errors for a while.

use super::support::server::Fault;
use super::support::{Harness, objects};

/// Longer than all pauses together.
const PAUSES: std::time::Duration = std::time::Duration::from_mins(30);

/// Every `period`-th write is answered with `code`, until `most` were.
fn every(period: usize, code: u16, most: usize) -> Fault {
    let (mut seen, mut failed) = (0, 0);
    Box::new(move |call| {
        if !call.is_write() {
            return None;
        }
        seen += 1;
        let fails = seen % period == 0 && failed < most;
        failed += usize::from(fails);
        fails.then_some(code)
    })
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_api_server_are_got_over() {
    let harness = Harness::new();
    for object in objects::shop() {
        harness.apply(&object);
    }
    harness.settle().await;
    let expected = harness.snapshot();
    for code in [409, 429, 500, 503, 504] {
        for period in [1, 2, 3] {
            let harness = Harness::new();
            harness.server.lock().fault = Some(every(period, code, 15));
            for object in objects::shop() {
                harness.apply(&object);
            }
            // Pauses grow while calls fail: longer than what counts as quiet.
            tokio::time::sleep(PAUSES).await;
            harness.settle().await;
            harness.assert_is(&expected, &format!("one write of {period} fails with {code}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_is_named_and_what_works_goes_on() {
    let harness = Harness::new();
    harness.server.lock().fault =
        Some(Box::new(|call| (call.is_write() && call.resource == "networking.k8s.io/networkpolicies").then_some(403)));
    for object in objects::shop() {
        harness.apply(&object);
    }
    tokio::time::sleep(std::time::Duration::from_mins(2)).await;
    assert_eq!(harness.conditions("functionruntimes", "default"), ["Ready=False Forbidden"]);
    harness.server.lock().fault = None;
    tokio::time::sleep(std::time::Duration::from_mins(10)).await;
    assert_eq!(harness.conditions("functionruntimes", "default"), ["Ready=True Ready"]);
}

#[tokio::test(start_paused = true)]
async fn an_object_of_somebody_else_is_not_taken_over() {
    let harness = Harness::new();
    let service = ("services".to_owned(), "shop".to_owned(), "default".to_owned());
    let theirs = serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "default", "namespace": "shop"}, "spec": {"ports": []},
    });
    let theirs = harness.server.store(&service, None, theirs);
    for object in objects::shop() {
        harness.apply(&object);
    }
    harness.settle().await;
    assert_eq!(harness.conditions("functionruntimes", "default"), ["Ready=False NameTaken", "Stalled=True NameTaken"]);
    assert_eq!(harness.get("services", "default"), Some(theirs));
    harness.server.remove(&service);
    tokio::time::sleep(PAUSES).await;
    assert_eq!(harness.conditions("functionruntimes", "default"), ["Ready=True Ready"]);
}
