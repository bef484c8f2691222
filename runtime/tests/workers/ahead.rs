//! Code that runs before the turn of its flow: it counts if it began with the right states, and else never was.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tandem_model::outcome::Outcome;
use tandem_proto::function::v1alpha1 as wire;
use tandem_proto::function::v1alpha1::worker_frame::Frame as WorkerFrame;
use tandem_runtime::runtime::Options;
use tandem_store::memory::MemoryStore;

use crate::fake::{Fake, Peer, call, finished_with, good_welcome, write};
use crate::script::{Step, node, point, reach, until};
use crate::stage::{Stage, Worker, end_of, ended, eventually, result};
use crate::{drops, with_node_on};

const LINE: i64 = 20;

fn ran_ahead(stage: &Stage<MemoryStore>, reason: &str) -> usize {
    let line = format!("tandem_runtime_invocations_ahead_total{{function=\"node\",reason=\"{reason}\"}} ");
    let text = stage.runtime.metrics().text();
    text.lines().find_map(|text| text.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
}

/// Adds 1 and returns the sum.
fn add() -> Vec<Step> {
    vec![Step::Add(1), Step::Read]
}

// To see it fail: drop `RunAhead::begun_with`'s comparison with a state of another flow in between, or do not run ahead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_in_a_line_run_one_behind_the_other_and_all_count() {
    let stage = Stage::memory().await;
    let (gate, here) = (point("gate"), point("here"));
    let held = vec![Step::Reach(here.clone()), Step::Await(gate.clone(), 1), Step::Add(1), Step::Read];
    let first = stage.submit("r-0", &node("a", held)).await.unwrap();
    until(&here, 1).await;
    let mut line = Vec::new();
    for number in 1..LINE {
        line.push(stage.submit(&format!("r-{number}"), &node("a", add())).await.unwrap());
    }
    let sent = format!("tandem_runtime_invocations_total{{function=\"node\"}} {LINE}");
    eventually("all are sent to the worker", async || stage.runtime.metrics().text().contains(&sent)).await;
    reach(&gate);
    assert_eq!(result(&ended(first).await.record), 1);
    for (accepted, expected) in line.into_iter().zip(2..) {
        assert_eq!(result(&ended(accepted).await.record), expected);
    }
    assert_eq!(stage.value("a").await, Some(LINE));
    assert_eq!(ran_ahead(&stage, "used"), usize::try_from(LINE).unwrap() - 1);
    assert_eq!((ran_ahead(&stage, "dropped"), ran_ahead(&stage, "declined")), (0, 0));
}

