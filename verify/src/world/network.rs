//! Simulated streams between the runtimes of a world: slow, cut, or parted for a while.
//!
//! At both ends are real runtimes. A stream carries messages in order, each after a while, until it is cut.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tandem_runtime::dial::{PeerDial, PeerIncoming, PeerOutgoing};
use tandem_runtime::peers;
use tandem_runtime::runtime::Runtime;
use tandem_store::Store;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::plan::{Parting, Plan};
use super::trace::Trace;

/// Messages under way on one stream in one direction.
const QUEUED_MAX: usize = 64;

/// All streams of a life. Clones are the same.
pub struct Network<S: Store>(Arc<Inner<S>>);

impl<S: Store> Clone for Network<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<S: Store> {
    trace: Trace,
    latency_ms_max: u64,
    state: Mutex<State<S>>,
}

struct State<S: Store> {
    random: SmallRng,
    calm: bool,
    runtimes: BTreeMap<usize, Runtime<S>>,
    /// Until when a runtime reaches nobody and nobody reaches it.
    parted: BTreeMap<usize, Instant>,
    streams: Vec<Stream>,
    /// What ends the runtime that has this number now.
    seats: BTreeMap<usize, CancellationToken>,
}

/// One stream, between two runtimes.
#[derive(Clone)]
struct Stream {
    ends: [usize; 2],
    cut: CancellationToken,
}

/// The network as one runtime sees it.
struct Seat<S: Store> {
    network: Network<S>,
    number: usize,
    gone: CancellationToken,
}

/// Where a runtime is reached.
pub fn address(number: usize) -> String {
    format!("sim://pod-{number}")
}

