//! C7: sends arrive in the order of their commits. C8: nobody blocks.

use futures_util::future::join_all;
use tandem_model::outcome::Outcome;
use tandem_runtime::runtime::{FlowFilter, Options};
use tandem_store::keys::RowKey;
use tandem_store::memory::MemoryStore;

use crate::script::{PATIENCE, Step, node, point, reach, reached, until};
use crate::stage::{Stage, Worker, embedded, end_of, ended, eventually, topology};

// To see it fail: give each message a lane of its own in the courier (`Inner::add_stored`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_arrive_in_the_order_of_their_commits() {
    const FLOWS: usize = 60;
    let directory = tempfile::tempdir().unwrap();
    let store = embedded(directory.path());
    let stage = Stage::start_with(store, Options::default(), |topology| topology.limits.attempts_max = 100).await;
    let flow = |number: usize| {
        let name = format!("m-{number}");
        let to = |key: &str| Step::Send(node(key, vec![Step::Note(name.clone())]), 0);
        // From entries of their own, so that the sender runs in many flows at once.
        let sends = vec![Step::Note(name.clone()), to("b"), to("c")];
        stage.ask(node(&format!("e-{number}"), vec![Step::Call(node("a", sends))]))
    };
    let records = join_all((0..FLOWS).map(flow)).await;
    assert!(records.iter().all(|record| record.outcome == Outcome::Committed));
    stage.rest().await;
    let sent = stage.entries("a").await;
    assert_eq!(sent.len(), FLOWS);
    assert_eq!(stage.entries("b").await, sent);
    assert_eq!(stage.entries("c").await, sent);
}

// To see it fail: take the same turn for every instance in `Flow::run`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_function_stops_nobody_on_other_instances() {
    let stage = Stage::start(MemoryStore::new()).await;
    let (slow, go) = (point("slow"), point("go"));
    let waits = vec![Step::Reach(slow.clone()), Step::Await(go.clone(), 1), Step::Add(1)];
    let first = stage.submit("slow", &node("slow", waits.clone())).await.unwrap();
    // Flows that wait in other ways: in a call, as a message.
    let second = stage.submit("calls", &node("calls", vec![Step::Call(node("callee", waits.clone()))])).await.unwrap();
    stage.run("sends", vec![Step::Send(node("message", waits), 0)]).await;
    until(&slow, 3).await;
    let others = join_all((0..20).map(|number| {
        let key = format!("k-{number}");
        let read_slow = Step::Call(node("slow", vec![Step::Read]));
        let ask = async move |stage: &Stage<MemoryStore>| stage.run(&key, vec![read_slow, Step::Add(1)]).await;
        ask(&stage)
    }));
    let others = tokio::time::timeout(PATIENCE, others).await.expect("slow flows stop others");
    assert!(others.iter().all(|record| record.outcome == Outcome::Committed));
    reach(&go);
    assert_eq!(end_of(&ended(first).await.record), (Outcome::Committed, ""));
    assert_eq!(end_of(&ended(second).await.record), (Outcome::Committed, ""));
    stage.rest().await;
    assert_eq!(stage.value("message").await, Some(1));
}

// To see it fail: leave `Flow::set_aside` empty (no dead letter), or let `Flow::end` abandon a message that failed
// (its instance stays blocked).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_fails_is_set_aside_and_the_next_goes_on() {
    let stage = Stage::start(MemoryStore::new()).await;
    let bad = [
        node("b", vec![Step::Add(100), Step::Fail]),
        node("b", vec![Step::Add(100), Step::Break]),
        node("b", vec![Step::Add(100), Step::Emit("nowhere".into(), 1)]),
        crate::script::To::of("node", "b", "no-such-handler", vec![]),
    ];
    let count = bad.len();
    let mut steps: Vec<Step> = bad.into_iter().take(3).map(|to| Step::Send(to, 0)).collect();
    steps.push(Step::Send(node("b", vec![Step::Add(1)]), 0));
    stage.run("a", steps).await;
    stage.rest().await;
    assert_eq!(stage.value("b").await, Some(1));
    assert_eq!(stage.count(|row| matches!(row, RowKey::DeadLetter { .. })).await, count - 1);
    let filter = FlowFilter { outcomes: vec![Outcome::Poisoned], limit: 10, ..FlowFilter::default() };
    let (_, poisoned) = stage.runtime.flows(&filter).await.unwrap();
    assert_eq!(poisoned.len(), count - 1);
    let reasons: Vec<&str> = poisoned.iter().map(|record| end_of(record).1).collect();
    assert!(reasons.contains(&"function-failed") && reasons.contains(&"unknown-egress"), "{reasons:?}");
}

// To see it fail: make a lost worker a failure that is not retried (`Event::Lost` in `Attempt::drive`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_of_a_lost_worker_run_again_on_another() {
    const FLOWS: u64 = 8;
    let (one, two) = (Worker::start().await, Worker::start().await);
    let stage = Stage::of(MemoryStore::new(), Options::default(), topology(&[&one, &two])).await;
    let both = "tandem_runtime_workers_connected{function=\"node\"} 2";
    eventually("both workers are connected", async || stage.runtime.metrics().text().contains(both)).await;
    let (began, go) = (point("began"), point("go"));
    let mut accepted = Vec::new();
    for number in 0..FLOWS {
        let steps = vec![Step::Reach(began.clone()), Step::Await(go.clone(), 1), Step::Add(1)];
        accepted.push(stage.submit(&format!("r-{number}"), &node(&format!("k-{number}"), steps)).await.unwrap());
    }
    until(&began, FLOWS).await;
    drop(one);
    // Those of the lost worker begin again; they were spread over both.
    tokio::time::timeout(PATIENCE, until(&began, FLOWS + FLOWS / 2)).await.expect("nobody runs again");
    reach(&go);
    for (number, accepted) in accepted.into_iter().enumerate() {
        assert_eq!(end_of(&ended(accepted).await.record), (Outcome::Committed, ""));
        assert_eq!(stage.value(&format!("k-{number}")).await, Some(1));
    }
    assert_eq!(reached(&began), FLOWS + FLOWS / 2);
}
