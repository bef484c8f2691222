//! One connected worker, and places on it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use tandem_model::ids::FunctionName;
use tandem_model::topology::Revision;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use super::http::HttpWorker;
use super::link::{Begun, Link, SessionHandle};
use super::revisions::Counts;
use super::{AHEAD_SHARE, Answer, Events, Host, Interface, Invocation, Session};

/// How invocations travel to a worker.
#[derive(Debug)]
pub(super) enum Transport {
    /// One multiplexed stream.
    Link(Arc<Link>),
    /// One POST a step.
    Http(Box<HttpWorker>),
}

/// A worker that can be given invocations.
#[derive(Debug)]
pub(crate) struct Worker {
    revision: Revision,
    functions: HashMap<FunctionName, Running>,
    transport: Transport,
    busy: AtomicUsize,
    credit: AtomicI64,
    /// The credit that it gave in all.
    granted: AtomicI64,
}

/// A function on a worker.
#[derive(Debug, Default)]
struct Running {
    interface: Interface,
    invocations: AtomicU64,
    failures: AtomicU64,
}

impl Worker {
    pub(super) fn new(
        revision: Revision,
        interfaces: HashMap<FunctionName, Interface>,
        credit: u32,
        transport: Transport,
    ) -> Arc<Self> {
        let running = |interface| Running { interface, ..Running::default() };
        let functions = interfaces.into_iter().map(|(name, interface)| (name, running(interface))).collect();
        let (busy, credit) = (AtomicUsize::new(0), i64::from(credit));
        let (credit, granted) = (AtomicI64::new(credit), AtomicI64::new(credit));
        Arc::new(Self { revision, functions, transport, busy, credit, granted })
    }

    /// What it runs.
    pub(super) fn functions(&self) -> impl Iterator<Item = &FunctionName> {
        self.functions.keys()
    }

    /// The revision of the code that it runs.
    pub(super) fn revision(&self) -> &Revision {
        &self.revision
    }

    /// What came of the invocations of a function so far.
    pub(super) fn counts(&self, function: &FunctionName) -> Counts {
        let Some(running) = self.functions.get(function) else { return Counts::default() };
        let (invocations, failures) = (&running.invocations, &running.failures);
        Counts { invocations: invocations.load(Ordering::Relaxed), failures: failures.load(Ordering::Relaxed) }
    }

    /// What it says of a function.
    pub(super) fn interface(&self, function: &FunctionName) -> Option<&Interface> {
        self.functions.get(function).map(|running| &running.interface)
    }

    pub(super) fn has_credit(&self) -> bool {
        self.credit.load(Ordering::Relaxed) > 0
    }

    /// Whether so much credit is left that an invocation may run ahead of its turn.
    pub(super) fn has_credit_ahead(&self) -> bool {
        let granted = self.granted.load(Ordering::Relaxed);
        self.credit.load(Ordering::Relaxed) * i64::from(AHEAD_SHARE) > granted
    }

    /// Whether that invocation runs on it, and others may follow it.
    pub(super) fn carries(&self, begun: &Begun) -> bool {
        matches!(&self.transport, Transport::Link(link) if link.carries(begun))
    }

    pub(super) fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    pub(super) fn add_credit(&self, invocations: u32) {
        self.granted.fetch_add(i64::from(invocations), Ordering::Relaxed);
        self.credit.fetch_add(i64::from(invocations), Ordering::Relaxed);
    }

    pub(super) fn enter(&self, is_entry: bool) {
        self.busy.fetch_add(1, Ordering::Relaxed);
        if is_entry {
            self.credit.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn leave(&self, is_entry: bool) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
        if is_entry {
            self.credit.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A place on a worker for one invocation; dropping it gives the place back.
pub(crate) struct Lease {
    host: Arc<Host>,
    worker: Arc<Worker>,
    function: FunctionName,
    is_entry: bool,
}

impl Lease {
    pub(super) fn new(host: Arc<Host>, worker: Arc<Worker>, function: FunctionName, is_entry: bool) -> Self {
        Self { host, worker, function, is_entry }
    }

    /// What the worker says of the function.
    pub(crate) fn interface(&self) -> Option<&Interface> {
        self.worker.interface(&self.function)
    }

    /// Notes that the invocation has ended, and whether that was the code's or the worker's fault.
    pub(crate) fn ended(&self, is_failure: bool) {
        let Some(running) = self.worker.functions.get(&self.function) else { return };
        running.invocations.fetch_add(1, Ordering::Relaxed);
        running.failures.fetch_add(u64::from(is_failure), Ordering::Relaxed);
    }

    /// Starts an invocation. It ends with [`super::Event::Finished`] or [`super::Event::Lost`].
    pub(crate) async fn invoke(&self, invocation: Invocation) -> Session {
        match &self.worker.transport {
            Transport::Link(link) => {
                let (handle, events) = link.start(invocation, None).await;
                Session { events: Events::Link(events), answers: Answers::Link(handle) }
            }
            Transport::Http(worker) => {
                let (answers, events, guard) = worker.start(invocation);
                Session { events: Events::Http(events), answers: Answers::Http(answers, guard) }
            }
        }
    }

    /// Starts an invocation behind one of the same instance, on the same worker, before its states are known. Its first
    /// event is [`super::Event::Began`], unless it is its last.
    pub(crate) async fn invoke_behind(&self, invocation: Invocation, begun: &Begun) -> Option<Session> {
        let Transport::Link(link) = &self.worker.transport else { return None };
        let (handle, events) = link.start(invocation, Some(begun)).await;
        Some(Session { events: Events::Link(events), answers: Answers::Link(handle) })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.host.give_back(&self.worker, &self.function, self.is_entry);
    }
}

/// The way back to a running invocation. Dropping it cancels the invocation.
#[derive(Debug)]
pub(super) enum Answers {
    Link(SessionHandle),
    Http(mpsc::Sender<Answer>, #[expect(dead_code, reason = "cancels the invocation when dropped")] DropGuard),
}

impl Answers {
    pub(super) async fn send(&self, answer: Answer) {
        match self {
            Self::Link(handle) => handle.answer(answer).await,
            // If nobody takes it any more, the invocation has ended and said so.
            Self::Http(answers, _) => drop(answers.send(answer).await),
        }
    }
}
