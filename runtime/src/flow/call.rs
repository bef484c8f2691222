//! One call of a flow: waits for its instance, runs user code, does what user code asks for.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tandem_model::flow::{CallId, Turn};
use tandem_model::ids::{FunctionName, HandlerName, Instance, Payload, Reason, StateName};
use tandem_model::limits::DETAIL_BYTES_MAX;
use tandem_model::mechanism::{Mechanism, works};
use tandem_model::outcome::{CallStatus, Cause};
use tandem_model::request::Request;
use tandem_model::topology::{Handler, Isolation, Topology};
use tandem_proto::MESSAGE_BYTES_MAX;
use tandem_store::Store;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, Span, info_span};

use super::ahead::RunAhead;
use super::attempt::{Attempt, Broken, CallEnd, CallFuture};
use super::reads::MapRead;
use crate::engine::Engine;
use crate::host::{Answer, EVENTS_QUEUED_MAX, Event, Finished, Invocation, Lease, Session};
use crate::metrics::RanAhead;
use crate::partition::ReadSet;
use crate::telemetry;

/// Takes calls that outlive the handler that made them. Bounded by the number of calls a flow may make.
pub(super) type Outliving<'a> = mpsc::UnboundedSender<CallFuture<'a>>;

/// Most bytes of payload and value states of one invocation; the rest of a message is for names.
const INVOCATION_BYTES_MAX: usize = MESSAGE_BYTES_MAX - (256 << 10);

/// What user code waits for.
enum Child {
    Called(u64, CallEnd),
    Read(u64, Result<MapRead, Broken>),
}

type Children<'a> = FuturesUnordered<BoxFuture<'a, Child>>;

/// A call that user code asked for, in its own words.
struct Asked {
    function: String,
    key: String,
    handler: String,
    payload: Bytes,
}

