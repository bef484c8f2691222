//! What all parts of a runtime share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tandem_model::ids::{FunctionName, HandlerName};
use tandem_model::outcome::{Cause, FlowRecord, Outcome};
use tandem_model::request::{Origin, Request};
use tandem_model::topology::{Isolation, Topology};
use tandem_store::Store;
use tandem_store::keys::Layout;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::clock::Clock;
use crate::courier::{Courier, MESSAGE_ID_PREFIX};
use crate::egress::Egresses;
use crate::flow::{Flow, Left};
use crate::host::Host;
use crate::members::Membership;
use crate::metrics::Metrics;
use crate::partition::Partition;
use crate::peers::Peers;
use crate::recent::Recent;
use crate::registry::Registry;
use crate::runtime::{Invalid, NotAccepted};
use crate::telemetry;
use crate::turns::{Ticket, Turns};

/// Outcomes that a slow watcher may lag behind before it loses some.
const OUTCOMES_QUEUED_MAX: usize = 4_096;

/// The parts of a runtime.
pub(crate) struct Engine<S: Store> {
    pub(crate) store: S,
    pub(crate) layout: Layout,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) topology: ArcSwap<Topology>,
    pub(crate) partition: Arc<Partition<S>>,
    pub(crate) host: Arc<Host>,
    pub(crate) turns: Turns,
    pub(crate) registry: Registry,
    pub(crate) recent: Recent,
    pub(crate) courier: Arc<Courier>,
    pub(crate) egresses: Arc<Egresses>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) outcomes: broadcast::Sender<Arc<FlowRecord>>,
    pub(crate) stop: CancellationToken,
    pub(crate) draining: AtomicBool,
    /// Set if there may be other runtimes.
    pub(crate) membership: OnceLock<Arc<Membership<S>>>,
    /// Requests that run elsewhere, and whose outcome is awaited here.
    pub(crate) forwards: TaskTracker,
    /// Set when the store has failed for good.
    pub(crate) store_stopped: CancellationToken,
    tickets: AtomicU64,
    random: Mutex<SmallRng>,
}

/// What an engine is made of.
pub(crate) struct Parts<S: Store> {
    pub(crate) store: S,
    pub(crate) layout: Layout,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) topology: Arc<Topology>,
    pub(crate) partition: Arc<Partition<S>>,
    pub(crate) host: Arc<Host>,
    pub(crate) courier: Arc<Courier>,
    pub(crate) egresses: Arc<Egresses>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) store_stopped: CancellationToken,
    pub(crate) seed: Option<u64>,
}

impl<S: Store> Engine<S> {
    pub(crate) fn new(parts: Parts<S>) -> Arc<Self> {
        Arc::new(Self {
            store: parts.store,
            layout: parts.layout,
            clock: parts.clock,
            topology: ArcSwap::new(parts.topology),
            partition: parts.partition,
            host: parts.host,
            turns: Turns::default(),
            registry: Registry::default(),
            recent: Recent::default(),
            courier: parts.courier,
            egresses: parts.egresses,
            peers: parts.peers,
            metrics: parts.metrics,
            outcomes: broadcast::Sender::new(OUTCOMES_QUEUED_MAX),
            stop: CancellationToken::new(),
            draining: AtomicBool::new(false),
            membership: OnceLock::new(),
            forwards: TaskTracker::new(),
            store_stopped: parts.store_stopped,
            tickets: AtomicU64::new(1),
            random: Mutex::new(
                parts.seed.map_or_else(|| SmallRng::from_rng(&mut rand::rng()), SmallRng::seed_from_u64),
            ),
        })
    }

    /// By how much a wait is shortened, so that those who got in each other's way do not meet again: between a half
    /// and one.
    pub(crate) fn jitter(&self) -> f64 {
        // Nothing panics while it holds the lock.
        self.random.lock().unwrap_or_else(PoisonError::into_inner).random_range(0.5..=1.0)
    }

