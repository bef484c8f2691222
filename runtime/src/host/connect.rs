//! Keeps the connection to one endpoint: dials, shakes hands, reads until it ends, dials again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tandem_model::ids::FunctionName;
use tandem_model::topology::{Endpoint, Protocol};
use tandem_proto::function::v1alpha1 as wire;
use tandem_proto::{FUNCTION_PROTOCOL_VERSION_MAX, FUNCTION_PROTOCOL_VERSION_MIN};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::http::HttpWorker;
use super::link::{Link, Nonsense};
use super::worker::{Transport, Worker};
use super::{Host, frames, welcome};
use crate::dial::Incoming;
use crate::metrics::WorkerDrop;
use crate::tasks::{self, TaskKind};

/// Longest wait for a worker's welcome.
const WELCOME_TIME_MAX: Duration = Duration::from_secs(5);
/// First wait before dialling again.
const REDIAL_BACKOFF: Duration = Duration::from_millis(50);
/// Longest such wait.
const REDIAL_BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Failed dials in a row that are not worth a warning: the worker may be starting.
const UNREACHABLE_AT_FIRST: u32 = 5;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("{0}")]
    Unreachable(String),
    #[error("its welcome does not fit: {0}")]
    Refused(String),
    #[error("the stream ended: {0}")]
    Closed(String),
    #[error("it broke the protocol: {0}")]
    Nonsense(#[from] Nonsense),
}

impl Ended {
    fn reason(&self) -> WorkerDrop {
        match self {
            Self::Unreachable(_) => WorkerDrop::Unreachable,
            Self::Refused(_) => WorkerDrop::Handshake,
            Self::Closed(_) => WorkerDrop::Disconnected,
            Self::Nonsense(_) => WorkerDrop::Protocol,
        }
    }
}

/// Keeps a connection to `endpoint` for these functions until `stop`.
pub(super) fn start(host: Arc<Host>, endpoint: Endpoint, functions: Vec<FunctionName>, stop: CancellationToken) {
    tasks::spawn(TaskKind::Worker, async move {
        match endpoint.protocol {
            Protocol::Grpc => keep_stream(host, endpoint, functions, stop).await,
            Protocol::Http => keep_http(host, endpoint, functions, stop).await,
        }
    });
}

async fn keep_http(host: Arc<Host>, endpoint: Endpoint, functions: Vec<FunctionName>, stop: CancellationToken) {
    let interfaces = welcome::declared(&host.topology(), &functions);
    let transport = match HttpWorker::new(&endpoint.url) {
        Ok(worker) => Transport::Http(Box::new(worker)),
        Err(error) => {
            warn!(url = endpoint.url, error, "worker address cannot be used");
            return;
        }
    };
    let worker = Worker::new(interfaces, super::http::CREDIT, transport);
    host.add(&worker);
    stop.cancelled().await;
    host.remove(&worker, WorkerDrop::Removed);
}

async fn keep_stream(host: Arc<Host>, endpoint: Endpoint, functions: Vec<FunctionName>, stop: CancellationToken) {
    let mut backoff = REDIAL_BACKOFF;
    let (mut last_warning, mut unreachable) = (String::new(), 0_u32);
    loop {
        // It watches `stop` itself: cut off from outside, it would leave its worker in the pool.
        let ended = run_once(&host, &endpoint, &functions, &stop).await;
        match ended {
            Ok(()) => return,
            Err(_) if stop.is_cancelled() => return,
            Err(ended) => {
                let (reason, text) = (ended.reason(), ended.to_string());
                unreachable = if matches!(ended, Ended::Unreachable(_)) { unreachable + 1 } else { 0 };
                // A worker that is still starting is no news, and one that stays away is news once.
                let is_starting = (1..UNREACHABLE_AT_FIRST).contains(&unreachable);
                if !is_starting && text != last_warning {
                    warn!(url = endpoint.url, reason = <&str>::from(reason), "no connection to worker: {text}");
                }
                let was_connected = matches!(ended, Ended::Closed(_) | Ended::Nonsense(_));
                if !was_connected {
                    for function in &functions {
                        host.metrics.worker_refused(function, reason);
                    }
                }
                if !is_starting {
                    last_warning = text;
                }
                backoff = if was_connected { REDIAL_BACKOFF } else { (backoff * 2).min(REDIAL_BACKOFF_MAX) };
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff) => {}
        }
    }
}

