//! C1: everything or nothing. C6: what user code does may differ from attempt to attempt.

use std::collections::BTreeSet;

use tandem_model::outcome::Outcome;
use tandem_store::keys::RowKey;

use crate::script::{Step, meet, node, other, point};
use crate::stage::{embedded_stage, end_of, result};

const CALLS: usize = 50;

/// Writes of its own, of callees, of a spawn, a send, an emit: everything a flow can do.
fn everything(key: &str) -> Vec<Step> {
    let calls = (0..CALLS).map(|index| other(&format!("{key}-{index}"), vec![Step::Add(1), Step::Put("e".into(), 1)]));
    vec![
        Step::Set(1),
        Step::Put("entry".into(), 1),
        Step::Together(calls.collect()),
        Step::Spawn(node(&format!("{key}-spawned"), vec![Step::Set(1)])),
        Step::Send(node(&format!("{key}-sent"), vec![Step::Set(1)]), 0),
        Step::Send(node(&format!("{key}-later"), vec![Step::Set(1)]), 3_600_000),
        Step::Emit("out".into(), 1),
    ]
}

// To see it fail: in `Partition`, `Inner::add`, leave out `writes.extend(released.rows)`, or push no record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_applies_all_of_a_flow() {
    let (stage, _directory) = embedded_stage().await;
    let record = stage.run("a", everything("a")).await;
    assert_eq!(end_of(&record), (Outcome::Committed, ""));
    stage.rest().await;
    assert_eq!(stage.value("a").await, Some(1));
    assert_eq!(stage.entries("a").await.len(), 1);
    for index in 0..CALLS {
        assert_eq!(stage.value_of("other", &format!("a-{index}")).await, Some(1));
    }
    assert_eq!((stage.value("a-spawned").await, stage.value("a-sent").await), (Some(1), Some(1)));
    assert_eq!(stage.emitted().await, [1]);
    assert_eq!(stage.count(|row| matches!(row, RowKey::Timer { .. })).await, 1);
    // Its own, and the one of the message that it sent.
    assert_eq!(stage.count(|row| matches!(row, RowKey::Request { .. })).await, 2);
}

// To see it fail: in `Attempt::ended_early` make `End::Done` of a rejection or of a failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_that_does_not_commit_leaves_nothing_but_its_record() {
    let (stage, _directory) = embedded_stage().await;
    stage.run("a", everything("a")).await;
    stage.rest().await;
    let before = stage.rows().await;
    let mut flows = Vec::new();
    for (last, expected) in [
        (Step::Call(other("last", vec![Step::Add(1), Step::Reject])), (Outcome::Rejected, "no")),
        (Step::Call(other("last", vec![Step::Add(1), Step::Fail])), (Outcome::Failed, "function-failed")),
        (Step::Call(other("last", vec![Step::Add(1), Step::Panic])), (Outcome::Failed, "function-failed")),
        (Step::Spawn(other("last", vec![Step::Add(1), Step::Reject])), (Outcome::Rejected, "no")),
        (Step::Emit("nowhere".into(), 1), (Outcome::Failed, "unknown-egress")),
        (Step::Call(node("a", vec![])), (Outcome::Failed, "call-cycle")),
    ] {
        let mut steps = everything("a");
        steps.push(last);
        let record = stage.run("a", steps).await;
        assert_eq!(end_of(&record), expected);
        flows.push(record.flow);
    }
    stage.rest().await;
    assert_eq!(stage.count(|row| matches!(row, RowKey::Request { .. })).await, 2 + flows.len());
    assert_eq!(stage.rows_but(&flows).await, before);
}

// To see it fail: in `Tree::finish` merge effects into the caller at once, or apply effects in `Attempt::finish`
// when the handler rejects.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handled_rejection_undoes_the_callee_and_all_below_it() {
    let (stage, _directory) = embedded_stage().await;
    let below = vec![
        Step::Set(1),
        Step::Call(other("below", vec![Step::Set(1), Step::Send(node("sent", vec![Step::Set(1)]), 0)])),
        Step::Spawn(other("spawned", vec![Step::Set(1), Step::Emit("out".into(), 7)])),
        Step::Reject,
    ];
    let record =
        stage.run("a", vec![Step::Set(1), Step::Handle(node("callee", below)), Step::Emit("out".into(), 1)]).await;
    assert_eq!(end_of(&record), (Outcome::Committed, ""));
    stage.rest().await;
    assert_eq!((stage.value("a").await, stage.value("callee").await), (Some(1), None));
    assert_eq!((stage.value_of("other", "below").await, stage.value("sent").await), (None, None));
    assert_eq!(stage.value_of("other", "spawned").await, None);
    assert_eq!(stage.emitted().await, [1]);
}

// To see it fail: let `Flow::step` keep the overlay of an attempt that conflicted (C6), or let `Partition::seal` not
// look at what was read (C2).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflicting_attempt_leaves_nothing_of_its_random_numbers() {
    let (stage, _directory) = embedded_stage().await;
    let both = point("random");
    let shared = node("shared", vec![Step::Read, meet(&both, 2), Step::Add(1), Step::PutRandom]);
    let flow = |key| stage.run(key, vec![Step::Call(shared.clone())]);
    let (one, two) = tokio::join!(flow("one"), flow("two"));
    let told = BTreeSet::from([result(&one).to_string(), result(&two).to_string()]);
    let kept = stage.entries("shared").await;
    assert_eq!(kept.keys().cloned().collect::<BTreeSet<_>>(), told);
    assert_eq!(stage.value("shared").await, Some(2));
    let mut attempts: Vec<i64> = kept.into_values().collect();
    attempts.sort_unstable();
    // User code saw the number of its attempt: one of the two met the other and had to run again.
    assert!(attempts[0] == 1 && attempts[1] > 1, "{attempts:?}");
    assert_eq!(attempts[1], i64::from(one.attempts.max(two.attempts)));
}
