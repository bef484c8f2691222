//! Runs one flow to its outcome: attempts, retries, deadline, cancel.
//!
//! Each attempt runs the whole tree of calls on a view of its own ([`attempt`]). What it leads to is sealed together
//! with the request record, also when it is a rejection: the "no" rests on what was read, so it is validated like a
//! commit. Failures, time-outs and cancellations write nothing but the record, fenced by its absence.
//!
//! **Invariant:** every accepted request gets exactly one record, or the process ends before it has one and the
//! request can be repeated. **Invariant:** from sealing on nothing can cancel a flow; the commit decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tandem_model::flow::{Overlay, Tree};
use tandem_model::ids::{Instance, Payload};
use tandem_model::mechanism::{Mechanism, works};
use tandem_model::outcome::{CallTrace, Cause, FlowRecord, Outcome};
use tandem_model::request::{Origin, Request};
use tandem_model::topology::{Isolation, Topology};
use tandem_store::{Store, rows};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::partition::{ReadSet, Sealed, Sealing, Seen, Source, Stale, View};
use crate::runtime::{Invalid, NotAccepted};
use crate::turns::{Held, Place};

use ahead::RunAhead;
use attempt::{Attempt, Broken, End};
pub(crate) use opened::Opened;

mod ahead;
mod attempt;
mod call;
mod effects;
mod lanes;
mod opened;
mod order;
mod reads;
mod trace;

/// How long a view is kept open for a flow that waits for its turn: sealed rows are kept for it in memory.
const VIEW_KEPT_MAX: Duration = Duration::from_millis(100);
/// First wait before a flow runs again; doubled each time, with jitter.
const RETRY_BACKOFF: Duration = Duration::from_millis(2);
/// Longest such wait.
const RETRY_BACKOFF_MAX: Duration = Duration::from_millis(200);
/// First wait before a flow runs again because its code failed or its worker was lost.
const FAILURE_BACKOFF: Duration = Duration::from_millis(20);
/// Workers that one flow may lose: its code may be what ends them.
const LOST_WORKERS_MAX: u32 = 5;
/// First wait before a flow that lost its worker runs again.
const LOST_BACKOFF: Duration = Duration::from_millis(100);
/// Attempts to store the record of a flow that did not commit.
const RECORD_ATTEMPTS_MAX: u32 = 10;

/// One accepted request on its way.
pub(crate) struct Flow<S: Store> {
    pub(crate) engine: Arc<Engine<S>>,
    pub(crate) request: Arc<Request>,
    pub(crate) topology: Arc<Topology>,
    pub(crate) isolation: Isolation,
    /// Whether `isolation` is more than a guess: no worker has said yet what the handler is.
    pub(crate) is_isolation_known: bool,
    /// The turns it has, the one on its entry instance first.
    pub(crate) held: Held,
    /// Its place in the line of its entry instance, unless it has the turn already or only reads.
    pub(crate) place: Option<Place>,
    pub(crate) accepted: Instant,
    pub(crate) accepted_unix_ms: u64,
    pub(crate) cancel: CancellationToken,
    /// Told the number of each attempt as it begins.
    pub(crate) progress: Box<dyn Fn(u32) + Send + Sync>,
    /// For a message: end with an outcome, whatever happens. Otherwise it is left where it is when others were in the
    /// way or the time was up, and delivered again.
    pub(crate) last_delivery: bool,
    /// A view that was opened for it already.
    pub(crate) opened: Option<Opened<S>>,
    /// An attempt of it was sealed: its record may have come into the store, even if that was not told.
    pub(crate) was_sealed: AtomicBool,
}

/// What there is already when the first attempt begins.
struct Prepared<S: Store> {
    opened: Option<Opened<S>>,
    ahead: Option<RunAhead>,
}

/// How a flow left the runtime.
#[derive(Debug)]
pub(crate) enum Left {
    /// With this record, which is durable (for read-only flows: which is all there is).
    Ended(Arc<FlowRecord>),
    /// An earlier request with the same id had ended before; this is its record.
    Repeated(Arc<FlowRecord>),
    /// It was a message, and somebody else has delivered it.
    Consumed,
    /// It was a message, and another one comes before it.
    TooEarly,
    /// Without an outcome: the store could not take one. Repeating the request is safe.
    Abandoned(String),
}

