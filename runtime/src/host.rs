//! Talks to user code: keeps connections to workers, and runs invocations on them.
//!
//! ```text
//! flow ─lease─▶ pool of the function's workers ─▶ worker link ⇄ one multiplexed stream ⇄ SDK
//!                                              └▶ HTTP profile: one POST a step
//! ```
//!
//! A worker that dies, hangs or talks nonsense is dropped: its invocations end as [`Event::Lost`], and their flows run
//! again elsewhere. What user code sees and asks for is in this file; how it travels is in [`link`] and [`http`].
//!
//! **Invariant:** generated protocol types do not leave this module, but for the seam [`crate::dial`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tandem_model::ids::{FunctionName, HandlerName, Instance, Payload, StateName};
use tandem_model::topology::{Endpoint, Function, Handler, Isolation, Revision, State, StateKind, Topology};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::dial::Dial;
use crate::metrics::{Metrics, WorkerDrop};
use revisions::Counts;

pub(crate) use link::Begun;
pub(crate) use revisions::Draw;
pub use revisions::{RevisionReport, WorkerProblem};
pub(crate) use worker::{Lease, Worker};

mod connect;
mod events;
mod frames;
mod http;
mod link;
mod revisions;
mod welcome;
mod worker;

/// Requests of one invocation (calls, reads) that may wait for the flow to take them.
pub(crate) const EVENTS_QUEUED_MAX: usize = 2_048;
/// Invocations that run ahead take no more than this part of a worker's credit and of a function's concurrency: one over
/// this number. The rest is for those who have their turn.
const AHEAD_SHARE: u32 = 2;

/// Runs one handler once.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    pub(crate) flow: String,
    pub(crate) instance: Instance,
    pub(crate) handler: HandlerName,
    pub(crate) payload: Payload,
    pub(crate) attempt: u32,
    pub(crate) deadline: Duration,
    pub(crate) traceparent: String,
    /// Values of all states of kind value that the worker declared.
    pub(crate) states: Vec<(StateName, Option<Bytes>)>,
    pub(crate) read_only: bool,
}

/// What user code asks for, or how it ended.
#[derive(Debug)]
pub(crate) enum Event {
    /// An invocation that follows another one begins, on these states. Its first event, if it is not its last.
    Began(Vec<(String, Option<Bytes>)>),
    /// Call another instance; to be answered unless it is a spawn.
    Call { call: u64, function: String, key: String, handler: String, payload: Bytes, spawn: bool },
    /// Read a map state; to be answered.
    Read { read: u64, state: String, what: ReadWhat },
    /// It returned. The last event.
    Finished(Finished),
    /// User code asked for more at once than is kept. The last event.
    Flooded,
    /// The worker is gone, or was dropped. The last event.
    Lost(String),
}

/// What to read from a map state.
#[derive(Debug)]
pub(crate) enum ReadWhat {
    Entry(Bytes),
    Scan { from: Option<Bytes>, to: Option<Bytes>, limit: usize, reverse: bool },
}

/// How user code ended.
#[derive(Debug)]
pub(crate) enum Finished {
    Value { payload: Payload, effects: Vec<Effect> },
    Rejection(Rejection),
    Failure { message: String, retryable: bool },
}

/// The business "no".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) reason: String,
    pub(crate) detail: String,
    /// Who said no, if it was somebody further down.
    pub(crate) origin: Option<(String, String)>,
}

/// What user code wants applied, in its own words: names are not checked yet.
#[derive(Debug)]
pub(crate) enum Effect {
    Write { state: String, entry: Option<Bytes>, value: Option<Bytes> },
    Send { function: String, key: String, handler: String, payload: Bytes, delay_ms: u64 },
    Emit { egress: String, payload: Bytes },
}

/// What the runtime answers to an invocation.
#[derive(Debug)]
pub(crate) enum Answer {
    CallDone { call: u64, result: Result<Bytes, Rejection> },
    ReadDone { read: u64, entries: Vec<(Bytes, Bytes)>, more: bool },
}

/// One running invocation. Dropping it cancels it.
#[derive(Debug)]
pub(crate) struct Session {
    events: Events,
    answers: worker::Answers,
}

/// Where the events of a session come from.
#[derive(Debug)]
enum Events {
    Link(events::Receiver),
    Http(mpsc::Receiver<Event>),
}

impl Session {
    /// The next thing user code wants. A session that ended without a word was flooded by its worker.
    pub(crate) async fn next(&mut self) -> Event {
        let event = match &mut self.events {
            Events::Link(events) => events.next().await,
            Events::Http(events) => events.recv().await,
        };
        event.unwrap_or(Event::Flooded)
    }

