//! How streams to workers are opened: a seam, so that a simulation can put workers into the same thread.
//!
//! What travels on a stream is the function protocol, whatever carries it. The plain HTTP profile does not come by here.

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
use tokio::time::timeout;

/// Longest wait for a TCP connection, and for the stream to be accepted.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// How often an idle connection is asked for a sign of life, and how long it may take to give one.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What the runtime says to a worker. It ends when the runtime lets go of the worker.
pub type Outgoing = BoxStream<'static, wire::AttachRequest>;
/// What a worker says to the runtime. Its end, or an error, is the end of the stream.
pub type Incoming = BoxStream<'static, Result<wire::AttachResponse, tonic::Status>>;

/// Opens streams to workers.
pub trait Dial: Send + Sync + 'static {
    /// Opens a stream to the worker at `endpoint`; says why if that cannot be done. Dropping the future, or the stream
    /// that it gives, ends it for both sides. A worker that gives no sign of life any more has to end it as well.
    fn attach(&self, endpoint: &Endpoint, outgoing: Outgoing) -> BoxFuture<'static, Result<Incoming, String>>;
}

/// Opens streams over the network.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Dial for Tcp {
    fn attach(&self, endpoint: &Endpoint, outgoing: Outgoing) -> BoxFuture<'static, Result<Incoming, String>> {
        attach(endpoint.url.clone(), outgoing).boxed()
    }
}

async fn attach(url: String, outgoing: Outgoing) -> Result<Incoming, String> {
    let channel = tonic::transport::Endpoint::from_shared(url)
        .map_err(|error| chain(&error))?
        .connect_timeout(CONNECT_TIME_MAX)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .connect()
        .await
        .map_err(|error| chain(&error))?;
    let mut client = FunctionServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let attached = timeout(CONNECT_TIME_MAX, client.attach(Sent(outgoing))).await;
    let attached = attached.map_err(|_| "it did not accept the stream in time".to_owned())?;
    Ok(attached.map_err(|status| status.to_string())?.into_inner().boxed())
}

/// A type without a lifetime in it, which the compiler would not see through in a future that has to be `Send`.
struct Sent(Outgoing);

impl Stream for Sent {
    type Item = wire::AttachRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
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
