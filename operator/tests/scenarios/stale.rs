//! An API server whose cache is behind, and an operator that starts over it.

use std::time::Duration;

use super::support::{Harness, objects};

/// How long the cache stays behind.
const BEHIND: Duration = Duration::from_mins(3);
/// Versions between two starts.
const STEP: usize = 5;
/// Longer than a revision drains.
const DRAINED: Duration = Duration::from_mins(10);
/// Of what is not seen, as many writes as that are no hot loop.
const WRITES_MAX: usize = 120;

/// A namespace that has a history: what an old list shows is smaller, and of another image.
async fn grown() -> (Harness, u64) {
    let harness = Harness::new();
    for object in objects::shop() {
        harness.apply(&object);
    }
    harness.settle().await;
    let old = harness.server.lock().version;
    let mut runtime = objects::runtime();
    runtime["spec"]["replicas"] = 3.into();
    let late = [runtime, objects::function("late", "late:1"), objects::route("later", "late")];
    for object in late.iter().chain(&[objects::function("order", "order:2")]) {
        harness.apply(object);
    }
    drained(&harness).await;
    (harness, old)
}

/// Waits until nothing is done, and revisions that are no longer wanted are gone.
async fn drained(harness: &Harness) {
    harness.settle().await;
    tokio::time::sleep(DRAINED).await;
    harness.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_over_a_cache_that_is_behind_takes_nothing_back() {
    let (mut harness, old) = grown().await;
    let (expected, newest) = (harness.snapshot(), harness.server.lock().version);
    for behind in (old..newest).step_by(STEP) {
        harness.forget_writes();
        harness.server.lock().behind = Some(behind);
        harness = harness.restart();
        tokio::time::sleep(BEHIND).await;
        assert_eq!(harness.writes(), <[String; 0]>::default(), "behind at {behind}");
        harness.assert_is(&expected, &format!("behind at {behind}"));
        harness.server.catch_up();
    }
}

#[tokio::test(start_paused = true)]
async fn what_changes_while_the_cache_is_behind_is_done_once_it_is_seen() {
    let (harness, _) = grown().await;
    let expected = harness.snapshot();
    let edit = |harness: &Harness| {
        harness.delete(&objects::function("late", "late:1"));
        harness.delete(&objects::route("later", "late"));
        harness.apply(&objects::function("order", "order:3"));
    };
    let undo = |harness: &Harness| {
        harness.apply(&objects::function("late", "late:1"));
        harness.apply(&objects::route("later", "late"));
        harness.apply(&objects::function("order", "order:2"));
    };
    let now = harness.server.lock().version;
    harness.server.lock().behind = Some(now);
    edit(&harness);
    // It lists what there is, and is then told nothing: not even of what it does itself.
    let harness = harness.restart();
    harness.forget_writes();
    tokio::time::sleep(BEHIND).await;
    let writes = harness.writes().len();
    assert!((1..=WRITES_MAX).contains(&writes), "{writes} writes: {:#?}", harness.writes());
    harness.server.catch_up();
    harness.settle().await;
    undo(&harness);
    drained(&harness).await;
    harness.assert_is(&expected, "after all was undone");
}
