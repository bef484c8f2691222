//! One multiplexed stream to a worker: invocations by id, and the rules that a worker keeps.
//!
//! **Invariant:** a frame that breaks a rule of `function.proto` ends the stream. It never ends up in another
//! invocation than the one that it names.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use tandem_model::ids::Payload;
use tandem_proto::function::v1alpha1 as wire;

use super::{Answer, Effect, Event, Finished, Invocation, ReadWhat, Rejection, events, frames};

/// Cancelled invocations whose late answers are still recognised as such.
const CANCELLED_MAX: usize = 16_384;

/// Invocations that may run one behind the other before the first of them has to be known to hold. One round trip is
/// then shared by so many.
const AHEAD_MAX: usize = 64;

/// A worker broke a rule of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Nonsense(pub(super) String);

/// The runtime's side of one stream.
#[derive(Debug)]
pub(super) struct Link {
    frames: frames::Sender,
    /// The worker knows how to run an invocation behind another.
    follows: bool,
    sessions: Mutex<Sessions>,
}

#[derive(Debug, Default)]
struct Sessions {
    next_id: u64,
    open: HashMap<u64, Open>,
    cancelled: HashSet<u64>,
    cancelled_order: VecDeque<u64>,
    closed: Option<String>,
}

#[derive(Debug)]
struct Open {
    events: events::Sender,
    calls: HashSet<u64>,
    reads: HashSet<u64>,
    /// It follows another invocation, and has not said that it began.
    is_behind: bool,
}

/// One invocation on a link. Dropping it before its end cancels it.
#[derive(Debug)]
pub(super) struct SessionHandle {
    link: Arc<Link>,
    id: u64,
    /// How many invocations before it run ahead like it.
    ahead: usize,
}

/// An invocation that another one can follow, on the states that it leaves.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    link: Weak<Link>,
    id: u64,
    ahead: usize,
}

impl Link {
    /// A link that writes to `frames`, to a worker that understands `follows` or not.
    pub(super) fn new(frames: frames::Sender, follows: bool) -> Arc<Self> {
        Arc::new(Self { frames, follows, sessions: Mutex::default() })
    }

