//! A network between a client and a server on loopback that delays, loses, holds and cuts.
//!
//! ```text
//! client ──▶ Proxy ──▶ server      bytes keep their order; a connection never has a gap
//!        ◀──       ◀──
//! ```
//!
//! It runs on a thread of its own, so that it goes on when the executor of a test is busy or gone.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener as Listener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::Error;

/// How much is read at once, and so counts as one packet.
const CHUNK_BYTES: usize = 16 * 1024;
/// Packets on their way in one direction of a connection.
const CHUNKS_MAX: usize = 1024;
/// By how much later a lost packet arrives: TCP sends it again.
const SENT_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Has no divisor in common with 100, so that lost packets are spread evenly.
const LOSS_STEP: u64 = 37;

/// Which of two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Requests.
    ToServer,
    /// Answers.
    ToClient,
}

/// What happens to packets of one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Road {
    delay: Duration,
    loss_percent: u64,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    Arrive,
    /// They arrive when the network is mended, as those that TCP sends again.
    Held,
    /// They never arrive, and neither end learns of it. Mending cuts the connections.
    Swallowed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Network {
    roads: [Road; 2],
    refuses: bool,
    /// Connections of another generation are cut.
    generation: u64,
}

impl Network {
    fn swallows(&self) -> bool {
        self.roads.iter().any(|road| road.fate == Fate::Swallowed)
    }
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    bytes: [AtomicU64; 2],
}

/// What has gone through a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Connections that clients opened, refused ones too.
    pub connections: u64,
    /// Bytes that arrived at the server.
    pub to_server: u64,
    /// Bytes that arrived at clients.
    pub to_client: u64,
}

