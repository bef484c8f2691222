//! Connections to stores and PD.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::lanes::{self, Command, Lane};
use super::wire::tikvpb::tikv_client::TikvClient;
use crate::cluster::Failure;

/// Establishing a connection takes no longer.
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// A connection that nothing comes from is asked for a sign of life after this time.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// And is given up without one after this time.
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(3);

/// What may come on one stream before it is taken: answers of many requests share one.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Certificates, read and checked.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Certificates {
    pub(crate) authority: Vec<u8>,
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

/// Opens connections. Clones use the same certificates.
#[derive(Clone)]
pub(crate) struct Dialer(Arc<Mutex<Option<Certificates>>>);

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

impl Dialer {
    pub(crate) fn new(certificates: Option<Certificates>) -> Self {
        Self(Arc::new(Mutex::new(certificates)))
    }

    /// What connections are opened with from now on. `false` if it is what was there.
    pub(crate) fn replace(&self, certificates: Certificates) -> bool {
        let mut current = self.lock();
        let other = current.as_ref() != Some(&certificates);
        *current = Some(certificates);
        other
    }

    fn lock(&self) -> MutexGuard<'_, Option<Certificates>> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects to `host:port`, perhaps with a scheme before it, which is ignored: ours is what the options say.
    pub(crate) async fn dial(&self, address: &str) -> Result<Channel, Failure> {
        let unreachable =
            |error: tonic::transport::Error| Failure::Unreachable(format!("{address}: {}", causes(&error)));
        let host = address.split_once("://").map_or(address, |(_, host)| host).trim_end_matches('/');
        let certificates = self.lock().clone();
        let scheme = if certificates.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{host}")).map_err(unreachable)?;
        let mut endpoint = endpoint
            .connect_timeout(CONNECT_TIME)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_ANSWER);
        if let Some(certificates) = &certificates {
            let tls = ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(&certificates.authority))
                .identity(Identity::from_pem(&certificates.certificate, &certificates.key));
            endpoint = endpoint.tls_config(tls).map_err(unreachable)?;
        }
        let late = |_| Err(Failure::Unreachable(format!("{address}: no connection in time")));
        let connect = async { endpoint.connect().await.map_err(unreachable) };
        tokio::time::timeout(CONNECT_TIME, connect).await.unwrap_or_else(late)
    }
}

/// Waits for an answer, but not for ever. Who is not answered in time learns of it as of any other failure, and gives
/// up the connection: whoever is behind it may be frozen.
pub(crate) async fn within<T>(
    time: Duration,
    answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<tonic::Response<T>, tonic::Status> {
    let late = |_| Err(tonic::Status::deadline_exceeded("no answer in time"));
    tokio::time::timeout(time, answer).await.unwrap_or_else(late)
}

/// An error with all its causes: the outermost alone says "transport error".
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        cause = next.source();
    }
    text
}

/// A connection to a store, and the stream on it, if the store takes one.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    client: TikvClient<Channel>,
    lane: Option<Lane>,
}

impl Connection {
    /// Asks a request, in the stream if there is one.
    pub(crate) async fn ask<C: Command>(&self, command: C) -> Result<tonic::Response<C::Answer>, tonic::Status> {
        match &self.lane {
            Some(lane) => lane.ask(command).await,
            // Boxed, since it is rare and its future is large.
            None => Box::pin(command.single(self.client.clone())).await,
        }
    }

    /// Whether an error says that the store takes no stream, and that the request had no effect therefore.
    pub(crate) fn is_not_served(&self, status: &tonic::Status) -> bool {
        self.lane.is_some() && lanes::is_not_served(status)
    }
}

/// The connections to stores that are open.
#[derive(Debug)]
pub(crate) struct Stores {
    dialer: Dialer,
    known: Mutex<Known>,
    message_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Known {
    open: HashMap<u64, Connection>,
    /// Stores that take single requests only.
    single: HashSet<u64>,
}

impl Stores {
    pub(crate) fn new(dialer: Dialer, message_bytes_max: usize) -> Self {
        Self { dialer, known: Mutex::default(), message_bytes_max }
    }

    /// The connection to a store, if there is one.
    pub(crate) fn open(&self, store: u64) -> Option<Connection> {
        self.lock().open.get(&store).cloned()
    }

    /// Connects to a store. Of two who do so at once, the later one replaces the connection of the other, which ends
    /// with its last request.
    pub(crate) async fn connect(&self, store: u64, address: &str) -> Result<Connection, Failure> {
        let channel = self.dialer.dial(address).await?;
        let client = TikvClient::new(channel)
            .max_decoding_message_size(self.message_bytes_max)
            .max_encoding_message_size(self.message_bytes_max);
        let mut known = self.lock();
        let lane = (!known.single.contains(&store)).then(|| Lane::open(client.clone()));
        let connection = Connection { client, lane };
        known.open.insert(store, connection.clone());
        Ok(connection)
    }

    /// From now on, requests to this store are single ones.
    pub(crate) fn only_single(&self, store: u64) {
        let mut known = self.lock();
        known.single.insert(store);
        known.open.remove(&store);
    }

    /// Gives a connection up: its store was not reached, or may be elsewhere now.
    pub(crate) fn close(&self, store: u64) {
        self.lock().open.remove(&store);
    }

    /// Gives all connections up.
    pub(crate) fn close_all(&self) {
        self.lock().open.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while it is locked.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