    /// Whether that invocation is one of this link, and may be followed.
    pub(super) fn carries(self: &Arc<Self>, begun: &Begun) -> bool {
        self.follows && begun.ahead < AHEAD_MAX && Weak::ptr_eq(&begun.link, &Arc::downgrade(self))
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts an invocation, perhaps behind another one of this link. Dropped before there is room for it, it leaves
    /// nothing behind.
    pub(super) async fn start(
        self: &Arc<Self>,
        invocation: Invocation,
        behind: Option<&Begun>,
    ) -> (SessionHandle, events::Receiver) {
        let room = self.frames.room().await;
        let (events, receiver) = events::queue();
        let id = self.lock().open(events, behind.is_some());
        let frame = wire::Invoke { follows: behind.map(|begun| begun.id), ..invoke_frame(id, invocation) };
        self.frames.push(room, wire::runtime_frame::Frame::Invoke(frame));
        let ahead = behind.map_or(0, |begun| begun.ahead + 1);
        (SessionHandle { link: Arc::clone(self), id, ahead }, receiver)
    }

    /// Tells the worker that nobody wants an invocation any more. Code that waits for an answer would wait for ever if it
    /// were not told, so it is told however full the queue is: once for an invocation, of which only so many are open.
    fn cancel(&self, invocation_id: u64) {
        let cancel = wire::Cancel { invocation_id, reason: "the flow ended".to_owned() };
        self.frames.push_now(wire::runtime_frame::Frame::Cancel(cancel));
    }

    /// Ends all invocations and every later one.
    pub(super) fn close(&self, why: &str) {
        let mut sessions = self.lock();
        sessions.closed = Some(why.to_owned());
        let mut open: Vec<(u64, Open)> = sessions.open.drain().collect();
        // The flows hear of it in the order in which they came to the worker.
        open.sort_unstable_by_key(|(id, _)| *id);
        for (_, open) in open {
            // A full queue closes without a last word, which counts as flooded.
            let _ = open.events.send(Event::Lost(why.to_owned()));
        }
        drop(sessions);
        self.frames.close();
    }

    /// Takes one frame of the worker. Credit is given back for the caller to add.
    pub(super) fn receive(&self, frame: wire::WorkerFrame) -> Result<u32, Nonsense> {
        use wire::worker_frame::Frame;
        let nonsense = |text: &str| Err(Nonsense(text.to_owned()));
        match frame.frame {
            Some(Frame::Finished(finished)) => {
                let id = finished.invocation_id;
                let event = finished_event(finished);
                self.lock().deliver(id, event, |_| Ok(()), true)?;
            }
            Some(Frame::Call(call)) => {
                let (invocation, id) = (call.invocation_id, call.call_id);
                let once = |open: &mut Open| has_begun(open).and_then(|()| once(&mut open.calls, id, "call"));
                let flooded = self.lock().deliver(invocation, call_event(call), once, false)?;
                if flooded {
                    self.cancel(invocation);
                }
            }
            Some(Frame::Read(read)) => {
                let (invocation, id) = (read.invocation_id, read.read_id);
                let once = |open: &mut Open| has_begun(open).and_then(|()| once(&mut open.reads, id, "read"));
                let flooded = self.lock().deliver(invocation, read_event(read)?, once, false)?;
                if flooded {
                    self.cancel(invocation);
                }
            }
            Some(Frame::Began(began)) => {
                let states = began.states.into_iter().map(|state| (state.state, state.value)).collect();
                self.lock().deliver(began.invocation_id, Event::Began(states), begin, false)?;
            }
            Some(Frame::Credit(credit)) => return Ok(credit.invocations),
            Some(Frame::Welcome(_)) => return nonsense("it said welcome twice"),
            None => return nonsense("it sent a frame without content"),
        }
        Ok(0)
    }
}

impl Sessions {
    fn open(&mut self, events: events::Sender, is_behind: bool) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        if let Some(why) = &self.closed {
            // The queue is new, so there is room.
            let _ = events.send(Event::Lost(why.clone()));
        } else {
            self.open.insert(id, Open { events, calls: HashSet::new(), reads: HashSet::new(), is_behind });
        }
        id
    }

    /// Hands an event to its invocation. `true` if the invocation asked for too much at once and was ended for it.
    fn deliver(
        &mut self,
        id: u64,
        event: Event,
        check: impl FnOnce(&mut Open) -> Result<(), Nonsense>,
        is_last: bool,
    ) -> Result<bool, Nonsense> {
        let Some(open) = self.open.get_mut(&id) else {
            if self.cancelled.contains(&id) {
                if is_last {
                    self.cancelled.remove(&id);
                }
                return Ok(false);
            }
            let what = if is_last { "finished" } else { "asked for something in" };
            return Err(Nonsense(format!("it {what} invocation {id}, which is not running")));
        };
        check(open)?;
        // A flow that ended in the meantime has closed its queue; a full queue ends the invocation below.
        let is_full = open.events.send(event).is_err();
        if is_last || is_full {
            self.open.remove(&id);
        }
        if is_full && !is_last {
            self.note_cancelled(id);
        }
        Ok(is_full && !is_last)
    }

    fn note_cancelled(&mut self, id: u64) {
        self.cancelled.insert(id);
        self.cancelled_order.push_back(id);
        if self.cancelled_order.len() > CANCELLED_MAX
            && let Some(oldest) = self.cancelled_order.pop_front()
        {
            self.cancelled.remove(&oldest);
        }
    }
}

/// An invocation that follows another one says once that it begins, and nothing before.
fn begin(open: &mut Open) -> Result<(), Nonsense> {
    if std::mem::take(&mut open.is_behind) { Ok(()) } else { Err(Nonsense("it began an invocation twice".to_owned())) }
}

fn has_begun(open: &Open) -> Result<(), Nonsense> {
    if open.is_behind { Err(Nonsense("it asked for something before it began".to_owned())) } else { Ok(()) }
}

fn once(ids: &mut HashSet<u64>, id: u64, what: &str) -> Result<(), Nonsense> {
    if ids.insert(id) { Ok(()) } else { Err(Nonsense(format!("it used {what} id {id} twice in one invocation"))) }
}

