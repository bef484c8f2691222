//! The stream to one other runtime: kept open as long as that one is a member, with what is under way on it.
//!
//! **Invariant:** when the stream ends, everybody who waits for something on it hears of it at once.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tandem_model::ids::{FlowId, Instance};
use tandem_model::outcome::FlowRecord;
use tandem_model::request::Request;
use tandem_proto::peer::v1alpha1 as wire;
use tandem_proto::{PEER_PROTOCOL_VERSION_MAX, PEER_PROTOCOL_VERSION_MIN};
use tandem_store::rows;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::wire::{call, execute, record, running_flow};
use crate::batch;
use crate::dial::{PeerDial, PeerIncoming};
use crate::members::{Member, MemberId};
use crate::partition::ReleasedMessage;
use crate::runtime::{Ended, RunningFlow};
use crate::tasks::{self, TaskKind};

/// Frames that wait to be sent to one peer. Beyond it requests run here, and hints are not given.
const FRAMES_QUEUED_MAX: usize = 4_096;
/// Requests under way at one peer. More run here.
const FORWARDED_MAX: usize = 8_192;
/// Turns at one peer that flows have or wait for. More flows run without.
const CLAIMS_MAX: usize = 8_192;
/// Longest wait for a peer's welcome.
const WELCOME_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest wait for what a peer knows of a flow.
const LOOK_TIME_MAX: Duration = Duration::from_secs(2);
/// First wait before dialling again.
const REDIAL_BACKOFF: Duration = Duration::from_millis(50);
/// Longest such wait.
const REDIAL_BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The caller's side of one stream.
#[derive(Debug)]
pub(crate) struct Link {
    member: MemberId,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Absent while there is no stream.
    frames: Option<mpsc::Sender<wire::CallerFrame>>,
    /// It left a request without a sign for too long; until it gives one, requests run here.
    silent: bool,
    next_call: u64,
    /// In their order, so that those who wait hear of an end in that order.
    requests: BTreeMap<u64, Waiting>,
    looks: BTreeMap<u64, (FlowId, oneshot::Sender<Option<Answer>>)>,
    claims: BTreeMap<u64, oneshot::Sender<wire::Turn>>,
}

#[derive(Debug)]
struct Waiting {
    taken: Option<oneshot::Sender<Taken>>,
    ended: oneshot::Sender<Ended>,
}

/// Whether a peer took a request.
#[derive(Clone, Debug)]
pub(crate) enum Taken {
    /// It will end with an outcome.
    Yes,
    /// There are too many flows.
    Busy,
    /// The request id was used for another body.
    Mismatch,
    /// It cannot take it, or does not understand it.
    No(String),
}

/// A request on its way to a peer. A receiver that closes means that the peer is lost.
#[derive(Debug)]
pub(crate) struct Forwarded {
    pub(crate) taken: oneshot::Receiver<Taken>,
    pub(crate) ended: oneshot::Receiver<Ended>,
    call: Call,
}

/// Forgets a call that nobody waits for any more.
#[derive(Debug)]
struct Call {
    link: Arc<Link>,
    id: u64,
}

impl Forwarded {
    /// The peer gives no sign of life.
    pub(crate) fn suspect(&self) {
        self.call.link.lock().silent = true;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.link.lock().requests.remove(&self.id);
    }
}

/// A turn that a peer was asked for.
#[derive(Debug)]
pub(crate) struct Claim {
    turn: oneshot::Receiver<wire::Turn>,
    claimed: Claimed,
}

/// A turn at a peer, or the wish for one. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Claimed {
    link: Arc<Link>,
    id: u64,
}

/// What a peer says to the wish for a turn.
#[derive(Debug)]
pub(crate) enum Claiming {
    /// Here it is. `waited` if others had it before.
    Granted { claimed: Claimed, waited: bool },
    /// Others had it for too long.
    Late,
    /// The peer is lost.
    Lost,
}

impl Claim {
    /// Waits for the answer, and no longer than that.
    pub(crate) async fn answered(self, wait_max: Duration) -> Claiming {
        match timeout(wait_max, self.turn).await {
            Ok(Ok(turn)) if turn.granted => Claiming::Granted { claimed: self.claimed, waited: turn.waited },
            Ok(Err(_)) => Claiming::Lost,
            Ok(Ok(_)) | Err(_) => Claiming::Late,
        }
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let mut inner = self.link.lock();
        inner.claims.remove(&self.id);
        // If it does not arrive, the peer passes the turn on by itself.
        let _ = inner.send(wire::caller_frame::Frame::Release(wire::Release { call_id: self.id }));
    }
}

/// What to do with a flow that a peer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// Say how far it is.
    Look,
    /// Cancel it.
    Cancel,
}

/// What a peer knows of a flow.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// It is in flight there.
    Running(RunningFlow),
    /// It has ended there, perhaps because it was cancelled.
    Ended { record: Arc<FlowRecord>, cancelled: bool },
}