    /// Where another invocation can follow this one.
    pub(crate) fn begun(&self) -> Option<Begun> {
        match &self.answers {
            worker::Answers::Link(handle) => Some(handle.begun()),
            worker::Answers::Http(..) => None,
        }
    }

    /// Answers a call or read. If the worker is gone, [`Session::next`] says so.
    pub(crate) async fn answer(&self, answer: Answer) {
        self.answers.send(answer).await;
    }
}

/// What a function has, as its workers say, or as its resource pins down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) handlers: BTreeMap<HandlerName, Option<Isolation>>,
    pub(crate) states: BTreeMap<StateName, StateKind>,
}

type Handlers = BTreeMap<HandlerName, Handler>;
type States = BTreeMap<StateName, State>;

/// All connections to workers.
pub(crate) struct Host {
    metrics: Arc<Metrics>,
    dial: Arc<dyn Dial>,
    inner: Mutex<Inner>,
    /// Woken whenever a worker appears or has room again.
    changed: Notify,
    stop: CancellationToken,
}

#[derive(Default)]
struct Inner {
    topology: Arc<Topology>,
    /// Connections by endpoint, with the functions that name it.
    links: HashMap<Endpoint, (Vec<FunctionName>, CancellationToken)>,
    pools: HashMap<FunctionName, Vec<Arc<Worker>>>,
    /// What was told last of each function, for the time when none of its workers is connected.
    told: HashMap<FunctionName, Interface>,
    /// Entry invocations of a function that run now.
    running: HashMap<FunctionName, usize>,
    /// What was found out of functions since topology or workers last changed: each request asks for it.
    interfaces: HashMap<FunctionName, Arc<Interface>>,
    /// Of workers that are gone, by revision.
    past: HashMap<(FunctionName, Revision), Counts>,
    /// Why the last worker that was tried is not connected.
    problems: HashMap<(FunctionName, Revision), WorkerProblem>,
}

/// Whether the topology has workers of that revision.
fn is_named(topology: &Topology, name: &FunctionName, revision: &Revision) -> bool {
    let function = topology.functions.get(name);
    function.is_some_and(|function| function.workers.iter().any(|endpoint| endpoint.revision == *revision))
}

impl Inner {
    /// Who may run an attempt that drew `draw`: the workers of that revision, or those of any that gets flows at all
    /// while none of it is connected.
    fn candidates(&self, name: &FunctionName, draw: Draw) -> impl Iterator<Item = &Arc<Worker>> {
        let pool = self.pools.get(name).map_or(&[][..], Vec::as_slice);
        let function = self.topology.functions.get(name);
        let drawn = function.and_then(|function| draw.revision(name, function));
        let drawn = drawn.filter(|revision| pool.iter().any(|worker| worker.revision() == *revision));
        let is_candidate = move |worker: &&Arc<Worker>| match (drawn, function) {
            (Some(revision), _) => worker.revision() == revision,
            (None, Some(function)) => gets_flows(function, worker.revision()),
            (None, None) => true,
        };
        pool.iter().filter(is_candidate)
    }

    /// Whether less than the `share`-th part of the entry invocations run that the function may have at one time.
    fn has_room(&self, function: &FunctionName, share: u32) -> bool {
        let max = self.topology.functions.get(function).map_or(0, |declared| declared.concurrency_max);
        self.running.get(function).copied().unwrap_or_default() < (max / share) as usize
    }

    /// Forgets what is known of revisions that the topology no longer names. Should one come again, its counters begin anew.
    fn forget_revisions(&mut self) {
        let topology = Arc::clone(&self.topology);
        self.past.retain(|(name, revision), _| is_named(&topology, name, revision));
        self.problems.retain(|(name, revision), _| is_named(&topology, name, revision));
    }

    fn revisions_of(&self, name: &FunctionName, function: &Function) -> Vec<RevisionReport> {
        let revisions: BTreeSet<&Revision> = function.workers.iter().map(|endpoint| &endpoint.revision).collect();
        let pool = self.pools.get(name).map_or(&[][..], Vec::as_slice);
        let report = |revision: &Revision| {
            let id = (name.clone(), revision.clone());
            let mut counts = self.past.get(&id).copied().unwrap_or_default();
            let ready: Vec<_> = pool.iter().filter(|worker| worker.revision() == revision).collect();
            for worker in &ready {
                counts.add(worker.counts(name));
            }
            let Counts { invocations, failures } = counts;
            let (workers_ready, problem) = (ready.len(), self.problems.get(&id).cloned());
            RevisionReport { revision: revision.clone(), workers_ready, problem, invocations, failures }
        };
        revisions.into_iter().map(report).collect()
    }