impl SessionHandle {
    /// Where another invocation can follow this one.
    pub(super) fn begun(&self) -> Begun {
        Begun { link: Arc::downgrade(&self.link), id: self.id, ahead: self.ahead }
    }

    pub(super) async fn answer(&self, answer: Answer) {
        let room = self.link.frames.room().await;
        self.link.frames.push(room, answer_frame(self.id, answer));
    }
}

impl Drop for SessionHandle {
    fn drop(&mut self) {
        let mut sessions = self.link.lock();
        if sessions.open.remove(&self.id).is_none() {
            return;
        }
        sessions.note_cancelled(self.id);
        drop(sessions);
        self.link.cancel(self.id);
    }
}

fn invoke_frame(invocation_id: u64, invocation: Invocation) -> wire::Invoke {
    let state = |(name, value): (tandem_model::ids::StateName, Option<Bytes>)| wire::StateValue {
        state: name.to_string(),
        value,
    };
    wire::Invoke {
        invocation_id,
        flow_id: invocation.flow,
        function: invocation.instance.function.to_string(),
        key: invocation.instance.key.to_string(),
        handler: invocation.handler.to_string(),
        payload: invocation.payload.bytes,
        content_type: invocation.payload.content_type,
        attempt: invocation.attempt,
        deadline_ms: u64::try_from(invocation.deadline.as_millis()).unwrap_or(u64::MAX),
        traceparent: invocation.traceparent,
        states: invocation.states.into_iter().map(state).collect(),
        read_only: invocation.read_only,
        follows: None,
    }
}

fn answer_frame(invocation_id: u64, answer: Answer) -> wire::runtime_frame::Frame {
    match answer {
        Answer::CallDone { call, result } => {
            let result = match result {
                Ok(value) => wire::call_done::Result::Value(value),
                Err(rejection) => wire::call_done::Result::Rejection(rejection_frame(rejection)),
            };
            let done = wire::CallDone { invocation_id, call_id: call, result: Some(result) };
            wire::runtime_frame::Frame::CallDone(done)
        }
        Answer::ReadDone { read, entries, more } => {
            let entries = entries.into_iter().map(|(key, value)| wire::Entry { key, value }).collect();
            let done = wire::ReadDone { invocation_id, read_id: read, entries, more };
            wire::runtime_frame::Frame::ReadDone(done)
        }
    }
}

fn rejection_frame(rejection: Rejection) -> wire::Rejection {
    let (function, key) = rejection.origin.unwrap_or_default();
    wire::Rejection { reason: rejection.reason, detail: rejection.detail, function, key }
}

fn call_event(call: wire::Call) -> Event {
    Event::Call {
        call: call.call_id,
        function: call.function,
        key: call.key,
        handler: call.handler,
        payload: call.payload,
        spawn: call.spawn,
    }
}

fn read_event(read: wire::Read) -> Result<Event, Nonsense> {
    let what = match read.what {
        Some(wire::read::What::Entry(key)) => ReadWhat::Entry(key),
        Some(wire::read::What::Scan(scan)) => ReadWhat::Scan {
            from: scan.from,
            to: scan.to,
            limit: usize::try_from(scan.limit).unwrap_or(usize::MAX),
            reverse: scan.reverse,
        },
        None => return Err(Nonsense("it sent a read of nothing".to_owned())),
    };
    Ok(Event::Read { read: read.read_id, state: read.state, what })
}

fn finished_event(finished: wire::Finished) -> Event {
    let ended = match finished.result {
        Some(wire::finished::Result::Value(bytes)) => {
            let json = finished.content_type.is_empty();
            let content_type = if json { "application/json".to_owned() } else { finished.content_type };
            let effects = finished.effects.into_iter().filter_map(|effect| effect.effect).map(effect_of).collect();
            Finished::Value { payload: Payload { content_type, bytes }, effects }
        }
        Some(wire::finished::Result::Rejection(rejection)) => {
            let origin = (!rejection.function.is_empty()).then_some((rejection.function, rejection.key));
            Finished::Rejection(Rejection { reason: rejection.reason, detail: rejection.detail, origin })
        }
        Some(wire::finished::Result::Failure(failure)) => {
            Finished::Failure { message: failure.message, retryable: failure.retryable }
        }
        None => Finished::Failure { message: "it finished without a result".to_owned(), retryable: false },
    };
    Event::Finished(ended)
}

