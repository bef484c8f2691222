//! Several runtimes on one store.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use tandem_model::ids::Key;
use tandem_model::outcome::Outcome;
use tandem_model::slot::SlotCount;
use tandem_model::topology::Topology;
use tandem_runtime::dial::Tcp;
use tandem_runtime::members::Map;
use tandem_runtime::peers::PeerOptions;
use tandem_runtime::runtime::Options;
use tandem_store::Store;
use tandem_store::memory::MemoryStore;
use tokio::net::TcpListener;
use tower::ServiceExt;

use super::order::hear;
use crate::held::HeldStore;
use crate::script::{PATIENCE, Step, To, node, point, reach, until};
use crate::stage::{EGRESS, Stage, Worker, ended, eventually, result, topology};
use crate::{claim, committed};

const SLOTS: u16 = 64;
const BEAT: Duration = Duration::from_millis(20);
/// Long enough for a machine that is busy.
const DEAD_AFTER: Duration = Duration::from_secs(2);
/// More keys than are needed to find one of each owner.
const KEYS_MAX: usize = 10_000;
/// Calls, one after the other, that make a flow slow.
const SLOW: usize = 40;

/// A runtime that may have others beside it, and knows those that gave a sign of life so lately.
async fn start<S: Store>(store: S, name: &str, dead_after: Duration, worker: &Worker) -> Stage<S> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let peers = PeerOptions { beat: BEAT, dead_after, ..PeerOptions::new(listener, address) };
    let peers = Some(PeerOptions { name: Some(name.to_owned()), dial: Arc::new(Tcp), ..peers });
    // Few slots, since whoever reads an egress looks into each of them.
    let topology = Topology { slots: SlotCount::new(SLOTS).unwrap(), ..topology(&[worker]) };
    Stage::of(store, Options { peers, ..Options::default() }, topology).await
}

/// Two runtimes that know each other, with one worker.
async fn two<S: Store>(store: S) -> ([Stage<S>; 2], Worker) {
    let worker = Worker::start().await;
    let one = start(store.clone(), "one", DEAD_AFTER, &worker).await;
    let stages = [one, start(store, "two", DEAD_AFTER, &worker).await];
    eventually("the runtimes know each other", async || {
        stages.iter().all(|stage| {
            let map = stage.runtime.map();
            let taking = map.members.iter().filter(|member| !member.draining).count();
            taking == stages.len() && stage.runtime.peers_connected() == 1
        })
    })
    .await;
    (stages, worker)
}

/// Two runtimes that do not know each other: each believes that everything is its own.
async fn strangers() -> ([Stage<MemoryStore>; 2], Worker) {
    let (store, worker) = (MemoryStore::new(), Worker::start().await);
    let one = start(store.clone(), "one", Duration::ZERO, &worker).await;
    ([one, start(store, "two", Duration::ZERO, &worker).await], worker)
}

/// Keeps messages to `to` from being delivered by a runtime until the point that it gives is reached.
async fn block(stage: &Stage<MemoryStore>, id: &str) -> String {
    let (began, go) = (point("began"), point("go"));
    let wait = vec![Step::Reach(began.clone()), Step::Await(go.clone(), 1)];
    drop(stage.submit(id, &node("to", wait)).await.unwrap());
    until(&began, 1).await;
    go
}

fn note(name: &str) -> Vec<Step> {
    vec![Step::Send(node("to", vec![Step::Note(name.to_owned())]), 0)]
}

/// The order in which two messages arrived, of which the first was sent first.
async fn arrived(stage: &Stage<MemoryStore>) -> Vec<Option<i64>> {
    eventually("both have arrived", async || stage.entries("to").await.len() == 2).await;
    let entries = stage.entries("to").await;
    ["first", "second"].map(|name| entries.get(name).copied()).to_vec()
}

pub(crate) async fn numbers_of_a_lane_follow_commits_of_any_runtime() {
    let ([one, two], _worker) = strangers().await;
    let go = [block(&one, "block-one").await, block(&two, "block-two").await];
    // Versions of the second runtime are above all of the first one.
    committed(two.run("from", note("first"))).await;
    committed(one.run("from", note("second"))).await;
    for go in &go {
        reach(go);
    }
    claim!(arrived(&one).await, [Some(1), Some(2)]);
}

pub(crate) async fn no_runtime_delivers_before_what_another_one_released() {
    let ([one, two], _worker) = strangers().await;
    let go = block(&one, "block-one").await;
    committed(one.run("from", note("first"))).await;
    committed(two.run("from", note("second"))).await;
    eventually("one has arrived", async || !two.entries("to").await.is_empty()).await;
    reach(&go);
    claim!(arrived(&one).await, [Some(1), Some(2)]);
}