/// What one attempt led to.
enum Step {
    Left(Left),
    /// Run again. `blame` names the instances that were fought over.
    Conflict(Conflict),
    /// Run again with turns on all that the last attempt came upon.
    Turns,
    /// Run again after a failure that may pass.
    Failed(Cause),
    /// Run again on another worker.
    Lost(Cause),
    /// Decided without effects.
    Decided(Outcome, Cause),
    /// The store could not take it now.
    Refused(String),
}

/// Why an attempt was in vain, though nobody is to blame.
#[derive(Debug, Default)]
struct Conflict {
    /// What flows of this runtime fought over.
    blame: Vec<Instance>,
    /// What flows of other runtimes had a part in.
    between: Vec<Instance>,
    /// Nothing that it read had changed, but something that flows before it had: it was thrown away with them.
    collateral: bool,
    solo: bool,
    sequential: bool,
}

/// What a commit is made of.
struct Parts {
    reads: ReadSet,
    overlay: Overlay,
    record: FlowRecord,
}

/// What the attempts of a flow remember of each other.
#[derive(Default)]
struct Memory {
    attempts: u32,
    conflicts: u32,
    /// Attempts that ended because something else had to be taken in turn first, or with those of others.
    again: u32,
    failures: u32,
    lost: u32,
    solo: bool,
    sequential: bool,
    /// The calls of the last attempt, for the record.
    calls: Vec<CallTrace>,
    /// What the last attempt called, for its instances.
    tree: Option<Tree>,
    /// What all attempts did, for tests that take a mechanism away.
    piled_up: Overlay,
}

impl Memory {
    fn pile_up(&mut self, overlay: Overlay) -> Overlay {
        self.piled_up.merge(overlay);
        self.piled_up.clone()
    }
}

impl<S: Store> Flow<S> {
    /// Lets the first attempt run on a view that was opened before.
    pub(crate) fn begin_with(&mut self, opened: Option<Opened<S>>) {
        self.opened = opened;
    }

    /// Runs the flow to its end. Dropping the future loses the flow, so only [`crate::tasks`] may hold it.
    pub(crate) async fn run(mut self) -> Left {
        let mut deadline = self.accepted + self.request.deadline;
        if !works(Mechanism::Deadline) {
            deadline += Duration::from_hours(1);
        }
        let mut memory = Memory::default();
        let (mut opened, mut ahead) = match self.begin_on_view(deadline).await {
            Ok(begun) => begun,
            Err((outcome, cause)) => return self.end(outcome, cause, &memory).await,
        };
        loop {
            let prepared = Prepared { opened: opened.take(), ahead: ahead.take() };
            let step = self.step(&self.held, &mut memory, deadline, prepared).await;
            if let Some(left) = self.after(step, &mut memory, deadline).await {
                return left;
            }
        }
    }

    /// Begins, and moves the view that was opened before to the present, so that what its predecessors did is seen.
    ///
    /// Opening another one would take round trips to the store, while everybody behind it in the line waits. It is given up
    /// where it would be in vain: others may have written what it does not see.
    async fn begin_on_view(
        &mut self,
        deadline: Instant,
    ) -> Result<(Option<Opened<S>>, Option<RunAhead>), (Outcome, Cause)> {
        let (mut opened, waits) = (self.opened.take(), self.place.is_some());
        let ahead = {
            let entry = self.begin(deadline);
            tokio::pin!(entry);
            tokio::select! {
                biased;
                ahead = &mut entry => ahead?,
                () = tokio::time::sleep(VIEW_KEPT_MAX), if waits && opened.is_some() => {
                    opened = None;
                    entry.await?
                }
            }
        };
        let is_shared = || self.engine.turns.is_shared(&self.request.instance, Instant::now());
        let of_use =
            |opened: &Opened<S>| self.isolation != Isolation::ReadOnly && (!waits || (!is_shared() && opened.extend()));
        Ok((opened.filter(of_use), ahead))
    }

