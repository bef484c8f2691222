//! Simulated links to workers. At the other end is the real SDK with the functions of [`crate::program`].
//!
//! A link carries messages in order, each after a while. It can be cut, as when a worker dies; frozen, as when one
//! hangs, until the runtime would notice; and something can be put on it that breaks the protocol.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tandem::Server;
use tandem_model::topology::Endpoint;
use tandem_proto::function::v1alpha1 as wire;
use tandem_runtime::dial::{Dial, Incoming, Outgoing};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::plan::{Plan, Trouble, url};
use super::trace::Trace;
use crate::program::functions::{Leaf, Node};

/// Messages under way on one link in one direction.
const QUEUED_MAX: usize = 64;
/// A frozen worker is found out by the runtime after this long.
const NOTICED_AFTER: Duration = Duration::from_secs(10);
/// An invocation that no runtime has begun.
const NO_INVOCATION: u64 = u64::MAX;

/// All workers of a life. Clones are the same.
#[derive(Clone)]
pub struct Workers(Arc<Inner>);

struct Inner {
    trace: Trace,
    server: Server,
    latency_ms_max: u64,
    state: Mutex<State>,
}

struct State {
    random: SmallRng,
    calm: bool,
    workers: Vec<Worker>,
}

#[derive(Default)]
struct Worker {
    down_until: Option<Instant>,
    frozen_until: Option<Instant>,
    links: Vec<Controls>,
}

#[derive(Clone)]
struct Controls {
    cut: CancellationToken,
    nonsense: mpsc::UnboundedSender<wire::AttachResponse>,
}

/// One end of a link, that messages go through.
struct Gate {
    workers: Workers,
    number: usize,
    random: SmallRng,
    cut: CancellationToken,
}

