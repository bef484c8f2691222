//! The kit: starts the runtime and the functions, sends requests, looks at what they left.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tandem::{BoundServer, Functions, MapKey, Server};
use tandem_model::ids::{EgressName, HandlerName, Instance, Payload, RequestId, StateName};
use tandem_model::limits::Limits;
use tandem_model::request::Request;
use tandem_model::slot::SlotCount;
use tandem_model::topology::Topology;
use tandem_runtime::runtime::{FlowFilter, Options, Runtime};
use tandem_store::keys::{Layout, Table};
use tandem_store::memory::MemoryStore;
use tandem_store::{Commit, CommitResult, Store};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::{Answer, Error, State, topology};

/// How long a request of a test may take, unless the test says otherwise.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long the runtime may take to come to rest.
const REST_TIME_MAX: Duration = Duration::from_secs(20);
/// How often it is looked at until then.
const REST_POLL: Duration = Duration::from_millis(2);
/// Entries of an instance, and records of an egress, that a test can see.
const SEEN_MAX: usize = 100_000;
/// How long flows may run on when the kit stops.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// Where the table of a row is in its key, behind the slot.
const TABLE_BYTE: usize = 2;
const LOOPBACK: &str = "127.0.0.1:0";

/// Functions, a runtime and a store in memory, all in this process. Each kit has its own; dropping it ends it.
pub struct TestKit {
    runtime: Runtime<MemoryStore>,
    store: MemoryStore,
    layout: Layout,
    deadline: Duration,
    requests: AtomicU64,
    _server: oneshot::Sender<()>,
}

/// A kit that is about to start.
#[derive(Debug)]
pub struct Builder {
    descriptors: Vec<tandem::generated::Descriptor>,
    server: Server,
    egresses: Vec<String>,
    limits: Limits,
    deadline: Duration,
    store: MemoryStore,
}

impl Builder {
    /// Declares an egress, so that functions can emit to it.
    #[must_use]
    pub fn egress(mut self, name: impl Into<String>) -> Self {
        self.egresses.push(name.into());
        self
    }

    /// Other limits than the default ones.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Gives requests less or more time than 20 seconds.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// A store of the test's own: filled before, with faults ordered, or looked at row by row afterwards.
    #[must_use]
    pub fn store(mut self, store: MemoryStore) -> Self {
        self.store = store;
        self
    }

    /// Starts the functions and the runtime.
    pub async fn start(self) -> Result<TestKit, Error> {
        let listener = TcpListener::bind(LOOPBACK).await.map_err(|error| Error::Stopped(error.to_string()))?;
        let server = self.server.bind(listener).map_err(|error| Error::Stopped(error.to_string()))?;
        let topology = topology::of(&self.descriptors, &self.egresses, self.limits, server.address())?;
        let runtime = start_runtime(self.store.clone(), topology).await?;
        let (layout, requests) = (Layout::new(SlotCount::DEFAULT), AtomicU64::new(0));
        Ok(TestKit { runtime, store: self.store, layout, deadline: self.deadline, requests, _server: serve(server) })
    }
}

async fn start_runtime(store: MemoryStore, topology: Topology) -> Result<Runtime<MemoryStore>, Error> {
    Runtime::start(Options::default(), store, topology).await.map_err(|error| Error::Stopped(error.to_string()))
}

/// Runs the server until the sender is dropped.
fn serve(server: BoundServer) -> oneshot::Sender<()> {
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(server.run_until(async {
        let _dropped = stopped.await;
    }));
    stop
}

impl TestKit {
    /// Starts these functions (one, or a tuple of up to twelve) with the default limits and without egress.
    pub async fn start<F: Functions>(functions: F) -> Result<Self, Error> {
        Self::builder(functions).start().await
    }

    /// A kit with egresses, other limits, or a store of its own.
    pub fn builder<F: Functions>(functions: F) -> Builder {
        Builder {
            descriptors: F::descriptors(),
            server: Server::new(functions).drain(Duration::ZERO),
            egresses: Vec::new(),
            limits: Limits::default(),
            deadline: DEADLINE,
            store: MemoryStore::new(),
        }
    }

