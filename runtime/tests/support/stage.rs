//! A runtime on a store, with a worker that runs the functions of `script.rs`, all in this process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tandem::{MapKey, Server};
use tandem_model::expression::Expression;
use tandem_model::ids::{FlowId, Instance, Payload, RequestId};
use tandem_model::outcome::{FlowRecord, Outcome};
use tandem_model::request::Request;
use tandem_model::slot::SlotCount;
use tandem_model::topology::{Body, Egress, Endpoint, Function, HttpMatch, Protocol, Reply, Route, Topology};
use tandem_runtime::runtime::{Accepted, Ended, FlowFilter, NotAccepted, Options, Runtime};
use tandem_store::embedded::{self, EmbeddedStore};
use tandem_store::keys::{Layout, RowKey};
use tandem_store::memory::MemoryStore;
use tandem_store::{KeyRange, Snapshot, Store};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::script::{Node, Other, PATIENCE, Step, To, node};

/// The egress that every stage has.
pub(crate) const EGRESS: &str = "out";
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(2);
/// More rows than any test has.
const ROWS_MAX: usize = 1_000_000;

/// Runs functions until it is dropped. Invocations that run then are lost at once.
pub(crate) struct Worker {
    pub(crate) endpoint: Endpoint,
    _stop: oneshot::Sender<()>,
}

impl Worker {
    pub(crate) async fn start() -> Self {
        Self::serve(Server::new((Node, Other))).await
    }

    pub(crate) async fn serve(server: Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = server.drain(Duration::ZERO).bind(listener).unwrap();
        let endpoint = Endpoint::new(format!("http://{}", server.address()), Protocol::Grpc);
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(server.run_until(async {
            let _dropped = stopped.await;
        }));
        Self { endpoint, _stop: stop }
    }
}

/// A topology of the functions of `script.rs`, with these workers for both.
pub(crate) fn topology(workers: &[&Worker]) -> Topology {
    let workers: Vec<Endpoint> = workers.iter().map(|worker| worker.endpoint.clone()).collect();
    let function = Function { workers, ..Function::default() };
    let names = ["node", "other"].map(|name| name.parse().unwrap());
    let functions = names.into_iter().map(|name| (name, function.clone())).collect();
    let egress = Egress { stream_retention_ms: Topology::RETENTION_MS };
    let routes = ["run", "snapshot", "look"].map(|handler| (handler.parse().unwrap(), route(handler)));
    Topology {
        format: Topology::FORMAT,
        slots: SlotCount::DEFAULT,
        retention_ms: Topology::RETENTION_MS,
        functions,
        routes: BTreeMap::from(routes),
        egresses: BTreeMap::from([(EGRESS.parse().unwrap(), egress)]),
        ..Topology::default()
    }
}

/// `POST /run/{key}` runs `run` of `node`, and so on.
fn route(handler: &str) -> Route {
    Route {
        http: HttpMatch { method: "POST".to_owned(), path: format!("/{handler}/{{key}}") },
        function: "node".parse().unwrap(),
        handler: handler.parse().unwrap(),
        key: Expression::parse("request.path.key").unwrap(),
        idempotency_key: None,
        reply: Reply::Wait,
        deadline_ms: None,
        body: Body::Json,
    }
}

/// An embedded store in a directory.
pub(crate) fn embedded(directory: &Path) -> EmbeddedStore {
    // A test machine may be nearly full; how much room is left is not what is tested here.
    EmbeddedStore::open(directory, embedded::Options { reserve_bytes: 0, ..embedded::Options::default() }).unwrap()
}

/// Copies the directory of a store as it is: what the next process would find if this one or its machine ended now.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A runtime that has a worker.
pub(crate) struct Stage<S: Store> {
    pub(crate) runtime: Runtime<S>,
    pub(crate) store: S,
    pub(crate) layout: Layout,
    worker: Option<Worker>,
}

impl Stage<MemoryStore> {
    pub(crate) async fn memory() -> Self {
        Self::start(MemoryStore::new()).await
    }

    pub(crate) async fn memory_with(adjust: impl FnOnce(&mut Topology)) -> Self {
        Self::start_with(MemoryStore::new(), Options::default(), adjust).await
    }
}

/// A stage on an embedded store, in a directory that goes with it.
pub(crate) async fn embedded_stage() -> (Stage<EmbeddedStore>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (Stage::start(embedded(directory.path())).await, directory)
}

impl<S: Store> Stage<S> {
    pub(crate) async fn start(store: S) -> Self {
        Self::start_with(store, Options::default(), |_| {}).await
    }

    pub(crate) async fn start_with(store: S, options: Options, adjust: impl FnOnce(&mut Topology)) -> Self {
        let worker = Worker::start().await;
        let mut topology = topology(&[&worker]);
        adjust(&mut topology);
        let stage = Self::of(store, options, topology).await;
        Self { worker: Some(worker), ..stage }
    }

    /// With a topology of the test's own. Returns once all of its workers are connected.
    pub(crate) async fn of(store: S, options: Options, topology: Topology) -> Self {
        let layout = Layout::new(topology.slots);
        let runtime = Runtime::start(options, store.clone(), topology).await.unwrap();
        let stage = Self { runtime, store, layout, worker: None };
        eventually("workers are connected", async || stage.runtime.has_workers()).await;
        stage
    }

