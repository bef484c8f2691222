//! The handle that entries, the admin port and tests use: submit, wait, cancel, look.
//!
//! **Invariant:** what a caller is told has been durable before it is told. (Read-only flows change nothing; their
//! records are told, and not stored.)

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tandem_model::ids::{EgressName, FlowId, FunctionName, HandlerName, Instance, StateName, Timestamp};
use tandem_model::mechanism::{Mechanism, works};
use tandem_model::outcome::{FlowRecord, Outcome};
use tandem_model::request::Request;
use tandem_model::topology::{Isolation, Topology};
use tandem_store::{Snapshot, Store, rows};
use tokio::sync::{broadcast, oneshot};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{Instrument, warn};

use crate::clock::{Clock, SystemClock};
use crate::courier::MESSAGE_ID_PREFIX;
use crate::dial::{Dial, Tcp};
use crate::engine::Engine;
use crate::flow::{Flow, Left, Opened};
use crate::members::Map;
use crate::metrics::Metrics;
use crate::partition::Source;
use crate::peers::{Answer, Lookup, PeerOptions};
use crate::registry::Begun;
use crate::tasks::{self, TaskKind};
use crate::telemetry;

pub use crate::host::{RevisionReport, WorkerProblem};

mod look;
mod start;

/// What a runtime is started with, besides its store and topology.
pub struct Options {
    /// Where wall time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where figures go.
    pub metrics: Arc<Metrics>,
    /// How streams to workers of the gRPC protocol are opened.
    pub dial: Arc<dyn Dial>,
    /// Where randomness starts from: the same seed gives the same waits. Without one, the system's randomness is used.
    pub seed: Option<u64>,
    /// How it shares its store with other runtimes. Without it, no other may write to the store.
    pub peers: Option<PeerOptions>,
}

impl Default for Options {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), metrics: Metrics::new(), dial: Arc::new(Tcp), seed: None, peers: None }
    }
}

/// A running runtime. Cheap to clone; it runs until [`Runtime::shut_down`].
pub struct Runtime<S: Store> {
    pub(crate) engine: Arc<Engine<S>>,
}

impl<S: Store> Clone for Runtime<S> {
    fn clone(&self) -> Self {
        Self { engine: Arc::clone(&self.engine) }
    }
}

/// A request that the runtime took: it will end with exactly one outcome, whether anybody waits or not.
#[derive(Debug)]
pub struct Accepted {
    /// The flow. The same for every repetition of the request.
    pub flow: FlowId,
    /// Resolves when the outcome is durable. Dropping it cancels nothing. An error means that the runtime stopped
    /// before the outcome was known; repeating the request with the same id is safe and gives it.
    pub outcome: oneshot::Receiver<Ended>,
}

/// How an accepted request ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The request record as stored.
    pub record: Arc<FlowRecord>,
    /// The answer came from the record of an earlier request with the same id.
    pub repeated: bool,
}

/// Why a request was not taken. It has no outcome; repeating it with the same id is always safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// The same request id came before with another body. Not safe to repeat as it is: choose another id. (422)
    #[error("request id {request} was used for a different request on {instance} before")]
    Mismatch {
        /// The id.
        request: String,
        /// The instance.
        instance: Instance,
    },
    /// Too many flows are running or waiting. (429)
    #[error("{in_flight} flows are in flight, at most {max} are allowed; try again")]
    Busy {
        /// How many there are.
        in_flight: usize,
        /// How many there may be.
        max: usize,
    },
    /// The store cannot be reached, or the runtime is shutting down. (503)
    #[error("not available: {0}")]
    Unavailable(String),
    /// The request makes no sense: an unknown function or handler, or `asOf` on a handler that is not read-only. (400, 404)
    #[error("{0}")]
    Invalid(Invalid),
}

