//! Workers that come and go behind a name, and revisions of the code that share the flows by weight.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tandem_model::outcome::Outcome;
use tandem_model::topology::{Endpoint, Protocol, Topology};
use tandem_proto::function::v1alpha1 as wire;
use tandem_runtime::dial::{Dial, Incoming, Outgoing, Tcp};
use tandem_runtime::runtime::{Options, RevisionReport};
use tandem_store::memory::MemoryStore;

use crate::fake::{Fake, finished, good_welcome};
use crate::script::{Step, node};
use crate::stage::{Stage, Worker, end_of, eventually};
use crate::{node_name, with_node_on};

const FLOWS: usize = 40;

/// A worker that answers everything at once, and counts.
async fn counting() -> (Fake, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let fake = Fake::invoked(move |peer, invoke| {
        counted.fetch_add(1, Ordering::SeqCst);
        peer.send(vec![finished(invoke.invocation_id)]);
    })
    .await;
    (fake, count)
}

fn of_revision(endpoint: &Endpoint, revision: &str) -> Endpoint {
    Endpoint { revision: revision.to_owned(), ..endpoint.clone() }
}

fn weighted(mut topology: Topology, weights: &[(&str, u32)]) -> Topology {
    let function = topology.functions.get_mut(&node_name()).unwrap();
    function.weights = weights.iter().map(|(revision, weight)| ((*revision).to_owned(), *weight)).collect();
    topology
}

async fn run_flows(stage: &Stage<MemoryStore>) {
    let flows = (0..FLOWS).map(|number| stage.ask(node(&format!("k-{number}"), vec![])));
    for record in join_all(flows).await {
        assert_eq!(end_of(&record), (Outcome::Committed, ""), "{:?}", record.cause);
    }
}

fn report(stage: &Stage<MemoryStore>, revision: &str) -> RevisionReport {
    let mut reports = stage.runtime.workers().remove(&node_name()).unwrap();
    let place = reports.iter().position(|report| report.revision == revision).unwrap();
    reports.swap_remove(place)
}

async fn until_ready(stage: &Stage<MemoryStore>, revision: &str, workers: usize) {
    eventually(&format!("{workers} of {revision}"), async || report(stage, revision).workers_ready == workers).await;
}

// To see it fail: let `Inner::candidates` give all workers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_are_shared_by_weight_and_weights_change_without_new_connections() {
    let good = Worker::start().await;
    let ((old, old_count), (new, new_count)) = (counting().await, counting().await);
    let both = with_node_on(&good, vec![of_revision(&old.endpoint, "a"), of_revision(&new.endpoint, "b")]);
    let stage =
        Stage::of(MemoryStore::new(), Options::default(), weighted(both.clone(), &[("a", 100), ("b", 0)])).await;
    until_ready(&stage, "a", 1).await;
    until_ready(&stage, "b", 1).await;
    run_flows(&stage).await;
    let counts = || (old_count.load(Ordering::SeqCst), new_count.load(Ordering::SeqCst));
    assert_eq!(counts(), (FLOWS, 0), "a revision without weight is connected and gets nothing");
    assert_eq!((report(&stage, "a").invocations, report(&stage, "b").invocations), (FLOWS as u64, 0));

    stage.runtime.set_topology(weighted(both.clone(), &[("a", 50), ("b", 50)]));
    run_flows(&stage).await;
    let (of_old, of_new) = counts();
    assert!(of_old > FLOWS && of_new > 0, "both get some: {of_old}, {of_new}");

    stage.runtime.set_topology(weighted(both, &[("a", 0), ("b", 100)]));
    run_flows(&stage).await;
    assert_eq!(counts(), (of_old, of_new + FLOWS));
    let attached = [&old, &new].map(|worker| worker.attached.load(Ordering::SeqCst));
    assert_eq!(attached, [1, 1], "nobody was dialled anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_no_worker_of_a_revision_is_there_the_other_one_takes_its_flows() {
    let good = Worker::start().await;
    let (old, _) = counting().await;
    let nowhere = Endpoint::new("http://127.0.0.1:1", Protocol::Grpc);
    let both = with_node_on(&good, vec![of_revision(&old.endpoint, "a"), of_revision(&nowhere, "b")]);
    let stage = Stage::of(MemoryStore::new(), Options::default(), weighted(both, &[("a", 1), ("b", 99)])).await;
    run_flows(&stage).await;
    eventually("the problem is told", async || report(&stage, "b").problem.is_some()).await;
    assert_eq!(report(&stage, "b").problem.unwrap().reason, "Unreachable");
    assert_eq!(report(&stage, "a").problem, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_of_each_revision_are_counted_and_rejections_are_none() {
    let stage = Stage::memory().await;
    for step in [Step::Fail, Step::Reject] {
        stage.ask(node("a", vec![step])).await;
    }
    let report = report(&stage, "");
    assert_eq!((report.invocations, report.failures, report.workers_ready), (2, 1, 1));
}

// To see it fail: leave out `Host::check_states`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_cannot_read_what_is_stored_is_refused() {
    let good = Worker::start().await;
    let (old, _) = counting().await;
    let new = Fake::start(|mut peer| async move {
        let mut welcome = good_welcome();
        welcome.functions[0].states[0].kind = wire::StateKind::Map.into();
        peer.welcome(welcome).await;
        while peer.next().await.is_some() {}
    })
    .await;
    let old_only = with_node_on(&good, vec![of_revision(&old.endpoint, "a")]);
    let both = with_node_on(&good, vec![of_revision(&old.endpoint, "a"), of_revision(&new.endpoint, "b")]);
    let stage = Stage::of(MemoryStore::new(), Options::default(), weighted(old_only, &[("a", 100)])).await;
    until_ready(&stage, "a", 1).await;
    stage.runtime.set_topology(weighted(both, &[("a", 0), ("b", 100)]));
    eventually("the problem is told", async || report(&stage, "b").problem.is_some()).await;
    let problem = report(&stage, "b").problem.unwrap();
    assert_eq!((problem.reason.as_str(), report(&stage, "b").workers_ready), ("StateIncompatible", 0), "{problem:?}");
    assert!(problem.message.contains("state value is Map, and Value in the workers before it"), "{problem:?}");
}

// To see it fail: let every worker say in `Host::add` what is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_without_flows_locks_nobody_out_who_serves() {
    let good = Worker::start().await;
    let (old, _) = counting().await;
    let new = Fake::start(|mut peer| async move {
        let mut welcome = good_welcome();
        welcome.functions[0].states[0].kind = wire::StateKind::Map.into();
        peer.welcome(welcome).await;
        while peer.next().await.is_some() {}
    })
    .await;
    let new_only = with_node_on(&good, vec![of_revision(&new.endpoint, "b")]);
    let both = with_node_on(&good, vec![of_revision(&old.endpoint, "a"), of_revision(&new.endpoint, "b")]);
    let weights = [("a", 100), ("b", 0)];
    let stage = Stage::of(MemoryStore::new(), Options::default(), weighted(new_only, &weights)).await;
    until_ready(&stage, "b", 1).await;
    stage.runtime.set_topology(weighted(both, &weights));
    until_ready(&stage, "a", 1).await;
    run_flows(&stage).await;
}