impl<S: Store> Attempt<'_, S> {
    /// Runs a call of the tree to its end.
    pub(super) fn call<'s>(&'s self, call: CallId, payload: Payload, outliving: Outliving<'s>) -> CallFuture<'s> {
        if call == CallId::ENTRY {
            self.call_began(call);
        }
        let span = self.call_span(call);
        let run = async move {
            let end = self.run_call(call, payload, outliving).await.unwrap_or_else(CallEnd::Broken);
            let status = match &end {
                CallEnd::Value(_) => CallStatus::Done,
                CallEnd::Rejected(rejection) => CallStatus::Rejected(rejection.detail.clone()),
                CallEnd::Broken(Broken::Failure { cause, .. } | Broken::Lost(cause)) => {
                    CallStatus::Failed(cause.detail.clone())
                }
                CallEnd::Broken(Broken::Ring | Broken::Stale(_) | Broken::Store(_)) | CallEnd::Discarded => {
                    CallStatus::Stopped
                }
            };
            let was_discarded = self.tree().is_discarded(call);
            if matches!(end, CallEnd::Rejected(_)) {
                self.tree().discard(call);
                if !works(Mechanism::RejectedReads) {
                    *self.reads.lock().await = ReadSet::default();
                }
            }
            self.call_ended(call, status);
            if was_discarded { CallEnd::Discarded } else { end }
        };
        Box::pin(run.instrument(span))
    }

    fn call_span(&self, call: CallId) -> Span {
        let tree = self.tree();
        let (instance, handler, _) = tree.target(call);
        info_span!("call", %instance, %handler)
    }

    async fn run_call<'s>(
        &'s self,
        call: CallId,
        payload: Payload,
        outliving: Outliving<'s>,
    ) -> Result<CallEnd, Broken> {
        let (instance, handler) = {
            let tree = self.tree();
            let (instance, handler, _) = tree.target(call);
            (instance.clone(), handler.clone())
        };
        if call != CallId::ENTRY {
            self.wait_for_turn(call).await?;
            self.wait_if_contended(&instance).await?;
        }
        let declared = declared(self.engine, self.topology, &instance.function, &handler);
        let read_only = self.isolation == Isolation::ReadOnly || declared.isolation == Isolation::ReadOnly;
        let (lease, session) = if let Some(RunAhead { lease, session }) = self.begun_ahead(call, &instance).await? {
            (lease, session)
        } else {
            let lease = self.engine.host.lease(&instance.function, call == CallId::ENTRY, self.draw).await;
            let states = self.prefetch(call, &instance, lease.interface()).await?;
            check_message(&instance, payload.bytes.len(), &states)?;
            let first = invocation(self.request, self.deadline, &instance, &handler, payload);
            let session = lease.invoke(Invocation { attempt: self.number, states, read_only, ..first }).await;
            self.engine.metrics.invocation(&instance.function);
            (lease, session)
        };
        if call == CallId::ENTRY
            && let Some(begun) = session.begun()
        {
            self.held.begun(begun);
        }
        let work = self.drive(call, &lease, session, read_only, outliving);
        let end = match declared.timeout_ms {
            None => work.await,
            Some(ms) => timeout(Duration::from_millis(ms), work).await.unwrap_or_else(|_| {
                let detail = format!("handler {handler} did not end within its time-out of {ms} ms");
                Err(Broken::passing("handler-timeout", detail, &instance))
            }),
        };
        lease.ended(matches!(end, Err(Broken::Failure { .. } | Broken::Lost(_))));
        end
    }

    /// The run that began before the flow's turn, if the states are what it began with.
    async fn begun_ahead(&self, call: CallId, instance: &Instance) -> Result<Option<RunAhead>, Broken> {
        let Some(ahead) = self.take_ahead(call) else { return Ok(None) };
        let states = self.prefetch(call, instance, ahead.lease.interface()).await?;
        let checked = ahead.begun_with(&states).await;
        let what = checked.as_ref().err().copied().unwrap_or(RanAhead::Used);
        self.engine.metrics.ran_ahead(&instance.function, what);
        Ok(checked.ok())
    }

    async fn wait_for_turn(&self, call: CallId) -> Result<(), Broken> {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            match self.tree().turn(call) {
                Turn::Now => return Ok(()),
                Turn::Deadlock => return Err(Broken::Ring),
                Turn::Wait => {}
            }
            ended.await;
        }
    }

    /// Takes the turn on an instance that is fought over, and then moves the view to the present, so that what the
    /// flows before it did is seen. A flow of isolation Snapshot keeps its one snapshot, so it would gain nothing.
    ///
    /// If several runtimes fight over it, the present of this one is not enough, and there may be more such on the way:
    /// the attempt only finds out what the flow has to take in turn.
    async fn wait_if_contended(&self, instance: &Instance) -> Result<(), Broken> {
        let gains = self.isolation == Isolation::Serializable;
        if gains && self.engine.turns.is_shared(instance, Instant::now()) {
            if !self.held.has_asked(instance) {
                self.lacks_turns.store(true, Ordering::Relaxed);
            }
            return Ok(());
        }
        if !gains || !self.engine.turns.is_contended(instance, Instant::now()) {
            return Ok(());
        }
        self.held.try_take(instance).await;
        let reads = self.reads.lock().await;
        self.view.extend(&reads).map_err(Broken::Stale)
    }

    /// Does what user code asks for, until it ends.
    async fn drive<'s>(
        &'s self,
        call: CallId,
        lease: &Lease,
        mut session: Session,
        read_only: bool,
        outliving: Outliving<'s>,
    ) -> Result<CallEnd, Broken> {
        let instance = self.tree().target(call).0.clone();
        let mut children: Children<'s> = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                event = session.next() => match event {
                    // It was looked at before, where there is one.
                    Event::Began(_) => {}
                    Event::Call { call: id, function, key, handler, payload, spawn } => {
                        let asked = Asked { function, key, handler, payload };
                        let (child, future) = self.begin_call(call, &instance, asked, outliving.clone())?;
                        if spawn {
                            outlive(&outliving, self.unless_discarded(child, future));
                        } else {
                            children.push(Box::pin(async move { Child::Called(id, future.await) }));
                        }
                    }
                    Event::Read { read, state, what } => {
                        let range = self.check_read(&instance, lease.interface(), &state)?;
                        let instance = instance.clone();
                        children.push(Box::pin(async move {
                            Child::Read(read, self.read_map(call, &instance, &range, what).await)
                        }));
                    }
                    Event::Finished(finished) => {
                        if !children.is_empty() {
                            outlive(&outliving, self.unless_discarded(call, drain(children)));
                        }
                        return self.finish(call, &instance, lease, finished, read_only);
                    }
                    Event::Flooded => {
                        let detail = format!("more than {EVENTS_QUEUED_MAX} calls and reads at the same time");
                        return Err(Broken::fatal("fan-out", detail, &instance));
                    }
                    Event::Lost(why) => {
                        return Err(Broken::Lost(Cause::new("worker-lost", why).at(&instance)));
                    }
                },
                Some(child) = children.next(), if !children.is_empty() => {
                    session.answer(answer_of(child, &instance)?).await;
                }
            }
        }
    }

    /// Checks a call that user code asked for, and gives it its place in the tree.
    fn begin_call<'s>(
        &'s self,
        parent: CallId,
        caller: &Instance,
        asked: Asked,
        outliving: Outliving<'s>,
    ) -> Result<(CallId, CallFuture<'s>), Broken> {
        let (target, handler) = self.check_target(caller, &asked.function, &asked.key, &asked.handler)?;
        self.check_payload(caller, "the payload of a call", asked.payload.len())?;
        let child = self.tree().call(parent, target, handler).map_err(|error| Broken::limit(&error, caller))?;
        self.call_began(child);
        Ok((child, self.call(child, Payload::json(asked.payload), outliving)))
    }

    /// Stops a call when something above it is rejected.
    fn unless_discarded<'s>(&'s self, call: CallId, future: CallFuture<'s>) -> CallFuture<'s> {
        Box::pin(async move {
            let discarded = async {
                loop {
                    let ended = self.ended.notified();
                    tokio::pin!(ended);
                    ended.as_mut().enable();
                    if self.tree().is_discarded(call) {
                        return;
                    }
                    ended.await;
                }
            };
            tokio::select! {
                biased;
                end = future => end,
                () = discarded => CallEnd::Discarded,
            }
        })
    }

    fn finish(
        &self,
        call: CallId,
        instance: &Instance,
        lease: &Lease,
        finished: Finished,
        read_only: bool,
    ) -> Result<CallEnd, Broken> {
        match finished {
            Finished::Value { payload, effects } => {
                self.check_payload(instance, "the result", payload.bytes.len())?;
                if read_only && !effects.is_empty() {
                    let detail = "a read-only handler must not write, send or emit";
                    return Err(Broken::fatal("read-only", detail, instance));
                }
                let effects = self.effects(instance, lease.interface(), effects)?;
                self.tree().finish(call, effects).map_err(|error| Broken::limit(&error, instance))?;
                Ok(CallEnd::Value(payload))
            }
            Finished::Rejection(mut rejection) => {
                let reason: Result<Reason, _> = rejection.reason.parse();
                if let Err(error) = reason {
                    return Err(Broken::fatal("invalid-rejection", error.to_string(), instance));
                }
                cut(&mut rejection.detail);
                let me = || (instance.function.to_string(), instance.key.to_string());
                rejection.origin.get_or_insert_with(me);
                Ok(CallEnd::Rejected(rejection))
            }
            Finished::Failure { mut message, retryable } => {
                cut(&mut message);
                if retryable {
                    Err(Broken::passing("function-failed", message, instance))
                } else {
                    Err(Broken::fatal("function-failed", message, instance))
                }
            }
        }
    }
}