    fn interface(&self, function: &FunctionName) -> Option<Interface> {
        let declared = self.topology.functions.get(function)?;
        let told =
            self.pools.get(function).and_then(|workers| workers.first()).and_then(|worker| worker.interface(function));
        let mut interface = told.or_else(|| self.told.get(function)).cloned();
        if let Some(handlers) = &declared.handlers {
            let pinned = handlers.iter().map(|(name, handler)| (name.clone(), Some(handler.isolation)));
            interface.get_or_insert_default().handlers = pinned.collect();
        }
        if let Some(states) = &declared.states {
            let pinned = states.iter().map(|(name, state)| (name.clone(), state.kind));
            interface.get_or_insert_default().states = pinned.collect();
        }
        interface.filter(|interface| !interface.handlers.is_empty())
    }
}

impl Host {
    /// A host without connections.
    pub(crate) fn new(metrics: Arc<Metrics>, dial: Arc<dyn Dial>) -> Arc<Self> {
        let (inner, changed, stop) = (Mutex::default(), Notify::new(), CancellationToken::new());
        let host = Arc::new(Self { metrics, dial, inner, changed, stop });
        let known = Arc::downgrade(&host);
        let source = move || known.upgrade().map(|host| host.report()).unwrap_or_default();
        host.metrics.show_revisions(Box::new(source));
        host
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects to the endpoints that are new, and lets go of those that are no longer named.
    pub(crate) fn set_topology(self: &Arc<Self>, topology: &Arc<Topology>) {
        // In the order of their addresses, so that the same topology always dials in the same order.
        let mut functions_of: BTreeMap<Endpoint, Vec<FunctionName>> = BTreeMap::new();
        for (name, function) in &topology.functions {
            for endpoint in &function.workers {
                functions_of.entry(endpoint.clone()).or_default().push(name.clone());
            }
        }
        let mut inner = self.lock();
        let before = std::mem::replace(&mut inner.topology, Arc::clone(topology));
        inner.interfaces.clear();
        // What a worker said was checked against what the resources said then.
        let is_same = |name: &FunctionName| pinned(&before, name) == pinned(topology, name);
        inner.links.retain(|endpoint, (served, stop)| {
            let functions = functions_of.get(endpoint);
            let keep = functions.is_some_and(|functions| functions == served && functions.iter().all(is_same));
            if !keep {
                stop.cancel();
            }
            keep
        });
        inner.forget_revisions();
        for (endpoint, functions) in functions_of {
            if inner.links.contains_key(&endpoint) {
                continue;
            }
            let stop = self.stop.child_token();
            inner.links.insert(endpoint.clone(), (functions.clone(), stop.clone()));
            connect::start(Arc::clone(self), endpoint, functions, stop);
        }
    }

    /// The topology that connections are kept by.
    pub(crate) fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.lock().topology)
    }

    /// What is known of a function's handlers and states: pinned by its resource, else told by a worker.
    pub(crate) fn interface(&self, function: &FunctionName) -> Option<Arc<Interface>> {
        let mut inner = self.lock();
        if let Some(known) = inner.interfaces.get(function) {
            return Some(Arc::clone(known));
        }
        let interface = Arc::new(inner.interface(function)?);
        inner.interfaces.insert(function.clone(), Arc::clone(&interface));
        Some(interface)
    }

    /// Waits until something is known of a function's handlers.
    pub(crate) async fn until_known(&self, function: &FunctionName) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.interface(function).is_some() {
                return;
            }
            changed.await;
        }
    }

    /// Whether a worker of the function is connected.
    pub(crate) fn has_worker(&self, function: &FunctionName) -> bool {
        self.lock().pools.get(function).is_some_and(|pool| !pool.is_empty())
    }

    /// Adds a connected worker.
    fn add(&self, worker: &Arc<Worker>) {
        let mut inner = self.lock();
        inner.interfaces.clear();
        for function in worker.functions() {
            inner.pools.entry(function.clone()).or_default().push(Arc::clone(worker));
            inner.problems.remove(&(function.clone(), worker.revision().clone()));
            // Of a revision that gets no flows nothing is stored yet, so it says nothing about what others have to read.
            let stores = inner.topology.functions.get(function).is_none_or(|f| gets_flows(f, worker.revision()));
            if let Some(interface) = worker.interface(function).filter(|_| stores) {
                inner.told.insert(function.clone(), interface.clone());
            }
            self.metrics.worker_connected(function);
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    /// Takes a worker out: nothing new goes to it.
    fn remove(&self, worker: &Arc<Worker>, reason: WorkerDrop) {
        let mut inner = self.lock();
        inner.interfaces.clear();
        for function in worker.functions() {
            if let Some(pool) = inner.pools.get_mut(function) {
                pool.retain(|other| !Arc::ptr_eq(other, worker));
            }
            let of_revision = (function.clone(), worker.revision().clone());
            // Once the topology does not name it, nobody asks for it any more.
            if is_named(&inner.topology, function, worker.revision()) {
                inner.past.entry(of_revision).or_default().add(worker.counts(function));
            }
            self.metrics.worker_dropped(function, reason);
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    /// Whether workers with these interfaces can go on with what those before them stored.
    fn check_states(&self, interfaces: &HashMap<FunctionName, Interface>) -> Result<(), welcome::Refusal> {
        let inner = self.lock();
        let known = interfaces.iter().filter_map(|(name, now)| Some((name, inner.told.get(name)?, now)));
        known.into_iter().try_for_each(|(name, before, now)| welcome::check_stored(name, before, now))
    }

    /// Notes why a worker is not connected.
    fn note_problem(&self, endpoint: &Endpoint, functions: &[FunctionName], reason: &str, message: &str) {
        let mut inner = self.lock();
        let topology = Arc::clone(&inner.topology);
        for function in functions.iter().filter(|name| is_named(&topology, name, &endpoint.revision)) {
            let problem = WorkerProblem { reason: reason.to_owned(), message: message.to_owned() };
            inner.problems.insert((function.clone(), endpoint.revision.clone()), problem);
        }
    }

    /// How the workers of each function do, by revision: of all that the topology names.
    pub(crate) fn report(&self) -> BTreeMap<FunctionName, Vec<RevisionReport>> {
        let inner = self.lock();
        let functions = inner.topology.functions.iter();
        functions.map(|(name, function)| (name.clone(), inner.revisions_of(name, function))).collect()
    }

    /// Waits for a worker of `function` that has room, the least busy first. An entry invocation counts against the
    /// worker's credit and the function's concurrency; a call does not, because its flow already holds a place and
    /// waiting for another could go round in a ring.
    pub(crate) async fn lease(self: &Arc<Self>, function: &FunctionName, is_entry: bool, draw: Draw) -> Lease {
        if let Some(lease) = self.try_lease(function, is_entry, draw) {
            return lease;
        }
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(lease) = self.try_lease(function, is_entry, draw) {
                return lease;
            }
            self.metrics.credit_wait(function);
            changed.await;
        }
    }

    fn try_lease(self: &Arc<Self>, function: &FunctionName, is_entry: bool, draw: Draw) -> Option<Lease> {
        let inner = self.lock();
        if is_entry && !inner.has_room(function, 1) {
            return None;
        }
        let ready = inner.candidates(function, draw).filter(|worker| !is_entry || worker.has_credit());
        let worker = Arc::clone(ready.min_by_key(|worker| worker.busy())?);
        Some(self.enter(inner, worker, function, is_entry))
    }

    /// A place on the worker of an invocation, to follow it, unless that would take more than its share of the worker.
    pub(crate) fn lease_behind(self: &Arc<Self>, begun: &Begun, function: &FunctionName, draw: Draw) -> Option<Lease> {
        let inner = self.lock();
        if !inner.has_room(function, AHEAD_SHARE) {
            return None;
        }
        let worker = Arc::clone(inner.candidates(function, draw).find(|worker| worker.carries(begun))?);
        worker.has_credit_ahead().then(|| self.enter(inner, worker, function, true))
    }

    fn enter(
        self: &Arc<Self>,
        mut inner: MutexGuard<'_, Inner>,
        worker: Arc<Worker>,
        function: &FunctionName,
        is_entry: bool,
    ) -> Lease {
        worker.enter(is_entry);
        if is_entry {
            *inner.running.entry(function.clone()).or_default() += 1;
        }
        drop(inner);
        Lease::new(Arc::clone(self), worker, function.clone(), is_entry)
    }

    fn give_back(&self, worker: &Worker, function: &FunctionName, is_entry: bool) {
        worker.leave(is_entry);
        if is_entry && let Some(running) = self.lock().running.get_mut(function) {
            *running = running.saturating_sub(1);
        }
        self.changed.notify_waiters();
    }

    /// Lets go of all workers.
    pub(crate) fn shut_down(&self) {
        self.stop.cancel();
    }
}

/// What workers of a function are checked against.
fn pinned<'a>(topology: &'a Topology, name: &FunctionName) -> Option<(&'a Option<Handlers>, &'a Option<States>)> {
    topology.functions.get(name).map(|function| (&function.handlers, &function.states))
}

/// Whether new flows may begin with a revision of a function.
fn gets_flows(function: &Function, revision: &Revision) -> bool {
    function.weights.is_empty() || function.weights.get(revision).is_some_and(|weight| *weight > 0)
}
