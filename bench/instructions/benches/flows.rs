//! Instructions of whole flows: the runtime, a worker that runs the real SDK, and the store in memory, in one thread.
//!
//! What is not in it: sockets, the encoding of frames (`functions` counts it), and the disk. Each count is of [`FLOWS`]
//! flows, after as many that are not counted.

#![allow(missing_docs, clippy::exit, reason = "the macros make public items, and a main that exits")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on panics")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use futures_util::future::{BoxFuture, join_all, ready};
use futures_util::{FutureExt, StreamExt};
use gungraun::{library_benchmark, library_benchmark_group, main};
use http_body_util::BodyExt;
use tandem::Server;
use tandem::prelude::*;
use tandem_model::expression::Expression;
use tandem_model::ids::{Instance, Payload};
use tandem_model::outcome::Outcome;
use tandem_model::request::Request;
use tandem_model::slot::SlotCount;
use tandem_model::topology::{Body, Endpoint, Function, HttpMatch, Protocol, Reply, Route, Topology};
use tandem_runtime::dial::{Dial, Incoming, Outgoing};
use tandem_runtime::ingress;
use tandem_runtime::runtime::{Options, Runtime};
use tandem_store::memory::MemoryStore;
use tower::ServiceExt;

/// Flows of one count.
const FLOWS: usize = 100;
/// Whatever does not end in this time never will.
const PATIENCE: Duration = Duration::from_mins(1);
/// Where waits of the runtime start from: the same every time.
const SEED: u64 = 7;

/// What an instance keeps.
#[derive(State)]
pub struct Cell {
    value: Value<i64>,
}

/// The function of all flows.
#[function(name = "counter")]
impl Counter {
    /// Counts.
    async fn add(ctx: &Ctx<Cell>, by: i64) -> Result<i64> {
        let value = ctx.state.value.get_or_default().await? + by;
        ctx.state.value.set(value);
        Ok(value)
    }

    /// Counts here and there, both or neither.
    async fn transfer(ctx: &Ctx<Cell>, to: String) -> Result<i64> {
        let value = ctx.state.value.get_or_default().await? - 1;
        ctx.state.value.set(value);
        Self::at(&to).add(ctx, 1).await
    }

    /// Looks.
    #[handler(read_only)]
    async fn get(ctx: &Ctx<Cell>) -> Result<i64> {
        ctx.state.value.get_or_default().await
    }
}

/// A worker at the end of every stream, in this thread.
struct InProcess(Server);

impl Dial for InProcess {
    fn attach(&self, _endpoint: &Endpoint, outgoing: Outgoing) -> BoxFuture<'static, Result<Incoming, String>> {
        let worker = self.0.attach(outgoing.map(Ok)).map_err(|error| error.to_string());
        ready(worker).boxed()
    }
}

/// One way to use the runtime.
#[derive(Clone, Copy)]
struct Case {
    handler: &'static str,
    body: fn(usize) -> String,
    /// Of how many instances.
    keys: usize,
    /// Before the others have ended.
    at_once: bool,
    over_http: bool,
}

const COUNT: Case = Case { handler: "add", body: |_| "1".to_owned(), keys: FLOWS, at_once: false, over_http: false };
const TRANSFER: Case = Case { handler: "transfer", body: |number| format!("{:?}", key(FLOWS + number)), ..COUNT };
const LOOK: Case = Case { handler: "get", body: |_| "null".to_owned(), ..COUNT };

/// A runtime with its worker, and the flows that will be counted.
struct Stage {
    threads: tokio::runtime::Runtime,
    runtime: Runtime<MemoryStore>,
    router: Router,
    case: Case,
    requests: Vec<Request>,
    posts: Vec<http::Request<axum::body::Body>>,
}

impl Stage {
    fn new(case: Case) -> Self {
        let threads = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let runtime = threads.block_on(start());
        let router = ingress::router(runtime.clone(), Arc::clone(runtime.metrics()));
        let mut stage = Self { threads, runtime, router, case, requests: Vec::new(), posts: Vec::new() };
        stage.prepare("warm");
        stage.play();
        stage.prepare("counted");
        stage
    }