    /// Names a flow in the lines of turns.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(self.tickets.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether requests are taken.
    pub(crate) fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && !self.store_stopped.is_cancelled() && !self.stop.is_cancelled()
    }

    /// Whether the topology has the function.
    pub(crate) fn is_declared(&self, function: &FunctionName) -> bool {
        self.topology.load().functions.contains_key(function)
    }

    /// Whether a request makes sense, and the isolation it runs in, unless that is not known before a worker says it.
    pub(crate) fn check(&self, topology: &Topology, request: &Request) -> Result<Option<Isolation>, NotAccepted> {
        let invalid = |invalid: Invalid| Err(NotAccepted::Invalid(invalid));
        let function = &request.instance.function;
        if !topology.functions.contains_key(function) {
            return invalid(Invalid::UnknownFunction(function.to_string()));
        }
        if request.origin == Origin::Client && request.id.as_str().starts_with(MESSAGE_ID_PREFIX) {
            return invalid(Invalid::ReservedId);
        }
        let bytes = request.payload.bytes.len();
        let max = topology.limits.payload_bytes_max;
        if bytes > max {
            return invalid(Invalid::PayloadTooLarge { bytes, max });
        }
        let interface = self.host.interface(function);
        let told = interface.as_ref().map(|interface| interface.handlers.get(&request.handler));
        if told == Some(None) {
            let known: Vec<&str> =
                interface.iter().flat_map(|interface| interface.handlers.keys()).map(HandlerName::as_str).collect();
            let (function, handler) = (function.clone(), request.handler.to_string());
            return invalid(Invalid::UnknownHandler { function, handler, known: known.join(", ") });
        }
        let Some(told) = told else { return Ok(None) };
        let isolation = told.copied().flatten().unwrap_or_default();
        if request.as_of.is_some() && isolation != Isolation::ReadOnly {
            return invalid(Invalid::AsOfNeedsReadOnly);
        }
        Ok(Some(isolation))
    }

    /// A flow for a request that was checked. It has its place in the line of its entry instance from here on.
    pub(crate) fn flow(
        self: &Arc<Self>,
        request: Arc<Request>,
        topology: Arc<Topology>,
        isolation: Option<Isolation>,
        cancel: CancellationToken,
        progress: Box<dyn Fn(u32) + Send + Sync>,
    ) -> Flow<S> {
        let held = self.turns.held(self.ticket());
        let only_reads = isolation == Some(Isolation::ReadOnly);
        let place = if only_reads { None } else { held.line_up(&request.instance) };
        Flow {
            engine: Arc::clone(self),
            request,
            topology,
            is_isolation_known: isolation.is_some(),
            isolation: isolation.unwrap_or_default(),
            held,
            place,
            accepted: Instant::now(),
            accepted_unix_ms: self.clock.unix_ms(),
            cancel,
            progress,
            last_delivery: false,
            opened: None,
            was_sealed: AtomicBool::new(false),
        }
    }

    /// Runs the flow of a message. `last_delivery` means that it ends with an outcome, whatever happens.
    pub(crate) async fn deliver(self: &Arc<Self>, request: Request, last_delivery: bool) -> Left {
        let topology = self.topology.load_full();
        let checked = self.check(&topology, &request);
        let (span, request) = (telemetry::flow_span(&request), Arc::new(request));
        let (cancel, progress) = (CancellationToken::new(), Box::new(|_| {}));
        let isolation = checked.as_ref().ok().copied().flatten().map(Isolation::of_message);
        let mut flow = self.flow(request, topology, isolation, cancel, progress);
        flow.last_delivery = last_delivery;
        let left = match checked {
            Ok(_) => flow.run().instrument(span).await,
            Err(refused) => flow.set_aside_unrun(Cause::new("undeliverable", refused.to_string())).await,
        };
        if let Left::Ended(record) = &left {
            self.ended(record);
            if matches!(record.outcome, Outcome::Committed | Outcome::Rejected) {
                self.metrics.messages_delivered(1);
            }
        }
        left
    }

    /// Tells everybody that a flow ended.
    pub(crate) fn ended(&self, record: &Arc<FlowRecord>) {
        self.metrics.ended(record);
        self.recent.add(Arc::clone(record));
        // Nobody may be watching.
        let _ = self.outcomes.send(Arc::clone(record));
    }
}
