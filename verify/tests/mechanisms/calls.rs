//! The tree of calls of one flow, and its attempts.

use tandem::Server;
use tandem::prelude::*;
use tandem_model::outcome::Outcome;
use tandem_model::topology::Function;
use tandem_runtime::runtime::Options;
use tandem_store::memory::MemoryStore;

use crate::script::{Cells, Node, Other, Step, To, meet, node, other, point, reach, until};
use crate::stage::{Stage, Worker, end_of, ended, eventually, topology};
use crate::{claim, committed};

pub(crate) async fn a_handled_rejection_undoes_what_was_called_below_it() {
    let stage = Stage::memory().await;
    let below = vec![Step::Call(other("below", vec![Step::Set(1)])), Step::Reject];
    let record = stage.run("a", vec![Step::Set(1), Step::Handle(node("callee", below))]).await;
    assert_eq!(end_of(&record), (Outcome::Committed, ""));
    assert_eq!(stage.value("a").await, Some(1));
    claim!(stage.value_of("other", "below").await, None);
}

pub(crate) async fn the_later_of_two_writes_counts() {
    let stage = Stage::memory().await;
    let set = |value| Step::Call(node("x", vec![Step::Set(value)]));
    committed(stage.run("a", vec![set(1), set(2)])).await;
    claim!(stage.value("x").await, Some(2));
}

pub(crate) async fn parallel_calls_on_one_instance_lose_no_update() {
    const CALLS: usize = 8;
    let stage = Stage::memory().await;
    let calls = (0..CALLS).map(|_| node("x", vec![Step::Read, Step::Add(1)])).collect();
    committed(stage.run("a", vec![Step::Together(calls)])).await;
    claim!(stage.value("x").await, Some(8));
}

pub(crate) async fn an_attempt_leaves_nothing_to_the_next() {
    let stage = Stage::memory().await;
    let met = point("met");
    let shared = node("shared", vec![Step::Read, meet(&met, 2), Step::Add(1), Step::PutRandom]);
    let flow = |key| stage.run(key, vec![Step::Call(shared.clone())]);
    let (one, two) = tokio::join!(flow("one"), flow("two"));
    assert!(one.attempts.max(two.attempts) > 1, "one of them has to run again");
    claim!(stage.entries("shared").await.len(), 2);
}

#[function(name = "judge")]
impl Judge {
    /// Breaks for good if the calls do not return the same.
    async fn compare(ctx: &Ctx<Cells>, calls: Vec<To>) -> Result<i64> {
        let mut results = Vec::new();
        for to in calls {
            results.push(ctx.call::<i64>(&to.function, &to.key, &to.handler, &to.steps).await?);
        }
        if results.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(tandem::Error::fatal(format!("this cannot be: {results:?}")));
        }
        Ok(0)
    }
}

async fn stage_with_a_judge() -> Stage<MemoryStore> {
    let worker = Worker::serve(Server::new((Node, Other, Judge))).await;
    let mut topology = topology(&[&worker]);
    let function = Function { workers: vec![worker.endpoint.clone()], ..Function::default() };
    topology.functions.insert("judge".parse().unwrap(), function);
    let mut stage = Stage::of(MemoryStore::new(), Options::default(), topology).await;
    stage.keep(worker);
    stage
}

pub(crate) async fn user_code_never_sees_two_times_at_once() {
    let stage = stage_with_a_judge().await;
    // Two flows fight over `y`, so that whoever comes there next takes turns and then looks at the present.
    let met = point("met");
    let fight = |key| stage.run(key, vec![Step::Call(node("y", vec![Step::Read, meet(&met, 2), Step::Add(1)]))]);
    let _ = tokio::join!(fight("one"), fight("two"));
    committed(stage.run("x", vec![Step::Set(2)])).await;

    let (seen, go) = (point("seen"), point("go"));
    let wait = Step::OnAttempt(1, vec![Step::Reach(seen.clone()), Step::Await(go.clone(), 1)]);
    let calls = vec![node("x", vec![Step::Read, wait]), node("y", vec![Step::Read])];
    let mut request = stage.request("judgement", &To::of("judge", "j", "compare", vec![]));
    request.payload = tandem_model::ids::Payload::json(serde_json::to_vec(&calls).unwrap());
    request.digest = tandem_model::request::digest(&request.handler, &request.payload);
    let judging = stage.runtime.submit(request).await.unwrap();
    until(&seen, 1).await;
    let both = ["x", "y"].map(|key| Step::Call(node(key, vec![Step::Add(1)])));
    committed(stage.run("top", both.into())).await;
    reach(&go);
    claim!(ended(judging).await.record.outcome, Outcome::Committed);
}

pub(crate) async fn code_that_ran_ahead_on_what_never_was_does_not_count() {
    let stage = Stage::memory().await;
    let (gate, here) = (point("gate"), point("here"));
    // Its worker believes that it has written 10; the runtime does not know the egress, and applies nothing.
    let wait = [Step::Reach(here.clone()), Step::Await(gate.clone(), 1)];
    let steps = wait.into_iter().chain([Step::Add(10), Step::Emit("nowhere".into(), 1)]).collect();
    let first = stage.submit("first", &node("a", steps)).await.unwrap();
    until(&here, 1).await;
    let second = stage.submit("second", &node("a", vec![Step::Add(1)])).await.unwrap();
    let sent = "tandem_runtime_invocations_total{function=\"node\"} 2";
    eventually("both are sent to the worker", async || stage.runtime.metrics().text().contains(sent)).await;
    reach(&gate);
    assert_eq!(end_of(&ended(first).await.record), (Outcome::Failed, "unknown-egress"));
    ended(second).await;
    claim!(stage.value("a").await, Some(1));
}
