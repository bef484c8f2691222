//! The handle that entries, the admin port and tests use: submit, wait, cancel, look.
//!
//! **Invariant:** what a caller is told has been durable before it is told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tandem_model::ids::{EgressName, FlowId, FunctionName, Instance, Key, StateName, Timestamp};
use tandem_model::outcome::{FlowRecord, Outcome};
use tandem_model::request::Request;
use tandem_model::topology::Topology;
use tandem_store::Store;
use tokio::sync::{broadcast, oneshot};

/// A running runtime. Cheap to clone; the last handle dropped stops it.
pub struct Runtime<S: Store> {
    store: S,
}

impl<S: Store> Clone for Runtime<S> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone() }
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
    pub handler: tandem_model::ids::HandlerName,
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
    /// The topology that new requests are run by.
    pub fn topology(&self) -> Arc<Topology> {
        todo!()
    }

    /// Replaces the topology. Flows that run keep the one they began with; state is kept.
    pub fn set_topology(&self, _topology: Topology) {
        todo!()
    }

    /// Takes a request, unless there is a reason not to. A repeated request is answered from its record, or joins the
    /// one that is running.
    pub async fn submit(&self, _request: Request) -> Result<Accepted, NotAccepted> {
        todo!()
    }

    /// What is known about a flow.
    pub async fn flow(&self, _flow: FlowId) -> Result<FlowState, tandem_store::Error> {
        todo!()
    }

    /// The same, waiting up to `wait` for it to end.
    pub async fn wait(&self, _flow: FlowId, _wait: Duration) -> Result<FlowState, tandem_store::Error> {
        todo!()
    }

    /// Cancels a flow that has not been sealed. Returns when the outcome is durable.
    pub async fn cancel(&self, _flow: FlowId) -> Result<Cancelled, tandem_store::Error> {
        todo!()
    }

    /// Flows that run now, and records of flows that ended, latest first.
    pub async fn flows(
        &self,
        _filter: &FlowFilter,
    ) -> Result<(Vec<RunningFlow>, Vec<Arc<FlowRecord>>), tandem_store::Error> {
        todo!()
    }

    /// The stored state of an instance, now or as of a past time.
    pub async fn state(
        &self,
        _instance: &Instance,
        _as_of: Option<Timestamp>,
        _entries_max: usize,
    ) -> Result<InstanceState, tandem_store::Error> {
        todo!()
    }

    /// Keys of a function that have state, in no useful order but a stable one; continue after the last key of a page.
    pub async fn instances(
        &self,
        _function: &FunctionName,
        _after: Option<&Key>,
        _limit: usize,
    ) -> Result<Vec<Key>, tandem_store::Error> {
        todo!()
    }

    /// Records of an egress with a sequence above `after`, oldest first, at most `limit`.
    pub async fn egress(
        &self,
        _egress: &EgressName,
        _after: u64,
        _limit: usize,
    ) -> Result<Vec<EgressRecord>, tandem_store::Error> {
        todo!()
    }

    /// Wakes up whenever something was committed for an egress. A lagged receiver has missed nothing that
    /// [`Runtime::egress`] does not have.
    pub fn egress_changed(&self, _egress: &EgressName) -> tokio::sync::watch::Receiver<u64> {
        todo!()
    }

    /// Every outcome as it becomes durable, for live views. May lag and lose; the store has all.
    pub fn outcomes(&self) -> broadcast::Receiver<Arc<FlowRecord>> {
        todo!()
    }

    /// Whether requests are taken: the store answers and the runtime is not shutting down.
    pub fn is_ready(&self) -> bool {
        todo!()
    }

    /// Stops taking requests, lets running flows end for up to `grace`, commits what is sealed, and returns.
    pub async fn shut_down(&self, _grace: Duration) {
        todo!()
    }
}