impl Workers {
    /// The workers of a plan.
    pub(crate) fn new(plan: &Plan, trace: &Trace, seed: u64) -> Self {
        let workers = (0..plan.workers).map(|_| Worker::default()).collect();
        let state = State { random: SmallRng::seed_from_u64(seed), calm: false, workers };
        let server = Server::new((Node, Leaf));
        let (trace, latency_ms_max) = (trace.clone(), plan.latency_ms_max);
        Self(Arc::new(Inner { trace, server, latency_ms_max, state: Mutex::new(state) }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything works from now on.
    pub(crate) fn calm(&self) {
        let mut state = self.lock();
        state.calm = true;
        for worker in &mut state.workers {
            worker.down_until = None;
            worker.frozen_until = None;
        }
    }

    /// Lets the trouble of a plan happen, as far as it lies ahead. Never returns.
    pub(crate) async fn trouble(&self, plan: &Plan, base_ms: u64, mut random: SmallRng) -> Infallible {
        let began = Instant::now();
        let mut ahead: Vec<_> = plan.trouble.iter().filter(|(at_ms, ..)| *at_ms >= base_ms).collect();
        ahead.sort_by_key(|(at_ms, number, _)| (*at_ms, *number));
        for (at_ms, number, trouble) in ahead {
            sleep_until(began + Duration::from_millis(at_ms - base_ms)).await;
            self.happens(*number, *trouble, &mut random);
        }
        std::future::pending().await
    }

    fn happens(&self, number: usize, trouble: Trouble, random: &mut SmallRng) {
        let trace = &self.0.trace;
        let what = format!("worker {number}: {trouble:?}");
        let mut state = self.lock();
        if state.calm {
            return;
        }
        let worker = &mut state.workers[number];
        worker.links.retain(|link| !link.cut.is_cancelled());
        match trouble {
            Trouble::Dies(ms) => {
                worker.down_until = Some(Instant::now() + Duration::from_millis(ms));
                for link in worker.links.drain(..) {
                    link.cut.cancel();
                }
                trace.tick("worker-died", &what);
            }
            Trouble::Freezes(ms) => {
                let frozen = Duration::from_millis(ms);
                worker.frozen_until = Some(Instant::now() + frozen);
                if frozen > NOTICED_AFTER {
                    let links = std::mem::take(&mut worker.links);
                    tokio::spawn(async move {
                        sleep(NOTICED_AFTER).await;
                        for link in links {
                            link.cut.cancel();
                        }
                    });
                }
                trace.tick("worker-froze", &what);
            }
            Trouble::TalksNonsense(which) => {
                for link in &worker.links {
                    // A link that has ended hears nothing.
                    let _ = link.nonsense.send(nonsense(which, random));
                    trace.tick("worker-nonsense", &what);
                }
            }
        }
    }

    fn gate(&self, number: usize, cut: &CancellationToken) -> Gate {
        let random = SmallRng::from_rng(&mut self.lock().random);
        Gate { workers: self.clone(), number, random, cut: cut.clone() }
    }

    async fn open(self, number: usize, outgoing: Outgoing) -> Result<Incoming, String> {
        let mut gate = self.gate(number, &CancellationToken::new());
        gate.pass().await;
        let now = Instant::now();
        if self.lock().workers[number].down_until.is_some_and(|until| until > now) {
            self.0.trace.tick("dial-refused", &format!("worker {number}"));
            return Err("connection refused".to_owned());
        }
        self.0.trace.tick("dialled", &format!("worker {number}"));
        let (cut, (nonsense, talked)) = (CancellationToken::new(), mpsc::unbounded_channel());
        self.lock().workers[number].links.push(Controls { cut: cut.clone(), nonsense });
        let (to_worker, at_worker) = mpsc::channel(QUEUED_MAX);
        let (to_runtime, at_runtime) = mpsc::channel(QUEUED_MAX);
        let worker = self.0.server.attach(ReceiverStream::new(at_worker)).map_err(|error| error.to_string())?;
        tokio::spawn(self.gate(number, &cut).down(outgoing, to_worker));
        tokio::spawn(self.gate(number, &cut).up(worker, talked, to_runtime));
        Ok(ReceiverStream::new(at_runtime).boxed())
    }
}

impl Dial for Workers {
    fn attach(&self, endpoint: &Endpoint, outgoing: Outgoing) -> BoxFuture<'static, Result<Incoming, String>> {
        let count = self.lock().workers.len();
        match (0..count).find(|number| url(*number) == endpoint.url) {
            Some(number) => self.clone().open(number, outgoing).boxed(),
            None => std::future::ready(Err("no such worker".to_owned())).boxed(),
        }
    }
}

impl Gate {
    /// A message travels: it takes a while, and longer while the worker is frozen.
    async fn pass(&mut self) {
        let latency_ms_max = self.workers.0.latency_ms_max;
        if latency_ms_max > 0 {
            sleep(Duration::from_millis(self.random.random_range(0..=latency_ms_max))).await;
        }
        loop {
            let frozen_until = self.workers.lock().workers[self.number].frozen_until;
            match frozen_until.filter(|until| *until > Instant::now()) {
                // It may be over sooner.
                Some(until) => sleep_until(until.min(Instant::now() + Duration::from_millis(100))).await,
                None => return,
            }
        }
    }

    /// From the runtime to the worker.
    async fn down(mut self, mut outgoing: Outgoing, to_worker: mpsc::Sender<Result<wire::AttachRequest, Status>>) {
        let cut = self.cut.clone();
        let carry = async {
            while let Some(message) = outgoing.next().await {
                self.pass().await;
                self.workers.0.trace.note(&format!("worker {} hears {} frames", self.number, message.frames.len()));
                if to_worker.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = cut.cancelled() => {}
            () = carry => {}
        }
    }

    /// From the worker to the runtime.
    async fn up(
        mut self,
        mut worker: BoxStream<'static, Result<wire::AttachResponse, Status>>,
        mut talked: mpsc::UnboundedReceiver<wire::AttachResponse>,
        to_runtime: mpsc::Sender<Result<wire::AttachResponse, Status>>,
    ) {
        let cut = self.cut.clone();
        loop {
            let message = tokio::select! {
                biased;
                () = cut.cancelled() => Some(Err(Status::unavailable("connection reset"))),
                () = to_runtime.closed() => None,
                Some(nonsense) = talked.recv() => Some(Ok(nonsense)),
                message = worker.next() => message,
            };
            let Some(message) = message else { break };
            let is_last = message.is_err();
            if !cut.is_cancelled() {
                tokio::select! {
                    biased;
                    () = cut.cancelled() => {}
                    () = self.pass() => {}
                }
            }
            let frames = message.as_ref().map_or(0, |message| message.frames.len());
            self.workers.0.trace.note(&format!("worker {} says {frames} frames", self.number));
            if to_runtime.send(message).await.is_err() || is_last {
                break;
            }
        }
        cut.cancel();
    }
}

/// Something that breaks the protocol.
fn nonsense(which: u8, random: &mut SmallRng) -> wire::AttachResponse {
    use wire::worker_frame::Frame;

    let frame = match which {
        0 => Some(Frame::Finished(wire::Finished { invocation_id: NO_INVOCATION, ..wire::Finished::default() })),
        1 => None,
        2 => Some(Frame::Welcome(wire::Welcome::default())),
        _ => {
            let call_id = random.random_range(0..9);
            Some(Frame::Call(wire::Call { invocation_id: NO_INVOCATION, call_id, ..wire::Call::default() }))
        }
    };
    wire::AttachResponse { frames: vec![wire::WorkerFrame { frame }] }
}
