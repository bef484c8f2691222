//! What another runtime asks of this one. What comes in here runs here, whoever owns it: nothing goes round in a ring.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use tandem_model::ids::{FlowId, Instance};
use tandem_proto::peer::v1alpha1 as wire;
use tandem_proto::peer::v1alpha1::peer_service_server::{PeerService, PeerServiceServer};
use tandem_proto::{MESSAGE_BYTES_MAX, PEER_PROTOCOL_VERSION_MAX, PEER_PROTOCOL_VERSION_MIN};
use tandem_store::{Store, rows};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, warn};

use super::hinted;
use super::wire::{answer, flow, refused, request, running};
use crate::batch;
use crate::dial::PeerIncoming;
use crate::runtime::{Accepted, Cancelled, Runtime};
use crate::tasks::{self, TaskKind};
use crate::turns::{SHARED_WAIT_MAX, TURN_HELD_MAX, Taking};

/// Frames that wait to be sent to one caller. Beyond it answers wait.
const FRAMES_QUEUED_MAX: usize = 4_096;
/// Turns that flows of one caller have or wait for. More are not given.
const CLAIMS_MAX: usize = 8_192;
/// Longest wait for a caller's hello.
const HELLO_TIME_MAX: Duration = Duration::from_secs(5);
/// How often an idle connection is asked for a sign of life, and how long it may take to give one.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What a caller says. Its end, or an error, is the end of the stream.
pub type Calls = BoxStream<'static, Result<wire::AttachRequest, Status>>;

/// Serves a stream of another runtime, whatever carries it.
pub fn accept<S: Store>(runtime: &Runtime<S>, calls: Calls) -> PeerIncoming {
    let (frames, queued) = mpsc::channel(FRAMES_QUEUED_MAX);
    let (claims, gone) = (Arc::default(), CancellationToken::new());
    let caller = Caller { runtime: runtime.clone(), frames, claims, gone };
    tasks::spawn(TaskKind::Peer, caller.serve(calls));
    batch::batches(queued, |frames| Ok(wire::AttachResponse { frames }))
}

/// Serves streams of other runtimes on a listener, until `stop`.
pub(crate) async fn listen<S: Store>(runtime: Runtime<S>, listener: TcpListener, stop: CancellationToken) {
    let service = PeerServiceServer::new(Service(runtime))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let server = tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .add_service(service)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.cancelled_owned());
    if let Err(error) = server.await {
        warn!(%error, "the port for other runtimes was closed");
    }
}

struct Service<S: Store>(Runtime<S>);

#[tonic::async_trait]
impl<S: Store> PeerService for Service<S> {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<wire::AttachResponse, Status>> + Send + 'static>>;

    async fn attach(
        &self,
        calls: Request<Streaming<wire::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Ok(Response::new(accept(&self.0, calls.into_inner().boxed())))
    }
}

/// One caller.
struct Caller<S: Store> {
    runtime: Runtime<S>,
    frames: mpsc::Sender<wire::OwnerFrame>,
    /// What ends each turn that its flows have or wait for.
    claims: Arc<Mutex<HashMap<u64, CancellationToken>>>,
    /// Set when the stream has ended.
    gone: CancellationToken,
}