/// Dials, and runs the stream to its end. `Ok` if it ended because of `stop`.
async fn run_once(
    host: &Arc<Host>,
    endpoint: &Endpoint,
    functions: &[FunctionName],
    stop: &CancellationToken,
) -> Result<(), Ended> {
    let (frames, incoming) = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        dialled = dial(host, endpoint) => dialled?,
    };
    // What watches `stop` from here on also lets go of the worker; dropped half way, it would stay in its pools.
    run_link(host, functions, frames, incoming, stop).await
}

async fn dial(host: &Host, endpoint: &Endpoint) -> Result<(frames::Sender, Incoming), Ended> {
    let (frames, queued) = frames::queue();
    frames.push_now(hello());
    let incoming = host.dial.attach(endpoint, queued.batches()).await.map_err(Ended::Unreachable)?;
    Ok((frames, incoming))
}

/// Runs a stream to its end, whatever carries it.
pub(super) async fn run_link(
    host: &Arc<Host>,
    functions: &[FunctionName],
    frames: frames::Sender,
    incoming: impl Stream<Item = Result<wire::AttachResponse, tonic::Status>> + Unpin,
    stop: &CancellationToken,
) -> Result<(), Ended> {
    let mut incoming = incoming;
    let first = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        first = timeout(WELCOME_TIME_MAX, incoming.next()) => first,
    };
    let first = first.map_err(|_| Ended::Refused("it did not say welcome in time".to_owned()))?;
    let (welcome, rest) = split_welcome(first)?;
    let (sdk, credit, follows) = (welcome.sdk.clone(), welcome.credit.max(1), welcome.follows);
    let interfaces = welcome::check(&host.topology(), functions, welcome).map_err(Ended::Refused)?;
    let link = Link::new(frames, follows);
    let worker = Worker::new(interfaces, credit, Transport::Link(Arc::clone(&link)));
    info!(sdk, credit, functions = functions.len(), "worker connected");
    host.add(&worker);
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        ended = read(host, &link, &worker, rest, incoming) => Err(ended),
    };
    let (reason, text) = match &ended {
        Ok(()) => (WorkerDrop::Removed, "the worker was removed".to_owned()),
        Err(ended) => (ended.reason(), ended.to_string()),
    };
    host.remove(&worker, reason);
    link.close(&text);
    ended
}

async fn read(
    host: &Host,
    link: &Link,
    worker: &Worker,
    rest: Vec<wire::WorkerFrame>,
    mut incoming: impl Stream<Item = Result<wire::AttachResponse, tonic::Status>> + Unpin,
) -> Ended {
    let mut frames = rest;
    loop {
        for frame in frames {
            match link.receive(frame) {
                Ok(0) => {}
                Ok(credit) => {
                    worker.add_credit(credit);
                    host.changed.notify_waiters();
                }
                Err(nonsense) => return nonsense.into(),
            }
        }
        frames = match incoming.next().await {
            Some(Ok(message)) => message.frames,
            Some(Err(status)) => return Ended::Closed(status.message().to_owned()),
            None => return Ended::Closed("the worker closed it".to_owned()),
        };
    }
}

fn split_welcome(
    first: Option<Result<wire::AttachResponse, tonic::Status>>,
) -> Result<(wire::Welcome, Vec<wire::WorkerFrame>), Ended> {
    let message = match first {
        Some(Ok(message)) => message,
        Some(Err(status)) => return Err(Ended::Refused(status.message().to_owned())),
        None => return Err(Ended::Refused("it closed the stream without a welcome".to_owned())),
    };
    let mut frames = message.frames.into_iter();
    match frames.next().and_then(|frame| frame.frame) {
        Some(wire::worker_frame::Frame::Welcome(welcome)) => Ok((welcome, frames.collect())),
        Some(_) | None => Err(Ended::Refused("its first frame is not a welcome".to_owned())),
    }
}

fn hello() -> wire::runtime_frame::Frame {
    let hello = wire::Hello {
        version_min: FUNCTION_PROTOCOL_VERSION_MIN,
        version_max: FUNCTION_PROTOCOL_VERSION_MAX,
        runtime: concat!("tandem-runtime/", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    wire::runtime_frame::Frame::Hello(hello)
}