/// Forwards connections for as long as it lives.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    network: Option<watch::Sender<Network>>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// In front of a server, at a free port.
    pub fn before(server: SocketAddr) -> Result<Self, Error> {
        Self::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), server)
    }

    /// In front of a server, at this address.
    pub fn listen(address: SocketAddr, server: SocketAddr) -> Result<Self, Error> {
        let failed = |what: &str| Error::io(format!("{what} {address}"));
        let listener = TcpListener::bind(address).map_err(failed("listen at"))?;
        listener.set_nonblocking(true).map_err(failed("listen at"))?;
        let address = listener.local_addr().map_err(failed("listen at"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed("start the proxy at"))?;
        let (network, watched) = watch::channel(Network::default());
        let counts = Arc::new(Counts::default());
        let counted = counts.clone();
        let thread = std::thread::Builder::new().name(format!("proxy-{}", address.port()));
        let run = move || {
            // Within the runtime: the listener joins its reactor.
            runtime.block_on(async {
                if let Ok(listener) = Listener::from_std(listener) {
                    serve(listener, server, watched, counted).await;
                }
            });
        };
        let thread = thread.spawn(run).map_err(failed("start the proxy at"))?;
        Ok(Self { address, network: Some(network), counts, thread: Some(thread) })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has gone through.
    pub fn passed(&self) -> Passed {
        Passed {
            connections: self.counts.connections.load(Ordering::Relaxed),
            to_server: self.counts.bytes[Way::ToServer as usize].load(Ordering::Relaxed),
            to_client: self.counts.bytes[Way::ToClient as usize].load(Ordering::Relaxed),
        }
    }

    /// Every packet arrives later, both ways.
    pub fn delay(&self, delay: Duration) {
        self.change(|network| network.roads.iter_mut().for_each(|road| road.delay = delay));
    }

    /// Every packet of one way arrives later.
    pub fn delay_way(&self, way: Way, delay: Duration) {
        self.change(|network| network.roads[way as usize].delay = delay);
    }

    /// So many of a hundred packets are lost, both ways, and sent again 200 ms later, with all behind them waiting.
    pub fn lose(&self, percent: u64) {
        self.change(|network| network.roads.iter_mut().for_each(|road| road.loss_percent = percent));
    }

    /// A partition: nothing arrives until [`Proxy::mend`], then all of it does. Neither end learns of it. New connections
    /// open and hear nothing.
    pub fn hold(&self) {
        self.change(|network| network.roads.iter_mut().for_each(|road| road.fate = Fate::Held));
    }

    /// A partition of one way.
    pub fn hold_way(&self, way: Way) {
        self.change(|network| network.roads[way as usize].fate = Fate::Held);
    }

    /// What goes this way is lost for good, and neither end learns of it until [`Proxy::mend`] cuts the connections.
    pub fn swallow_way(&self, way: Way) {
        self.change(|network| network.roads[way as usize].fate = Fate::Swallowed);
    }

    /// Cuts all connections; new ones are closed at once.
    pub fn refuse(&self) {
        self.change(|network| {
            network.refuses = true;
            network.generation += 1;
        });
    }

    /// Cuts all connections. New ones work.
    pub fn cut(&self) {
        self.change(|network| network.generation += 1);
    }

    /// Ends all of this.
    pub fn mend(&self) {
        self.change(|network| {
            let cut = u64::from(network.swallows());
            *network = Network { generation: network.generation + cut, ..Network::default() };
        });
    }

    fn change(&self, change: impl FnOnce(&mut Network)) {
        if let Some(network) = &self.network {
            network.send_modify(change);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Without a sender, the thread ends.
        drop(self.network.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Watched = watch::Receiver<Network>;

async fn serve(listener: Listener, server: SocketAddr, watched: Watched, counts: Arc<Counts>) {
    let mut ended = watched.clone();
    let accept = async {
        loop {
            let Ok((client, _)) = listener.accept().await else { continue };
            counts.connections.fetch_add(1, Ordering::Relaxed);
            if !watched.borrow().refuses {
                tokio::spawn(connection(client, server, watched.clone(), counts.clone()));
            }
        }
    };
    tokio::select! {
        () = accept => {}
        _ = ended.wait_for(|_| false) => {}
    }
}

async fn connection(client: TcpStream, server: SocketAddr, watched: Watched, counts: Arc<Counts>) {
    let generation = watched.borrow().generation;
    let Ok(server) = TcpStream::connect(server).await else { return };
    // Packets are delayed by us alone.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut cut = watched.clone();
    let requests = road(from_client, to_server, Way::ToServer, &watched, &counts);
    let answers = road(from_server, to_client, Way::ToClient, &watched, &counts);
    tokio::select! {
        _ = cut.wait_for(|network| network.generation != generation) => {}
        _ = async { tokio::join!(requests, answers) } => {}
    }
}

/// One way of one connection. Reading goes on while packets are under way, so that a delay does not narrow the road.
async fn road(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: Way, watched: &Watched, counts: &Counts) {
    let (packets, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let read = async move {
        let mut number = 0_u64;
        loop {
            let mut packet = vec![0; CHUNK_BYTES];
            let Ok(length @ 1..) = from.read(&mut packet).await else { return };
            packet.truncate(length);
            let road = watched.borrow().roads[way as usize];
            number += 1;
            let lost = (number * LOSS_STEP) % 100 < road.loss_percent;
            let due = Instant::now() + road.delay + if lost { SENT_AGAIN_AFTER } else { Duration::ZERO };
            if packets.send((due, packet)).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        let mut watched = watched.clone();
        while let Some((due, packet)) = under_way.recv().await {
            sleep_until(due).await;
            let fate = |network: &Network| network.roads[way as usize].fate;
            let Ok(network) = watched.wait_for(|network| fate(network) != Fate::Held).await.map(|network| *network)
            else {
                return;
            };
            if fate(&network) == Fate::Swallowed {
                continue;
            }
            if to.write_all(&packet).await.is_err() {
                return;
            }
            counts.bytes[way as usize].fetch_add(packet.len() as u64, Ordering::Relaxed);
        }
        // The other end hears that this one has said all; it may go on itself.
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}
