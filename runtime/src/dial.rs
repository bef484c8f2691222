//! How streams to workers and to other runtimes are opened: a seam, so that a simulation can put them into one thread.
//!
//! What travels on a stream is the function protocol or the peer protocol, whatever carries it. The plain HTTP profile
//! does not come by here.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, Stream, StreamExt};
use tandem_model::topology::Endpoint;
use tandem_proto::MESSAGE_BYTES_MAX;
use tandem_proto::function::v1alpha1 as wire;
use tandem_proto::function::v1alpha1::function_service_client::FunctionServiceClient;
use tandem_proto::peer::v1alpha1 as peer;
use tandem_proto::peer::v1alpha1::peer_service_client::PeerServiceClient;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tonic::Streaming;
use tonic::transport::Channel;

/// Longest wait for a TCP connection, and for the stream to be accepted.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// How often an idle connection is asked for a sign of life, and how long it may take to give one.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The port of an address that names none.
const HTTP_PORT: u16 = 80;

/// What the runtime says to a worker. It ends when the runtime lets go of the worker.
pub type Outgoing = BoxStream<'static, wire::AttachRequest>;
/// What a worker says to the runtime. Its end, or an error, is the end of the stream.
pub type Incoming = BoxStream<'static, Result<wire::AttachResponse, tonic::Status>>;

/// Opens streams to workers.
pub trait Dial: Send + Sync + 'static {
    /// Opens a stream to the worker at `endpoint`; says why if that cannot be done. Dropping the future, or the stream
    /// that it gives, ends it for both sides. A worker that gives no sign of life any more has to end it as well.
    fn attach(&self, endpoint: &Endpoint, outgoing: Outgoing) -> BoxFuture<'static, Result<Incoming, String>>;

    /// Looks up which workers there are behind the name in `endpoint`, to be asked again and again: they come and go.
    /// `None`: it is no name, and there is one worker. Dropping the future gives the search up.
    fn resolve(&self, endpoint: &Endpoint) -> Option<BoxFuture<'static, Result<Vec<Endpoint>, String>>> {
        let _ = endpoint;
        None
    }
}

/// What one runtime says to another one that it has dialled. It ends when the caller lets go of it.
pub type PeerOutgoing = BoxStream<'static, peer::AttachRequest>;
/// What the runtime that was dialled answers. Its end, or an error, is the end of the stream.
pub type PeerIncoming = BoxStream<'static, Result<peer::AttachResponse, tonic::Status>>;

/// Opens streams to other runtimes.
pub trait PeerDial: Send + Sync + 'static {
    /// Opens a stream to the runtime at `address`; says why if that cannot be done. Dropping the future, or the stream
    /// that it gives, ends it for both sides. A runtime that gives no sign of life any more has to end it as well.
    fn connect(&self, address: &str, outgoing: PeerOutgoing) -> BoxFuture<'static, Result<PeerIncoming, String>>;
}

/// Opens streams over the network.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Dial for Tcp {
    fn attach(&self, endpoint: &Endpoint, outgoing: Outgoing) -> BoxFuture<'static, Result<Incoming, String>> {
        attach(endpoint.url.clone(), outgoing).boxed()
    }

    fn resolve(&self, endpoint: &Endpoint) -> Option<BoxFuture<'static, Result<Vec<Endpoint>, String>>> {
        let (host, port) = name_of(&endpoint.url)?;
        let endpoint = endpoint.clone();
        let looked_up = async move {
            let found = tokio::net::lookup_host((host, port)).await.map_err(|error| error.to_string())?;
            Ok(of_one_family(found.collect()).map(|address| at(&endpoint, address)).collect())
        };
        Some(looked_up.boxed())
    }
}

impl PeerDial for Tcp {
    fn connect(&self, address: &str, outgoing: PeerOutgoing) -> BoxFuture<'static, Result<PeerIncoming, String>> {
        connect(address.to_owned(), outgoing).boxed()
    }
}

/// The host and port of an address that names more than one worker, perhaps. An address by number is one worker, this
/// machine is one, and a certificate is for a name, so that the name has to stay.
fn name_of(url: &str) -> Option<(String, u16)> {
    let uri: http::Uri = url.parse().ok()?;
    let host = uri.host()?;
    let is_number = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    if uri.scheme_str() != Some("http") || is_number || host == "localhost" {
        return None;
    }
    Some((host.to_owned(), uri.port_u16().unwrap_or(HTTP_PORT)))
}

/// A worker that has addresses of both families is one worker.
fn of_one_family(mut found: Vec<SocketAddr>) -> impl Iterator<Item = SocketAddr> {
    if found.iter().any(SocketAddr::is_ipv4) {
        found.retain(SocketAddr::is_ipv4);
    }
    found.sort();
    found.dedup();
    found.into_iter()
}

fn at(endpoint: &Endpoint, address: SocketAddr) -> Endpoint {
    Endpoint { url: format!("http://{address}"), ..endpoint.clone() }
}

async fn attach(url: String, outgoing: Outgoing) -> Result<Incoming, String> {
    let mut client = FunctionServiceClient::new(channel(url).await?)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    accepted(timeout(CONNECT_TIME_MAX, client.attach(Sent(outgoing))).await)
}

async fn connect(url: String, outgoing: PeerOutgoing) -> Result<PeerIncoming, String> {
    let mut client = PeerServiceClient::new(channel(url).await?)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    accepted(timeout(CONNECT_TIME_MAX, client.attach(Sent(outgoing))).await)
}

async fn channel(url: String) -> Result<Channel, String> {
    let endpoint = tonic::transport::Endpoint::from_shared(url).map_err(|error| chain(&error))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIME_MAX)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    endpoint.connect().await.map_err(|error| chain(&error))
}

type Answer<T> = Result<Result<tonic::Response<Streaming<T>>, tonic::Status>, Elapsed>;

fn accepted<T: Send + 'static>(answer: Answer<T>) -> Result<BoxStream<'static, Result<T, tonic::Status>>, String> {
    let answer = answer.map_err(|_| "it did not accept the stream in time".to_owned())?;
    Ok(answer.map_err(|status| status.to_string())?.into_inner().boxed())
}

/// A type without a lifetime in it, which the compiler would not see through in a future that has to be `Send`.
struct Sent<T>(BoxStream<'static, T>);

impl<T> Stream for Sent<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_next_unpin(cx)
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        text = format!("{text}: {next}");
        source = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_other_machines_are_looked_up() {
        for url in ["http://127.0.0.1:9000", "http://[::1]:9000", "http://localhost:1", "https://cart:1", "cart", ""] {
            assert_eq!(name_of(url), None, "{url}");
        }
        assert_eq!(name_of("http://cart-7c9f.shop.svc:9000"), Some(("cart-7c9f.shop.svc".to_owned(), 9000)));
        assert_eq!(name_of("http://cart"), Some(("cart".to_owned(), 80)));
    }

    #[test]
    fn a_worker_with_two_addresses_is_one_worker() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("it is one")).collect::<Vec<_>>();
        let both = addresses(&["[fd00::1]:9", "10.0.0.2:9", "10.0.0.1:9", "10.0.0.2:9"]);
        assert!(of_one_family(both).eq(addresses(&["10.0.0.1:9", "10.0.0.2:9"])));
        let new_only = addresses(&["[fd00::1]:9"]);
        assert!(of_one_family(new_only.clone()).eq(new_only));
    }
}
