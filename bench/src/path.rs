//! The whole path: HTTP, runtime, a worker in a process of its own, the embedded store.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tandem_model::ids::Instance;
use tandem_model::topology::{Body, Endpoint, Function, Handler, HttpMatch, Protocol, Reply, Route, Topology};
use tandem_runtime::runtime::{Options, Runtime};
use tandem_store::embedded::EmbeddedStore;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::usage::Usage;
use crate::{Figures, Load, closed_loop, key_of};

/// How long the worker may take to be connected.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(20);

/// Ends the worker process when the measurement does.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures the whole path.
pub(crate) async fn run(load: Load) -> anyhow::Result<Figures> {
    let directory = tempfile::tempdir_in(".")?;
    let address = free_address().await?;
    let worker = Worker(
        Command::new(std::env::current_exe()?)
            .arg("--worker")
            .env("TANDEM_WORKER_ADDRESS", &address)
            .stdin(Stdio::null())
            .spawn()?,
    );
    let store = EmbeddedStore::open(directory.path(), tandem_store::embedded::Options::default())?;
    let runtime = Runtime::start(Options::default(), store, topology(&address)?).await?;
    until_connected(&runtime).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}", listener.local_addr()?);
    let router = tandem_runtime::ingress::router(runtime.clone(), std::sync::Arc::clone(runtime.metrics()));
    let stop = CancellationToken::new();
    let server = tokio::spawn(tandem_runtime::ingress::server::serve(listener, router, stop.clone()));

    let others = [worker.0.id()];
    let (before, started) = (Usage::of(&others)?, Instant::now());
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let latencies = closed_loop(load, move |number, request| {
        let (client, base) = (client.clone(), base.clone());
        async move {
            let uri = format!("{base}/counters/k{}", key_of(number, request, load.keys));
            let request = http::Request::post(uri)
                .header("content-type", "application/json")
                .body(Full::new(Bytes::from_static(b"1")))?;
            let response = client.request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            anyhow::ensure!(status.is_success(), "answered {status}: {}", String::from_utf8_lossy(&body));
            Ok(())
        }
    })
    .await?;
    let took = started.elapsed();
    let used = Usage::of(&others)?.since(before);
    check(&runtime, load, latencies.len()).await?;
    stop.cancel();
    runtime.shut_down(Duration::from_secs(1)).await;
    server.await??;
    Ok(Figures::new("tandem", load, latencies, used, took))
}

async fn free_address() -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    Ok(listener.local_addr()?.to_string())
}

fn topology(address: &str) -> anyhow::Result<Topology> {
    let worker = Endpoint { url: format!("http://{address}"), protocol: Protocol::Grpc };
    let handlers = BTreeMap::from([("add".parse()?, Handler::default())]);
    let function = Function { workers: vec![worker], handlers: Some(handlers), ..Function::default() };
    let route = Route {
        http: HttpMatch { method: "POST".to_owned(), path: "/counters/{key}".to_owned() },
        function: "counter".parse()?,
        handler: "add".parse()?,
        key: tandem_model::expression::Expression::parse("request.path.key")?,
        idempotency_key: None,
        reply: Reply::Wait,
        deadline_ms: None,
        body: Body::Json,
    };
    Ok(Topology {
        format: Topology::FORMAT,
        retention_ms: Topology::RETENTION_MS,
        functions: BTreeMap::from([("counter".parse()?, function)]),
        routes: BTreeMap::from([("add".parse()?, route)]),
        ..Topology::default()
    })
}

async fn until_connected(runtime: &Runtime<EmbeddedStore>) -> anyhow::Result<()> {
    let until = Instant::now() + CONNECT_TIME_MAX;
    while !runtime.has_workers() {
        anyhow::ensure!(Instant::now() < until, "the worker did not connect within {CONNECT_TIME_MAX:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// The counters together are the number of acknowledged requests, or the run has no result.
async fn check(runtime: &Runtime<EmbeddedStore>, load: Load, requests: usize) -> anyhow::Result<()> {
    let mut sum = 0;
    for key in 0..load.keys {
        let state = runtime.state(&Instance::parse("counter", &format!("k{key}"))?, None, 0).await?;
        for (_, value) in state.values {
            sum += serde_json::from_slice::<usize>(&value)?;
        }
    }
    anyhow::ensure!(sum == requests, "the counters sum up to {sum}, {requests} requests were acknowledged");
    Ok(())
}
