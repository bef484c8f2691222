//! One connection of a runtime: frames in, invocations run, frames out.
//!
//! A connection is one stream that is polled by the server. It reads all that has arrived, then sends all that is
//! ready in one message; it owns the table of invocations, so nothing here is locked. **Invariant:** an invocation
//! that is not in the table sends nothing.

use std::any::Any;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use futures_util::future::AbortHandle;
use prost::Message;
use tandem_proto::function::v1alpha1 as proto;
use tandem_proto::function::v1alpha1::runtime_frame::Frame as RuntimeFrame;
use tandem_proto::function::v1alpha1::worker_frame::Frame as WorkerFrame;
use tandem_proto::{FUNCTION_PROTOCOL_VERSION_MAX, FUNCTION_PROTOCOL_VERSION_MIN};
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;

use crate::chain::{self, Follow, Next, Tails};
use crate::error::{Error, Result};
use crate::invocation::{Invocation, Outgoing, failed};
use crate::server::Registry;

/// Invocations that may be open on one connection, whatever the credit: protects the process from a runtime that has
/// lost count. The credit itself is not held against the runtime, because it lets calls through without one: their
/// flow has its place already, and to make them wait for another could go round in a ring.
const INVOCATIONS_MAX: usize = 1 << 16;
/// Messages that are read before what is ready is sent.
const MESSAGES_READ_MAX: usize = 64;
/// A message is sent when it has this size, in bytes; one that holds a single frame may be larger.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Name and version as the runtime's log shows them.
const SDK: &str = concat!("tandem-rust/", env!("CARGO_PKG_VERSION"));

/// Stream of what the worker says to one runtime.
pub(crate) struct Connection<I> {
    registry: Arc<Registry>,
    incoming: I,
    outgoing_tx: Outgoing,
    outgoing: mpsc::UnboundedReceiver<(u64, WorkerFrame)>,
    running: HashMap<u64, Running>,
    tails: Tails,
    /// Frames of the connection itself, and one that did not fit into the last message.
    ready: Vec<proto::WorkerFrame>,
    welcomed: bool,
    over: bool,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
    drain: Duration,
    drained: Option<Pin<Box<Sleep>>>,
}

struct Running {
    invocation: Arc<Invocation>,
    abort: AbortHandle,
}

impl<I> Connection<I> {
    pub(crate) fn new(
        registry: Arc<Registry>,
        incoming: I,
        stopping: WaitForCancellationFutureOwned,
        drain: Duration,
    ) -> Self {
        let (outgoing_tx, outgoing) = mpsc::unbounded_channel();
        Self {
            registry,
            incoming,
            outgoing_tx,
            outgoing,
            running: HashMap::new(),
            tails: Tails::default(),
            ready: Vec::new(),
            welcomed: false,
            over: false,
            stopping: Box::pin(stopping),
            drain,
            drained: None,
        }
    }

    fn take(&mut self, frame: RuntimeFrame) -> Result<(), Status> {
        if !self.welcomed && !matches!(frame, RuntimeFrame::Hello(_)) {
            return Err(Status::failed_precondition("the first frame must be Hello"));
        }
        match frame {
            RuntimeFrame::Hello(hello) => self.welcome(&hello),
            RuntimeFrame::Invoke(invoke) => self.invoke(invoke),
            RuntimeFrame::CallDone(done) => self.call_done(done),
            RuntimeFrame::ReadDone(done) => self.read_done(done),
            RuntimeFrame::Cancel(cancel) => {
                self.cancel(&cancel);
                Ok(())
            }
        }
    }