    /// Keeps a worker as long as the stage.
    pub(crate) fn keep(&mut self, worker: Worker) {
        self.worker = Some(worker);
    }

    pub(crate) fn request(&self, id: &str, to: &To) -> Request {
        let payload = Payload::json(serde_json::to_vec(&to.steps).unwrap());
        let id: RequestId = id.parse().unwrap();
        let instance = Instance::parse(&to.function, &to.key).unwrap();
        Request::new(self.layout.slots(), id, instance, to.handler.parse().unwrap(), payload, PATIENCE)
    }

    pub(crate) async fn submit(&self, id: &str, to: &To) -> Result<Accepted, NotAccepted> {
        self.runtime.submit(self.request(id, to)).await
    }

    /// Sends a request with this id, and waits for its end.
    pub(crate) async fn ask_as(&self, id: &str, to: &To) -> Ended {
        ended(self.submit(id, to).await.unwrap()).await
    }

    /// Sends a request with an id of its own, and waits for its end.
    pub(crate) async fn ask(&self, to: To) -> Arc<FlowRecord> {
        self.ask_as(&self.id(), &to).await.record
    }

    /// The same, for `run` of `node`.
    pub(crate) async fn run(&self, key: &str, steps: Vec<Step>) -> Arc<FlowRecord> {
        self.ask(node(key, steps)).await
    }

    /// An id that no other request has, of another stage on the same store either.
    #[expect(clippy::unused_self, reason = "tests ask the stage for everything")]
    pub(crate) fn id(&self) -> String {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        format!("stage-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
    }

    /// The stored value of an instance of `node`.
    pub(crate) async fn value(&self, key: &str) -> Option<i64> {
        self.value_of("node", key).await
    }

    pub(crate) async fn value_of(&self, function: &str, key: &str) -> Option<i64> {
        let state = self.runtime.state(&Instance::parse(function, key).unwrap(), None, ROWS_MAX).await.unwrap();
        let value = state.values.iter().find(|(name, _)| name.as_str() == "value");
        value.map(|(_, bytes)| serde_json::from_slice(bytes).unwrap())
    }

    /// The stored entries of an instance of `node`.
    pub(crate) async fn entries(&self, key: &str) -> BTreeMap<String, i64> {
        let state = self.runtime.state(&Instance::parse("node", key).unwrap(), None, ROWS_MAX).await.unwrap();
        let entry = |(_, key, value): (_, Bytes, Bytes)| {
            (String::from_bytes(&key).unwrap(), serde_json::from_slice(&value).unwrap())
        };
        state.entries.into_iter().map(entry).collect()
    }

    /// What was emitted so far.
    pub(crate) async fn emitted(&self) -> Vec<i64> {
        let records = self.runtime.egress(&EGRESS.parse().unwrap(), 0, ROWS_MAX).await.unwrap();
        records.iter().map(|record| serde_json::from_slice(&record.payload).unwrap()).collect()
    }

    /// Everything that is stored.
    pub(crate) async fn rows(&self) -> BTreeMap<Bytes, Bytes> {
        let all = KeyRange { start: Bytes::new(), end: None };
        self.store.snapshot().await.unwrap().scan(&all, ROWS_MAX, false).await.unwrap().into_iter().collect()
    }

    /// Everything that is stored but the records of these flows.
    pub(crate) async fn rows_but(&self, flows: &[FlowId]) -> BTreeMap<Bytes, Bytes> {
        let mut rows = self.rows().await;
        for flow in flows {
            rows.remove(&self.layout.request(*flow));
        }
        rows
    }

    /// How many rows there are of one kind.
    pub(crate) async fn count(&self, kind: fn(&RowKey) -> bool) -> usize {
        let rows = self.rows().await;
        rows.keys().filter(|row| tandem_store::keys::parse(row).is_ok_and(|row| kind(&row))).count()
    }

    /// Waits until no flow runs and no message waits for one, those apart that are not due.
    pub(crate) async fn rest(&self) {
        eventually("the runtime rests", async || {
            // Rows first: a message that leaves the inbox meanwhile is among the flows, or has ended.
            let waiting = self.count(|row| matches!(row, RowKey::Inbox { .. })).await;
            let (running, _) = self.runtime.flows(&FlowFilter { limit: 1, ..FlowFilter::default() }).await.unwrap();
            waiting == 0 && running.is_empty()
        })
        .await;
    }
}

pub(crate) async fn ended(accepted: Accepted) -> Ended {
    let outcome = tokio::time::timeout(2 * PATIENCE, accepted.outcome).await;
    outcome.expect("the flow does not end").expect("the runtime stopped")
}

/// What the handler returned.
pub(crate) fn result(record: &FlowRecord) -> i64 {
    assert_eq!(record.outcome, Outcome::Committed, "{:?}", record.cause);
    serde_json::from_slice(&record.result.as_ref().unwrap().bytes).unwrap()
}

/// How it ended, and why.
pub(crate) fn end_of(record: &FlowRecord) -> (Outcome, &str) {
    (record.outcome, record.cause.as_ref().map_or("", |cause| &cause.reason))
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(POLL).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never so: {what}");
}
