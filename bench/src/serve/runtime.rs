//! The runtime with its embedded store, in a process of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tandem_model::expression::Expression;
use tandem_model::topology::{Body, Endpoint, Function, HttpMatch, Protocol, Reply, Route, Topology};
use tandem_runtime::runtime::{Options, Runtime};
use tandem_store::embedded::EmbeddedStore;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::serve::{Counted, Ready, questions, say};

/// How long the worker may take to be connected.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(30);
/// How often it is looked for.
const CONNECT_POLL: Duration = Duration::from_millis(1);
/// Functions that are called only by others have no route.
const ROUTES: [(&str, &str); 4] = [("counter", "add"), ("account", "transfer"), ("step", "run"), ("cart", "checkout")];
const CALLED: [&str; 4] = ["order", "stock", "payment", "loyalty"];

/// Serves HTTP on a runtime that keeps its state in `data` and runs the functions of `worker`.
pub(crate) async fn serve(data: &Path, worker: &str, functions: u32) -> anyhow::Result<()> {
    let store = EmbeddedStore::open(data, tandem_store::embedded::Options::default())?;
    let runtime = Runtime::start(Options::default(), store.clone(), topology(worker, functions)?).await?;
    until_connected(&runtime).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let router = tandem_runtime::ingress::router(runtime.clone(), Arc::clone(runtime.metrics()));
    let stop = CancellationToken::new();
    let server = tokio::spawn(tandem_runtime::ingress::server::serve(listener, router, stop.clone()));
    say(&Ready { address })?;
    let mut questions = questions();
    while questions.recv().await.is_some() {
        say(&counted(&runtime, &store))?;
    }
    stop.cancel();
    runtime.shut_down(Duration::from_secs(1)).await;
    Ok(server.await??)
}

fn counted(runtime: &Runtime<EmbeddedStore>, store: &EmbeddedStore) -> Counted {
    let text = runtime.metrics().text();
    let sum = |name: &str| {
        let values = text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next());
        values.filter_map(|value| value.parse::<u64>().ok()).sum()
    };
    Counted {
        syncs: Some(store.statistics().syncs),
        attempts: Some(sum("tandem_runtime_flow_attempts_total")),
        conflicts: Some(sum("tandem_runtime_commit_conflicts_total")),
    }
}

fn topology(worker: &str, functions: u32) -> anyhow::Result<Topology> {
    let endpoint = Endpoint { url: format!("http://{worker}"), protocol: Protocol::Grpc };
    let function = Function { workers: vec![endpoint], ..Function::default() };
    let (mut all, mut routes) = (BTreeMap::new(), BTreeMap::new());
    let further: Vec<String> = (0..functions).map(|number| format!("counter-{number}")).collect();
    let reachable = ROUTES.into_iter().chain(further.iter().map(|name| (name.as_str(), "add")));
    for (name, handler) in reachable {
        all.insert(name.parse()?, function.clone());
        routes.insert(name.parse()?, route(name, handler)?);
    }
    for name in CALLED {
        all.insert(name.parse()?, function.clone());
    }
    Ok(Topology {
        format: Topology::FORMAT,
        retention_ms: Topology::RETENTION_MS,
        functions: all,
        routes,
        ..Topology::default()
    })
}

fn route(function: &str, handler: &str) -> anyhow::Result<Route> {
    Ok(Route {
        http: HttpMatch { method: "POST".to_owned(), path: format!("/{function}/{{key}}") },
        function: function.parse()?,
        handler: handler.parse()?,
        key: Expression::parse("request.path.key")?,
        idempotency_key: None,
        reply: Reply::Wait,
        deadline_ms: None,
        body: Body::Json,
    })
}

async fn until_connected(runtime: &Runtime<EmbeddedStore>) -> anyhow::Result<()> {
    let until = Instant::now() + CONNECT_TIME_MAX;
    while !runtime.has_workers() {
        anyhow::ensure!(Instant::now() < until, "the worker did not connect within {CONNECT_TIME_MAX:?}");
        tokio::time::sleep(CONNECT_POLL).await;
    }
    Ok(())
}
