//! A worker that speaks the protocol by hand, as badly as the test wants.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream};
use tandem_model::topology::{Endpoint, Protocol};
use tandem_proto::function::v1alpha1 as wire;
use tandem_proto::function::v1alpha1::function_service_server::{FunctionService, FunctionServiceServer};
use tandem_proto::function::v1alpha1::runtime_frame::Frame as RuntimeFrame;
use tandem_proto::function::v1alpha1::worker_frame::Frame as WorkerFrame;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};

/// A worker that does what the test says with each stream.
pub(crate) struct Fake {
    pub(crate) endpoint: Endpoint,
    /// Streams so far.
    pub(crate) attached: Arc<AtomicUsize>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The worker's side of one stream. Dropping it closes the stream.
pub(crate) struct Peer {
    incoming: Streaming<wire::AttachRequest>,
    outgoing: mpsc::UnboundedSender<Result<wire::AttachResponse, Status>>,
    frames: VecDeque<RuntimeFrame>,
}

type Behaviour = Arc<dyn Fn(Peer) -> BoxFuture<'static, ()> + Send + Sync>;

struct Service {
    behaviour: Behaviour,
    attached: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl FunctionService for Service {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<wire::AttachResponse, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<wire::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (outgoing, responses) = mpsc::unbounded_channel();
        let peer = Peer { incoming: request.into_inner(), outgoing, frames: VecDeque::new() };
        self.attached.fetch_add(1, Ordering::SeqCst);
        tokio::spawn((self.behaviour)(peer));
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(responses))))
    }
}

impl Fake {
    /// Does this with every stream; the stream ends when it returns.
    pub(crate) async fn start<F>(behaviour: impl Fn(Peer) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::new(format!("http://{}", listener.local_addr().unwrap()), Protocol::Grpc);
        let attached = Arc::new(AtomicUsize::new(0));
        let behaviour: Behaviour = Arc::new(move |peer| behaviour(peer).boxed());
        let service = FunctionServiceServer::new(Service { behaviour, attached: attached.clone() })
            .max_encoding_message_size(usize::MAX);
        let serving = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { serving.await.unwrap() });
        Self { endpoint, attached, server }
    }

    /// Shakes hands well, and does this with every invocation.
    pub(crate) async fn invoked(on_invoke: impl Fn(&mut Peer, wire::Invoke) + Send + Sync + Clone + 'static) -> Self {
        Self::start(move |mut peer| {
            let on_invoke = on_invoke.clone();
            async move {
                peer.welcome(good_welcome()).await;
                while let Some(frame) = peer.next().await {
                    if let RuntimeFrame::Invoke(invoke) = frame {
                        on_invoke(&mut peer, invoke);
                    }
                }
            }
        })
        .await
    }
}

impl Peer {
    /// The next frame of the runtime, `None` once it has closed the stream.
    pub(crate) async fn next(&mut self) -> Option<RuntimeFrame> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            let message = self.incoming.message().await.ok()??;
            self.frames.extend(message.frames.into_iter().filter_map(|frame| frame.frame));
        }
    }

    /// Waits for the hello, and answers it.
    pub(crate) async fn welcome(&mut self, welcome: wire::Welcome) {
        let hello = self.next().await;
        assert!(matches!(hello, Some(RuntimeFrame::Hello(_)) | None), "{hello:?}");
        self.send(vec![WorkerFrame::Welcome(welcome)]);
    }

    pub(crate) fn send(&self, frames: Vec<WorkerFrame>) {
        self.send_raw(frames.into_iter().map(|frame| wire::WorkerFrame { frame: Some(frame) }).collect());
    }

    pub(crate) fn send_raw(&self, frames: Vec<wire::WorkerFrame>) {
        // The runtime may have closed the stream meanwhile.
        let _ = self.outgoing.send(Ok(wire::AttachResponse { frames }));
    }

    /// Closes the stream from the worker's side, as a process that dies does.
    pub(crate) fn hang_up(&mut self) {
        let (closed, _) = mpsc::unbounded_channel();
        self.outgoing = closed;
    }
}

/// What the real functions of `script.rs` would say.
pub(crate) fn good_welcome() -> wire::Welcome {
    let isolation = |isolation: wire::Isolation| i32::from(isolation);
    let handlers = [
        ("run", isolation(wire::Isolation::Unspecified)),
        ("snapshot", isolation(wire::Isolation::Snapshot)),
        ("look", isolation(wire::Isolation::ReadOnly)),
    ];
    let states = [("value", wire::StateKind::Value), ("entries", wire::StateKind::Map)];
    let info = wire::FunctionInfo {
        name: "node".to_owned(),
        handlers: handlers.map(|(name, isolation)| wire::HandlerInfo { name: name.to_owned(), isolation }).into(),
        states: states.map(|(name, kind)| wire::StateInfo { name: name.to_owned(), kind: kind.into() }).into(),
    };
    wire::Welcome { version: 1, sdk: "fake".to_owned(), functions: vec![info], credit: 100, follows: false }
}

/// A result with a write of the value.
pub(crate) fn finished(invocation_id: u64) -> WorkerFrame {
    finished_with(invocation_id, vec![write("value", None, Some("1"))])
}

pub(crate) fn finished_with(invocation_id: u64, effects: Vec<wire::effect::Effect>) -> WorkerFrame {
    let effects = effects.into_iter().map(|effect| wire::Effect { effect: Some(effect) }).collect();
    let result = Some(wire::finished::Result::Value(Bytes::from_static(b"7")));
    WorkerFrame::Finished(wire::Finished { invocation_id, result, effects, content_type: String::new() })
}

pub(crate) fn write(state: &str, entry: Option<&'static str>, value: Option<&'static str>) -> wire::effect::Effect {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    wire::effect::Effect::Write(wire::Write {
        state: state.to_owned(),
        entry: entry.map(bytes),
        value: value.map(bytes),
    })
}

pub(crate) fn call(invocation_id: u64, call_id: u64, key: &str) -> WorkerFrame {
    let (function, handler) = ("other".to_owned(), "run".to_owned());
    let payload = Bytes::from_static(b"[]");
    WorkerFrame::Call(wire::Call {
        invocation_id,
        call_id,
        function,
        key: key.to_owned(),
        handler,
        payload,
        spawn: false,
    })
}

pub(crate) fn read(invocation_id: u64, read_id: u64, state: &str) -> WorkerFrame {
    let what = Some(wire::read::What::Entry(Bytes::from_static(b"e")));
    WorkerFrame::Read(wire::Read { invocation_id, read_id, state: state.to_owned(), what })
}