    /// Sends a request with an id of its own, and waits until its outcome is durable.
    pub async fn call(
        &self,
        function: &str,
        key: &str,
        handler: &str,
        argument: &impl Serialize,
    ) -> Result<Answer, Error> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        self.call_as(&format!("testkit-{number}"), function, key, handler, argument).await
    }

    /// Sends a request with this id. The same request with the same id is answered from its record.
    pub async fn call_as(
        &self,
        request_id: &str,
        function: &str,
        key: &str,
        handler: &str,
        argument: &impl Serialize,
    ) -> Result<Answer, Error> {
        let payload = Payload::json(json(argument, || format!("the argument of {function} {handler}"))?);
        let id: RequestId = request_id.parse()?;
        let handler: HandlerName = handler.parse()?;
        let instance = Instance::parse(function, key)?;
        let request = Request::new(self.layout.slots(), id, instance, handler, payload, self.deadline);
        let accepted = self.runtime.submit(request).await?;
        let ended = accepted.outcome.await;
        let ended = ended.map_err(|_| Error::Stopped("the runtime stopped before the outcome".to_owned()))?;
        Ok(Answer::new(ended.record, ended.repeated))
    }

    /// The stored state of an instance.
    pub async fn state(&self, function: &str, key: &str) -> Result<State, Error> {
        let instance = Instance::parse(function, key)?;
        Ok(State(self.runtime.state(&instance, None, SEEN_MAX).await?))
    }

    /// Stores a value before the test begins, as if an earlier flow had written it.
    pub async fn seed(&self, function: &str, key: &str, state: &str, value: &impl Serialize) -> Result<(), Error> {
        let row = self.layout.state_value(&Instance::parse(function, key)?, &state.parse::<StateName>()?);
        self.write(row, json(value, || format!("the seed of state {state}"))?).await
    }

    /// Stores an entry of a map before the test begins.
    pub async fn seed_entry<K: MapKey>(
        &self,
        function: &str,
        key: &str,
        state: &str,
        entry: (&K, &impl Serialize),
    ) -> Result<(), Error> {
        let (entry_key, value) = entry;
        let instance = Instance::parse(function, key)?;
        let row = self.layout.state_entry(&instance, &state.parse::<StateName>()?, &entry_key.to_bytes());
        self.write(row, json(value, || format!("the seed of state {state}"))?).await
    }

    /// What was emitted to an egress so far, in the order of the commits.
    pub async fn emitted<T: DeserializeOwned>(&self, egress: &str) -> Result<Vec<T>, Error> {
        let records = self.runtime.egress(&egress.parse::<EgressName>()?, 0, SEEN_MAX).await?;
        let read = |bytes: &Bytes| {
            let what = || format!("a record of egress {egress}");
            serde_json::from_slice(bytes).map_err(|source| Error::Json { what: what(), source })
        };
        records.iter().map(|record| read(&record.payload)).collect()
    }

    /// Waits until no flow runs and no message waits for one. Messages that were sent with a delay are not waited for.
    pub async fn rest(&self) -> Result<(), Error> {
        let resting = async {
            while !self.is_at_rest().await? {
                tokio::time::sleep(REST_POLL).await;
            }
            Ok(())
        };
        tokio::time::timeout(REST_TIME_MAX, resting).await.unwrap_or(Err(Error::Busy(REST_TIME_MAX)))
    }

    /// The runtime, for what the kit has no word for.
    pub fn runtime(&self) -> &Runtime<MemoryStore> {
        &self.runtime
    }

    /// The store, to order faults or to look at every row.
    pub fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// Ends the kit, and waits until the runtime has stopped. Dropping the kit ends it as well, without waiting.
    pub async fn stop(&self) {
        self.runtime.shut_down(STOP_GRACE).await;
    }

    async fn is_at_rest(&self) -> Result<bool, Error> {
        // Rows first: a message that leaves the inbox meanwhile is among the flows, or has ended.
        let inbox = |(key, _): &(Bytes, Bytes)| key.get(TABLE_BYTE) == Some(&(Table::Inbox as u8));
        if self.store.rows().iter().any(inbox) {
            return Ok(false);
        }
        let (running, _) = self.runtime.flows(&FlowFilter { limit: 1, ..FlowFilter::default() }).await?;
        Ok(running.is_empty())
    }

    async fn write(&self, row: Bytes, value: Bytes) -> Result<(), Error> {
        let commit = Commit { primary: row.clone(), writes: vec![(row, Some(value))], ..Commit::default() };
        match self.store.commit(commit).await? {
            CommitResult::Committed(_) => Ok(()),
            other => Err(Error::Stopped(format!("the store did not take the seed: {other:?}"))),
        }
    }
}

impl Drop for TestKit {
    fn drop(&mut self) {
        // Without a runtime of tokio there is nothing left to stop.
        if let Ok(tokio) = tokio::runtime::Handle::try_current() {
            let runtime = self.runtime.clone();
            tokio.spawn(async move { runtime.shut_down(Duration::ZERO).await });
        }
    }
}

impl fmt::Debug for TestKit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestKit").field("store", &self.store).finish_non_exhaustive()
    }
}

fn json(value: &impl Serialize, what: impl FnOnce() -> String) -> Result<Bytes, Error> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|source| Error::Json { what: what(), source })
}
