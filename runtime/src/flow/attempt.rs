//! One run of a flow's tree of calls on one view.
//!
//! **Invariant:** dropping an attempt cancels every invocation of it and leaves nothing behind.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tandem_model::flow::{CallId, LimitError, Overlay, Tree};
use tandem_model::ids::{Instance, Payload};
use tandem_model::outcome::{CallStatus, CallTrace, Cause};
use tandem_model::request::Request;
use tandem_model::topology::{Isolation, Topology};
use tandem_store::Store;
use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc};
use tokio::time::Instant;

use super::Flow;
use super::ahead::RunAhead;
use super::trace::Traces;
use crate::engine::Engine;
use crate::host::{Draw, Rejection};
use crate::partition::{ReadSet, View};
use crate::turns::Held;

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum End {
    /// Everything returned: the entry's result and all effects.
    Done(Payload, Overlay),
    /// Somebody said no and nobody handled it.
    Rejected(Cause),
    /// It cannot go on.
    Broken(Broken),
}

/// Why an attempt cannot go on.
#[derive(Debug)]
pub(super) enum Broken {
    /// User code broke or broke a limit.
    Failure { cause: Cause, retryable: bool },
    /// The worker went away or was dropped.
    Lost(Cause),
    /// Rows that it read have changed: going on would be in vain.
    Stale(Vec<bytes::Bytes>),
    /// Calls of the flow wait for each other in a ring.
    Ring,
    /// The store could not answer.
    Store(tandem_store::Error),
}

impl From<tandem_store::Error> for Broken {
    fn from(error: tandem_store::Error) -> Self {
        Self::Store(error)
    }
}

impl Broken {
    /// A failure that running again cannot mend.
    pub(super) fn fatal(reason: &str, detail: impl Into<String>, instance: &Instance) -> Self {
        Self::Failure { cause: Cause::new(reason, detail).at(instance), retryable: false }
    }

    /// A broken limit.
    pub(super) fn limit(error: &LimitError, instance: &Instance) -> Self {
        Self::fatal(error.reason(), error.to_string(), instance)
    }

    /// A failure that may pass.
    pub(super) fn passing(reason: &str, detail: impl Into<String>, instance: &Instance) -> Self {
        Self::Failure { cause: Cause::new(reason, detail).at(instance), retryable: true }
    }
}

/// How one call ended.
#[derive(Debug)]
pub(super) enum CallEnd {
    Value(Payload),
    Rejected(Rejection),
    Broken(Broken),
    /// A call above it was rejected.
    Discarded,
}

/// A running call.
pub(super) type CallFuture<'a> = Pin<Box<dyn Future<Output = CallEnd> + Send + 'a>>;

/// What all calls of an attempt share.
pub(super) struct Attempt<'a, S: Store> {
    pub(super) engine: &'a Arc<Engine<S>>,
    pub(super) request: &'a Request,
    pub(super) topology: &'a Topology,
    pub(super) view: &'a View<S>,
    pub(super) held: &'a Held,
    pub(super) number: u32,
    pub(super) draw: Draw,
    pub(super) deadline: Instant,
    pub(super) isolation: Isolation,
    ahead: Mutex<Option<RunAhead>>,
    tree: Mutex<Tree>,
    traces: Mutex<Traces>,
    /// An async lock, since a scan notes what it saw only once it has seen it.
    pub(super) reads: AsyncMutex<ReadSet>,
    /// It came upon something that runtimes fight over, and that the flow did not ask for its turn on.
    pub(super) lacks_turns: AtomicBool,
    /// Wakes those who wait for an instance whenever a call has ended, in the order they came.
    pub(super) ended: Notify,
}

