//! A worker with the functions of the workload, and runtimes on one store that know it, all in this process.

use std::net::SocketAddr;
use std::time::Duration;

use tandem::Server;
use tandem_model::ids::{FunctionName, InvalidName};
use tandem_model::topology::{Endpoint, Function, Protocol, Topology};
use tandem_runtime::peers::PeerOptions;
use tandem_runtime::runtime::{Options, Runtime};
use tandem_store::Store;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::functions;

/// How long the worker may take to be connected.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(20);
/// How often it is looked at until then.
const POLL: Duration = Duration::from_millis(2);
const FUNCTIONS: [&str; 3] = ["session", "list", "log"];
const LOOPBACK: &str = "127.0.0.1:0";

/// Runtimes that are there until this is dropped.
pub struct Site<S: Store> {
    /// All on the same store.
    pub runtimes: Vec<Runtime<S>>,
    _stop: oneshot::Sender<()>,
}

/// Why there is no site.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The worker cannot listen.
    #[error("the worker cannot be started")]
    Worker(#[from] std::io::Error),
    /// A name is none.
    #[error("a function has no name")]
    Name(#[from] InvalidName),
    /// The functions make no sense together.
    #[error("the functions cannot be served: {0}")]
    Functions(String),
    /// The store cannot be used.
    #[error("a runtime cannot be started")]
    Store(#[from] tandem_store::Error),
    /// Nobody was connected in time.
    #[error("the worker is not connected after {CONNECT_TIME_MAX:?}")]
    NotConnected,
}

impl<S: Store> Site<S> {
    /// One runtime, with the worker connected to it.
    pub async fn start(store: S) -> Result<Self, Error> {
        Self::with(vec![store], || None).await
    }

    /// A runtime on each of these handles to one store. They cannot reach each other: each runs whatever it is asked.
    pub async fn start_each(stores: Vec<S>) -> Result<Self, Error> {
        Self::with(stores, || Some(PeerOptions::unreachable())).await
    }

    async fn with(stores: Vec<S>, peers: fn() -> Option<PeerOptions>) -> Result<Self, Error> {
        let listener = TcpListener::bind(LOOPBACK).await?;
        let server = Server::new(functions::all()).drain(Duration::ZERO);
        let server = server.bind(listener).map_err(|error| Error::Functions(error.to_string()))?;
        let topology = topology(server.address())?;
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(server.run_until(async {
            let _dropped = stopped.await;
        }));
        let mut site = Self { runtimes: Vec::new(), _stop: stop };
        for store in stores {
            let options = Options { peers: peers(), ..Options::default() };
            let runtime = Runtime::start(options, store, topology.clone()).await?;
            let connected = async {
                while !runtime.has_workers() {
                    sleep(POLL).await;
                }
            };
            timeout(CONNECT_TIME_MAX, connected).await.map_err(|_| Error::NotConnected)?;
            site.runtimes.push(runtime);
        }
        Ok(site)
    }

    /// Ends everything, and waits for it. Dropped without it, a site lives as long as what it runs in.
    pub async fn stop(self) {
        for runtime in &self.runtimes {
            runtime.shut_down(Duration::ZERO).await;
        }
    }
}

fn topology(worker: SocketAddr) -> Result<Topology, InvalidName> {
    let workers = vec![Endpoint::new(format!("http://{worker}"), Protocol::Grpc)];
    let function = Function { workers, ..Function::default() };
    let named = FUNCTIONS.map(|name| Ok((name.parse::<FunctionName>()?, function.clone())));
    Ok(Topology {
        format: Topology::FORMAT,
        retention_ms: Topology::RETENTION_MS,
        functions: named.into_iter().collect::<Result<_, InvalidName>>()?,
        ..Topology::default()
    })
}
