//! A crash after any write leaves nothing that the next operator cannot set right.

use std::sync::Arc;

use super::support::{ApiServer, Harness, objects};

#[tokio::test(start_paused = true)]
async fn a_crash_after_any_write_comes_to_the_same() {
    let harness = Harness::new();
    for object in objects::shop() {
        harness.apply(&object);
    }
    harness.settle().await;
    let (expected, writes) = (harness.snapshot(), harness.writes().len());
    assert!(writes > 20, "{writes}");
    for crash_after in 1..=writes {
        let server = ApiServer::default();
        server.lock().crash_after = Some(crash_after);
        let harness = Harness::over(server, Arc::default());
        for object in objects::shop() {
            harness.apply(&object);
        }
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
