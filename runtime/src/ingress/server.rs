//! Serves HTTP/1.1 on a listener, with bounds on everything that a client controls, and stops gracefully.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// Connections at one time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 16_384;
/// Header fields of one request; more are answered with 431.
const HEADERS_MAX: usize = 64;
/// Bytes of the request line and header; more are answered with 431. Also bounds what is read ahead of a slow handler.
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// A client that takes longer to send its header is cut off. It also ends idle connections.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// After a failure to accept (no file descriptors left, say).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Connections that have not ended this long after the server was told to stop are cut.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(15);

/// In the extensions of every request: cancelled when the server stops. Answers without an end watch it.
#[derive(Clone, Debug)]
pub struct Stopping(pub CancellationToken);

/// Serves `router` until `shutdown` is cancelled; then finishes the requests that run, and returns.
///
/// Dropping the future stops accepting; connections that are open go on.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) -> io::Result<()> {
    let router = router.layer(Extension(Stopping(shutdown.clone())));
    let connections = TaskTracker::new();
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            permit = permits.clone().acquire_owned() => permit.map_err(io::Error::other)?,
        };
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, router.clone(), shutdown.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(SHUTDOWN_GRACE, connections.wait()).await.is_err() {
        warn!(connections = connections.len(), "connections cut");
    }
    Ok(())
}

/// Serves one connection to its end.
async fn connection(stream: TcpStream, router: Router, shutdown: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY not set");
    }
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}