// To see it fail: let `begun_with` take any states.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ran_ahead_on_effects_that_were_refused_never_was() {
    let stage = Stage::memory().await;
    let (gate, here) = (point("gate"), point("here"));
    // Its worker believes that it has written 10; the runtime does not know the egress, and applies nothing.
    let held = vec![Step::Reach(here.clone()), Step::Await(gate.clone(), 1), Step::Add(10), Step::Emit("no".into(), 1)];
    let first = stage.submit("r-0", &node("a", held)).await.unwrap();
    until(&here, 1).await;
    let mut line = Vec::new();
    for number in 1..4 {
        line.push(stage.submit(&format!("r-{number}"), &node("a", add())).await.unwrap());
    }
    let sent = "tandem_runtime_invocations_total{function=\"node\"} 4";
    eventually("all are sent to the worker", async || stage.runtime.metrics().text().contains(sent)).await;
    reach(&gate);
    assert_eq!(end_of(&ended(first).await.record), (Outcome::Failed, "unknown-egress"));
    for (accepted, expected) in line.into_iter().zip(1..) {
        assert_eq!(result(&ended(accepted).await.record), expected);
    }
    assert_eq!(stage.value("a").await, Some(3));
    assert_eq!((ran_ahead(&stage, "used"), ran_ahead(&stage, "dropped")), (0, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_up_waiting_leaves_the_line_in_order() {
    let stage = Stage::memory().await;
    let (gate, here) = (point("gate"), point("here"));
    let held = vec![Step::Reach(here.clone()), Step::Await(gate.clone(), 1), Step::Add(1), Step::Read];
    let first = stage.submit("r-0", &node("a", held)).await.unwrap();
    until(&here, 1).await;
    let mut impatient = stage.request("r-1", &node("a", vec![Step::Add(100)]));
    impatient.deadline = Duration::from_millis(50);
    let impatient = stage.runtime.submit(impatient).await.unwrap();
    let last = stage.submit("r-2", &node("a", add())).await.unwrap();
    assert_eq!(end_of(&ended(impatient).await.record), (Outcome::TimedOut, "deadline"));
    reach(&gate);
    assert_eq!(result(&ended(first).await.record), 1);
    assert_eq!(result(&ended(last).await.record), 2);
    assert_eq!(stage.value("a").await, Some(2));
}

/// Answers the first invocation when three have come, and what follows it as the test says.
async fn fake_line(
    behind: impl Fn(&mut Peer, &wire::Invoke) + Send + Sync + Clone + 'static,
) -> (Fake, Arc<AtomicUsize>) {
    let followers = Arc::new(AtomicUsize::new(0));
    let count = followers.clone();
    let fake = Fake::start(move |mut peer| {
        let (behind, count) = (behind.clone(), count.clone());
        async move {
            peer.welcome(wire::Welcome { follows: true, ..good_welcome() }).await;
            let mut waiting = Vec::new();
            while let Some(frame) = peer.next().await {
                let wire::runtime_frame::Frame::Invoke(invoke) = frame else { continue };
                if invoke.follows.is_some() {
                    count.fetch_add(1, Ordering::SeqCst);
                }
                waiting.push(invoke);
                // The first is held back until there is one behind it.
                if waiting.len() < 2 && count.load(Ordering::SeqCst) == 0 {
                    continue;
                }
                for invoke in waiting.drain(..) {
                    if invoke.follows.is_some() { behind(&mut peer, &invoke) } else { peer.send(vec![added(&invoke)]) }
                }
            }
        }
    })
    .await;
    (fake, followers)
}

/// Adds 1 to the value that came with the invocation.
fn added(invoke: &wire::Invoke) -> WorkerFrame {
    let stored = invoke.states.iter().find_map(|state| state.value.clone());
    let value = stored.map_or(0, |bytes| serde_json::from_slice::<i64>(&bytes).unwrap()) + 1;
    finished_with(invoke.invocation_id, vec![write("value", None, Some(value.to_string().leak()))])
}

fn began(invocation_id: u64, value: &'static str) -> WorkerFrame {
    let states =
        vec![wire::StateValue { state: "value".to_owned(), value: Some(Bytes::from_static(value.as_bytes())) }];
    WorkerFrame::Began(wire::Began { invocation_id, states })
}

async fn two_on_a_line(stage: &Stage<MemoryStore>) {
    for record in join_all((0..2).map(|_| stage.run("a", vec![]))).await {
        assert_eq!(end_of(&record), (Outcome::Committed, ""));
    }
}

/// A worker that does this behind an invocation is asked again, and its run ahead is counted under this reason.
async fn is_asked_again(reason: &str, behind: impl Fn(&mut Peer, &wire::Invoke) + Send + Sync + Clone + 'static) {
    let good = Worker::start().await;
    let (fake, followers) = fake_line(behind).await;
    let topology = with_node_on(&good, vec![fake.endpoint.clone()]);
    let stage = Stage::of(MemoryStore::new(), Options::default(), topology).await;
    two_on_a_line(&stage).await;
    assert_eq!(stage.value("a").await, Some(2));
    assert_eq!((followers.load(Ordering::SeqCst), ran_ahead(&stage, reason)), (1, 1));
}

// To see it fail: let `begun_with` take any states.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_begins_with_other_states_is_asked_again() {
    is_asked_again("dropped", |peer, invoke| {
        let id = invoke.invocation_id;
        peer.send(vec![began(id, "99"), finished_with(id, vec![write("value", None, Some("100"))])]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_does_not_know_the_states_is_asked_again() {
    is_asked_again("declined", |peer, invoke| {
        let failure = wire::Failure { message: "forgotten".to_owned(), retryable: true };
        let result = Some(wire::finished::Result::Failure(failure));
        let finished = wire::Finished { invocation_id: invoke.invocation_id, result, ..wire::Finished::default() };
        peer.send(vec![WorkerFrame::Finished(finished)]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_before_the_beginning_is_an_offence() {
    let good = Worker::start().await;
    let (fake, _) = fake_line(|peer, invoke| peer.send(vec![call(invoke.invocation_id, 1, "k")])).await;
    let topology = with_node_on(&good, vec![fake.endpoint.clone(), good.endpoint.clone()]);
    let stage = Stage::of(MemoryStore::new(), Options::default(), topology).await;
    let both = "tandem_runtime_workers_connected{function=\"node\"} 2";
    eventually("both are connected", async || stage.runtime.metrics().text().contains(both)).await;
    let lines = (0..4).map(|number| {
        let stage = &stage;
        async move {
            let key = format!("k-{number}");
            join_all((0..2).map(|_| stage.run(&key, add()))).await
        }
    });
    for record in join_all(lines).await.into_iter().flatten() {
        assert_eq!(end_of(&record), (Outcome::Committed, ""));
    }
    drops(&stage, "protocol").await;
    for number in 0..4 {
        assert_eq!(stage.value(&format!("k-{number}")).await, Some(2));
    }
}
