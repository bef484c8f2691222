//! Workers that speak the protocol badly, or go away: nothing of theirs is applied, and nobody else is disturbed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]
#![allow(dead_code, reason = "the support modules are shared by several tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tandem::Server;
use tandem_model::ids::FunctionName;
use tandem_model::outcome::Outcome;
use tandem_model::topology::{Endpoint, Handler, Protocol, State, StateKind, Topology, ValueType};
use tandem_proto::function::v1alpha1 as wire;
use tandem_proto::function::v1alpha1::runtime_frame::Frame as RuntimeFrame;
use tandem_proto::function::v1alpha1::worker_frame::Frame as WorkerFrame;
use tandem_runtime::runtime::{Options, Runtime};
use tandem_store::memory::MemoryStore;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use fake::{Fake, Peer, call, finished, finished_with, good_welcome, read, write};
use script::{Node, Other, Step, To, node, other, point, reach, reached, until};
use stage::{Stage, Worker, end_of, ended, eventually, topology};

#[path = "workers/ahead.rs"]
mod ahead;
#[path = "support/fake.rs"]
mod fake;
#[path = "workers/revisions.rs"]
mod revisions;
#[path = "support/script.rs"]
mod script;
#[path = "support/stage.rs"]
mod stage;

fn node_name() -> FunctionName {
    "node".parse().unwrap()
}

/// `other` runs on the good worker, `node` on these.
fn with_node_on(good: &Worker, endpoints: Vec<Endpoint>) -> Topology {
    let mut topology = topology(&[good]);
    topology.functions.get_mut(&node_name()).unwrap().workers = endpoints;
    topology
}

async fn drops(stage: &Stage<MemoryStore>, reason: &str) {
    let line = format!("tandem_runtime_worker_drops_total{{function=\"node\",reason=\"{reason}\"}}");
    eventually(&line, async || stage.runtime.metrics().text().contains(&line)).await;
}

/// Rounds of flows until one of them must have come to each of two workers.
const ROUNDS_MAX: i64 = 200;