/// What is known of a handler: by its resource, else by its worker.
pub(super) fn declared<S: Store>(
    engine: &Engine<S>,
    topology: &Topology,
    function: &FunctionName,
    handler: &HandlerName,
) -> Handler {
    let pinned = topology.functions.get(function).and_then(|function| function.handlers.as_ref());
    if let Some(found) = pinned.and_then(|handlers| handlers.get(handler)) {
        return found.clone();
    }
    let told = engine.host.interface(function);
    let isolation = told.and_then(|interface| interface.handlers.get(handler).copied().flatten());
    Handler { isolation: isolation.unwrap_or_default(), timeout_ms: None }
}

/// The first attempt of a call of a flow, without states; it may write.
pub(super) fn invocation(
    request: &Request,
    deadline: Instant,
    instance: &Instance,
    handler: &HandlerName,
    payload: Payload,
) -> Invocation {
    Invocation {
        flow: request.flow.to_string(),
        instance: instance.clone(),
        handler: handler.clone(),
        payload,
        attempt: 1,
        deadline: deadline.saturating_duration_since(Instant::now()),
        traceparent: telemetry::outgoing(&Span::current(), request).unwrap_or_default(),
        states: Vec::new(),
        read_only: false,
    }
}

fn outlive<'a>(outliving: &Outliving<'a>, future: CallFuture<'a>) {
    // The receiver lives as long as the attempt runs.
    let _ = outliving.send(future);
}