/// Why a request makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// No such function.
    #[error("function {0:?} does not exist")]
    UnknownFunction(String),
    /// The function has no such handler.
    #[error("function {function} has no handler {handler:?}; it has {known}")]
    UnknownHandler {
        /// The function.
        function: FunctionName,
        /// What was asked for.
        handler: String,
        /// What there is.
        known: String,
    },
    /// The payload is too large.
    #[error("the payload has {bytes} bytes, at most {max} are allowed")]
    PayloadTooLarge {
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        max: usize,
    },
    /// The id is one that only messages have.
    #[error("a request id must not begin with {MESSAGE_ID_PREFIX:?}: those are the ids of messages")]
    ReservedId,
    /// A past time on a handler that may write.
    #[error("asOf needs a handler with isolation ReadOnly")]
    AsOfNeedsReadOnly,
    /// The store keeps no such past.
    #[error("{0}")]
    HistoryNotKept(String),
}

/// What is known about a flow id.
#[derive(Clone, Debug)]
pub enum FlowState {
    /// Nothing: never accepted here, or its record has expired.
    Unknown,
    /// It runs or waits.
    Running(RunningFlow),
    /// It ended.
    Ended(Arc<FlowRecord>),
}

/// A flow that has not ended.
#[derive(Clone, Debug)]
pub struct RunningFlow {
    /// The flow.
    pub flow: FlowId,
    /// The entry instance.
    pub instance: Instance,
    /// The entry handler.
    pub handler: HandlerName,
    /// 0 while it waits for its turn.
    pub attempt: u32,
    /// Since it was accepted.
    pub age: Duration,
}

/// What a cancel did.
#[derive(Clone, Debug)]
pub enum Cancelled {
    /// No such flow.
    Unknown,
    /// It had ended, or was past the point of return; this is how it ended.
    TooLate(Arc<FlowRecord>),
    /// It will end as CANCELLED; this is the record.
    Done(Arc<FlowRecord>),
}

/// The stored state of one instance.
#[derive(Clone, Debug)]
pub struct InstanceState {
    /// The instance.
    pub instance: Instance,
    /// As of when.
    pub timestamp: Timestamp,
    /// Values of states of kind value, by name.
    pub values: Vec<(StateName, Bytes)>,
    /// Entries of states of kind map: state, entry key, value; at most the number asked for.
    pub entries: Vec<(StateName, Bytes, Bytes)>,
    /// There are more entries.
    pub more: bool,
}

/// One record that an egress released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressRecord {
    /// Position in the egress; grows in commit order. Resume behind it.
    pub sequence: u64,
    /// The flow that emitted it.
    pub flow: FlowId,
    /// What was emitted.
    pub payload: Bytes,
}

/// Which flows to list.
#[derive(Clone, Debug, Default)]
pub struct FlowFilter {
    /// Only these outcomes; empty means all.
    pub outcomes: Vec<Outcome>,
    /// Only with this entry function.
    pub function: Option<FunctionName>,
    /// At most this many, the latest first.
    pub limit: usize,
}

impl<S: Store> Runtime<S> {
    /// The runtimes on the store, and who owns what, as this one sees it now.
    pub fn map(&self) -> Arc<Map> {
        self.engine.peers.map()
    }

    /// How many of the others it has a stream to.
    pub fn peers_connected(&self) -> usize {
        self.engine.peers.connected()
    }

    /// The topology that new requests are run by.
    pub fn topology(&self) -> Arc<Topology> {
        self.engine.topology.load_full()
    }

    /// Replaces the topology. Flows that run keep the one they began with; state is kept. The number of slots stays as
    /// it was at the start.
    pub fn set_topology(&self, topology: Topology) {
        let topology = Arc::new(topology);
        self.engine.topology.store(Arc::clone(&topology));
        self.engine.host.set_topology(&topology);
    }

