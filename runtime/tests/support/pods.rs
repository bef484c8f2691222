//! Several runtimes on one store, each with threads of its own, so that it can be killed; streams over loopback.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tandem_model::ids::Key;
use tandem_model::topology::Topology;
use tandem_runtime::dial::Tcp;
use tandem_runtime::members::MemberId;
use tandem_runtime::peers::PeerOptions;
use tandem_runtime::runtime::{Accepted, Ended, NotAccepted, Options};
use tandem_store::Store;
use tokio::net::TcpListener;

use crate::script::To;
use crate::stage::{Stage, Worker, ended, eventually, topology};

/// How often pods give a sign of life.
pub(crate) const BEAT: Duration = Duration::from_millis(20);
/// When one that gives none counts as gone. Long enough for a machine that is busy.
pub(crate) const DEAD_AFTER: Duration = Duration::from_millis(800);

/// More keys than are needed to find one of each owner.
const KEYS_MAX: usize = 10_000;
/// How long a pod that stops passes requests on.
pub(crate) const LINGER: Duration = Duration::from_millis(300);

/// One runtime. Dropping it kills it.
pub(crate) struct Pod<S: Store> {
    pub(crate) stage: Arc<Stage<S>>,
    threads: Option<tokio::runtime::Runtime>,
}

/// How the pods of a test are started.
pub(crate) struct Pods<S: Store> {
    pub(crate) store: S,
    pub(crate) topology: Topology,
    pub(crate) dead_after: Duration,
    _worker: Worker,
}

impl<S: Store> Pods<S> {
    pub(crate) async fn on(store: S) -> Self {
        let worker = Worker::start().await;
        let mut topology = topology(&[&worker]);
        topology.limits.attempts_max = 1_000;
        Self { store, topology, dead_after: DEAD_AFTER, _worker: worker }
    }

    /// Starts a pod. Its threads are its own.
    pub(crate) async fn start(&self, name: &str) -> Pod<S> {
        let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (store, topology, name, dead_after) =
            (self.store.clone(), self.topology.clone(), name.to_owned(), self.dead_after);
        let start = async move || {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = format!("http://{}", listener.local_addr().unwrap());
            let (listener, dial) = (Some(listener), Arc::new(Tcp));
            let (beat, linger) = (BEAT, LINGER);
            let peers = PeerOptions { name: Some(name), address, listener, dial, beat, dead_after, linger };
            Stage::of(store, Options { peers: Some(peers), ..Options::default() }, topology).await
        };
        let started = tokio::task::spawn_blocking(move || (threads.block_on(start()), threads));
        let (stage, threads) = started.await.unwrap();
        Pod { stage: Arc::new(stage), threads: Some(threads) }
    }

    /// Starts so many, and waits until they know each other.
    pub(crate) async fn several<const COUNT: usize>(&self) -> [Pod<S>; COUNT] {
        let mut pods = Vec::new();
        for number in 0..COUNT {
            pods.push(self.start(&format!("pod-{number}")).await);
        }
        let all: Vec<&Pod<S>> = pods.iter().collect();
        settled(&all).await;
        pods.try_into().unwrap_or_else(|_| unreachable!("as many as were started"))
    }
}

/// Waits until these pods and no others know and reach each other.
pub(crate) async fn settled<S: Store>(pods: &[&Pod<S>]) {
    eventually("the pods know each other", async || {
        pods.iter().all(|pod| {
            let map = pod.stage.runtime.map();
            let taking = map.members.iter().filter(|member| !member.draining).count();
            taking == pods.len() && pod.stage.runtime.peers_connected() + 1 >= pods.len()
        })
    })
    .await;
}

impl<S: Store> Pod<S> {
    /// Does something in the threads of the pod.
    pub(crate) async fn run<T, F>(&self, work: impl FnOnce(Arc<Stage<S>>) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let threads = self.threads.as_ref().expect("it lives until it is dropped");
        threads.spawn(work(Arc::clone(&self.stage))).await.unwrap()
    }

    pub(crate) async fn submit(&self, id: &str, to: &To) -> Result<Accepted, NotAccepted> {
        let request = self.stage.request(id, to);
        self.run(|stage| async move { stage.runtime.submit(request).await }).await
    }

    /// Sends a request with this id, and waits for its end.
    pub(crate) async fn ask_as(&self, id: &str, to: &To) -> Ended {
        ended(self.submit(id, to).await.unwrap()).await
    }

    /// Sends a request with an id of its own, and waits for its end.
    pub(crate) async fn ask(&self, to: To) -> Ended {
        self.ask_as(&self.stage.id(), &to).await
    }

    /// Stops it as a process is told to.
    pub(crate) async fn stop(&self, grace: Duration) {
        self.run(|stage| async move { stage.runtime.shut_down(grace).await }).await;
    }

    /// The process is gone, with all that it was at.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }

    pub(crate) fn id(&self) -> MemberId {
        self.stage.runtime.map().me
    }

    /// A key that this pod owns, by its own map: another one for each number.
    pub(crate) fn own_key(&self, number: usize) -> String {
        let map = self.stage.runtime.map();
        let is_own = |key: &String| {
            let key: Key = key.parse().unwrap();
            map.owner(self.stage.layout.slots().slot_of(&key)) == Some(map.me)
        };
        (0..KEYS_MAX).map(|at| format!("key-{at}")).filter(is_own).nth(number).unwrap()
    }

    /// A key that another pod owns, by this pod's map.
    pub(crate) fn own_key_of(&self, other: &Self) -> String {
        let (map, owner) = (self.stage.runtime.map(), other.id());
        let slots = self.stage.layout.slots();
        let is_its = |key: &String| map.owner(slots.slot_of(&key.parse().unwrap())) == Some(owner);
        (0..KEYS_MAX).map(|at| format!("key-{at}")).find(is_its).unwrap()
    }

    /// A figure of its metrics: name and labels as they are written, 0 if it is not there.
    pub(crate) fn figure(&self, name: &str) -> u64 {
        let text = self.stage.runtime.metrics().text();
        let figures: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.rsplit_once(' ')).collect();
        figures.get(format!("tandem_runtime_{name}").as_str()).map_or(0, |value| value.parse().unwrap())
    }
}

impl<S: Store> Drop for Pod<S> {
    fn drop(&mut self) {
        self.end();
    }
}
