//! The runtime, and the ports through which it is reached.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use tandem_model::topology::Topology;
use tandem_runtime::admin;
use tandem_runtime::ingress::{self, server};
use tandem_runtime::runtime::{Options, Runtime};
use tandem_store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::files;

/// How often it is looked whether workers are connected.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Why a port cannot be had, or nothing be served on it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else has it.
    #[error("{address} is in use by another process; choose another address with {option}")]
    InUse {
        /// What was asked for.
        address: SocketAddr,
        /// What says so.
        option: &'static str,
    },
    /// It cannot be listened on.
    #[error("failed to listen on {address} ({option})")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// What says so.
        option: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store refuses to begin.
    #[error("failed to start the runtime")]
    Start(#[from] tandem_store::Error),
}

/// A port that is ours.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

impl Port {
    /// Takes a port; `option` is how its user names it.
    pub async fn bind(address: SocketAddr, option: &'static str) -> Result<Self, Error> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => Error::InUse { address, option },
            _ => Error::Listen { address, option, source },
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it is, with a port of 0 replaced by the one that was free.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Another handle to the same port, for whoever answers on it before there is anything to serve.
    pub(crate) fn share(&self) -> io::Result<TcpListener> {
        // What tokio has made does not block, and neither does its copy.
        let shared = std::os::fd::AsFd::as_fd(&self.listener).try_clone_to_owned()?;
        TcpListener::from_std(shared.into())
    }

    /// For whoever serves on it.
    pub fn into_listener(self) -> TcpListener {
        self.listener
    }
}

/// The two ports, taken before anything else is started, so that a port in use costs nothing.
#[derive(Debug)]
pub struct Listeners {
    /// For requests.
    pub http: Port,
    /// For people and tools.
    pub admin: Port,
}

/// A runtime that takes requests.
pub struct Serving<S: Store> {
    runtime: Runtime<S>,
    http: SocketAddr,
    admin: SocketAddr,
    shutdown: CancellationToken,
    servers: TaskTracker,
}

impl<S: Store> Serving<S> {
    /// Starts the runtime and serves both ports.
    pub async fn start(options: Options, store: S, topology: Topology, listeners: Listeners) -> Result<Self, Error> {
        Self::start_with(options, store, topology, listeners, |_| Router::new()).await
    }

    /// The same; `more` has further pages for the admin port.
    pub async fn start_with(
        options: Options,
        store: S,
        topology: Topology,
        listeners: Listeners,
        more: impl FnOnce(&Runtime<S>) -> Router,
    ) -> Result<Self, Error> {
        let metrics = options.metrics.clone();
        let runtime = Runtime::start(options, store, topology).await?;
        let (http, admin) = (listeners.http.address, listeners.admin.address);
        let (shutdown, servers) = (CancellationToken::new(), TaskTracker::new());
        let ways_in = [
            (listeners.http.listener, ingress::router(runtime.clone(), metrics.clone())),
            (listeners.admin.listener, admin::router(runtime.clone(), metrics).merge(more(&runtime))),
        ];
        for (listener, router) in ways_in {
            let shutdown = shutdown.clone();
            servers.spawn(async move {
                if let Err(error) = server::serve(listener, router, shutdown).await {
                    tracing::error!(%error, "server ended");
                }
            });
        }
        servers.close();
        Ok(Self { runtime, http, admin, shutdown, servers })
    }

    /// The runtime.
    pub fn runtime(&self) -> &Runtime<S> {
        &self.runtime
    }

    /// Where requests come in.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where people and tools ask.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Returns when every function has a worker, or `within` has passed; whether they all have.
    pub async fn has_workers(&self, within: Duration) -> bool {
        let looked = async {
            while !self.runtime.has_workers() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(within, looked).await.is_ok()
    }

    /// Stops taking requests, lets flows end for up to `grace`, and closes both ports.
    pub async fn stop(&self, grace: Duration) {
        self.shutdown.cancel();
        tokio::join!(self.runtime.shut_down(grace), self.servers.wait());
    }

    /// Writes where we listen, for scripts that wait for it.
    pub fn write_ready_file(&self, path: &Path) -> io::Result<()> {
        let (http, admin) = (format!("http://{}", self.http), format!("http://{}", self.admin));
        files::write(path, serde_json::json!({ "http": http, "admin": admin }).to_string().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn port_in_use_is_said_with_what_to_do() {
        let taken = Port::bind("127.0.0.1:0".parse().unwrap(), "--http").await.unwrap();
        let Err(error) = Port::bind(taken.address(), "--http").await else { panic!("bound twice") };
        let expected = format!("{} is in use by another process; choose another address with --http", taken.address());
        assert_eq!(error.to_string(), expected);
    }
}