impl<'a, S: Store> Attempt<'a, S> {
    pub(super) fn new(
        flow: &'a Flow<S>,
        view: &'a View<S>,
        held: &'a Held,
        number: u32,
        sequential: bool,
        deadline: Instant,
    ) -> Self {
        let request = flow.request.as_ref();
        let tree = Tree::new(flow.topology.limits.clone(), request.instance.clone(), request.handler.clone());
        let tree = if sequential { tree.sequential() } else { tree };
        Self {
            engine: &flow.engine,
            request,
            topology: &flow.topology,
            view,
            held,
            number,
            draw: Draw::of(&request.flow, number),
            deadline,
            isolation: flow.isolation,
            ahead: Mutex::default(),
            tree: Mutex::new(tree),
            traces: Mutex::default(),
            reads: AsyncMutex::default(),
            lacks_turns: AtomicBool::new(false),
            ended: Notify::new(),
        }
    }

    /// The same, with a run of the entry that began before.
    pub(super) fn with_ahead(mut self, ahead: Option<RunAhead>) -> Self {
        self.ahead = Mutex::new(ahead);
        self
    }

    /// The run of the entry that began before, once.
    pub(super) fn take_ahead(&self, call: CallId) -> Option<RunAhead> {
        let is_entry = call == CallId::ENTRY;
        is_entry.then(|| self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take()).flatten()
    }

    pub(super) fn tree(&self) -> MutexGuard<'_, Tree> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn traced(&self) -> MutexGuard<'_, Traces> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calls so far.
    pub(super) fn traces(&self) -> Vec<CallTrace> {
        self.traced().of(&self.tree())
    }

    /// Whether the flow has to run again with turns that it did not know of.
    pub(super) fn lacks_turns(&self) -> bool {
        self.lacks_turns.load(Ordering::Relaxed)
    }

    /// What was read, and what was called.
    pub(super) fn into_parts(self) -> (ReadSet, Tree) {
        (self.reads.into_inner(), self.tree.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn call_began(&self, call: CallId) {
        self.traced().began(call);
    }

    pub(super) fn call_ended(&self, call: CallId, status: CallStatus) {
        self.traced().ended(call, status);
        self.ended.notify_waiters();
    }

    /// Runs the entry and everything that it starts.
    pub(super) async fn run(&self) -> End {
        let (outliving, mut adopted) = mpsc::unbounded_channel();
        let mut entry = self.call(CallId::ENTRY, self.request.payload.clone(), outliving.clone());
        let mut result = None;
        let mut rest: FuturesUnordered<CallFuture<'_>> = FuturesUnordered::new();
        loop {
            while let Ok(call) = adopted.try_recv() {
                rest.push(call);
            }
            if rest.is_empty()
                && let Some(payload) = result
            {
                return End::Done(payload, self.take_effects());
            }
            tokio::select! {
                biased;
                end = &mut entry, if result.is_none() => match end {
                    CallEnd::Value(payload) => result = Some(payload),
                    other => return self.ended_early(other),
                },
                Some(call) = adopted.recv() => rest.push(call),
                Some(end) = rest.next(), if !rest.is_empty() => match end {
                    CallEnd::Value(_) | CallEnd::Discarded => {}
                    other => return self.ended_early(other),
                },
            }
        }
    }

    fn take_effects(&self) -> Overlay {
        self.tree().take_effects()
    }

    fn ended_early(&self, end: CallEnd) -> End {
        match end {
            CallEnd::Rejected(rejection) => End::Rejected(cause_of(rejection)),
            CallEnd::Broken(broken) => End::Broken(broken),
            // A discarded or finished entry is not early; the cause says that something is wrong with us.
            CallEnd::Value(_) | CallEnd::Discarded => {
                End::Broken(Broken::fatal("internal", "a call ended in a way it cannot", &self.request.instance))
            }
        }
    }
}

fn cause_of(rejection: Rejection) -> Cause {
    let cause = Cause::new(&rejection.reason, rejection.detail);
    let origin = rejection.origin.and_then(|(function, key)| Instance::parse(&function, &key).ok());
    match origin {
        Some(instance) => cause.at(&instance),
        None => cause,
    }
}
