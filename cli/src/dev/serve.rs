//! The embedded store, the runtime, and its two ports.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tandem_model::topology::Topology;
use tandem_runtime::admin;
use tandem_runtime::admin::view;
use tandem_runtime::ingress::{self, server};
use tandem_runtime::metrics::Metrics;
use tandem_runtime::runtime::{Options, Runtime};
use tandem_store::embedded::{self, EmbeddedStore};
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::console::Console;
use super::{Error, write_file};
use crate::output::{Palette, duration, printable, table};

/// The store, below the data directory.
const STORE_DIRECTORY: &str = "store";
/// How long running flows may take to end when we stop.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// How often it is looked whether workers are connected.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The two ports, taken before anything else is started, so that a port in use costs nothing.
pub(super) struct Listeners {
    http: TcpListener,
    admin: TcpListener,
}

impl Listeners {
    /// Takes both ports.
    pub(super) async fn bind(http: SocketAddr, admin: SocketAddr) -> Result<Self, Error> {
        Ok(Self { http: bind(http, "--http").await?, admin: bind(admin, "--admin").await? })
    }
}

async fn bind(address: SocketAddr, option: &str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|error| {
        Error::Port(match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("{address} is in use by another process; choose another address with {option}")
            }
            _ => format!("failed to listen on {address} ({option}): {error}"),
        })
    })
}

/// Opens the store of a data directory.
pub(super) async fn open_store(data: &Path) -> Result<EmbeddedStore, Error> {
    let path = data.join(STORE_DIRECTORY);
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(path, embedded::Options::default())).await;
    let opened = opened.map_err(|error| Error::Runtime(error.to_string()))?;
    Ok(opened?)
}

/// A runtime that takes requests.
pub(super) struct Serving {
    runtime: Runtime<EmbeddedStore>,
    http: SocketAddr,
    admin: SocketAddr,
    shutdown: CancellationToken,
    servers: TaskTracker,
}

