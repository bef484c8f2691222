//! Connections to stores and PD.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::wire::tikvpb::tikv_client::TikvClient;
use crate::cluster::Failure;

/// Establishing a connection takes no longer.
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// A connection that nothing comes from is asked for a sign of life after this time.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// And is given up without one after this time.
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(3);

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

/// The connections to stores that are open.
#[derive(Debug)]
pub(crate) struct Stores {
    dialer: Dialer,
    open: Mutex<HashMap<u64, TikvClient<Channel>>>,
    message_bytes_max: usize,
}

impl Stores {
    pub(crate) fn new(dialer: Dialer, message_bytes_max: usize) -> Self {
        Self { dialer, open: Mutex::default(), message_bytes_max }
    }

    /// The connection to a store, if there is one.
    pub(crate) fn open(&self, store: u64) -> Option<TikvClient<Channel>> {
        self.lock().get(&store).cloned()
    }

    /// Connects to a store. Of two who do so at once, the later one replaces the connection of the other, which ends
    /// with its last request.
    pub(crate) async fn connect(&self, store: u64, address: &str) -> Result<TikvClient<Channel>, Failure> {
        let channel = self.dialer.dial(address).await?;
        let client = TikvClient::new(channel)
            .max_decoding_message_size(self.message_bytes_max)
            .max_encoding_message_size(self.message_bytes_max);
        self.lock().insert(store, client.clone());
        Ok(client)
    }

    /// Gives a connection up: its store was not reached, or may be elsewhere now.
    pub(crate) fn close(&self, store: u64) {
        self.lock().remove(&store);
    }

    /// Gives all connections up.
    pub(crate) fn close_all(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, TikvClient<Channel>>> {
        // Nothing panics while it is locked.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
