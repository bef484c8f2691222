//! The runtime's side of the protocol, driven by hand.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tandem::Server;
use tandem_proto::function::v1alpha1 as proto;
use tandem_proto::function::v1alpha1::function_service_client::FunctionServiceClient;
use tandem_proto::function::v1alpha1::runtime_frame::Frame as RuntimeFrame;
use tandem_proto::function::v1alpha1::worker_frame::Frame as WorkerFrame;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tonic::{Code, Status, Streaming};

use crate::functions::{Echo, Probe};

/// Far more than anything here takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A worker that runs in this process.
pub(crate) struct Worker {
    pub(crate) address: SocketAddr,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) done: JoinHandle<tandem::Result<()>>,
}

/// Starts a worker with the functions of the tests.
pub(crate) async fn worker(configure: impl FnOnce(Server) -> Server) -> Worker {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = configure(Server::new((Probe, Echo))).bind(listener).unwrap();
    let address = server.address();
    let (stop, stopped) = oneshot::channel();
    let done = tokio::spawn(server.run_until(async {
        let _dropped = stopped.await;
    }));
    Worker { address, stop, done }
}

/// One connection to a worker.
pub(crate) struct Runtime {
    pub(crate) outgoing: mpsc::UnboundedSender<proto::AttachRequest>,
    incoming: Streaming<proto::AttachResponse>,
    frames: VecDeque<WorkerFrame>,
    last_id: u64,
    /// Stops when the connection is dropped, if it has no other user.
    own_worker: Option<Worker>,
}

impl Runtime {
    /// Connects, and says nothing yet.
    pub(crate) async fn dial(address: SocketAddr) -> Self {
        let mut client = FunctionServiceClient::connect(format!("http://{address}")).await.unwrap();
        let (outgoing, requests) = mpsc::unbounded_channel();
        let requests = tokio_stream::wrappers::UnboundedReceiverStream::new(requests);
        let incoming = client.attach(requests).await.unwrap().into_inner();
        Self { outgoing, incoming, frames: VecDeque::new(), last_id: 0, own_worker: None }
    }

    /// Connects and shakes hands.
    pub(crate) async fn attach(address: SocketAddr) -> Self {
        let mut runtime = Self::dial(address).await;
        runtime.hello(1, 1);
        let welcome = runtime.next().await.unwrap();
        assert!(matches!(welcome, WorkerFrame::Welcome(_)), "{welcome:?}");
        runtime
    }

    /// A worker of its own, with a connection.
    pub(crate) async fn start() -> Self {
        let worker = worker(|server| server).await;
        let mut runtime = Self::attach(worker.address).await;
        runtime.own_worker = Some(worker);
        runtime
    }

    pub(crate) fn hello(&self, version_min: u32, version_max: u32) {
        self.send(vec![RuntimeFrame::Hello(proto::Hello { version_min, version_max, runtime: "test".into() })]);
    }

    pub(crate) fn send(&self, frames: Vec<RuntimeFrame>) {
        let frames = frames.into_iter().map(|frame| proto::RuntimeFrame { frame: Some(frame) }).collect();
        self.outgoing.send(proto::AttachRequest { frames }).unwrap();
    }

    /// The next frame, or how the stream ended.
    pub(crate) async fn next(&mut self) -> Result<WorkerFrame, Status> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Ok(frame);
            }
            let message =
                tokio::time::timeout(DEADLINE, self.incoming.message()).await.expect("the worker says nothing");
            let message = message?.ok_or_else(|| Status::new(Code::Ok, "the stream ended"))?;
            self.frames.extend(message.frames.into_iter().filter_map(|frame| frame.frame));
        }
    }

    /// The status that the worker ends the stream with.
    pub(crate) async fn ended(&mut self) -> Status {
        self.next().await.expect_err("the stream goes on")
    }

    /// An invocation of a handler of `probe`, with a number of its own.
    pub(crate) fn invocation(&mut self, handler: &str, payload: &str) -> proto::Invoke {
        self.last_id += 1;
        proto::Invoke {
            invocation_id: self.last_id,
            flow_id: "flow-1".into(),
            function: "probe".into(),
            key: "k-1".into(),
            handler: handler.into(),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            content_type: "application/json".into(),
            attempt: 1,
            deadline_ms: 10_000,
            ..proto::Invoke::default()
        }
    }

    pub(crate) fn invoke(&mut self, handler: &str, payload: &str) -> u64 {
        let invoke = self.invocation(handler, payload);
        let id = invoke.invocation_id;
        self.send(vec![RuntimeFrame::Invoke(invoke)]);
        id
    }

    pub(crate) async fn finished(&mut self) -> proto::Finished {
        match self.next().await.unwrap() {
            WorkerFrame::Finished(finished) => finished,
            other => panic!("expected Finished, got {other:?}"),
        }
    }

    pub(crate) async fn call(&mut self) -> proto::Call {
        match self.next().await.unwrap() {
            WorkerFrame::Call(call) => call,
            other => panic!("expected Call, got {other:?}"),
        }
    }

    pub(crate) async fn read(&mut self) -> proto::Read {
        match self.next().await.unwrap() {
            WorkerFrame::Read(read) => read,
            other => panic!("expected Read, got {other:?}"),
        }
    }

    pub(crate) fn answer_call(&self, call: &proto::Call, result: proto::call_done::Result) {
        let (invocation_id, call_id) = (call.invocation_id, call.call_id);
        self.send(vec![RuntimeFrame::CallDone(proto::CallDone { invocation_id, call_id, result: Some(result) })]);
    }

    pub(crate) fn answer_read(&self, read: &proto::Read, entries: &[(&[u8], &str)], more: bool) {
        let entries = entries.iter().map(|(key, value)| proto::Entry {
            key: Bytes::copy_from_slice(key),
            value: Bytes::copy_from_slice(value.as_bytes()),
        });
        let (invocation_id, read_id) = (read.invocation_id, read.read_id);
        let done = proto::ReadDone { invocation_id, read_id, entries: entries.collect(), more };
        self.send(vec![RuntimeFrame::ReadDone(done)]);
    }
}

/// The value of an invocation that returned.
pub(crate) fn value(finished: &proto::Finished) -> &str {
    match &finished.result {
        Some(proto::finished::Result::Value(value)) => std::str::from_utf8(value).unwrap(),
        other => panic!("expected a value, got {other:?}"),
    }
}

/// The rejection of an invocation that said no.
pub(crate) fn rejection(finished: &proto::Finished) -> &proto::Rejection {
    match &finished.result {
        Some(proto::finished::Result::Rejection(rejection)) => rejection,
        other => panic!("expected a rejection, got {other:?}"),
    }
}

/// The failure of an invocation that broke. Nothing is to be applied then.
pub(crate) fn failure(finished: &proto::Finished) -> &proto::Failure {
    assert_eq!(finished.effects, [], "a failure has no effects");
    match &finished.result {
        Some(proto::finished::Result::Failure(failure)) => failure,
        other => panic!("expected a failure, got {other:?}"),
    }
}
