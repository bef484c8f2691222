//! The runtime, on an embedded store or on one elsewhere, in a process of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tandem_model::expression::Expression;
use tandem_model::topology::{Body, Endpoint, Function, HttpMatch, Protocol, Reply, Route, Topology};
use tandem_runtime::peers::PeerOptions;
use tandem_runtime::runtime::{Options, Runtime};
use tandem_store::Store;
use tandem_store::embedded::EmbeddedStore;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::serve::{Counted, Ready, questions, say};
use crate::system::stores;

/// How long the worker may take to be connected.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(30);
/// How often it is looked for.
const CONNECT_POLL: Duration = Duration::from_millis(1);
/// Functions that are called only by others have no route.
const ROUTES: [(&str, &str, &str); 5] = [
    ("counter", "counter", "add"),
    ("account", "account", "transfer"),
    ("step", "step", "run"),
    ("cart", "cart", "checkout"),
    ("priced", "counter", "add_priced"),
];
const CALLED: [&str; 5] = ["order", "stock", "payment", "loyalty", "tariff"];

/// How it was started.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The directory of an embedded store.
    #[arg(long)]
    data: Option<PathBuf>,
    /// The address of another one, on which there may be other runtimes.
    #[arg(long)]
    store: Option<String>,
    #[arg(long)]
    worker: String,
    #[arg(long)]
    functions: u32,
}

/// Serves HTTP on a runtime that runs the functions of a worker.
pub(crate) async fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    // What goes wrong in here is told by nobody else.
    let _telemetry = tandem_runtime::telemetry::init("bench", "warn")?;
    match (&arguments.data, &arguments.store) {
        (Some(data), None) => embedded(arguments, data).await,
        (None, Some(address)) => elsewhere(arguments, address).await,
        _ => anyhow::bail!("either --data or --store"),
    }
}

async fn embedded(arguments: &Arguments, data: &Path) -> anyhow::Result<()> {
    let store = EmbeddedStore::open(data, tandem_store::embedded::Options::default())?;
    let statistics = store.clone();
    let counted = move || Counted { syncs: Some(statistics.statistics().syncs), ..Counted::default() };
    serve_on(arguments, store, None, counted).await
}

async fn elsewhere(arguments: &Arguments, address: &str) -> anyhow::Result<()> {
    let store = stores::open(address).await?;
    let stats = Arc::clone(store.stats());
    let counted = move || {
        let commits = stats.commits_one_phase.get() + stats.commits_two_phases.get();
        Counted { commits: Some(commits), ..Counted::default() }
    };
    serve_on(arguments, store, Some(peers().await?), counted).await
}

async fn serve_on<S: Store>(
    arguments: &Arguments,
    store: S,
    peers: Option<PeerOptions>,
    counted: impl Fn() -> Counted,
) -> anyhow::Result<()> {
    let topology = topology(&arguments.worker, arguments.functions)?;
    let runtime = Runtime::start(Options { peers, ..Options::default() }, store, topology).await?;
    until_connected(&runtime).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let router = tandem_runtime::ingress::router(runtime.clone(), Arc::clone(runtime.metrics()));
    let stop = CancellationToken::new();
    let server = tokio::spawn(tandem_runtime::ingress::server::serve(listener, router, stop.clone()));
    say(&Ready { address })?;
    let mut questions = questions();
    while questions.recv().await.is_some() {
        say(&counted().plus(&of_runtime(&runtime)))?;
    }
    stop.cancel();
    runtime.shut_down(Duration::from_secs(1)).await;
    Ok(server.await??)
}

async fn peers() -> anyhow::Result<PeerOptions> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    Ok(PeerOptions::new(listener, address))
}

fn of_runtime<S: Store>(runtime: &Runtime<S>) -> Counted {
    let text = runtime.metrics().text();
    let sum = |name: &str| {
        let values = text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next());
        values.filter_map(|value| value.parse::<u64>().ok()).sum()
    };
    Counted {
        attempts: Some(sum("tandem_runtime_flow_attempts_total")),
        conflicts: Some(sum("tandem_runtime_commit_conflicts_total")),
        peers: runtime.peers_connected(),
        ..Counted::default()
    }
}

fn topology(worker: &str, functions: u32) -> anyhow::Result<Topology> {
    let endpoint = Endpoint::new(format!("http://{worker}"), Protocol::Grpc);
    let function = Function { workers: vec![endpoint], ..Function::default() };
    let (mut all, mut routes) = (BTreeMap::new(), BTreeMap::new());
    let further: Vec<String> = (0..functions).map(|number| format!("counter-{number}")).collect();
    let reachable = ROUTES.into_iter().chain(further.iter().map(|name| (name.as_str(), name.as_str(), "add")));
    for (path, name, handler) in reachable {
        all.insert(name.parse()?, function.clone());
        routes.insert(path.parse()?, route(path, name, handler)?);
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

fn route(path: &str, function: &str, handler: &str) -> anyhow::Result<Route> {
    Ok(Route {
        http: HttpMatch { method: "POST".to_owned(), path: format!("/{path}/{{key}}") },
        function: function.parse()?,
        handler: handler.parse().with_context(|| format!("the handler {handler}"))?,
        key: Expression::parse("request.path.key")?,
        idempotency_key: None,
        reply: Reply::Wait,
        deadline_ms: None,
        body: Body::Json,
    })
}

async fn until_connected<S: Store>(runtime: &Runtime<S>) -> anyhow::Result<()> {
    let until = Instant::now() + CONNECT_TIME_MAX;
    while !runtime.has_workers() {
        anyhow::ensure!(Instant::now() < until, "the worker did not connect within {CONNECT_TIME_MAX:?}");
        tokio::time::sleep(CONNECT_POLL).await;
    }
    Ok(())
}