impl Serving {
    /// Starts the runtime and serves both ports.
    pub(super) async fn start(store: EmbeddedStore, topology: Topology, listeners: Listeners) -> Result<Self, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::Runtime(error.to_string());
        let metrics = Metrics::new();
        let options = Options { metrics: metrics.clone(), ..Options::default() };
        let runtime = Runtime::start(options, store, topology).await.map_err(|error| failed(&error))?;
        let http = listeners.http.local_addr().map_err(|error| failed(&error))?;
        let admin = listeners.admin.local_addr().map_err(|error| failed(&error))?;
        let (shutdown, servers) = (CancellationToken::new(), TaskTracker::new());
        let ways_in = [
            (listeners.http, ingress::router(runtime.clone(), metrics.clone())),
            (listeners.admin, admin::router(runtime.clone(), metrics)),
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

    /// Returns when every function has a worker, or `within` has passed; whether they all have.
    pub(super) async fn has_workers(&self, within: Duration) -> bool {
        let looked = async {
            while !self.runtime.has_workers() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(within, looked).await.is_ok()
    }

    /// Returns once the store has failed for good.
    pub(super) async fn store_stopped(&self) {
        self.runtime.store_stopped().await;
    }

    /// Runs new flows by another topology.
    pub(super) fn set_topology(&self, topology: Topology) {
        self.runtime.set_topology(topology);
    }

    /// Stops taking requests, lets flows end, and closes both ports.
    pub(super) async fn stop(&self) {
        self.shutdown.cancel();
        tokio::join!(self.runtime.shut_down(STOP_GRACE), self.servers.wait());
    }

    /// Says where everything is.
    pub(super) fn print_banner(&self, console: &Console, topology: &Topology) {
        console.line(&format!("requests   http://{}", self.http));
        console.line(&format!("admin      http://{}   (tandem flows, state, invoke)", self.admin));
        print_routes(console, topology);
    }

    /// Writes where we listen, for scripts that wait for it.
    pub(super) fn write_ready_file(&self, path: &Path) -> Result<(), Error> {
        let (http, admin) = (format!("http://{}", self.http), format!("http://{}", self.admin));
        write_file(path, serde_json::json!({ "http": http, "admin": admin }).to_string().as_bytes())
    }

    /// Prints each outcome, until the runtime ends.
    pub(super) fn print_outcomes(&self, console: Console) {
        let mut outcomes = self.runtime.outcomes();
        tokio::spawn(async move {
            loop {
                match outcomes.recv().await {
                    Ok(record) => console.line(&outcome(&view::Flow::from(&*record), console.palette())),
                    Err(RecvError::Lagged(skipped)) => console.line(&format!("({skipped} outcomes not shown)")),
                    Err(RecvError::Closed) => return,
                }
            }
        });
    }
}

/// Lists the routes and the egresses.
pub(super) fn print_routes(console: &Console, topology: &Topology) {
    for line in routes(topology).lines() {
        console.line(line);
    }
}

fn routes(topology: &Topology) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for route in topology.routes.values() {
        let target = format!("{}/{{{}}} {}", route.function, route.key.source(), route.handler);
        rows.push(vec![route.http.method.clone(), route.http.path.clone(), target]);
    }
    rows.sort_by(|a, b| (&a[1], &a[0]).cmp(&(&b[1], &b[0])));
    for egress in topology.egresses.keys() {
        rows.push(vec!["GET".to_owned(), format!("/egress/{egress}"), "server-sent events".to_owned()]);
    }
    if rows.is_empty() {
        return "there are no routes; `tandem invoke` reaches every handler".to_owned();
    }
    table(&["METHOD", "PATH", "RUNS"], &rows)
}

/// One outcome on one line: when, how, what, how long, and why not.
fn outcome(flow: &view::Flow, palette: Palette) -> String {
    const OUTCOME_WIDTH: usize = 9;
    // `2026-07-01T12:00:00.000Z`: the date is today's.
    let time = flow.accepted_at.get(11..23).unwrap_or(&flow.accepted_at);
    let name = palette.outcome(flow.outcome, &format!("{:<OUTCOME_WIDTH$}", flow.outcome.as_str()));
    let mut line = format!(
        "{}  {name}  {} {}  {}",
        palette.dim(time),
        printable(&flow.instance),
        flow.handler,
        palette.dim(&duration(flow.duration_ms))
    );
    if let Some(reason) = &flow.reason {
        line.push_str(&format!("  {}", printable(reason)));
    }
    if let (Some(function), Some(key)) = (&flow.function, &flow.key) {
        line.push_str(&format!(" by {function}/{}", printable(key)));
    }
    if let Some(detail) = flow.detail.as_ref().filter(|detail| !detail.is_empty()) {
        line.push_str(&format!(": {}", printable(detail)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcome_is_one_line() {
        let flow: view::Flow = serde_json::from_value(serde_json::json!({
            "flow": "000000000000000000000000", "request": "r", "instance": "order/o-2", "handler": "place",
            "outcome": "REJECTED", "reason": "out-of-stock", "detail": "1 left\nof 2", "function": "inventory",
            "key": "sku-7", "attempts": 1, "acceptedAt": "2026-01-01T12:34:56.789Z", "durationMs": 3.1, "calls": [],
        }))
        .unwrap();
        let expected =
            "12:34:56.789  REJECTED   order/o-2 place  3.1 ms  out-of-stock by inventory/sku-7: 1 left\u{fffd}of 2";
        assert_eq!(outcome(&flow, Palette::plain()), expected);
    }

    #[tokio::test]
    async fn port_in_use_is_said_with_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let Err(error) = Listeners::bind(address, "127.0.0.1:0".parse().unwrap()).await else { panic!("bound twice") };
        let expected = format!("{address} is in use by another process; choose another address with --http");
        assert_eq!(error.to_string(), expected);
    }
}