    /// Takes a request, unless there is a reason not to. A repeated request is answered from its record, or joins the
    /// one that is running.
    ///
    /// Once it is accepted the flow runs to its outcome, whether the returned receiver is kept or not. Dropping this
    /// future before it returns may or may not leave the request accepted.
    pub async fn submit(&self, request: Request) -> Result<Accepted, NotAccepted> {
        let accepted = self.route(request).await;
        if let Err(refused) = &accepted {
            self.engine.metrics.refused(refused.into());
        }
        accepted
    }

    /// Takes a request to be run here.
    pub(crate) async fn accept(&self, request: Request) -> Result<Accepted, NotAccepted> {
        let engine = &self.engine;
        let unavailable = |why: &str| Err(NotAccepted::Unavailable(why.to_owned()));
        if engine.store_stopped.is_cancelled() {
            return unavailable("the store has stopped; the runtime has to be started again");
        }
        if !engine.is_ready() {
            return unavailable("the runtime is shutting down");
        }
        self.begin(request).await
    }

    /// Begins a request, whether new ones are taken or not.
    pub(crate) async fn begin(&self, request: Request) -> Result<Accepted, NotAccepted> {
        let engine = &self.engine;
        let topology = engine.topology.load_full();
        let isolation = engine.check(&topology, &request)?;
        self.check_past(&request).await?;
        let mut opened = None;
        if isolation != Some(Isolation::ReadOnly) {
            match self.answered(&request).await? {
                Earlier::Answered(accepted) => return Ok(accepted),
                Earlier::None(none) => opened = Some(none),
                Earlier::Sealed => {}
            }
        }
        let (flow_id, request) = (request.flow, Arc::new(request));
        let max = topology.limits.flows_in_flight_max;
        match engine.registry.begin(&request, max) {
            Begun::Joined { outcome } => {
                engine.metrics.repeated(&request.instance.function);
                Ok(Accepted { flow: flow_id, outcome })
            }
            // The one that runs may have been let in while this one ended: the record knows which of them is right.
            Begun::Mismatch if isolation == Some(Isolation::ReadOnly) => Err(mismatch(&request)),
            Begun::Mismatch => match self.answered(&request).await? {
                Earlier::Answered(accepted) => Ok(accepted),
                Earlier::None(_) | Earlier::Sealed => Err(mismatch(&request)),
            },
            Begun::Busy(in_flight) => Err(NotAccepted::Busy { in_flight, max }),
            Begun::First { outcome, cancel, attempt } => {
                engine.metrics.accepted(&request.instance.function);
                let progress = Box::new(move |number| attempt.store(number, Ordering::Relaxed));
                let mut flow = engine.flow(Arc::clone(&request), topology, isolation, cancel, progress);
                flow.begin_with(opened);
                let runner = Runner { engine: Arc::clone(engine), request, flow };
                tasks::spawn(TaskKind::Flow, runner.run());
                Ok(Accepted { flow: flow_id, outcome })
            }
        }
    }

    /// The answer to a request that has ended before. It is looked for before the request is entered, so that a
    /// request with another body is never in the way of those with the right one.
    async fn answered(&self, request: &Request) -> Result<Earlier<S>, NotAccepted> {
        let unavailable = |error: tandem_store::Error| NotAccepted::Unavailable(error.to_string());
        let opened = Opened::of(&self.engine, request.flow).await.map_err(unavailable)?;
        let Some(bytes) = &opened.record.value else { return Ok(Earlier::None(opened)) };
        if let Source::Sealed(_) = opened.record.source {
            // It has run and is not durable yet: whoever asks joins it, and is answered with it.
            return Ok(Earlier::Sealed);
        }
        let record = rows::decode_record(bytes).map_err(unavailable)?;
        if record.digest != request.digest && works(Mechanism::DigestCompared) {
            return Err(mismatch(request));
        }
        self.engine.metrics.repeated(&request.instance.function);
        let (sender, outcome) = oneshot::channel();
        // The receiver is right here.
        let _ = sender.send(Ended { record: Arc::new(record), repeated: true });
        Ok(Earlier::Answered(Accepted { flow: request.flow, outcome }))
    }

