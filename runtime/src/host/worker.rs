//! One connected worker, and places on it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use tandem_model::ids::FunctionName;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use super::http::HttpWorker;
use super::link::{Link, SessionHandle};
use super::{Answer, Host, Interface, Invocation, Session};

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
    interfaces: HashMap<FunctionName, Interface>,
    transport: Transport,
    busy: AtomicUsize,
    credit: AtomicI64,
}

impl Worker {
    pub(super) fn new(interfaces: HashMap<FunctionName, Interface>, credit: u32, transport: Transport) -> Arc<Self> {
        let (busy, credit) = (AtomicUsize::new(0), AtomicI64::new(i64::from(credit)));
        Arc::new(Self { interfaces, transport, busy, credit })
    }

    /// What it runs.
    pub(super) fn functions(&self) -> impl Iterator<Item = &FunctionName> {
        self.interfaces.keys()
    }

    /// What it says of a function.
    pub(super) fn interface(&self, function: &FunctionName) -> Option<&Interface> {
        self.interfaces.get(function)
    }

    pub(super) fn has_credit(&self) -> bool {
        self.credit.load(Ordering::Relaxed) > 0
    }

    pub(super) fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    pub(super) fn add_credit(&self, invocations: u32) {
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

    /// Starts an invocation. It ends with [`super::Event::Finished`] or [`super::Event::Lost`].
    pub(crate) async fn invoke(&self, invocation: Invocation) -> Session {
        match &self.worker.transport {
            Transport::Link(link) => {
                let (handle, events) = link.start(invocation).await;
                Session { events, answers: Answers::Link(handle) }
            }
            Transport::Http(worker) => {
                let (answers, events, guard) = worker.start(invocation);
                Session { events, answers: Answers::Http(answers, guard) }
            }
        }
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