    /// Waits for the turn on its instance, and to hear what the handler is. Its code may have run ahead meanwhile.
    async fn begin(&mut self, deadline: Instant) -> Result<Option<RunAhead>, (Outcome, Cause)> {
        let too_late = |detail: String| (Outcome::TimedOut, Cause::new("deadline", detail));
        let mut ahead = None;
        if let Some(place) = self.place.take() {
            let turn = timeout_at(deadline, self.unless_cancelled(self.wait_for_entry(&self.held, place))).await;
            ahead = turn
                .map_err(|_| too_late("the flow was still waiting for others on its instance".to_owned()))?
                .map_err(|()| (Outcome::Cancelled, cancelled()))?;
        }
        if self.is_isolation_known {
            return Ok(ahead);
        }
        let (function, host) = (&self.request.instance.function, &self.engine.host);
        let known = timeout_at(deadline, self.unless_cancelled(host.until_known(function))).await;
        known
            .map_err(|_| too_late(format!("no worker of function {function} has connected yet")))?
            .map_err(|()| (Outcome::Cancelled, cancelled()))?;
        let handlers = host.interface(function);
        let told = handlers.and_then(|interface| interface.handlers.get(&self.request.handler).copied().flatten());
        self.learn(told.unwrap_or_default())?;
        Ok(None)
    }

    /// Takes note of the isolation of its handler, which was not known when the flow was accepted.
    fn learn(&mut self, isolation: Isolation) -> Result<(), (Outcome, Cause)> {
        self.is_isolation_known = true;
        let is_message = matches!(self.request.origin, Origin::Message { .. });
        self.isolation = if is_message { isolation.of_message() } else { isolation };
        if self.isolation == Isolation::ReadOnly {
            self.held.give_back();
        } else if self.request.as_of.is_some() {
            let refused = NotAccepted::Invalid(Invalid::AsOfNeedsReadOnly);
            return Err((Outcome::Invalid, Cause::new("as-of-needs-read-only", refused.to_string())));
        }
        Ok(())
    }

    /// Ends the flow of a message that cannot even be run.
    pub(crate) async fn set_aside_unrun(self, cause: Cause) -> Left {
        self.end(Outcome::Poisoned, cause, &Memory::default()).await
    }

