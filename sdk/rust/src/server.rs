//! Serves functions: the gRPC endpoint that the runtime dials.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use tandem_proto::MESSAGE_BYTES_MAX;
use tandem_proto::function::v1alpha1 as proto;
use tandem_proto::function::v1alpha1::function_service_server::{FunctionService, FunctionServiceServer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::function::{Descriptor, Functions, Handler};
use crate::state::FieldSpec;

/// Where [`serve`] listens, unless this environment variable says otherwise.
pub const ADDRESS_VARIABLE: &str = "TANDEM_WORKER_ADDRESS";
/// Where [`serve`] listens by default.
pub const ADDRESS: &str = "0.0.0.0:9090";
/// Requests that one runtime may have open on one connection, by default; the calls that they make come on top.
pub const CREDIT: u32 = 256;
/// How long a server that stops lets running invocations end, by default.
pub const DRAIN: Duration = Duration::from_secs(5);

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that a runtime may send before it hears that they were taken: room for some large payloads.
const WINDOW_BYTES: u32 = 4 << 20;

/// Serves one function, or a tuple of up to twelve, until the process is told to stop (SIGTERM or ctrl-c).
///
/// Listens on [`ADDRESS`], or where the environment variable [`ADDRESS_VARIABLE`] says. On SIGTERM, invocations that
/// run may end within [`DRAIN`]; what does not is run again on another worker.
pub async fn serve<F: Functions>(_functions: F) -> Result<()> {
    let address = std::env::var(ADDRESS_VARIABLE).unwrap_or_else(|_| ADDRESS.to_owned());
    let listener = TcpListener::bind(&address).await;
    let listener = listener.map_err(|error| Error::from(error).context(format!("failed to listen on {address}")))?;
    Server::of(F::descriptors()).bind(listener)?.run_until(told_to_stop()).await
}

/// A server that can be configured and put on a listener of its own, for tests and unusual mains.
#[derive(Debug)]
pub struct Server {
    descriptors: Vec<Descriptor>,
    credit: u32,
    drain: Duration,
}

impl Server {
    /// A server of one function, or of a tuple of up to twelve.
    pub fn new<F: Functions>(_functions: F) -> Self {
        Self::of(F::descriptors())
    }

    fn of(descriptors: Vec<Descriptor>) -> Self {
        Self { descriptors, credit: CREDIT, drain: DRAIN }
    }

    /// Requests that one runtime may have open on one connection; [`CREDIT`] by default, at least 1. The calls that they
    /// make come on top.
    #[must_use]
    pub fn credit(mut self, requests: u32) -> Self {
        self.credit = requests.max(1);
        self
    }

    /// How long running invocations may take when the server stops; [`DRAIN`] by default.
    #[must_use]
    pub fn drain(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }

    /// Serves one stream that something else carries than a listener of this server: a simulation, say. Fails if two
    /// functions have the same name.
    ///
    /// What it gives is what the worker says; it has to be polled for anything to happen, and dropping it ends all
    /// invocations. It needs the context of a tokio runtime.
    #[doc(hidden)]
    pub fn attach<I>(&self, incoming: I) -> Result<BoxStream<'static, Result<proto::AttachResponse, Status>>>
    where
        I: Stream<Item = Result<proto::AttachRequest, Status>> + Send + Unpin + 'static,
    {
        let registry = Arc::new(Registry::new(self.descriptors.clone(), self.credit)?);
        let stopping = CancellationToken::new().cancelled_owned();
        Ok(Connection::new(registry, incoming, stopping, self.drain).boxed())
    }

    /// Takes the listener. Fails if two functions have the same name.
    pub fn bind(self, listener: TcpListener) -> Result<BoundServer> {
        let address = listener.local_addr()?;
        let registry = Arc::new(Registry::new(self.descriptors, self.credit)?);
        let stopping = CancellationToken::new();
        let worker = Worker { registry, stopping, drain: self.drain };
        Ok(BoundServer { worker, listener, address })
    }
}

/// A server that has its listener: connections are accepted once it runs.
#[derive(Debug)]
pub struct BoundServer {
    worker: Worker,
    listener: TcpListener,
    address: SocketAddr,
}

impl BoundServer {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is ready and running invocations have ended, or have had their time.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<()> {
        let Self { worker, listener, address } = self;
        let names: Vec<&str> = worker.registry.descriptors.iter().map(|descriptor| descriptor.name).collect();
        tracing::info!(%address, functions = names.join(", "), "serving");
        let stopping = worker.stopping.clone();
        let service = FunctionServiceServer::new(worker)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let stopped = async {
            stop.await;
            stopping.cancel();
        };
        tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .add_service(service)
            .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), stopped)
            .await?;
        tracing::info!(%address, "stopped");
        Ok(())
    }
}