/// An invocation travels in one message with all value states of its instance.
fn check_message(
    instance: &Instance,
    payload_bytes: usize,
    states: &[(StateName, Option<Bytes>)],
) -> Result<(), Broken> {
    let states_bytes: usize = states.iter().filter_map(|(_, value)| value.as_ref().map(Bytes::len)).sum();
    if payload_bytes + states_bytes > INVOCATION_BYTES_MAX {
        let detail = format!(
            "its value states have {states_bytes} bytes, with a payload of {payload_bytes} bytes more than the \
             {INVOCATION_BYTES_MAX} that fit into one message; keep what grows in a map"
        );
        return Err(Broken::fatal("states-too-large", detail, instance));
    }
    Ok(())
}

fn answer_of(child: Child, instance: &Instance) -> Result<Answer, Broken> {
    match child {
        Child::Called(call, CallEnd::Value(payload)) => Ok(Answer::CallDone { call, result: Ok(payload.bytes) }),
        Child::Called(call, CallEnd::Rejected(rejection)) => Ok(Answer::CallDone { call, result: Err(rejection) }),
        Child::Called(_, CallEnd::Broken(broken)) => Err(broken),
        // Only what is above it could have discarded it, and that includes this call.
        Child::Called(_, CallEnd::Discarded) => Err(Broken::fatal("internal", "a call was lost", instance)),
        Child::Read(read, found) => {
            let found = found?;
            Ok(Answer::ReadDone { read, entries: found.entries, more: found.more })
        }
    }
}

/// Calls nobody waits for any more: the flow still commits only once they are done. A "no" of one of them undoes what
/// it did and nothing else, as it would have, had it come while the handler was still running without listening.
fn drain(mut children: Children<'_>) -> CallFuture<'_> {
    Box::pin(async move {
        while let Some(child) = children.next().await {
            match child {
                Child::Called(_, CallEnd::Broken(broken)) | Child::Read(_, Err(broken)) => {
                    return CallEnd::Broken(broken);
                }
                Child::Called(..) | Child::Read(_, Ok(_)) => {}
            }
        }
        CallEnd::Discarded
    })
}

/// Cuts a text for people to its longest length, at a character's border.
fn cut(text: &mut String) {
    if text.len() > DETAIL_BYTES_MAX {
        let end = (0..=DETAIL_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
}