    fn welcome(&mut self, hello: &proto::Hello) -> Result<(), Status> {
        if self.welcomed {
            return Err(Status::failed_precondition("Hello came twice"));
        }
        let version = hello.version_max.min(FUNCTION_PROTOCOL_VERSION_MAX);
        if version < hello.version_min.max(FUNCTION_PROTOCOL_VERSION_MIN) {
            let problem = format!(
                "no common protocol version: the runtime {} speaks {} to {}, {SDK} speaks \
                 {FUNCTION_PROTOCOL_VERSION_MIN} to {FUNCTION_PROTOCOL_VERSION_MAX}; update the older one",
                hello.runtime, hello.version_min, hello.version_max
            );
            tracing::error!(runtime = %hello.runtime, "{problem}");
            return Err(Status::failed_precondition(problem));
        }
        self.welcomed = true;
        tracing::info!(runtime = %hello.runtime, version, "runtime attached");
        let functions = self.registry.infos();
        let credit = self.registry.credit();
        self.push(WorkerFrame::Welcome(proto::Welcome {
            version,
            sdk: SDK.to_owned(),
            functions,
            credit,
            follows: true,
        }));
        Ok(())
    }

    fn invoke(&mut self, invoke: proto::Invoke) -> Result<(), Status> {
        let id = invoke.invocation_id;
        if self.running.contains_key(&id) {
            return Err(Status::invalid_argument(format!("invocation {id} is already running")));
        }
        if self.running.len() >= INVOCATIONS_MAX {
            return Err(Status::resource_exhausted(format!("{INVOCATIONS_MAX} invocations are open")));
        }
        let found = self.registry.find(&invoke.function, &invoke.handler);
        match found {
            Ok((handler, fields)) => {
                let follows = invoke.follows;
                let invocation = Arc::new(Invocation::new(invoke, fields, self.outgoing_tx.clone()));
                let (abort, registration) = AbortHandle::new_pair();
                self.running.insert(id, Running { invocation: invocation.clone(), abort });
                let next = Box::new(Next { handler, invocation, abort: registration, tail: self.tails.begin(id) });
                match follows {
                    None => drop(tokio::spawn(chain::run(next))),
                    Some(before) => self.follow(before, next),
                }
            }
            Err(problem) => self.push(WorkerFrame::Finished(failed(id, Error::fatal(problem)))),
        }
        Ok(())
    }

    fn follow(&self, before: u64, next: Box<Next>) {
        let follow = match self.tails.get(before) {
            Some(tail) => tail.follow(next),
            None => Follow::Declined(next),
        };
        match follow {
            Follow::Waits => {}
            Follow::Begins(next, states) => {
                next.invocation.begin(states);
                tokio::spawn(chain::run(next));
            }
            Follow::Declined(next) => chain::decline(next),
        }
    }

    fn call_done(&mut self, done: proto::CallDone) -> Result<(), Status> {
        let proto::CallDone { invocation_id, call_id, result } = done;
        let Some(result) = result else {
            return Err(Status::invalid_argument(format!("CallDone {call_id} of {invocation_id} has no result")));
        };
        // An invocation that has ended may still be answered: its handler did not wait for the call.
        let Some(running) = self.running.get(&invocation_id) else { return Ok(()) };
        if running.invocation.call_done(call_id, result) {
            return Ok(());
        }
        Err(Status::invalid_argument(format!(
            "CallDone for call {call_id} of invocation {invocation_id}: no such call"
        )))
    }

    fn read_done(&mut self, done: proto::ReadDone) -> Result<(), Status> {
        let (invocation_id, read_id) = (done.invocation_id, done.read_id);
        let Some(running) = self.running.get(&invocation_id) else { return Ok(()) };
        if running.invocation.read_done(done) {
            return Ok(());
        }
        Err(Status::invalid_argument(format!(
            "ReadDone for read {read_id} of invocation {invocation_id}: no such read"
        )))
    }

    fn cancel(&mut self, cancel: &proto::Cancel) {
        if let Some(running) = self.running.remove(&cancel.invocation_id) {
            running.abort.abort();
            self.tails.ended(cancel.invocation_id);
            // Answered, so that the runtime need not tell apart what is open and what is cancelled to count credit.
            let error = Error::fatal(format!("cancelled: {}", cancel.reason));
            self.push(WorkerFrame::Finished(failed(cancel.invocation_id, error)));
        }
    }

