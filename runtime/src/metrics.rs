//! All metrics of a runtime pod: their names, help texts and labels, and small methods that count.
//!
//! **Invariant:** labels come from closed sets: names in the topology, outcomes, and reasons of a fixed list. Never a
//! key, an id, an address or a text of user code.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};
use tandem_model::ids::{EgressName, FunctionName};
use tandem_model::outcome::{FlowRecord, Outcome};

use crate::problem;
use crate::runtime::NotAccepted;

pub(crate) mod revisions;
#[cfg(test)]
pub(crate) mod testdata;

/// Media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Everything here starts with it.
const PREFIX: &str = "tandem_runtime";
/// Label of reasons that user code chose.
const APPLICATION: &str = "application";
/// Buckets of durations: 0.5 ms, doubled 16 times, up to 16 s.
const DURATION_BUCKETS: (f64, f64, u16) = (0.0005, 2.0, 16);
/// Buckets of counts: 1, doubled 11 times, up to 1024.
const SIZE_BUCKETS: (f64, f64, u16) = (1.0, 2.0, 11);
const MICROSECONDS: f64 = 1e6;

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Refusal {
    /// Too many flows.
    Busy,
    /// The store or the runtime is not there.
    Unavailable,
    /// The same id came with another body.
    Mismatch,
    /// It makes no sense.
    Invalid,
}

impl From<&NotAccepted> for Refusal {
    fn from(refusal: &NotAccepted) -> Self {
        match refusal {
            NotAccepted::Mismatch { .. } => Self::Mismatch,
            NotAccepted::Busy { .. } => Self::Busy,
            NotAccepted::Unavailable(_) => Self::Unavailable,
            NotAccepted::Invalid(_) => Self::Invalid,
        }
    }
}

/// Why the connection to a worker was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum WorkerDrop {
    /// It could not be reached.
    Unreachable,
    /// It went away.
    Disconnected,
    /// What it offers is not what the resources say.
    Handshake,
    /// It broke a rule of the protocol.
    Protocol,
    /// It did not answer in time.
    Hung,
    /// The topology does not list it any more.
    Removed,
}

/// What became of a run that began before the turn of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum RanAhead {
    /// It counted: its states were the right ones.
    Used,
    /// It began with other states than the flow found when it had its turn.
    Dropped,
    /// The worker did not know the states, or went away.
    Declined,
}

/// What is removed after its retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Expired {
    /// The record of a request.
    Request,
    /// A record of an egress.
    Egress,
}

/// What became of a request that belongs to another runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Forwarding {
    /// The other one answered.
    Answered,
    /// The other one could not be reached, or had too much to do: it ran here.
    Unreachable,
    /// The other one did not take it, and it ran here.
    Refused,
    /// The other one was lost before the answer: it ran here.
    Lost,
}

/// What became of a flow's wish for a turn at another runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Asked {
    /// It had it.
    Granted,
    /// It did not come in time, and the flow ran without.
    Late,
    /// The other one could not be asked, or was lost meanwhile, and the flow ran without.
    Unreachable,
}

/// What kind of store error it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum StoreFailure {
    /// It may work again later.
    Unavailable,
    /// No room.
    Full,
    /// The outcome of a commit had to be read back.
    Undetermined,
    /// Stored bytes make no sense.
    Damaged,
    /// The engine stopped.
    Stopped,
    /// Anything that only happens when it is opened, or a past that is not kept.
    Other,
}

impl From<&tandem_store::Error> for StoreFailure {
    fn from(error: &tandem_store::Error) -> Self {
        match error {
            tandem_store::Error::Unavailable(_) => Self::Unavailable,
            tandem_store::Error::Full(_) => Self::Full,
            tandem_store::Error::Damaged(_) => Self::Damaged,
            tandem_store::Error::Stopped(_) => Self::Stopped,
            tandem_store::Error::HistoryNotKept { .. }
            | tandem_store::Error::InUse(_)
            | tandem_store::Error::NewerFormat { .. }
            | tandem_store::Error::Refused(_)
            | tandem_store::Error::OtherLayout { .. }
            | tandem_store::Error::OtherVersion { .. } => Self::Other,
        }
    }
}