    async fn unless_cancelled<T>(&self, future: impl Future<Output = T>) -> Result<T, ()> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(()),
            value = future => Ok(value),
        }
    }

    /// Decides what an attempt's end means for the flow: it left, or goes round again after a wait.
    async fn after(&self, step: Step, memory: &mut Memory, deadline: Instant) -> Option<Left> {
        let limits = &self.topology.limits;
        let backoff = match step {
            Step::Left(left) => return Some(left),
            Step::Decided(outcome, cause) => return Some(self.end(outcome, cause, memory).await),
            Step::Turns => {
                memory.again += 1;
                return None;
            }
            Step::Conflict(conflict) => {
                self.note(&conflict, memory);
                if memory.conflicts >= limits.attempts_max {
                    let detail = format!("other flows changed what it read in each of {} attempts", memory.conflicts);
                    return Some(self.end(Outcome::Conflict, Cause::new("conflict", detail), memory).await);
                }
                self.backoff(RETRY_BACKOFF, memory.conflicts.saturating_sub(1))
            }
            Step::Failed(cause) => {
                memory.failures += 1;
                let failed = cause.instance.as_ref().unwrap_or(&self.request.instance);
                let declared = self.topology.functions.get(&failed.function);
                if memory.failures >= declared.map_or(1, |function| function.failure_attempts_max) {
                    return Some(self.end(Outcome::Failed, cause, memory).await);
                }
                self.backoff(FAILURE_BACKOFF, memory.failures - 1)
            }
            Step::Lost(cause) => {
                memory.lost += 1;
                if memory.lost >= LOST_WORKERS_MAX {
                    return Some(self.end(Outcome::Failed, cause, memory).await);
                }
                self.backoff(LOST_BACKOFF, memory.lost - 1)
            }
            Step::Refused(why) => {
                if Instant::now() >= deadline {
                    return Some(Left::Abandoned(why));
                }
                self.backoff(FAILURE_BACKOFF, memory.attempts)
            }
        };
        // A deadline or a cancel during the wait is found by the next attempt, before it does anything.
        let _ = self.unless_cancelled(sleep_until((Instant::now() + backoff).min(deadline))).await;
        None
    }

    async fn step(&self, held: &Held, memory: &mut Memory, deadline: Instant, prepared: Prepared<S>) -> Step {
        let Prepared { opened, ahead } = prepared;
        memory.attempts += 1;
        (self.progress)(memory.attempts);
        if memory.attempts > 1 && self.isolation != Isolation::ReadOnly {
            self.take_again(held, memory, deadline).await;
        }
        let opened = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Step::Decided(Outcome::Cancelled, cancelled()),
            opened = timeout_at(deadline, async {
                match opened {
                    Some(opened) => Ok(opened),
                    None => self.open().await,
                }
            }) => opened,
        };
        let Opened { view, row, record: seen_record } = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(step)) => return step,
            Err(_) => return Step::Decided(Outcome::TimedOut, self.timed_out(&[])),
        };
        let attempt = Attempt::new(self, &view, held, memory.attempts, memory.sequential, deadline).with_ahead(ahead);
        let ended = tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Step::Decided(Outcome::Cancelled, cancelled())),
            ended = timeout_at(deadline, attempt.run()) => ended.map_err(|_| {
                Step::Decided(Outcome::TimedOut, self.timed_out(&attempt.traces()))
            }),
        };
        memory.calls = attempt.traces();
        let lacks_turns = attempt.lacks_turns();
        let (mut reads, tree) = attempt.into_parts();
        memory.tree = Some(tree);
        match ended {
            Err(step) => step,
            Ok(End::Broken(broken)) => step_of(broken),
            Ok(_) if lacks_turns && held.may_begin_again() => Step::Turns,
            Ok(End::Rejected(cause)) if self.isolation == Isolation::ReadOnly => {
                Step::Left(self.left_read_only(Outcome::Rejected, Some(cause), None, memory))
            }
            Ok(End::Done(payload, _)) if self.isolation == Isolation::ReadOnly => {
                Step::Left(self.left_read_only(Outcome::Committed, None, Some(payload), memory))
            }
            Ok(End::Rejected(cause)) => {
                note_absence(&mut reads, row, seen_record);
                let record = self.record(Outcome::Rejected, Some(cause), None, memory.attempts, memory.calls.clone());
                self.commit(&view, Some(held), Parts { reads, overlay: Overlay::default(), record }, memory.solo).await
            }
            Ok(End::Done(payload, overlay)) => {
                let overlay = if works(Mechanism::FreshAttempt) { overlay } else { memory.pile_up(overlay) };
                if let Err(step) = self.choose_reads(&view, &mut reads, &overlay).await {
                    return step;
                }
                note_absence(&mut reads, row, seen_record);
                let record = self.record(Outcome::Committed, None, Some(payload), memory.attempts, Vec::new());
                let step = self.commit(&view, Some(held), Parts { reads, overlay, record }, memory.solo).await;
                with_calls(step, memory)
            }
        }
    }

    fn backoff(&self, first: Duration, times: u32) -> Duration {
        backoff(first, times, self.engine.jitter())
    }

    /// Opens a view, unless the flow has a record already.
    async fn open(&self) -> Result<Opened<S>, Step> {
        let refused = |error: tandem_store::Error| Step::Refused(error.to_string());
        if self.isolation == Isolation::ReadOnly && works(Mechanism::ReadOnlyDurable) {
            let base = match self.request.as_of {
                Some(at) => self.engine.store.snapshot_at(at).await,
                None => self.engine.store.snapshot().await,
            };
            let view = self.engine.partition.durable_view(base.map_err(refused)?);
            let record = Seen { source: Source::Base, value: None, at: 0 };
            return Ok(Opened { view, row: self.engine.layout.request(self.request.flow), record });
        }
        let was_sealed = self.was_sealed.load(Ordering::Relaxed);
        let opened = Opened::of(&self.engine, &self.request).await.map_err(refused)?;
        let Some(bytes) = &opened.record.value else { return Ok(opened) };
        let record = rows::decode_record(bytes).map_err(refused)?;
        // Our own earlier attempt is in the store only if its commit was undetermined and then decided. Anything
        // else was written by another runtime on the same store, perhaps for another body.
        let is_own =
            was_sealed && record.digest == self.request.digest && record.accepted_unix_ms == self.accepted_unix_ms;
        let record = Arc::new(record);
        Err(Step::Left(if is_own { Left::Ended(record) } else { Left::Repeated(record) }))
    }

    /// Keeps of the reads what the flow's isolation has validated.
    async fn choose_reads(&self, view: &View<S>, reads: &mut ReadSet, overlay: &Overlay) -> Result<(), Step> {
        if self.isolation != Isolation::Snapshot {
            return Ok(());
        }
        // What is not durable yet is no snapshot of the store: another process may commit in between. Whoever has seen
        // such a thing has all of its reads validated.
        let is_snapshot =
            !self.engine.partition.is_shared() || reads.are_durable() || !works(Mechanism::SnapshotDurable);
        let written: Vec<bytes::Bytes> = overlay.rows.keys().cloned().collect();
        let unseen: Vec<bytes::Bytes> = written.iter().filter(|row| reads.get(row).is_none()).cloned().collect();
        let seen = view.read(&unseen).await.map_err(|error| Step::Refused(error.to_string()))?;
        for (row, seen) in unseen.into_iter().zip(seen) {
            reads.add(row, seen);
        }
        if is_snapshot {
            *reads = reads.only(if works(Mechanism::SnapshotWrites) { &written } else { &[] });
        }
        Ok(())
    }

    /// Seals what the attempt led to, and waits for it to be durable.
    async fn commit(&self, view: &View<S>, held: Option<&Held>, parts: Parts, solo: bool) -> Step {
        let Parts { mut reads, overlay, record } = parts;
        let mut writes: Vec<_> = overlay.rows.into_iter().collect();
        if let Origin::Message { row } = &self.request.origin {
            match self.consume(view, row, &mut reads).await {
                Ok(()) if !works(Mechanism::MessageConsumed) => {}
                Ok(()) => writes.push((row.clone(), None)),
                Err(step) => return step,
            }
        }
        if let Err(error) = self.engine.partition.number_emissions(overlay.emissions.len()).await {
            return Step::Refused(error.to_string());
        }
        let lanes = match self.see_lanes(view, &overlay.messages).await {
            Ok(lanes) => lanes,
            Err(step) => return step,
        };
        let record = Arc::new(record);
        let sealing = Sealing {
            reads,
            writes,
            messages: overlay.messages,
            emissions: overlay.emissions,
            record: Arc::clone(&record),
            solo,
            lanes,
        };
        let sealed = match self.engine.partition.seal(view, sealing) {
            Ok(sealed) => sealed,
            Err(Stale { rows }) => {
                let (blame, blame_less) = (order::instances(&rows), rows.is_empty());
                return Step::Conflict(Conflict { collateral: blame_less, blame, ..Conflict::default() });
            }
        };
        self.was_sealed.store(true, Ordering::Relaxed);
        // Whoever is next sees what was sealed, and need not wait for the disk, unless it is elsewhere.
        if let Some(held) = held {
            held.sealed(self.engine.partition.is_shared());
        }
        let sealed =
            if works(Mechanism::NoCancelAfterSealing) { Ok(sealed.await) } else { self.unless_cancelled(sealed).await };
        held.inspect(|held| held.give_back());
        let Ok(sealed) = sealed else { return Step::Decided(Outcome::Cancelled, cancelled()) };
        match sealed {
            Ok(Sealed::Durable) => Step::Left(Left::Ended(record)),
            Ok(Sealed::Again { own, rows }) => {
                let between = order::instances(&rows);
                Step::Conflict(Conflict { between, solo: own, collateral: !own, ..Conflict::default() })
            }
            Ok(Sealed::Refused(why)) => Step::Refused(why),
            Err(_) => Step::Refused("the runtime is stopping".to_owned()),
        }
    }

    /// Stores an outcome without effects. A message that will never succeed is set aside in the same transaction.
    async fn end(&self, outcome: Outcome, cause: Cause, memory: &Memory) -> Left {
        let is_message = matches!(self.request.origin, Origin::Message { .. });
        if is_message && !self.last_delivery && matches!(outcome, Outcome::TimedOut | Outcome::Conflict) {
            return Left::Abandoned(cause.detail);
        }
        let outcome = if is_message && outcome != Outcome::Rejected { Outcome::Poisoned } else { outcome };
        if self.isolation == Isolation::ReadOnly && !is_message {
            return self.left_read_only(outcome, Some(cause), None, memory);
        }
        let record = self.record(outcome, Some(cause), None, memory.attempts, memory.calls.clone());
        let mut last = String::new();
        for attempt in 0..RECORD_ATTEMPTS_MAX {
            let step = match self.open().await {
                Err(step) => step,
                Ok(Opened { view, row, record: seen }) => {
                    let mut reads = ReadSet::default();
                    note_absence(&mut reads, row, seen);
                    let overlay = self.set_aside(outcome);
                    self.commit(&view, None, Parts { reads, overlay, record: record.clone() }, memory.solo).await
                }
            };
            match step {
                Step::Left(left) => return left,
                Step::Refused(why) => last = why,
                Step::Conflict(_) | Step::Turns | Step::Failed(_) | Step::Lost(_) | Step::Decided(..) => {
                    "others keep writing its record".clone_into(&mut last);
                }
            }
            tokio::time::sleep(self.backoff(FAILURE_BACKOFF, attempt)).await;
        }
        Left::Abandoned(last)
    }

    fn set_aside(&self, outcome: Outcome) -> Overlay {
        let mut overlay = Overlay::default();
        if let (Outcome::Poisoned, Origin::Message { row }) = (outcome, &self.request.origin)
            && let Some((key, value)) = self.engine.courier.dead_letter(row, &self.request)
        {
            overlay.rows.insert(key, Some(value));
            self.engine.metrics.message_set_aside();
        }
        overlay
    }

    fn left_read_only(&self, outcome: Outcome, cause: Option<Cause>, result: Option<Payload>, memory: &Memory) -> Left {
        Left::Ended(Arc::new(self.record(outcome, cause, result, memory.attempts, memory.calls.clone())))
    }

    fn record(
        &self,
        outcome: Outcome,
        cause: Option<Cause>,
        result: Option<Payload>,
        attempts: u32,
        calls: Vec<CallTrace>,
    ) -> FlowRecord {
        FlowRecord {
            flow: self.request.flow,
            request: self.request.id.clone(),
            instance: self.request.instance.clone(),
            handler: self.request.handler.clone(),
            digest: self.request.digest,
            outcome,
            cause,
            result,
            attempts,
            accepted_unix_ms: self.accepted_unix_ms,
            duration_us: u64::try_from(self.accepted.elapsed().as_micros()).unwrap_or(u64::MAX),
            calls: trace::undone(calls, outcome),
        }
    }

    fn timed_out(&self, calls: &[CallTrace]) -> Cause {
        let running = calls.iter().rev().find(|call| call.status == tandem_model::outcome::CallStatus::Stopped);
        let detail = format!("not done within {} ms", self.request.deadline.as_millis());
        match running {
            Some(call) => Cause::new("deadline", format!("{detail}; {} {} was running", call.instance, call.handler)),
            None => Cause::new("deadline", detail),
        }
    }
}