pub(crate) async fn a_snapshot_of_what_is_not_durable_is_validated() {
    let (memory, worker) = (MemoryStore::new(), Worker::start().await);
    let here = start(HeldStore::new(memory.clone()), "here", Duration::ZERO, &worker).await;
    let there = start(memory, "there", Duration::ZERO, &worker).await;
    let look = |key| {
        let see = |seen: &str| Step::Digit(node(seen, vec![Step::Read]));
        To::of("node", key, "snapshot", vec![see("x"), see("y"), Step::Put("seen".to_owned(), 1)])
    };
    let written = point("written");
    here.store.hold();
    let write = vec![Step::Set(1), Step::Reach(written.clone())];
    let first = here.submit("first", &node("x", write)).await.unwrap();
    until(&written, 1).await;
    hear(&here).await;
    let second = here.submit("second", &look("here")).await.unwrap();
    hear(&here).await;
    committed(there.run("y", vec![Step::Set(1)])).await;
    committed(there.ask(look("there"))).await;
    here.store.let_go();
    ended(first).await;
    // The other one saw the second write and not the first one.
    let seen = result(&ended(second).await.record);
    claim!(seen == 10, false);
}

pub(crate) async fn a_runtime_that_stops_passes_requests_on() {
    let ([one, two], _worker) = two(MemoryStore::new()).await;
    let key = own_key(&one);
    let (runtime, map) = (one.runtime.clone(), || two.runtime.map());
    let stopping = tokio::spawn(async move { runtime.shut_down(PATIENCE).await });
    eventually("the other one owns everything", async || {
        let takers = |map: &Map| map.members.iter().filter(|member| !member.draining).count();
        takers(&map()) == 1 && takers(&one.runtime.map()) == 1
    })
    .await;
    let answered = one.submit("late", &node(&key, vec![Step::Add(1)])).await;
    let is_committed = match answered {
        Ok(accepted) => ended(accepted).await.record.outcome == Outcome::Committed,
        Err(_) => false,
    };
    claim!(is_committed, true);
    stopping.await.unwrap();
}

/// A key that a runtime owns.
fn own_key<S: Store>(stage: &Stage<S>) -> String {
    let map = stage.runtime.map();
    let slots = stage.layout.slots();
    let is_own = |key: &String| map.is_mine(slots.slot_of(&key.parse::<Key>().unwrap()));
    (0..KEYS_MAX).map(|at| format!("key-{at}")).find(is_own).unwrap()
}

pub(crate) async fn a_slow_flow_commits_though_fast_ones_elsewhere_never_let_go() {
    let ([one, two], _worker) = two(MemoryStore::new()).await;
    let (hot, entry, is_done) = (own_key(&one), own_key(&two), Cell::new(false));
    let fast = async || {
        while !is_done.get() {
            one.run(&hot, vec![Step::Add(1)]).await;
        }
    };
    let slow = async {
        let cold = node("cold", vec![Step::Read]);
        let record = two.run(&entry, vec![Step::Call(node(&hot, vec![Step::Add(1)])), Step::Repeat(SLOW, cold)]).await;
        is_done.set(true);
        record.outcome
    };
    let (outcome, ..) = tokio::join!(slow, fast(), fast());
    claim!(outcome, Outcome::Committed);
}

/// Records that each of two runtimes emits.
const EMITTED: usize = 10;

/// All records of an egress behind a number, with their own.
async fn behind<S: Store>(stage: &Stage<S>, after: u64) -> Vec<u64> {
    let router = tandem_runtime::ingress::router(stage.runtime.clone(), Arc::clone(stage.runtime.metrics()));
    let request = Request::get(format!("/egress/{EGRESS}?follow=false&after={after}")).body(Body::empty()).unwrap();
    let Ok(response) = router.oneshot(request).await;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    text.lines().filter_map(|line| line.strip_prefix("id: ")).map(|id| id.parse().unwrap()).collect()
}

pub(crate) async fn whoever_resumes_misses_no_record_of_another_runtime() {
    let (stages, _worker) = two(MemoryStore::new()).await;
    let (is_done, emit) = (Cell::new(false), || vec![Step::Emit(EGRESS.into(), 1)]);
    let emitting = async {
        for _ in 0..EMITTED {
            for stage in &stages {
                stage.run(&own_key(stage), emit()).await;
            }
        }
        is_done.set(true);
    };
    let reading = async {
        let mut seen = Vec::new();
        loop {
            let was_done = is_done.get();
            let more = behind(&stages[0], seen.last().copied().unwrap_or(0)).await;
            if more.is_empty() && was_done {
                return seen.len();
            }
            seen.extend(more);
            // All of this is one thread.
            tokio::time::sleep(BEAT).await;
        }
    };
    let ((), seen) = tokio::join!(emitting, reading);
    claim!(seen, EMITTED * stages.len());
}