fn effect_of(effect: wire::effect::Effect) -> Effect {
    match effect {
        wire::effect::Effect::Write(write) => {
            Effect::Write { state: write.state, entry: write.entry, value: write.value }
        }
        wire::effect::Effect::Send(send) => Effect::Send {
            function: send.function,
            key: send.key,
            handler: send.handler,
            payload: send.payload,
            delay_ms: send.delay_ms,
        },
        wire::effect::Effect::Emit(emit) => Effect::Emit { egress: emit.egress, payload: emit.payload },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{FutureExt, StreamExt};
    use tandem_model::ids::Instance;
    use wire::runtime_frame::Frame;

    use super::*;

    fn invocation() -> Invocation {
        Invocation {
            flow: String::new(),
            instance: Instance::parse("node", "a").unwrap(),
            handler: "run".parse().unwrap(),
            payload: Payload::json(Bytes::new()),
            attempt: 1,
            deadline: Duration::ZERO,
            traceparent: String::new(),
            states: Vec::new(),
            read_only: false,
        }
    }

    type Started = Vec<(SessionHandle, events::Receiver)>;

    /// As many invocations as a link takes that nobody empties. Not in a task of tokio, which would let a start wait now and
    /// then although there is room.
    fn start_all(link: &Arc<Link>) -> Started {
        std::iter::from_fn(|| link.start(invocation(), None).now_or_never()).collect()
    }

    fn frame_ids(messages: Vec<wire::AttachRequest>) -> (Vec<u64>, Vec<u64>) {
        let frames = messages.into_iter().flat_map(|message| message.frames).filter_map(|frame| frame.frame);
        let (mut invoked, mut cancelled) = (Vec::new(), Vec::new());
        for frame in frames {
            match frame {
                Frame::Invoke(invoke) => invoked.push(invoke.invocation_id),
                Frame::Cancel(cancel) => {
                    assert!(invoked.contains(&cancel.invocation_id), "a cancel before its invocation");
                    cancelled.push(cancel.invocation_id);
                }
                other => panic!("{other:?}"),
            }
        }
        (invoked, cancelled)
    }

    // To see it fail: send cancels as other frames are sent, and drop those for which there is no room.
    #[test]
    fn every_invocation_that_was_dropped_is_cancelled_however_full_the_queue() {
        let (frames, queued) = frames::queue();
        let link = Link::new(frames, false);
        let started = start_all(&link);
        let ids: Vec<u64> = started.iter().map(|(handle, _)| handle.id).collect();
        drop(started);
        drop(link);
        let (invoked, cancelled) = frame_ids(queued.batches().collect().now_or_never().unwrap());
        assert_eq!((&invoked, &cancelled), (&ids, &ids));
    }

    // To see it fail: open the session before there is room for its frame.
    #[test]
    fn an_invocation_that_was_dropped_before_there_was_room_never_was() {
        let (frames, queued) = frames::queue();
        let link = Link::new(frames, false);
        let started = start_all(&link);
        assert!(link.start(invocation(), None).now_or_never().is_none(), "there is no room");
        assert_eq!(link.lock().open.len(), started.len());
        drop(started);
        assert!(link.lock().open.is_empty());
        drop(link);
        let (invoked, cancelled) = frame_ids(queued.batches().collect().now_or_never().unwrap());
        assert_eq!(invoked.len(), cancelled.len());
    }

    // To see it fail: do not close the queue with the link.
    #[test]
    fn who_waits_for_room_hears_that_the_link_is_closed() {
        let (frames, _queued) = frames::queue();
        let link = Link::new(frames, false);
        let _started = start_all(&link);
        let mut waits = Box::pin(link.start(invocation(), None));
        assert!(waits.as_mut().now_or_never().is_none(), "there is no room");
        link.close("gone");
        let (_handle, mut events) = waits.now_or_never().unwrap();
        assert!(matches!(events.next().now_or_never(), Some(Some(Event::Lost(why))) if why == "gone"));
    }
}