    /// Whether the past that a request names is there, before the request is taken.
    async fn check_past(&self, request: &Request) -> Result<(), NotAccepted> {
        let Some(at) = request.as_of else { return Ok(()) };
        match self.engine.store.snapshot_at(at).await {
            Ok(_) => Ok(()),
            Err(error @ tandem_store::Error::HistoryNotKept { .. }) => {
                Err(NotAccepted::Invalid(Invalid::HistoryNotKept(error.to_string())))
            }
            Err(error) => Err(NotAccepted::Unavailable(error.to_string())),
        }
    }

    /// The record of an earlier request with the same id, if there is one.
    async fn earlier(&self, flow: FlowId) -> Result<Option<FlowRecord>, tandem_store::Error> {
        let row = self.engine.layout.request(flow);
        let found = self.engine.store.snapshot().await?.get(&row).await?;
        found.map(|bytes| rows::decode_record(&bytes)).transpose()
    }

    /// Cancels a flow that has not been sealed, wherever it runs. Returns when the outcome is durable.
    pub async fn cancel(&self, flow: FlowId) -> Result<Cancelled, tandem_store::Error> {
        if let Some(cancelled) = self.cancel_here(flow).await {
            return Ok(cancelled);
        }
        if let Some(Answer::Ended { record, cancelled }) = self.engine.peers.find(flow, Lookup::Cancel).await {
            return Ok(if cancelled { Cancelled::Done(record) } else { Cancelled::TooLate(record) });
        }
        Ok(match self.flow(flow).await? {
            FlowState::Ended(record) => Cancelled::TooLate(record),
            FlowState::Unknown | FlowState::Running(_) => Cancelled::Unknown,
        })
    }

    /// The same for a flow that runs here. `None` if it does not.
    pub(crate) async fn cancel_here(&self, flow: FlowId) -> Option<Cancelled> {
        let record = self.engine.registry.cancel(flow)?.await.ok()?.record;
        let done = record.outcome == Outcome::Cancelled;
        Some(if done { Cancelled::Done(record) } else { Cancelled::TooLate(record) })
    }

    /// Wakes up whenever something was committed for an egress. A lagged receiver has missed nothing that
    /// [`Runtime::egress`] does not have.
    pub fn egress_changed(&self, egress: &EgressName) -> tokio::sync::watch::Receiver<u64> {
        self.engine.egresses.changed(egress)
    }

    /// Every outcome as it becomes durable, for live views. May lag and lose; the store has all.
    pub fn outcomes(&self) -> broadcast::Receiver<Arc<FlowRecord>> {
        self.engine.outcomes.subscribe()
    }

    /// Whether requests are taken: the store answers and the runtime is not shutting down.
    pub fn is_ready(&self) -> bool {
        self.engine.is_ready()
    }

    /// Whether a worker is connected for every function that the topology names workers for.
    pub fn has_workers(&self) -> bool {
        let topology = self.topology();
        let named = topology.functions.iter().filter(|(_, function)| !function.workers.is_empty());
        named.into_iter().all(|(name, _)| self.engine.host.has_worker(name))
    }

    /// Returns once the store has failed for good. The process has to end then, and recover from disk.
    pub async fn store_stopped(&self) {
        self.engine.store_stopped.cancelled().await;
    }