/// Ready when the process is told to end.
async fn told_to_stop() {
    let interrupted = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::warn!(%error, "ctrl-c is not heard");
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminated) => {
                tokio::select! {
                    biased;
                    () = interrupted => {}
                    _ = terminated.recv() => {}
                }
                return;
            }
            Err(error) => tracing::warn!(%error, "SIGTERM is not heard"),
        }
    }
    interrupted.await;
}

/// The functions of a server, by name.
#[derive(Debug)]
pub(crate) struct Registry {
    descriptors: Vec<Descriptor>,
    functions: HashMap<&'static str, HandlersOf>,
    credit: u32,
}

#[derive(Debug)]
struct HandlersOf {
    handlers: HashMap<&'static str, &'static Handler>,
    fields: &'static [FieldSpec],
}

impl Registry {
    fn new(descriptors: Vec<Descriptor>, credit: u32) -> Result<Self> {
        let mut functions = HashMap::new();
        for descriptor in &descriptors {
            let handlers = descriptor.handlers.iter().map(|handler| (handler.name, handler)).collect();
            match functions.entry(descriptor.name) {
                Entry::Vacant(vacant) => vacant.insert(HandlersOf { handlers, fields: descriptor.fields }),
                Entry::Occupied(_) => {
                    return Err(Error::fatal(format!("two functions are called {:?}", descriptor.name)));
                }
            };
        }
        Ok(Self { descriptors, functions, credit })
    }

    pub(crate) fn infos(&self) -> Vec<proto::FunctionInfo> {
        self.descriptors.iter().map(Descriptor::info).collect()
    }

    pub(crate) fn credit(&self) -> u32 {
        self.credit
    }

    /// The handler, or what is wrong with the names.
    pub(crate) fn find(
        &self,
        function: &str,
        handler: &str,
    ) -> Result<(&'static Handler, &'static [FieldSpec]), String> {
        let Some(found) = self.functions.get(function) else {
            let mut known: Vec<&str> = self.functions.keys().copied().collect();
            known.sort_unstable();
            return Err(format!("this worker has no function {function:?}; it has {}", known.join(", ")));
        };
        let Some(found_handler) = found.handlers.get(handler).copied() else {
            let mut known: Vec<&str> = found.handlers.keys().copied().collect();
            known.sort_unstable();
            return Err(format!("function {function} has no handler {handler:?}; it has {}", known.join(", ")));
        };
        Ok((found_handler, found.fields))
    }
}

#[derive(Debug)]
struct Worker {
    registry: Arc<Registry>,
    stopping: CancellationToken,
    drain: Duration,
}

#[tonic::async_trait]
impl FunctionService for Worker {
    type AttachStream = Connection<Streaming<proto::AttachRequest>>;

    async fn attach(
        &self,
        request: Request<Streaming<proto::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let stopping = self.stopping.clone().cancelled_owned();
        Ok(Response::new(Connection::new(self.registry.clone(), request.into_inner(), stopping, self.drain)))
    }
}