/// The stored record of a committed flow leaves the calls out; whoever asks soon gets them from memory.
fn with_calls(step: Step, memory: &mut Memory) -> Step {
    match step {
        Step::Left(Left::Ended(record)) if record.outcome == Outcome::Committed => {
            let calls = std::mem::take(&mut memory.calls);
            Step::Left(Left::Ended(Arc::new(FlowRecord { calls, ..Arc::unwrap_or_clone(record) })))
        }
        other => other,
    }
}

/// That a flow has no record yet is part of what it read.
fn note_absence(reads: &mut ReadSet, row: bytes::Bytes, seen: Seen) {
    if works(Mechanism::RecordAbsence) {
        reads.add(row, seen);
    }
}

fn step_of(broken: Broken) -> Step {
    match broken {
        Broken::Failure { cause, retryable: true } => Step::Failed(cause),
        Broken::Failure { cause, retryable: false } => Step::Decided(Outcome::Failed, cause),
        Broken::Lost(cause) => Step::Lost(cause),
        Broken::Stale(rows) => Step::Conflict(Conflict { blame: order::instances(&rows), ..Conflict::default() }),
        Broken::Ring => Step::Conflict(Conflict { sequential: true, ..Conflict::default() }),
        Broken::Store(error) => Step::Refused(error.to_string()),
    }
}

fn cancelled() -> Cause {
    Cause::new("cancelled", "somebody cancelled the flow")
}

fn backoff(first: Duration, times: u32, jitter: f64) -> Duration {
    let whole = first.saturating_mul(1 << times.min(16)).min(RETRY_BACKOFF_MAX.max(first * 8));
    whole.mul_f64(jitter)
}