    fn prepare(&mut self, round: &str) {
        let numbers = 0..FLOWS;
        let case = self.case;
        if case.over_http {
            let post = |number: usize| {
                let path = format!("/{}/{}", case.handler, key(number % case.keys));
                let http = http::Request::post(path).header("idempotency-key", format!("{round}-{number:04}"));
                let http = http.header("content-type", "application/json").header("host", "127.0.0.1:8080");
                http.body((case.body)(number).into()).unwrap()
            };
            self.posts = numbers.map(post).collect();
        } else {
            let request = |number: usize| {
                let instance = Instance::parse("counter", &key(number % case.keys)).unwrap();
                let id = format!("{round}-{number:04}").parse().unwrap();
                let payload = Payload::json((case.body)(number));
                Request::new(SlotCount::DEFAULT, id, instance, case.handler.parse().unwrap(), payload, PATIENCE)
            };
            self.requests = numbers.map(request).collect();
        }
    }

    /// Runs all flows to their ends.
    fn play(&mut self) {
        let (requests, posts) = (std::mem::take(&mut self.requests), std::mem::take(&mut self.posts));
        let (runtime, router) = (&self.runtime, &self.router);
        let at_once = self.case.at_once;
        self.threads.block_on(async move {
            let flows = requests.into_iter().map(|request| flow(runtime, request));
            all(flows, at_once).await;
            all(posts.into_iter().map(|post| answer(router, post)), at_once).await;
        });
    }
}

async fn all(flows: impl Iterator<Item = impl Future<Output = ()>>, at_once: bool) {
    if at_once {
        join_all(flows).await;
    } else {
        for flow in flows {
            flow.await;
        }
    }
}

async fn flow(runtime: &Runtime<MemoryStore>, request: Request) {
    let ended = runtime.submit(request).await.unwrap().outcome.await.unwrap();
    assert_eq!(ended.record.outcome, Outcome::Committed, "{:?}", ended.record.cause);
}

async fn answer(router: &Router, post: http::Request<axum::body::Body>) {
    let response = router.clone().oneshot(post).await.unwrap();
    assert_eq!(response.status(), http::StatusCode::OK);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(!body.is_empty());
}

fn key(number: usize) -> String {
    format!("customer-{number:04}")
}

async fn start() -> Runtime<MemoryStore> {
    let options = Options { dial: Arc::new(InProcess(Server::new(Counter))), seed: Some(SEED), ..Options::default() };
    let runtime = Runtime::start(options, MemoryStore::new(), topology()).await.unwrap();
    let began = Instant::now();
    while !runtime.has_workers() {
        assert!(began.elapsed() < PATIENCE, "the worker does not connect");
        tokio::task::yield_now().await;
    }
    runtime
}

fn topology() -> Topology {
    let worker = Endpoint::new("http://in-process", Protocol::Grpc);
    let function = Function { workers: vec![worker], ..Function::default() };
    let route = |handler: &str| Route {
        http: HttpMatch { method: "POST".to_owned(), path: format!("/{handler}/{{key}}") },
        function: "counter".parse().unwrap(),
        handler: handler.parse().unwrap(),
        key: Expression::parse("request.path.key").unwrap(),
        idempotency_key: None,
        reply: Reply::Wait,
        deadline_ms: None,
        body: Body::Json,
    };
    Topology {
        format: Topology::FORMAT,
        retention_ms: Topology::RETENTION_MS,
        functions: BTreeMap::from([("counter".parse().unwrap(), function)]),
        routes: ["add", "get"].map(|handler| (handler.parse().unwrap(), route(handler))).into(),
        ..Topology::default()
    }
}

#[library_benchmark]
#[bench::read_only(Stage::new(LOOK))]
#[bench::count(Stage::new(COUNT))]
#[bench::count_over_http(Stage::new(Case { over_http: true, ..COUNT }))]
#[bench::transfer(Stage::new(TRANSFER))]
fn one_by_one(mut stage: Stage) -> Stage {
    stage.play();
    stage
}

#[library_benchmark]
#[bench::count(Stage::new(Case { at_once: true, ..COUNT }))]
#[bench::count_on_one_key(Stage::new(Case { at_once: true, keys: 1, ..COUNT }))]
#[bench::transfer(Stage::new(Case { at_once: true, ..TRANSFER }))]
fn at_once(mut stage: Stage) -> Stage {
    stage.play();
    stage
}

library_benchmark_group!(name = flow, benchmarks = [one_by_one, at_once]);

main!(library_benchmark_groups = [flow]);