/// A name whose workers the test chooses.
#[derive(Clone)]
struct Names(Arc<Mutex<Result<Vec<Endpoint>, String>>>);

const NAME: &str = "http://workers.test:9000";

impl Dial for Names {
    fn attach(&self, endpoint: &Endpoint, outgoing: Outgoing) -> BoxFuture<'static, Result<Incoming, String>> {
        Tcp.attach(endpoint, outgoing)
    }

    fn resolve(&self, endpoint: &Endpoint) -> Option<BoxFuture<'static, Result<Vec<Endpoint>, String>>> {
        let found = self.0.lock().unwrap().clone();
        (endpoint.url == NAME).then(|| futures_util::future::ready(found).boxed())
    }
}

impl Default for Names {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Err("nobody has this name".to_owned()))))
    }
}

// To see it fail: dial only the first of the addresses, or never ask again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_worker_behind_a_name_is_connected_as_they_come_and_go() {
    let good = Worker::start().await;
    let ((one, of_one), (two, of_two)) = (counting().await, counting().await);
    let names = Names::default();
    let tell = |found: &[&Fake]| {
        *names.0.lock().unwrap() = Ok(found.iter().map(|worker| worker.endpoint.clone()).collect());
    };
    let topology = with_node_on(&good, vec![Endpoint::new(NAME, Protocol::Grpc)]);
    let options = Options { dial: Arc::new(names.clone()), ..Options::default() };
    tell(&[&one, &two]);
    let stage = Stage::of(MemoryStore::new(), options, topology).await;
    until_ready(&stage, "", 2).await;
    run_flows(&stage).await;
    let counts = || (of_one.load(Ordering::SeqCst), of_two.load(Ordering::SeqCst));
    assert!(counts().0 > 0 && counts().1 > 0, "{:?}", counts());
    tell(&[&two]);
    until_ready(&stage, "", 1).await;
    let before = counts();
    run_flows(&stage).await;
    assert_eq!(counts(), (before.0, before.1 + FLOWS));
    *names.0.lock().unwrap() = Err("the server for names is away".to_owned());
    run_flows(&stage).await;
    assert_eq!(report(&stage, "").workers_ready, 1, "who is connected stays");
    tell(&[]);
    until_ready(&stage, "", 0).await;
    *names.0.lock().unwrap() = Err("the server for names is away".to_owned());
    eventually("the problem is told", async || report(&stage, "").problem.is_some()).await;
    assert!(report(&stage, "").problem.unwrap().message.contains("the server for names is away"));
}