impl Link {
    pub(super) fn new(member: MemberId) -> Arc<Self> {
        Arc::new(Self { member, inner: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request. `None` if there is no stream, or too much is under way on it.
    pub(super) fn execute(self: &Arc<Self>, request: &Request) -> Option<Forwarded> {
        let ((taken, is_taken), (ended, has_ended)) = (oneshot::channel(), oneshot::channel());
        let mut inner = self.lock();
        if inner.silent || inner.requests.len() >= FORWARDED_MAX {
            return None;
        }
        let id = inner.next_call;
        inner.send(wire::caller_frame::Frame::Execute(execute(id, request)))?;
        inner.next_call += 1;
        inner.requests.insert(id, Waiting { taken: Some(taken), ended });
        drop(inner);
        Some(Forwarded { taken: is_taken, ended: has_ended, call: Call { link: Arc::clone(self), id } })
    }

    /// Hints at messages. Whether there is hope that it arrives.
    pub(super) fn deliver(&self, messages: &[ReleasedMessage]) -> bool {
        let message = |released: &ReleasedMessage| wire::Message {
            row: released.row.clone(),
            value: rows::encode_message(&released.message),
        };
        let deliver = wire::Deliver { messages: messages.iter().map(message).collect() };
        self.lock().send(wire::caller_frame::Frame::Deliver(deliver)).is_some()
    }

    /// Says that this runtime has changed.
    pub(super) fn changed(&self) {
        // Whoever is not told looks at the next beat.
        let _ = self.lock().send(wire::caller_frame::Frame::Changed(wire::Changed {}));
    }

    /// Asks for a flow. `None` if there is no stream; the future gives `None` if the peer does not know it.
    pub(super) fn look(
        self: &Arc<Self>,
        flow: FlowId,
        lookup: Lookup,
    ) -> Option<impl Future<Output = Option<Answer>> + use<>> {
        let (sender, answer) = oneshot::channel();
        let mut inner = self.lock();
        let (call_id, bytes) = (inner.next_call, Bytes::copy_from_slice(flow.as_bytes()));
        inner.send(match lookup {
            Lookup::Look => wire::caller_frame::Frame::Look(wire::Look { call_id, flow: bytes }),
            Lookup::Cancel => wire::caller_frame::Frame::Cancel(wire::Cancel { call_id, flow: bytes }),
        })?;
        inner.next_call += 1;
        inner.looks.insert(call_id, (flow, sender));
        drop(inner);
        let link = Arc::clone(self);
        Some(async move {
            let answer = timeout(LOOK_TIME_MAX, answer).await;
            link.lock().looks.remove(&call_id);
            answer.ok().and_then(Result::ok).flatten()
        })
    }

    /// Asks for the turn on an instance. `None` if there is no stream, or too much is under way on it.
    pub(super) fn claim(self: &Arc<Self>, instance: &Instance, wait_max: Duration) -> Option<Claim> {
        let (sender, turn) = oneshot::channel();
        let mut inner = self.lock();
        if inner.silent || inner.claims.len() >= CLAIMS_MAX {
            return None;
        }
        let id = inner.next_call;
        inner.send(wire::caller_frame::Frame::Claim(wire::Claim {
            call_id: id,
            function: instance.function.to_string(),
            key: instance.key.to_string(),
            wait_ms: u64::try_from(wait_max.as_millis()).unwrap_or(u64::MAX),
        }))?;
        inner.next_call += 1;
        inner.claims.insert(id, sender);
        drop(inner);
        Some(Claim { turn, claimed: Claimed { link: Arc::clone(self), id } })
    }

    /// Whether there is a stream.
    pub(super) fn is_open(&self) -> bool {
        self.lock().frames.is_some()
    }

    fn opened(&self, frames: mpsc::Sender<wire::CallerFrame>) {
        let mut inner = self.lock();
        inner.frames = Some(frames);
        inner.silent = false;
    }

    /// Everybody who waits learns that nothing will come.
    fn closed(&self) {
        let mut inner = self.lock();
        inner.frames = None;
        let (requests, looks) = (std::mem::take(&mut inner.requests), std::mem::take(&mut inner.looks));
        let claims = std::mem::take(&mut inner.claims);
        drop(inner);
        drop((requests, looks, claims));
    }

    /// Takes one frame of the owner. An answer to something that nobody waits for any more is no matter.
    fn receive(&self, frame: wire::OwnerFrame) -> Result<(), String> {
        use wire::owner_frame::Frame;
        let mut inner = self.lock();
        inner.silent = false;
        match frame.frame {
            Some(Frame::Taken(taken)) => inner.taken(taken.call_id, Taken::Yes),
            Some(Frame::Refused(refused)) => {
                let taken = match refused.reason() {
                    wire::refused::Reason::Mismatch => Taken::Mismatch,
                    wire::refused::Reason::Busy => Taken::Busy,
                    wire::refused::Reason::Unavailable
                    | wire::refused::Reason::Invalid
                    | wire::refused::Reason::Unspecified => Taken::No(refused.detail),
                };
                inner.taken(refused.call_id, taken);
            }
            Some(Frame::Ended(ended)) => {
                let Some(record) = record(&ended.record) else { return Err("a record cannot be read".to_owned()) };
                inner.taken(ended.call_id, Taken::Yes);
                if let Some(waiting) = inner.requests.remove(&ended.call_id) {
                    // Whoever stopped waiting does not need it.
                    let _ = waiting.ended.send(Ended { record, repeated: ended.repeated });
                }
            }
            Some(Frame::Lost(lost)) => drop(inner.requests.remove(&lost.call_id)),
            Some(Frame::Found(found)) => {
                if let Some((flow, sender)) = inner.looks.remove(&found.call_id) {
                    let _ = sender.send(found_answer(flow, found));
                }
            }
            Some(Frame::Turn(turn)) => {
                if let Some(sender) = inner.claims.remove(&turn.call_id) {
                    // Whoever stopped waiting for it has given it back.
                    let _ = sender.send(turn);
                }
            }
            Some(Frame::Welcome(_)) => return Err("it said welcome twice".to_owned()),
            // A later version may say more.
            None => {}
        }
        Ok(())
    }
}

impl Inner {
    fn send(&self, frame: wire::caller_frame::Frame) -> Option<()> {
        self.frames.as_ref()?.try_send(call(frame)).ok()
    }

    fn taken(&mut self, id: u64, taken: Taken) {
        if let Some(sender) = self.requests.get_mut(&id).and_then(|waiting| waiting.taken.take()) {
            let _ = sender.send(taken);
        }
    }
}

fn found_answer(flow: FlowId, found: wire::Found) -> Option<Answer> {
    match found.state? {
        wire::found::State::Running(running) => running_flow(flow, &running).map(Answer::Running),
        wire::found::State::Record(bytes) => {
            Some(Answer::Ended { record: record(&bytes)?, cancelled: found.cancelled })
        }
    }
}

/// Keeps a stream to a member until `stop`.
pub(super) fn start(
    link: Arc<Link>,
    me: MemberId,
    member: Arc<Member>,
    dial: Arc<dyn PeerDial>,
    stop: CancellationToken,
) {
    tasks::spawn(TaskKind::Peer, async move {
        let mut backoff = REDIAL_BACKOFF;
        loop {
            let ran = tokio::select! {
                biased;
                () = stop.cancelled() => Ok(()),
                ran = run_once(&link, me, &member, &*dial) => ran,
            };
            link.closed();
            if stop.is_cancelled() {
                return;
            }
            match ran {
                Ok(()) => backoff = REDIAL_BACKOFF,
                Err(why) => {
                    debug!(member = %member.name, why, "no stream to another runtime");
                    backoff = (backoff * 2).min(REDIAL_BACKOFF_MAX);
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(backoff) => {}
            }
        }
    });
}

/// Dials, and runs the stream to its end. `Ok` if it was open for a while.
async fn run_once(link: &Link, me: MemberId, member: &Member, dial: &dyn PeerDial) -> Result<(), String> {
    let (frames, queued) = mpsc::channel(FRAMES_QUEUED_MAX);
    let hello = wire::Hello {
        version_min: PEER_PROTOCOL_VERSION_MIN,
        version_max: PEER_PROTOCOL_VERSION_MAX,
        from: me.0,
        to: link.member.0,
    };
    // The queue is new, so there is room.
    let _ = frames.try_send(call(wire::caller_frame::Frame::Hello(hello)));
    let outgoing = batch::batches(queued, |frames| wire::AttachRequest { frames });
    let mut incoming = dial.connect(&member.address, outgoing).await?;
    let rest = timeout(WELCOME_TIME_MAX, welcome(&mut incoming, link.member)).await;
    let rest = rest.map_err(|_| "it did not say welcome in time".to_owned())??;
    info!(member = %member.name, "connected to another runtime");
    link.opened(frames);
    let why = read(link, rest, incoming).await;
    info!(member = %member.name, why, "stream to another runtime ended");
    Ok(())
}

async fn welcome(incoming: &mut PeerIncoming, expected: MemberId) -> Result<Vec<wire::OwnerFrame>, String> {
    let first = incoming.next().await.ok_or("it closed the stream")?;
    let mut frames = first.map_err(|status| status.message().to_owned())?.frames.into_iter();
    match frames.next().and_then(|frame| frame.frame) {
        Some(wire::owner_frame::Frame::Welcome(welcome)) if welcome.member == expected.0 => Ok(frames.collect()),
        Some(wire::owner_frame::Frame::Welcome(welcome)) => {
            Err(format!("member {} answers in the place of {expected}", welcome.member))
        }
        Some(_) | None => Err("its first frame is not a welcome".to_owned()),
    }
}

async fn read(link: &Link, rest: Vec<wire::OwnerFrame>, mut incoming: PeerIncoming) -> String {
    let mut frames = rest;
    loop {
        for frame in frames {
            if let Err(nonsense) = link.receive(frame) {
                return nonsense;
            }
        }
        frames = match incoming.next().await {
            Some(Ok(message)) => message.frames,
            Some(Err(status)) => return status.message().to_owned(),
            None => return "it closed the stream".to_owned(),
        };
    }
}