/// A label value from a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Word(&'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFunction {
    function: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFunctionAndOutcome {
    function: String,
    outcome: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFunctionAndReason {
    function: String,
    reason: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEgress {
    egress: String,
}

/// Durations by function.
type Durations = Family<ByFunction, Histogram, fn() -> Histogram>;

fn durations() -> Histogram {
    let (start, factor, length) = DURATION_BUCKETS;
    Histogram::new(exponential_buckets(start, factor, length))
}

fn sizes() -> Histogram {
    let (start, factor, length) = SIZE_BUCKETS;
    Histogram::new(exponential_buckets(start, factor, length))
}

/// One line of the generated documentation.
#[derive(Clone, Debug)]
struct Definition {
    name: String,
    kind: String,
    labels: &'static str,
    help: &'static str,
}

/// Registers metrics and remembers how to document them.
struct Definer {
    registry: Registry,
    definitions: Vec<Definition>,
}

impl Definer {
    fn add<M: Metric + Clone>(&mut self, name: &'static str, labels: &'static str, metric: M, help: &'static str) -> M {
        let kind = format!("{:?}", EncodeMetric::metric_type(&metric)).to_lowercase();
        let suffix = if kind == "counter" { "_total" } else { "" };
        let name_full = format!("{PREFIX}_{name}{suffix}");
        self.definitions.push(Definition { name: name_full, kind, labels, help });
        self.registry.register(name, help.trim_end_matches('.'), metric.clone());
        metric
    }
}

/// Counters that somebody else keeps, such as a store: name, meaning and value of each.
pub type Counters = Box<dyn Fn() -> Vec<(&'static str, &'static str, u64)> + Send + Sync>;

/// The metrics of one runtime. Shared as `Arc`.
pub struct Metrics {
    registry: Registry,
    /// With what their names begin.
    more: Mutex<Vec<(&'static str, Counters)>>,
    revisions: Mutex<Option<revisions::Source>>,
    definitions: Vec<Definition>,
    accepted: Family<ByFunction, Counter>,
    repeated: Family<ByFunction, Counter>,
    refused: Family<ByReason, Counter>,
    ended: Family<ByFunctionAndOutcome, Counter>,
    not_committed: Family<ByFunctionAndReason, Counter>,
    flow_seconds: Durations,
    attempts: Family<ByFunction, Counter>,
    conflicts: Family<ByFunction, Counter>,
    in_flight: Gauge,
    group_flows: Histogram,
    commit_seconds: Histogram,
    store_errors: Family<ByReason, Counter>,
    messages_delivered: Counter,
    messages_set_aside: Counter,
    messages_waiting: Gauge,
    timers_waiting: Gauge,
    workers: Family<ByFunction, Gauge>,
    worker_drops: Family<ByFunctionAndReason, Counter>,
    invocations: Family<ByFunction, Counter>,
    ran_ahead: Family<ByFunctionAndReason, Counter>,
    credit_waits: Family<ByFunction, Counter>,
    egress_records: Family<ByEgress, Counter>,
    expired: Family<ByReason, Counter>,
    bad_requests: Family<ByReason, Counter>,
    members: Gauge,
    partitions_owned: Gauge,
    forwarded: Family<ByReason, Counter>,
    hints: Family<ByReason, Counter>,
    turns_asked: Family<ByReason, Counter>,
    turns_given: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::build()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::build())
    }

    #[rustfmt::skip]
    fn build() -> Self {
        let mut d = Definer { registry: Registry::with_prefix(PREFIX), definitions: Vec::new() };
        let by_function = Durations::new_with_constructor(durations as fn() -> Histogram);
        Self {
            accepted: d.add("requests_accepted", "function", Family::default(), "Requests taken, repetitions not counted."),
            repeated: d.add("requests_repeated", "function", Family::default(), "Requests answered from the record of an earlier one with the same id, or joined to it."),
            refused: d.add("requests_refused", "reason", Family::default(), "Requests that were not accepted: `busy`, `unavailable`, `mismatch` or `invalid`."),
            bad_requests: d.add("http_problems", "reason", Family::default(), "HTTP requests that the ingress answered with a problem before they reached a flow, by reason."),
            ended: d.add("flows_ended", "function, outcome", Family::default(), "Flows whose outcome became durable, by entry function."),
            not_committed: d.add("flows_not_committed", "function, reason", Family::default(), "Flows that did not commit, by entry function and reason; reasons that user code chose count as `application`."),
            flow_seconds: d.add("flow_duration_seconds", "function", by_function, "From acceptance to the decision, by entry function."),
            attempts: d.add("flow_attempts", "function", Family::default(), "Runs of user code for flows that ended; compare with `flows_ended`."),
            conflicts: d.add("commit_conflicts", "function", Family::default(), "Attempts thrown away because what they read had changed, by entry function."),
            in_flight: d.add("flows_in_flight", "", Gauge::default(), "Flows accepted and not ended."),
            group_flows: d.add("commit_group_flows", "", sizes(), "Flows that one store transaction committed."),
            commit_seconds: d.add("commit_duration_seconds", "", durations(), "Store transactions, from start to durable."),
            store_errors: d.add("store_errors", "reason", Family::default(), "Errors of the store: `unavailable`, `full`, `undetermined`, `damaged`, `stopped` or `other`."),
            messages_delivered: d.add("messages_delivered", "", Counter::default(), "Sends whose flow committed."),
            messages_set_aside: d.add("messages_set_aside", "", Counter::default(), "Sends that failed for good and were parked."),
            messages_waiting: d.add("messages_waiting", "", Gauge::default(), "Sends that are due and not delivered."),
            timers_waiting: d.add("timers_waiting", "", Gauge::default(), "Delayed sends that are not due yet."),
            workers: d.add("workers_connected", "function", Family::default(), "Workers with a finished handshake."),
            worker_drops: d.add("worker_drops", "function, reason", Family::default(), "Connections to workers given up: `unreachable`, `disconnected`, `handshake`, `protocol`, `hung` or `removed`."),
            invocations: d.add("invocations", "function", Family::default(), "Invocations sent to workers, calls and spawns included."),
            ran_ahead: d.add("invocations_ahead", "function, reason", Family::default(), "Invocations that began before the turn of their flow, by what became of them."),
            credit_waits: d.add("host_credit_waits", "function", Family::default(), "Invocations that had to wait because no worker had room."),
            egress_records: d.add("egress_records", "egress", Family::default(), "Records released by commits."),
            expired: d.add("expired_rows", "reason", Family::default(), "Rows removed after their retention, by kind: `request` (a request that is repeated after that runs again) or `egress`."),
            members: d.add("members", "", Gauge::default(), "Runtimes that are live on this store, this one included; 0 if it has the store to itself."),
            partitions_owned: d.add("partitions_owned", "", Gauge::default(), "Partitions that this runtime owns, of 64."),
            forwarded: d.add("requests_forwarded", "reason", Family::default(), "Requests that another runtime owns: it `answered`, or they ran here because it was `unreachable`, `refused` or `lost`."),
            hints: d.add("messages_hinted", "reason", Family::default(), "Sends for instances of other runtimes that those were told of (`sent`), or that were kept here (`kept`)."),
            turns_asked: d.add("turns_asked", "reason", Family::default(), "Turns that flows wanted at another runtime, on instances that runtimes keep fighting over: `granted`, `late` or `unreachable`; without one a flow runs all the same."),
            turns_given: d.add("turns_given", "", Counter::default(), "Turns that flows of other runtimes had here."),
            registry: d.registry,
            more: Mutex::default(),
            revisions: Mutex::default(),
            definitions: d.definitions,
        }
    }

    /// A request was taken.
    pub fn accepted(&self, function: &FunctionName) {
        self.accepted.get_or_create(&by(function)).inc();
    }

    /// A request was answered from, or joined to, an earlier one.
    pub fn repeated(&self, function: &FunctionName) {
        self.repeated.get_or_create(&by(function)).inc();
    }

    /// A request was not taken.
    pub fn refused(&self, refusal: Refusal) {
        self.refused.get_or_create(&ByReason { reason: Word(refusal.into()) }).inc();
    }

    /// An HTTP request was answered with a problem before it reached a flow.
    pub fn bad_request(&self, reason: &str) {
        self.bad_requests.get_or_create(&ByReason { reason: known_reason(reason) }).inc();
    }

    /// An outcome became durable.
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a flow are far below 2^52")]
    pub fn ended(&self, record: &FlowRecord) {
        let function = &record.instance.function;
        let labels = ByFunctionAndOutcome { function: function.to_string(), outcome: Word(record.outcome.as_str()) };
        self.ended.get_or_create(&labels).inc();
        self.flow_seconds.get_or_create(&by(function)).observe(record.duration_us as f64 / MICROSECONDS);
        self.attempts.get_or_create(&by(function)).inc_by(u64::from(record.attempts));
        if record.outcome != Outcome::Committed {
            let reason = record.cause.as_ref().map_or(Word(APPLICATION), |cause| known_reason(&cause.reason));
            let labels = ByFunctionAndReason { function: function.to_string(), reason };
            self.not_committed.get_or_create(&labels).inc();
        }
    }

    /// An attempt was thrown away because of a conflict.
    pub fn conflict(&self, function: &FunctionName) {
        self.conflicts.get_or_create(&by(function)).inc();
    }

    /// A flow wanted a turn at another runtime.
    pub fn turn_asked(&self, what: Asked) {
        self.turns_asked.get_or_create(&ByReason { reason: Word(what.into()) }).inc();
    }

    /// A flow of another runtime had its turn here.
    pub fn turn_given(&self) {
        self.turns_given.inc();
    }

    /// A flow was accepted and runs or waits.
    pub fn flow_began(&self) {
        self.in_flight.inc();
    }

    /// It is not in flight any more.
    pub fn flow_left(&self) {
        self.in_flight.dec();
    }

    /// One store transaction was committed for `flows` flows.
    #[expect(clippy::cast_precision_loss, reason = "a group has at most a few thousand flows")]
    pub fn group_committed(&self, flows: usize, seconds: f64) {
        self.group_flows.observe(flows as f64);
        self.commit_seconds.observe(seconds);
    }

    /// The store failed.
    pub fn store_error(&self, failure: StoreFailure) {
        self.store_errors.get_or_create(&ByReason { reason: Word(failure.into()) }).inc();
    }

    /// Flows of this many sends committed.
    pub fn messages_delivered(&self, count: u64) {
        self.messages_delivered.inc_by(count);
    }

    /// A send failed for good and was parked.
    pub fn message_set_aside(&self) {
        self.messages_set_aside.inc();
    }

    /// So many rows were removed because their retention had passed.
    pub(crate) fn expired(&self, kind: Expired, rows: usize) {
        let labels = ByReason { reason: Word(kind.into()) };
        self.expired.get_or_create(&labels).inc_by(u64::try_from(rows).unwrap_or(u64::MAX));
    }

    /// How many sends are due and not delivered.
    pub fn messages_waiting(&self, count: usize) {
        self.messages_waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// How many delayed sends are not due yet.
    pub fn timers_waiting(&self, count: usize) {
        self.timers_waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A worker finished its handshake for a function.
    pub fn worker_connected(&self, function: &FunctionName) {
        self.workers.get_or_create(&by(function)).inc();
    }

    /// A worker that was connected for a function is not any more.
    pub fn worker_dropped(&self, function: &FunctionName, reason: WorkerDrop) {
        self.workers.get_or_create(&by(function)).dec();
        self.worker_refused(function, reason);
    }

    /// A connection was given up before its handshake was done.
    pub fn worker_refused(&self, function: &FunctionName, reason: WorkerDrop) {
        let labels = ByFunctionAndReason { function: function.to_string(), reason: Word(reason.into()) };
        self.worker_drops.get_or_create(&labels).inc();
    }

    /// An invocation that began before the turn of its flow was used, or was not.
    pub fn ran_ahead(&self, function: &FunctionName, what: RanAhead) {
        let labels = ByFunctionAndReason { function: function.to_string(), reason: Word(what.into()) };
        self.ran_ahead.get_or_create(&labels).inc();
    }

    /// An invocation was sent to a worker.
    pub fn invocation(&self, function: &FunctionName) {
        self.invocations.get_or_create(&by(function)).inc();
    }

    /// An invocation had to wait for room.
    pub fn credit_wait(&self, function: &FunctionName) {
        self.credit_waits.get_or_create(&by(function)).inc();
    }

    /// A commit released records to an egress.
    pub fn egress_records(&self, egress: &EgressName, count: u64) {
        self.egress_records.get_or_create(&ByEgress { egress: egress.to_string() }).inc_by(count);
    }

    /// So many runtimes are live, and this one owns so many partitions.
    pub fn members(&self, members: usize, owned: usize) {
        self.members.set(i64::try_from(members).unwrap_or(i64::MAX));
        self.partitions_owned.set(i64::try_from(owned).unwrap_or(i64::MAX));
    }

    /// A request of another runtime's was passed on, or was to be.
    pub fn forwarded(&self, what: Forwarding) {
        self.forwarded.get_or_create(&ByReason { reason: Word(what.into()) }).inc();
    }

    /// Another runtime was told of sends, or could not be.
    pub fn hinted(&self, is_told: bool, count: usize) {
        let reason = Word(if is_told { "sent" } else { "kept" });
        self.hints.get_or_create(&ByReason { reason }).inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// All metrics in the OpenMetrics text form.
    pub fn text(&self) -> String {
        let mut page = String::new();
        // Writing into a String cannot fail; a partial page is still the best answer if that ever changes.
        let _ = text::encode_registry(&mut page, &self.registry);
        for (prefix, counters) in self.more.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            for (name, help, value) in counters() {
                let name = format!("{prefix}_{name}");
                let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} counter\n{name}_total {value}");
            }
        }
        if let Some(source) = self.revisions.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            revisions::write(&mut page, &source());
        }
        let _ = text::encode_eof(&mut page);
        page
    }

    /// Shows counters of somebody else beside these, with names that begin so.
    pub fn add(&self, prefix: &'static str, counters: Counters) {
        self.more.lock().unwrap_or_else(PoisonError::into_inner).push((prefix, counters));
    }

    /// Shows what `source` says of revisions, in the place of an earlier one.
    pub(crate) fn show_revisions(&self, source: revisions::Source) {
        *self.revisions.lock().unwrap_or_else(PoisonError::into_inner) = Some(source);
    }

    /// The reference page, as Markdown.
    pub fn documentation(&self) -> String {
        let mut page = String::from(
            "# Metrics of the runtime\n\n`GET /metrics` on the admin port, in the OpenMetrics text form. Labels come \
             from closed sets: names of your resources,\noutcomes, and reasons of the [problems](problems.md) page; \
             reasons that your code chose are counted as `application`.\n\n| name | type | labels | meaning |\n| --- | --- | --- | --- |\n",
        );
        let revisions: Vec<Definition> = revisions::definitions().collect();
        for Definition { name, kind, labels, help } in self.definitions.iter().chain(&revisions) {
            let _ = writeln!(page, "| `{name}` | {kind} | {labels} | {help} |");
        }
        page.push_str(
            "\nA store on TiKV adds counters of its own, whose names begin with `tandem_store_`; the `# HELP` line of each says what it counts. \
             For those who look after a cluster:\n`tandem_store_sweeps_total`, `tandem_store_locks_swept_total` (locks of processes that died), \
             `tandem_store_safe_point_moves_total` (history that was given up),\n`tandem_store_housekeeping_failures_total`. Only the elected one of several \
             runtimes counts these up.\n",
        );
        page
    }
}

fn by(function: &FunctionName) -> ByFunction {
    ByFunction { function: function.to_string() }
}

/// A reason of the runtime, or "application" for one that user code chose.
fn known_reason(reason: &str) -> Word {
    let known = problem::REASONS.iter().find(|(known, ..)| *known == reason);
    Word(known.map_or(APPLICATION, |(known, ..)| *known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_closed_labels_only() {
        let metrics = Metrics::new();
        let order: FunctionName = "order".parse().unwrap();
        metrics.accepted(&order);
        metrics.ended(&testdata::record(Outcome::Rejected));
        metrics.ended(&testdata::record(Outcome::Committed));
        metrics.refused(Refusal::Busy);
        metrics.group_committed(3, 0.004);
        metrics.worker_connected(&order);
        metrics.worker_dropped(&order, WorkerDrop::Hung);
        let text = metrics.text();
        for line in [
            r#"tandem_runtime_requests_accepted_total{function="order"} 1"#,
            r#"tandem_runtime_flows_ended_total{function="order",outcome="REJECTED"} 1"#,
            r#"tandem_runtime_flows_not_committed_total{function="order",reason="application"} 1"#,
            r#"tandem_runtime_flow_attempts_total{function="order"} 4"#,
            r#"tandem_runtime_requests_refused_total{reason="busy"} 1"#,
            r#"tandem_runtime_commit_group_flows_bucket{le="4.0"} 1"#,
            r#"tandem_runtime_workers_connected{function="order"} 0"#,
            r#"tandem_runtime_worker_drops_total{function="order",reason="hung"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn counters_of_others_are_shown_too() {
        let metrics = Metrics::new();
        metrics.add("tandem_store", Box::new(|| vec![("sweeps", "Runs of the sweeper.", 3)]));
        let text = metrics.text();
        let shown = "# HELP tandem_store_sweeps Runs of the sweeper.\n# TYPE tandem_store_sweeps counter\ntandem_store_sweeps_total 3\n# EOF\n";
        assert!(text.ends_with(shown), "{text}");
    }

    #[test]
    fn documentation_is_up_to_date() {
        testdata::check_page("metrics.md", &Metrics::new().documentation());
    }
}