impl<S: Store> Network<S> {
    pub(crate) fn new(plan: &Plan, trace: &Trace, seed: u64) -> Self {
        let random = SmallRng::seed_from_u64(seed);
        let state = State {
            random,
            calm: false,
            runtimes: BTreeMap::new(),
            parted: BTreeMap::new(),
            streams: Vec::new(),
            seats: BTreeMap::new(),
        };
        Self(Arc::new(Inner { trace: trace.clone(), latency_ms_max: plan.latency_ms_max, state: Mutex::new(state) }))
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How a runtime reaches the others.
    pub(crate) fn of(&self, number: usize) -> Arc<dyn PeerDial> {
        let gone = CancellationToken::new();
        self.lock().seats.insert(number, gone.clone());
        Arc::new(Seat { network: self.clone(), number, gone })
    }

    /// A runtime can be reached from now on.
    pub(crate) fn add(&self, number: usize, runtime: Runtime<S>) {
        self.lock().runtimes.insert(number, runtime);
    }

    /// A runtime reaches nobody any more, and nobody reaches it.
    pub(crate) fn kill(&self, number: usize) {
        let mut state = self.lock();
        if let Some(gone) = state.seats.remove(&number) {
            gone.cancel();
        }
        let runtime = state.runtimes.remove(&number);
        state.streams.retain(|stream| {
            let is_cut = stream.ends.contains(&number);
            if is_cut {
                stream.cut.cancel();
            }
            !is_cut
        });
        drop(state);
        drop(runtime);
    }

    /// Nobody can be reached any more: the life is over.
    pub(crate) fn end(&self) {
        let runtimes = std::mem::take(&mut self.lock().runtimes);
        drop(runtimes);
    }

    /// Everything works from now on.
    pub(crate) fn calm(&self) {
        let mut state = self.lock();
        state.calm = true;
        state.parted.clear();
    }

    /// Lets the trouble of a plan happen, as far as it lies ahead. Never returns.
    pub(crate) async fn trouble(&self, plan: &Plan, base_ms: u64) -> Infallible {
        let began = Instant::now();
        let mut ahead: Vec<_> = plan.partings.iter().filter(|parting| parting.at_ms >= base_ms).collect();
        ahead.sort_by_key(|parting| (parting.at_ms, parting.pod));
        for parting in ahead {
            sleep_until(began + Duration::from_millis(parting.at_ms - base_ms)).await;
            self.part(*parting);
        }
        std::future::pending().await
    }

    fn part(&self, parting: Parting) {
        let mut state = self.lock();
        if state.calm {
            return;
        }
        if parting.for_ms > 0 {
            state.parted.insert(parting.pod, Instant::now() + Duration::from_millis(parting.for_ms));
        }
        let mut cuts = 0;
        state.streams.retain(|stream| {
            let is_cut = stream.ends.contains(&parting.pod);
            if is_cut {
                stream.cut.cancel();
                cuts += 1;
            }
            !is_cut
        });
        drop(state);
        let kind = if parting.for_ms > 0 { "peer-parted" } else { "peer-cut" };
        self.0.trace.tick(kind, &format!("pod {} loses {cuts} streams", parting.pod));
    }

    fn is_parted(&self, ends: [usize; 2]) -> bool {
        let (state, now) = (self.lock(), Instant::now());
        ends.iter().any(|end| state.parted.get(end).is_some_and(|until| *until > now))
    }

    async fn pass(&self, random: &mut SmallRng) {
        if self.0.latency_ms_max > 0 {
            sleep(Duration::from_millis(random.random_range(0..=self.0.latency_ms_max))).await;
        }
    }

    fn random(&self) -> SmallRng {
        SmallRng::from_rng(&mut self.lock().random)
    }

    async fn open(self, from: usize, address: String, outgoing: PeerOutgoing) -> Result<PeerIncoming, String> {
        let mut random = self.random();
        self.pass(&mut random).await;
        let found = {
            let state = self.lock();
            let mut known = state.runtimes.iter();
            known
                .find(|(number, _)| self::address(**number) == address)
                .map(|(number, runtime)| (*number, runtime.clone()))
        };
        let Some((to, runtime)) = found else { return Err("no such runtime".to_owned()) };
        if self.is_parted([from, to]) {
            self.0.trace.tick("peer-refused", &format!("pod {from} to {to}"));
            return Err("connection refused".to_owned());
        }
        self.0.trace.tick("peer-dialled", &format!("pod {from} to {to}"));
        let cut = CancellationToken::new();
        self.lock().streams.push(Stream { ends: [from, to], cut: cut.clone() });
        let (to_owner, at_owner) = mpsc::channel(QUEUED_MAX);
        let (to_caller, at_caller) = mpsc::channel(QUEUED_MAX);
        let answers = peers::accept(&runtime, ReceiverStream::new(at_owner).boxed());
        tokio::spawn(self.clone().carry(cut.clone(), outgoing.map(Ok).boxed(), to_owner));
        tokio::spawn(self.carry(cut, answers, to_caller));
        Ok(ReceiverStream::new(at_caller).boxed())
    }

    /// One direction of a stream. The end of one is the end of both.
    async fn carry<M: Send + 'static>(
        self,
        cut: CancellationToken,
        mut messages: BoxStream<'static, Result<M, Status>>,
        queue: mpsc::Sender<Result<M, Status>>,
    ) {
        let mut random = self.random();
        let carried = async {
            while let Some(message) = messages.next().await {
                self.pass(&mut random).await;
                if queue.send(message).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = cut.cancelled() => {}
            () = queue.closed() => {}
            () = carried => {}
        }
        if cut.is_cancelled() {
            // Whoever reads too slowly finds the end without a reason.
            let _ = queue.try_send(Err(Status::unavailable("connection reset")));
        }
        cut.cancel();
    }
}

impl<S: Store> PeerDial for Seat<S> {
    fn connect(&self, address: &str, outgoing: PeerOutgoing) -> BoxFuture<'static, Result<PeerIncoming, String>> {
        if self.gone.is_cancelled() {
            return async { Err("this runtime is gone".to_owned()) }.boxed();
        }
        self.network.clone().open(self.number, address.to_owned(), outgoing).boxed()
    }
}