    /// Figures of this runtime.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.engine.metrics
    }

    /// Stops taking requests, lets running flows end for up to `grace`, commits what is sealed, and returns.
    ///
    /// Where there are other runtimes, they are told at once, so that they take over; meanwhile requests are passed on to
    /// them, and what waits here is handed over. In the end this one is not a member any more.
    ///
    /// Flows that did not end have no outcome; repeating their requests is safe.
    pub async fn shut_down(&self, grace: Duration) {
        let engine = &self.engine;
        let began = Instant::now();
        if let Some(membership) = engine.membership.get() {
            // First the others own everything, so that no request is refused for want of an owner.
            membership.drain().await;
        }
        engine.draining.store(true, Ordering::Relaxed);
        if let Some(membership) = engine.membership.get()
            && engine.peers.has_others()
        {
            sleep_until((began + membership.linger()).min(began + grace)).await;
        }
        if timeout_at(began + grace, self.until_idle()).await.is_err() {
            warn!(flows = engine.registry.all().len(), "shutting down with flows that did not end in time");
        }
        if let Some(membership) = engine.membership.get() {
            membership.leave().await;
        }
        engine.stop.cancel();
        engine.host.shut_down();
        engine.peers.stop();
        let sealed = async {
            while engine.partition.sealed_flows() > 0 {
                tokio::time::sleep(DRAIN_POLL).await;
            }
        };
        if timeout(DRAIN_TIME_MAX, sealed).await.is_err() {
            warn!("shutting down with commits that did not end in time; their requests can be repeated");
        }
    }
}

impl<S: Store> Runtime<S> {
    /// Returns once nothing runs here, and nobody waits here for what runs elsewhere.
    async fn until_idle(&self) {
        let engine = &self.engine;
        engine.registry.until_empty().await;
        engine.forwards.close();
        engine.forwards.wait().await;
        // Alone, what is being delivered is delivered again after the next start.
        while engine.peers.has_others() && engine.courier.in_flight() > 0 {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }
}

/// What is stored about a request that came in.
enum Earlier<S: Store> {
    /// It has ended before.
    Answered(Accepted),
    /// Nothing, in this view: the flow may begin on it.
    None(Opened<S>),
    /// It is on its way to disk.
    Sealed,
}

/// How often a stopping runtime looks whether its last commits are done.
const DRAIN_POLL: Duration = Duration::from_millis(5);
/// Longest wait for the last commits.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// The refusal of a request whose id was used for another one.
pub(crate) fn mismatch(request: &Request) -> NotAccepted {
    NotAccepted::Mismatch { request: request.id.to_string(), instance: request.instance.clone() }
}

/// Runs one accepted request in a task of its own, which no client can drop.
struct Runner<S: Store> {
    engine: Arc<Engine<S>>,
    request: Arc<Request>,
    flow: Flow<S>,
}

/// Takes a flow out of the registry even if its task panics.
struct Leaving<S: Store> {
    engine: Arc<Engine<S>>,
    request: Arc<Request>,
}

impl<S: Store> Drop for Leaving<S> {
    fn drop(&mut self) {
        self.engine.registry.leave(&self.request);
        self.engine.metrics.flow_left();
    }
}

impl<S: Store> Runner<S> {
    async fn run(self) {
        let Self { engine, request, flow } = self;
        // On the heap at once: it is large, and is moved on its way into the task.
        let flow = Box::pin(flow.run());
        let flow_id = request.flow;
        engine.metrics.flow_began();
        let _leaving = Leaving { engine: Arc::clone(&engine), request: Arc::clone(&request) };
        let (digest, span) = (request.digest, telemetry::flow_span(&request));
        // With a store that has failed for good nothing can be decided any more; who waits had better know at once.
        let left = tokio::select! {
            biased;
            left = flow.instrument(span) => left,
            () = engine.store_stopped.cancelled() => Left::Abandoned("the store has stopped".to_owned()),
        };
        match left {
            Left::Ended(record) => {
                engine.ended(&record);
                engine.registry.end(flow_id, &record, false);
            }
            Left::Repeated(record) if record.digest == digest => {
                engine.registry.end(flow_id, &record, true);
            }
            Left::Repeated(_) | Left::Consumed | Left::TooEarly => {}
            Left::Abandoned(why) => warn!(flow = %flow_id, why, "a flow was given up without an outcome"),
        }
    }
}