/// Alone, such a worker makes flows fail, with nothing applied. Beside a good one, flows run again there.
async fn is_dropped_for(reason: &str, on_invoke: impl Fn(&mut Peer, wire::Invoke) + Send + Sync + Clone + 'static) {
    let good = Worker::start().await;
    let bad = Fake::invoked(on_invoke.clone()).await;
    let alone = with_node_on(&good, vec![bad.endpoint.clone()]);
    let stage = Stage::of(MemoryStore::new(), Options::default(), alone).await;
    let before = stage.rows().await;
    let record = stage.ask(other("caller", vec![Step::Add(1), Step::Call(node("a", vec![]))])).await;
    assert_eq!(end_of(&record), (Outcome::Failed, "worker-lost"), "{:?}", record.cause);
    assert!(record.attempts > 1, "it was not tried again");
    assert_eq!(record.cause.as_ref().unwrap().instance.as_ref().unwrap().to_string(), "node/a");
    assert_eq!(stage.rows_but(&[record.flow]).await, before);
    drops(&stage, reason).await;
    let record = stage.ask(other("b", vec![Step::Add(1)])).await;
    assert_eq!(end_of(&record), (Outcome::Committed, ""));

    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let bad = Fake::invoked(move |peer, invoke| {
        count.fetch_add(1, Ordering::SeqCst);
        on_invoke(peer, invoke);
    })
    .await;
    let both = with_node_on(&good, vec![bad.endpoint.clone(), good.endpoint.clone()]);
    let stage = Stage::of(MemoryStore::new(), Options::default(), both).await;
    let two = "tandem_runtime_workers_connected{function=\"node\"} 2";
    eventually("both are connected", async || stage.runtime.metrics().text().contains(two)).await;
    // Which worker gets a flow depends on how busy they are, so it may take some before the bad one has its turn.
    let mut rounds = 0;
    while seen.load(Ordering::SeqCst) == 0 {
        assert!(rounds < ROUNDS_MAX, "no flow came to the bad worker");
        let flows = (0..4).map(|number| stage.ask(node(&format!("k-{number}"), vec![Step::Add(1)])));
        for record in futures_util::future::join_all(flows).await {
            assert_eq!(end_of(&record), (Outcome::Committed, ""));
        }
        rounds += 1;
    }
    for number in 0..4 {
        assert_eq!(stage.value(&format!("k-{number}")).await, Some(rounds));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_in_an_invocation() {
    is_dropped_for("disconnected", |peer, _| peer.hang_up()).await;
}

// To see it fail: in `Sessions::deliver` ignore what is not running.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_an_invocation_that_it_was_not_given() {
    is_dropped_for("protocol", |peer, invoke| peer.send(vec![finished(invoke.invocation_id + 1_000)])).await;
    is_dropped_for("protocol", |peer, invoke| peer.send(vec![call(invoke.invocation_id + 1_000, 1, "k")])).await;
    is_dropped_for("protocol", |peer, invoke| peer.send(vec![read(invoke.invocation_id + 1_000, 1, "entries")])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_ids_empty_frames_and_a_second_welcome() {
    is_dropped_for("protocol", |peer, invoke| {
        peer.send(vec![call(invoke.invocation_id, 1, "k"), call(invoke.invocation_id, 1, "l")]);
    })
    .await;
    is_dropped_for("protocol", |peer, invoke| {
        peer.send(vec![read(invoke.invocation_id, 1, "entries"), read(invoke.invocation_id, 1, "entries")]);
    })
    .await;
    is_dropped_for("protocol", |peer, _| peer.send(vec![WorkerFrame::Welcome(good_welcome())])).await;
    is_dropped_for("protocol", |peer, _| peer.send_raw(vec![wire::WorkerFrame::default()])).await;
    is_dropped_for("protocol", |peer, invoke| {
        let (invocation_id, state) = (invoke.invocation_id, "entries".to_owned());
        peer.send(vec![WorkerFrame::Read(wire::Read { invocation_id, read_id: 1, state, what: None })]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods() {
    // Of frames that belong nowhere.
    is_dropped_for("protocol", |peer, _| {
        for message in 0..10 {
            peer.send((0..10_000).map(|number| call(1_000_000 + message, number, "k")).collect());
        }
    })
    .await;
    // A message larger than is taken.
    is_dropped_for("disconnected", |peer, invoke| {
        let (invocation_id, effects) = (invoke.invocation_id, Vec::new());
        let value = Bytes::from(vec![b'1'; 17 << 20]);
        let result = Some(wire::finished::Result::Value(value));
        peer.send(vec![WorkerFrame::Finished(wire::Finished {
            invocation_id,
            result,
            effects,
            content_type: String::new(),
        })]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_message_is_no_offence() {
    let good = Worker::start().await;
    let fake = Fake::invoked(|peer, invoke| {
        peer.send(vec![]);
        peer.send(vec![finished(invoke.invocation_id)]);
    })
    .await;
    let stage =
        Stage::of(MemoryStore::new(), Options::default(), with_node_on(&good, vec![fake.endpoint.clone()])).await;
    let record = stage.run("a", vec![]).await;
    assert_eq!(stage::result(&record), 7);
    assert_eq!(stage.value("a").await, Some(1));
}

// To see it fail: keep a session open after its `Finished` (`Sessions::deliver`): the effects would come twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_answer_drops_the_worker_and_changes_nothing() {
    let good = Worker::start().await;
    let fake = Fake::invoked(|peer, invoke| {
        let second = finished_with(invoke.invocation_id, vec![write("value", None, Some("2"))]);
        peer.send(vec![finished(invoke.invocation_id), second]);
    })
    .await;
    let stage =
        Stage::of(MemoryStore::new(), Options::default(), with_node_on(&good, vec![fake.endpoint.clone()])).await;
    let record = stage.run("a", vec![]).await;
    assert_eq!(end_of(&record), (Outcome::Committed, ""));
    assert_eq!(stage.value("a").await, Some(1));
    drops(&stage, "protocol").await;
    eventually("it is dialled again", async || fake.attached.load(Ordering::SeqCst) > 1).await;
    let record = stage.run("b", vec![]).await;
    assert_eq!(end_of(&record), (Outcome::Committed, ""));
}

// To see it fail: forget cancelled invocations at once (`Sessions::note_cancelled`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_answer_after_a_cancel_is_no_offence() {
    let good = Worker::start().await;
    let fake = Fake::start(|mut peer| async move {
        peer.welcome(good_welcome()).await;
        let mut first = true;
        while let Some(frame) = peer.next().await {
            match frame {
                RuntimeFrame::Invoke(_) if std::mem::take(&mut first) => {}
                RuntimeFrame::Invoke(invoke) => peer.send(vec![finished(invoke.invocation_id)]),
                RuntimeFrame::Cancel(cancel) => {
                    let id = cancel.invocation_id;
                    peer.send(vec![call(id, 1, "k"), read(id, 1, "entries"), finished(id)]);
                }
                _ => {}
            }
        }
    })
    .await;
    let stage =
        Stage::of(MemoryStore::new(), Options::default(), with_node_on(&good, vec![fake.endpoint.clone()])).await;
    let mut request = stage.request("r-1", &node("a", vec![]));
    request.deadline = Duration::from_millis(100);
    let record = ended(stage.runtime.submit(request).await.unwrap()).await.record;
    assert_eq!(end_of(&record), (Outcome::TimedOut, "deadline"));
    for key in ["b", "c", "d"] {
        let record = stage.run(key, vec![]).await;
        assert_eq!(end_of(&record), (Outcome::Committed, ""));
    }
    assert_eq!((fake.attached.load(Ordering::SeqCst), stage.value("a").await), (1, None));
}

/// Ends a flow on a worker that answers everything like this.
async fn ends_as(handler: &str, frame: fn(u64) -> WorkerFrame, expected: (Outcome, &str)) {
    let good = Worker::start().await;
    let fake = Fake::invoked(move |peer, invoke| peer.send(vec![frame(invoke.invocation_id)])).await;
    let stage =
        Stage::of(MemoryStore::new(), Options::default(), with_node_on(&good, vec![fake.endpoint.clone()])).await;
    let before = stage.rows().await;
    let record = stage.ask(To::of("node", "a", handler, vec![])).await;
    assert_eq!(end_of(&record), expected, "{:?}", record.cause);
    assert_eq!(stage.rows_but(&[record.flow]).await, before);
    assert_eq!(fake.attached.load(Ordering::SeqCst), 1, "it was dropped for {expected:?}");
}

fn rejected(invocation_id: u64, reason: &str) -> WorkerFrame {
    let rejection = wire::Rejection { reason: reason.to_owned(), ..wire::Rejection::default() };
    let result = Some(wire::finished::Result::Rejection(rejection));
    WorkerFrame::Finished(wire::Finished { invocation_id, result, ..wire::Finished::default() })
}

fn answered(invocation_id: u64, bytes: usize) -> WorkerFrame {
    let result = Some(wire::finished::Result::Value(Bytes::from(vec![b'1'; bytes])));
    WorkerFrame::Finished(wire::Finished { invocation_id, result, ..wire::Finished::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_honest_sdk_would_not_send_is_an_outcome_with_its_reason() {
    let failed = |reason| (Outcome::Failed, reason);
    ends_as("run", |id| finished_with(id, vec![write("nothing", None, Some("1"))]), failed("unknown-state")).await;
    ends_as("run", |id| finished_with(id, vec![write("value", Some("e"), Some("1"))]), failed("state-kind")).await;
    ends_as("run", |id| finished_with(id, vec![write("entries", None, Some("1"))]), failed("state-kind")).await;
    ends_as("run", |id| finished_with(id, vec![write("entries", Some(""), Some("1"))]), failed("entry-key")).await;
    ends_as("run", |id| read(id, 1, "value"), failed("state-kind")).await;
    ends_as("run", |id| read(id, 1, "nothing"), failed("unknown-state")).await;
    ends_as("run", |id| rejected(id, "Not A Reason"), failed("invalid-rejection")).await;
    ends_as("run", |id| answered(id, (1 << 20) + 1), failed("payload-too-large")).await;
    let nothing = |invocation_id| WorkerFrame::Finished(wire::Finished { invocation_id, ..wire::Finished::default() });
    ends_as("run", nothing, failed("function-failed")).await;
    ends_as("look", finished, failed("read-only")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_calls_is_too_many_calls_and_not_a_lost_worker() {
    let good = Worker::start().await;
    let fake = Fake::invoked(|peer, invoke| {
        peer.send((0..10_000).map(|number| call(invoke.invocation_id, number, &format!("k-{number}"))).collect());
    })
    .await;
    let stage =
        Stage::of(MemoryStore::new(), Options::default(), with_node_on(&good, vec![fake.endpoint.clone()])).await;
    let record = stage.run("a", vec![]).await;
    assert_eq!((end_of(&record), record.attempts), ((Outcome::Failed, "fan-out"), 1));
    assert_eq!(fake.attached.load(Ordering::SeqCst), 1);
}

/// A worker whose handshake is refused is dialled again, and never gets anything.
async fn is_refused(fake: &Fake, adjust: impl FnOnce(&mut Topology), reason: &str) {
    let good = Worker::start().await;
    let mut topology = with_node_on(&good, vec![fake.endpoint.clone()]);
    adjust(&mut topology);
    let runtime = Runtime::start(Options::default(), MemoryStore::new(), topology).await.unwrap();
    let line = format!("tandem_runtime_worker_drops_total{{function=\"node\",reason=\"{reason}\"}}");
    eventually(&line, async || runtime.metrics().text().contains(&line)).await;
    assert!(!runtime.has_workers());
    runtime.shut_down(Duration::ZERO).await;
}

fn welcome_with(adjust: impl FnOnce(&mut wire::Welcome)) -> wire::Welcome {
    let mut welcome = good_welcome();
    adjust(&mut welcome);
    welcome
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_welcome_that_does_not_fit_is_refused() {
    let bad_welcomes = [
        welcome_with(|welcome| welcome.version = 99),
        welcome_with(|welcome| welcome.version = 0),
        welcome_with(|welcome| welcome.functions.clear()),
        welcome_with(|welcome| welcome.functions[0].name = "somebody".to_owned()),
        welcome_with(|welcome| welcome.functions[0].handlers[0].name = "1 2".to_owned()),
        welcome_with(|welcome| welcome.functions[0].states[0].kind = 0),
    ];
    for welcome in bad_welcomes {
        let fake = Fake::start(move |mut peer| {
            let welcome = welcome.clone();
            async move {
                peer.welcome(welcome).await;
                while peer.next().await.is_some() {}
            }
        })
        .await;
        is_refused(&fake, |_| {}, "handshake").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_differs_from_its_resource_is_refused() {
    let fake = Fake::invoked(|_, _| {}).await;
    let pin_handler = |topology: &mut Topology| {
        let handlers = [("walk".parse().unwrap(), Handler::default())];
        topology.functions.get_mut(&node_name()).unwrap().handlers = Some(handlers.into());
    };
    is_refused(&fake, pin_handler, "handshake").await;
    let pin_isolation = |topology: &mut Topology| {
        let handlers = [("look".parse().unwrap(), Handler::default())];
        topology.functions.get_mut(&node_name()).unwrap().handlers = Some(handlers.into());
    };
    is_refused(&fake, pin_isolation, "handshake").await;
    let pin_state = |kind| {
        move |topology: &mut Topology| {
            let states = [("value".parse().unwrap(), State { kind, value_type: ValueType::Any })];
            topology.functions.get_mut(&node_name()).unwrap().states = Some(states.into());
        }
    };
    is_refused(&fake, pin_state(StateKind::Value), "handshake").await;
    is_refused(&fake, pin_state(StateKind::Map), "handshake").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_shake_hands_is_refused() {
    let before_welcome = Fake::start(|peer| async move { peer.send(vec![finished(0)]) }).await;
    is_refused(&before_welcome, |_| {}, "handshake").await;
    let empty = Fake::start(|peer| async move { peer.send(vec![]) }).await;
    is_refused(&empty, |_| {}, "handshake").await;
    let closes = Fake::start(|_| async {}).await;
    is_refused(&closes, |_| {}, "handshake").await;
    let hangs = Fake::start(|mut peer| async move { while peer.next().await.is_some() {} }).await;
    is_refused(&hangs, |_| {}, "handshake").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn something_else_at_the_address_is_no_worker() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new(format!("http://{}", listener.local_addr().unwrap()), Protocol::Grpc);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(&[0x5a; 4_096]).await;
        }
    });
    let good = Worker::start().await;
    let runtime =
        Runtime::start(Options::default(), MemoryStore::new(), with_node_on(&good, vec![endpoint])).await.unwrap();
    let line = "tandem_runtime_worker_drops_total{function=\"node\",reason=\"unreachable\"}";
    eventually(line, async || runtime.metrics().text().contains(line)).await;
    assert!(!runtime.has_workers());
}

// To see it fail: drop `run_once` as soon as the worker is removed (`keep_stream`): it stays in its pools. Or close the
// link of a removed worker at once: what runs there runs again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_removed_ends_what_it_runs_and_gets_nothing_more() {
    let (old, new) = (Worker::start().await, Worker::start().await);
    let stage = Stage::of(MemoryStore::new(), Options::default(), topology(&[&old])).await;
    let (began, go) = (point("began"), point("go"));
    let steps = vec![Step::Reach(began.clone()), Step::Await(go.clone(), 1), Step::Add(1)];
    let accepted = stage.submit("r-1", &node("a", steps)).await.unwrap();
    until(&began, 1).await;
    stage.runtime.set_topology(topology(&[&new]));
    // What comes meanwhile runs on the new one.
    let record = stage.run("b", vec![Step::Add(1)]).await;
    assert_eq!(end_of(&record), (Outcome::Committed, ""));
    reach(&go);
    let record = ended(accepted).await.record;
    assert_eq!((end_of(&record), record.attempts), ((Outcome::Committed, ""), 1));
    drop(old);
    for number in 0..5 {
        let record = stage.run(&format!("k-{number}"), vec![Step::Add(1)]).await;
        assert_eq!((end_of(&record), record.attempts), ((Outcome::Committed, ""), 1));
    }
    assert_eq!((stage.value("a").await, reached(&began)), (Some(1), 1));
}

// To see it fail: give out leases without looking at the credit (`Host::try_lease`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_requests_run_on_a_worker_than_it_gave_credit_for() {
    let worker = Worker::serve(Server::new((Node, Other)).credit(1)).await;
    let stage = Stage::of(MemoryStore::new(), Options::default(), topology(&[&worker])).await;
    let (began, go) = (point("began"), point("go"));
    let mut accepted = Vec::new();
    for number in 0..3 {
        // The call that it makes needs no credit: its request has some.
        let call = Step::Call(other(&format!("o-{number}"), vec![Step::Add(1)]));
        let steps = vec![Step::Reach(began.clone()), Step::Await(go.clone(), 1), call];
        accepted.push(stage.submit(&format!("r-{number}"), &node(&format!("k-{number}"), steps)).await.unwrap());
    }
    let waits = "tandem_runtime_host_credit_waits_total{function=\"node\"} ";
    eventually("two flows wait for credit", async || {
        let text = stage.runtime.metrics().text();
        let count = text.lines().find_map(|line| line.strip_prefix(waits)).map(|count| count.parse::<u64>().unwrap());
        count.is_some_and(|count| count >= 2)
    })
    .await;
    // They may have begun to wait before the worker was connected.
    until(&began, 1).await;
    assert_eq!(reached(&began), 1);
    reach(&go);
    for accepted in accepted {
        assert_eq!(end_of(&ended(accepted).await.record), (Outcome::Committed, ""));
    }
    assert_eq!(reached(&began), 3);
}