impl<S: Store> Caller<S> {
    async fn serve(self, mut calls: Calls) {
        let stop = self.runtime.engine.stop.clone();
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            ended = self.read(&mut calls) => ended,
        };
        if let Err(why) = ended {
            debug!(why, "stream of another runtime ended");
        }
        self.gone.cancel();
        // Hints that were on their way may be lost with it.
        self.runtime.engine.courier.look_again();
    }

    async fn read(&self, calls: &mut Calls) -> Result<(), String> {
        let mut frames = match timeout(HELLO_TIME_MAX, calls.next()).await {
            Ok(Some(first)) => first.map_err(|status| status.message().to_owned())?.frames.into_iter(),
            Ok(None) => return Ok(()),
            Err(_) => return Err("it did not say hello in time".to_owned()),
        };
        match frames.next().and_then(|frame| frame.frame) {
            Some(wire::caller_frame::Frame::Hello(hello)) => self.welcome(&hello).await?,
            Some(_) | None => return Err("its first frame is not a hello".to_owned()),
        }
        loop {
            for frame in frames {
                if let Some(frame) = frame.frame {
                    self.take(frame).await?;
                }
            }
            frames = match calls.next().await {
                Some(Ok(message)) => message.frames.into_iter(),
                Some(Err(status)) => return Err(status.message().to_owned()),
                None => return Ok(()),
            };
        }
    }

    async fn welcome(&self, hello: &wire::Hello) -> Result<(), String> {
        let version = hello.version_max.min(PEER_PROTOCOL_VERSION_MAX);
        if version < hello.version_min || version < PEER_PROTOCOL_VERSION_MIN {
            return Err(format!("member {} speaks other versions of the protocol", hello.from));
        }
        let welcome = wire::Welcome { version, member: self.runtime.engine.partition.incarnation() };
        self.say(wire::owner_frame::Frame::Welcome(welcome)).await;
        Ok(())
    }

    async fn say(&self, frame: wire::owner_frame::Frame) {
        // If the caller is gone nobody wants to know.
        let _ = self.frames.send(answer(frame)).await;
    }

    async fn take(&self, frame: wire::caller_frame::Frame) -> Result<(), String> {
        use wire::caller_frame::Frame;
        let engine = &self.runtime.engine;
        match frame {
            Frame::Execute(execute) => self.execute(execute).await,
            Frame::Deliver(deliver) => engine.courier.arrived(hinted(deliver)),
            Frame::Changed(_) => engine.peers.poke_here(),
            Frame::Claim(claim) => self.claim(claim).await,
            Frame::Release(release) => {
                if let Some(claim) = self.claims().remove(&release.call_id) {
                    claim.cancel();
                }
            }
            Frame::Look(look) => {
                let found = flow(&look.flow).and_then(|flow| engine.registry.get(flow));
                let state = found.as_ref().map(|flow| wire::found::State::Running(running(flow)));
                let found = wire::Found { call_id: look.call_id, state, cancelled: false };
                self.say(wire::owner_frame::Frame::Found(found)).await;
            }
            Frame::Cancel(cancel) => {
                let this = self.again();
                tasks::spawn(TaskKind::Peer, async move {
                    let found = this.cancel(cancel.call_id, flow(&cancel.flow)).await;
                    this.say(wire::owner_frame::Frame::Found(found)).await;
                });
            }
            Frame::Hello(_) => return Err("it said hello twice".to_owned()),
        }
        Ok(())
    }

    fn again(&self) -> Self {
        let (claims, gone) = (Arc::clone(&self.claims), self.gone.clone());
        Self { runtime: self.runtime.clone(), frames: self.frames.clone(), claims, gone }
    }

    fn claims(&self) -> MutexGuard<'_, HashMap<u64, CancellationToken>> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lines a flow of the caller up for an instance, in a task of its own.
    async fn claim(&self, claim: wire::Claim) {
        let call_id = claim.call_id;
        let instance = Instance::parse(&claim.function, &claim.key).ok();
        let Some(instance) = instance.filter(|_| self.claims().len() < CLAIMS_MAX) else {
            let refused = wire::Turn { call_id, granted: false, waited: false };
            return self.say(wire::owner_frame::Frame::Turn(refused)).await;
        };
        let released = self.gone.child_token();
        self.claims().insert(call_id, released.clone());
        let this = self.again();
        tasks::spawn(TaskKind::Peer, async move {
            let wait_max = Duration::from_millis(claim.wait_ms).min(SHARED_WAIT_MAX);
            tokio::select! {
                biased;
                () = released.cancelled() => {}
                () = this.lend(call_id, &instance, wait_max) => {}
            }
            this.claims().remove(&call_id);
        });
    }

    /// Gives a flow of the caller its turn when it comes, and takes it back when it has had it for too long. Dropping
    /// the future takes it back as well.
    async fn lend(&self, call_id: u64, instance: &Instance, wait_max: Duration) {
        let engine = &self.runtime.engine;
        engine.turns.mark_shared(instance, Instant::now());
        let held = engine.turns.held(engine.ticket());
        let taken = held.take_for_another(instance, wait_max).await;
        let turn = wire::Turn { call_id, granted: taken != Taking::Late, waited: taken != Taking::AtOnce };
        self.say(wire::owner_frame::Frame::Turn(turn)).await;
        if taken != Taking::Late {
            engine.metrics.turn_given();
            tokio::time::sleep(TURN_HELD_MAX).await;
        }
    }

    /// Runs a request in a task of its own. It is not lost with the stream: a client may ask for it elsewhere.
    async fn execute(&self, execute: wire::Execute) {
        let call_id = execute.call_id;
        let request = match request(self.runtime.engine.layout.slots(), execute) {
            Ok(request) => request,
            Err(detail) => {
                let reason = wire::refused::Reason::Invalid.into();
                let refused = wire::Refused { call_id, reason, detail };
                return self.say(wire::owner_frame::Frame::Refused(refused)).await;
            }
        };
        let this = self.again();
        tasks::spawn(TaskKind::Peer, async move {
            match this.runtime.submit_here(request).await {
                Ok(accepted) => this.run(call_id, accepted).await,
                Err(refusal) => this.say(wire::owner_frame::Frame::Refused(refused(call_id, &refusal))).await,
            }
        });
    }

    async fn run(&self, call_id: u64, accepted: Accepted) {
        self.say(wire::owner_frame::Frame::Taken(wire::Taken { call_id })).await;
        let frame = match accepted.outcome.await {
            Ok(ended) => {
                let record = rows::encode_record(&ended.record);
                wire::owner_frame::Frame::Ended(wire::Ended { call_id, record, repeated: ended.repeated })
            }
            Err(_) => wire::owner_frame::Frame::Lost(wire::Lost { call_id }),
        };
        self.say(frame).await;
    }

    async fn cancel(&self, call_id: u64, flow: Option<FlowId>) -> wire::Found {
        let cancelled = match flow {
            Some(flow) => self.runtime.cancel_here(flow).await,
            None => None,
        };
        let (record, cancelled): (Option<Bytes>, bool) = match cancelled {
            Some(Cancelled::Done(record)) => (Some(rows::encode_record(&record)), true),
            Some(Cancelled::TooLate(record)) => (Some(rows::encode_record(&record)), false),
            Some(Cancelled::Unknown) | None => (None, false),
        };
        wire::Found { call_id, state: record.map(wire::found::State::Record), cancelled }
    }
}