    fn push(&mut self, frame: WorkerFrame) {
        self.ready.push(proto::WorkerFrame { frame: Some(frame) });
    }

    /// All frames that are ready, up to the size of a message.
    fn batch(&mut self, cx: &mut Context<'_>) -> Vec<proto::WorkerFrame> {
        let mut frames = std::mem::take(&mut self.ready);
        let mut bytes: usize = frames.iter().map(Message::encoded_len).sum();
        while bytes < BATCH_BYTES_MAX
            && let Poll::Ready(Some((id, frame))) = self.outgoing.poll_recv(cx)
        {
            let known = match &frame {
                WorkerFrame::Finished(_) => self.running.remove(&id).is_some(),
                _ => self.running.contains_key(&id),
            };
            if !known {
                continue;
            }
            if matches!(frame, WorkerFrame::Finished(_)) {
                self.tails.ended(id);
            }
            let frame = proto::WorkerFrame { frame: Some(frame) };
            let frame_bytes = frame.encoded_len();
            if !frames.is_empty() && bytes + frame_bytes > BATCH_BYTES_MAX {
                self.ready.push(frame);
                break;
            }
            bytes += frame_bytes;
            frames.push(frame);
        }
        frames
    }

    /// While the server stops: over when nothing runs, or when it has taken too long.
    fn is_drained(&mut self, cx: &mut Context<'_>) -> bool {
        if self.drained.is_none() {
            if self.stopping.as_mut().poll(cx).is_pending() {
                return false;
            }
            self.drained = Some(Box::pin(tokio::time::sleep(self.drain)));
        }
        self.running.is_empty() || self.drained.as_mut().is_some_and(|drained| drained.as_mut().poll(cx).is_ready())
    }

    fn end(&mut self, status: Option<Status>) -> Poll<Option<Result<proto::AttachResponse, Status>>> {
        self.over = true;
        self.abort_all();
        Poll::Ready(status.map(Err))
    }

    fn abort_all(&mut self) {
        let mut running: Vec<(u64, Running)> = self.running.drain().collect();
        // In the order in which they began, whatever the table makes of it.
        running.sort_unstable_by_key(|(id, _)| *id);
        for (_, running) in running {
            running.abort.abort();
        }
    }
}

impl<I: Stream<Item = Result<proto::AttachRequest, Status>> + Unpin> Connection<I> {
    /// Takes what has arrived. `Err` ends the connection, with a status if the runtime broke the protocol.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), Option<Status>> {
        for _ in 0..MESSAGES_READ_MAX {
            let message = match Pin::new(&mut self.incoming).poll_next(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(None) => return Err(None),
                Poll::Ready(Some(Err(status))) => {
                    tracing::info!(%status, "runtime detached");
                    return Err(None);
                }
                Poll::Ready(Some(Ok(message))) => message,
            };
            // A frame of a kind that this version does not know is left out by the decoder: the runtime may send it
            // only to a worker whose version has it.
            for frame in message.frames.into_iter().filter_map(|frame| frame.frame) {
                self.take(frame)?;
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }
}

impl<I: Stream<Item = Result<proto::AttachRequest, Status>> + Unpin> Stream for Connection<I> {
    type Item = Result<proto::AttachResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        if let Err(status) = this.read(cx) {
            if let Some(status) = &status {
                tracing::warn!(%status, "runtime broke the protocol");
            }
            return this.end(status);
        }
        let frames = this.batch(cx);
        if !frames.is_empty() {
            return Poll::Ready(Some(Ok(proto::AttachResponse { frames })));
        }
        if this.is_drained(cx) {
            return this.end(Some(Status::unavailable("the worker is shutting down")));
        }
        Poll::Pending
    }
}

impl<I> Drop for Connection<I> {
    fn drop(&mut self) {
        self.abort_all();
    }
}

pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::retryable(format!("panicked: {}", text.unwrap_or("(no message)")))
}
