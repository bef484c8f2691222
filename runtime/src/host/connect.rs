//! Keeps the connection to one endpoint: dials, shakes hands, reads until it ends, dials again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tandem_model::ids::FunctionName;
use tandem_model::topology::{Endpoint, Protocol};
use tandem_proto::function::v1alpha1 as wire;
use tandem_proto::{FUNCTION_PROTOCOL_VERSION_MAX, FUNCTION_PROTOCOL_VERSION_MIN};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::http::HttpWorker;
use super::link::{Link, Nonsense};
use super::welcome::Refusal;
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
/// How often a name is looked up: workers come and go behind it.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(3);
/// The same after a connection was lost, since a name follows what happened with some delay.
const RESOLVE_INTERVAL_AFTER_LOSS: Duration = Duration::from_millis(250);
/// Longest wait for an answer.
const RESOLVE_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest time for what runs on a worker that is let go of.
const DRAIN_TIME_MAX: Duration = Duration::from_mins(1);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("{0}")]
    Unreachable(String),
    #[error("its welcome does not fit: {0}")]
    Refused(Refusal),
    #[error("the stream ended: {0}")]
    Closed(String),
    #[error("it broke the protocol: {0}")]
    Nonsense(#[from] Nonsense),
}

impl Ended {
    /// The same in a word for whoever rolls out workers.
    fn problem(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "Unreachable",
            Self::Refused(refusal) => refusal.reason,
            Self::Closed(_) => "Disconnected",
            Self::Nonsense(_) => "ProtocolBroken",
        }
    }

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
            Protocol::Grpc if host.dial.resolve(&endpoint).is_some() => keep_all(host, endpoint, functions, stop).await,
            Protocol::Grpc => keep_stream(host, endpoint, functions, stop, Arc::default()).await,
            Protocol::Http => keep_http(host, endpoint, functions, stop).await,
        }
    });
}

/// Keeps a stream to each worker behind a name, whoever they are at the moment.
async fn keep_all(host: Arc<Host>, endpoint: Endpoint, functions: Vec<FunctionName>, stop: CancellationToken) {
    let mut streams: BTreeMap<Endpoint, CancellationToken> = BTreeMap::new();
    let (lost, mut last_warning) = (Arc::new(Notify::new()), String::new());
    loop {
        let found = match host.dial.resolve(&endpoint) {
            Some(looking) => timeout(RESOLVE_TIME_MAX, looking).await.unwrap_or_else(|_| Err("no answer".to_owned())),
            None => Ok(vec![endpoint.clone()]),
        };
        match found {
            Ok(found) => {
                last_warning.clear();
                follow(&mut streams, &found, &stop, |worker, stop| {
                    let stream = keep_stream(Arc::clone(&host), worker, functions.clone(), stop, Arc::clone(&lost));
                    tasks::spawn(TaskKind::Worker, stream);
                });
            }
            // A name without workers is not found. Those that are connected stay until they end by themselves.
            Err(error) => {
                let message = format!("its name cannot be looked up: {error}");
                if streams.is_empty() {
                    host.note_problem(&endpoint, &functions, "Unreachable", &message);
                }
                if message != last_warning {
                    warn!(url = endpoint.url, "no workers: {message}");
                    last_warning = message;
                }
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = lost.notified() => tokio::time::sleep(RESOLVE_INTERVAL_AFTER_LOSS).await,
            () = tokio::time::sleep(RESOLVE_INTERVAL) => {}
        }
    }
}

/// Lets go of workers that are not found any more, and starts with those that are new.
fn follow(
    streams: &mut BTreeMap<Endpoint, CancellationToken>,
    found: &[Endpoint],
    stop: &CancellationToken,
    mut start: impl FnMut(Endpoint, CancellationToken),
) {
    streams.retain(|worker, stop| {
        let is_there = found.contains(worker);
        if !is_there {
            stop.cancel();
        }
        is_there
    });
    for worker in found {
        if !streams.contains_key(worker) {
            let stop = stop.child_token();
            streams.insert(worker.clone(), stop.clone());
            start(worker.clone(), stop);
        }
    }
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
    let worker = Worker::new(endpoint.revision.clone(), interfaces, super::http::CREDIT, transport);
    host.add(&worker);
    stop.cancelled().await;
    host.remove(&worker, WorkerDrop::Removed);
}

async fn keep_stream(
    host: Arc<Host>,
    endpoint: Endpoint,
    functions: Vec<FunctionName>,
    stop: CancellationToken,
    lost: Arc<Notify>,
) {
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
                host.note_problem(&endpoint, &functions, ended.problem(), &text);
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
        lost.notify_one();
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
    run_link(host, (endpoint, functions), frames, incoming, stop).await
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
    (endpoint, functions): (&Endpoint, &[FunctionName]),
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
    let first = first.map_err(|_| Ended::Refused(Refusal::other("it did not say welcome in time")))?;
    let (welcome, rest) = split_welcome(first)?;
    let (sdk, credit, follows) = (welcome.sdk.clone(), welcome.credit.max(1), welcome.follows);
    let interfaces = welcome::check(&host.topology(), functions, welcome).map_err(Ended::Refused)?;
    host.check_states(&interfaces).map_err(Ended::Refused)?;
    let link = Link::new(frames, follows);
    let worker = Worker::new(endpoint.revision.clone(), interfaces, credit, Transport::Link(Arc::clone(&link)));
    info!(sdk, credit, functions = functions.len(), "worker connected");
    host.add(&worker);
    let reading = read(host, &link, &worker, rest, incoming);
    tokio::pin!(reading);
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        ended = &mut reading => Err(ended),
    };
    let (reason, text) = match &ended {
        Ok(()) => (WorkerDrop::Removed, "the worker was removed".to_owned()),
        Err(ended) => (ended.reason(), ended.to_string()),
    };
    host.remove(&worker, reason);
    if ended.is_ok() {
        // Nothing new goes to it; what runs there may end, unless the runtime itself stops.
        let drained = timeout(DRAIN_TIME_MAX, until_idle(host, &worker));
        tokio::select! {
            biased;
            () = host.stop.cancelled() => {}
            _ = drained => {}
            _ = &mut reading => {}
        }
    }
    link.close(&text);
    ended
}

async fn until_idle(host: &Host, worker: &Worker) {
    loop {
        let changed = host.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if worker.busy() == 0 {
            return;
        }
        changed.await;
    }
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
        Some(Err(status)) => return Err(Ended::Refused(Refusal::other(status.message()))),
        None => return Err(Ended::Refused(Refusal::other("it closed the stream without a welcome"))),
    };
    let mut frames = message.frames.into_iter();
    match frames.next().and_then(|frame| frame.frame) {
        Some(wire::worker_frame::Frame::Welcome(welcome)) => Ok((welcome, frames.collect())),
        Some(_) | None => Err(Ended::Refused(Refusal::other("its first frame is not a welcome"))),
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
