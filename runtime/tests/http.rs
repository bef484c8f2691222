//! The ingress and the admin port over HTTP, in front of real functions and the store in memory.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tandem::prelude::*;
use tandem_model::expression::Expression;
use tandem_model::limits::Limits;
use tandem_model::topology::{Body, HttpMatch, Reply, Route};
use tandem_runtime::ingress::server::serve;
use tandem_runtime::{admin, ingress};
use tandem_testkit::TestKit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// What a counter stores.
#[derive(State)]
struct CounterState {
    count: Value<i64>,
    notes: Map<String, i64>,
}

/// A function that can do everything that an answer can say.
#[function(name = "counter")]
impl Counter {
    /// Adds, tells the egress, and says no to negative numbers.
    async fn add(ctx: &Ctx<CounterState>, amount: i64) -> Result<i64> {
        if amount < 0 {
            return reject("negative", format!("{amount} is below zero"));
        }
        let count = ctx.state.count.get().await?.unwrap_or_default() + amount;
        ctx.state.count.set(count);
        ctx.state.notes.insert(format!("n{count}"), count);
        ctx.emit("added", json!({ "count": count }));
        Ok(count)
    }

    /// Takes its time.
    async fn slow(ctx: &Ctx<CounterState>) -> Result<i64> {
        ctx.state.count.set(-1);
        tokio::time::sleep(Duration::from_mins(10)).await;
        Ok(0)
    }

    /// Breaks.
    async fn broken(_ctx: &Ctx<CounterState>) -> Result<i64> {
        Err(tandem::Error::fatal("out of order"))
    }
}

struct Site {
    kit: TestKit,
    http: String,
    admin: String,
    client: Client<HttpConnector, Full<Bytes>>,
    shutdown: CancellationToken,
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

fn route(method: &str, path: &str, handler: &str) -> Route {
    Route {
        http: HttpMatch { method: method.to_owned(), path: path.to_owned() },
        function: "counter".parse().unwrap(),
        handler: handler.parse().unwrap(),
        key: Expression::parse("request.path.id").unwrap(),
        idempotency_key: None,
        reply: Reply::Wait,
        deadline_ms: Some(10_000),
        body: Body::Json,
    }
}

impl Site {
    async fn start() -> Self {
        let limits = Limits { payload_bytes_max: 1_000, ..Limits::default() };
        let kit = TestKit::builder(Counter).egress("added").limits(limits).start().await.unwrap();
        let mut topology = (*kit.runtime().topology()).clone();
        let mut by_body = route("POST", "/add", "add");
        by_body.key = Expression::parse("request.headers['x-id']").unwrap();
        for (name, route) in [
            ("add", route("POST", "/counters/{id}", "add")),
            ("slow", route("POST", "/counters/{id}/slow", "slow")),
            ("broken", route("POST", "/counters/{id}/broken", "broken")),
            ("by-header", by_body),
        ] {
            topology.routes.insert(name.parse().unwrap(), route);
        }
        kit.runtime().set_topology(topology);
        let shutdown = CancellationToken::new();
        let runtime = kit.runtime();
        let http = listen(ingress::router(runtime.clone(), runtime.metrics().clone()), &shutdown).await;
        let admin = listen(admin::router(runtime.clone(), runtime.metrics().clone()), &shutdown).await;
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { kit, http, admin, client, shutdown }
    }

    async fn open(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        self.client.request(request).await.unwrap()
    }

    async fn ask(&self, method: Method, url: String, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.open(request.body(Full::from(body.to_owned())).unwrap()).await;
        let (parts, body) = response.into_parts();
        Answer { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.ask(Method::POST, format!("{}{path}", self.http), headers, body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, format!("{}{path}", self.http), &[], "").await
    }

    async fn admin(&self, path: &str) -> Answer {
        self.ask(Method::GET, format!("{}{path}", self.admin), &[], "").await
    }
}

async fn listen(router: axum::Router, shutdown: &CancellationToken) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, router, shutdown.clone()));
    format!("http://{address}")
}

#[tokio::test]
async fn call_is_answered_with_its_outcome_and_repeated_from_the_record() {
    let site = Site::start().await;
    let first = site.post("/counters/a", &[("idempotency-key", "\"k1\"")], "5").await;
    assert_eq!((first.status.as_u16(), first.json()), (200, json!(5)));
    assert_eq!((first.header("tandem-outcome"), first.header("tandem-request")), ("COMMITTED", "k1"));
    assert_eq!(first.header("tandem-repeated"), "");
    let again = site.post("/counters/a", &[("idempotency-key", "k1")], "5").await;
    assert_eq!((again.status.as_u16(), again.json(), again.header("tandem-repeated")), (200, json!(5), "true"));
    assert_eq!(again.header("tandem-flow"), first.header("tandem-flow"));
    let other = site.post("/counters/a", &[("idempotency-key", "k1")], "6").await;
    assert_eq!((other.status.as_u16(), other.json()["reason"].clone()), (422, json!("request-id-reused")));
    assert_eq!(site.kit.state("counter", "a").await.unwrap().value::<i64>("count").unwrap(), Some(5));
}

#[tokio::test]
async fn no_is_a_problem_that_names_who_said_it() {
    let site = Site::start().await;
    let rejected = site.post("/counters/a", &[], "-1").await;
    assert_eq!((rejected.status.as_u16(), rejected.header("content-type")), (409, "application/problem+json"));
    let problem = rejected.json();
    assert_eq!((&problem["outcome"], &problem["reason"]), (&json!("REJECTED"), &json!("negative")));
    assert_eq!((&problem["function"], &problem["key"]), (&json!("counter"), &json!("a")));
    assert_eq!(problem["flow"], rejected.header("tandem-flow"));
    let failed = site.post("/counters/a/broken", &[], "").await;
    assert_eq!((failed.status.as_u16(), failed.header("tandem-outcome")), (500, "FAILED"));
    let late = site.post("/counters/a/slow", &[("tandem-deadline", "50ms")], "").await;
    assert_eq!((late.status.as_u16(), late.header("tandem-outcome")), (504, "TIMED_OUT"));
    assert!(site.kit.state("counter", "a").await.unwrap().is_empty());
}

#[tokio::test]
async fn each_bad_request_has_its_own_problem() {
    let site = Site::start().await;
    let check = async |path: &str, headers: &[(&str, &str)], body: &str, status: u16, reason: &str| {
        let answer = site.post(path, headers, body).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["reason"]), (status, &json!(reason)), "{path}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
    };
    check("/counters/a", &[], "{\"a\":", 400, "malformed-json").await;
    check("/counters/a", &[("content-type", "text/plain")], "1", 415, "unsupported-media-type").await;
    check("/counters/a", &[], &"1".repeat(1_001), 413, "payload-too-large").await;
    check("/counters/%zz", &[], "1", 400, "malformed-path").await;
    check("/nowhere", &[], "1", 404, "no-route").await;
    check("/add", &[], "1", 400, "key-expression").await;
    check("/counters/a", &[("idempotency-key", "\"open")], "1", 400, "malformed-header").await;
    check("/counters/a", &[("tandem-deadline", "soon")], "1", 400, "malformed-header").await;
    check("/counters/a", &[("tandem-as-of", "2026-01-01T00:00:00Z")], "1", 400, "as-of-needs-read-only").await;
    let wrong_method = site.get("/counters/a").await;
    assert_eq!((wrong_method.status.as_u16(), wrong_method.header("allow")), (405, "POST"));
    assert_eq!(site.post("/add", &[("x-id", "b")], "1").await.status, 200);
}

#[tokio::test]
async fn accepted_flow_can_be_asked_for_and_cancelled() {
    let site = Site::start().await;
    let accepted = site.post("/counters/a/slow", &[("prefer", "respond-async")], "").await;
    assert_eq!((accepted.status.as_u16(), accepted.header("preference-applied")), (202, "respond-async"));
    let address = accepted.header("location").to_owned();
    let running = site.get(&format!("{address}?wait=20ms")).await;
    assert_eq!((running.status.as_u16(), &running.json()["state"]), (202, &json!("RUNNING")));
    let cancelled = site.ask(Method::DELETE, format!("{}{address}", site.http), &[], "").await;
    assert_eq!((cancelled.status.as_u16(), &cancelled.json()["outcome"]), (200, &json!("CANCELLED")));
    let ended = site.get(&address).await;
    assert_eq!((ended.status.as_u16(), ended.header("tandem-outcome")), (200, "CANCELLED"));
    let committed = site.post("/counters/b", &[], "1").await;
    let address = format!("{}/flows/{}", site.http, committed.header("tandem-flow"));
    let late = site.ask(Method::DELETE, address, &[], "").await;
    assert_eq!((late.status.as_u16(), &late.json()["reason"]), (409, &json!("too-late")));
    assert_eq!(site.get("/flows/nonsense").await.status, 400);
    assert_eq!(site.get("/flows/000000000000000000000000").await.status, 404);
}

/// Break it: await the outcome in the same future as the request's body, and let its drop cancel the flow.
#[tokio::test]
async fn client_that_goes_away_cancels_nothing() {
    let site = Site::start().await;
    let mut outcomes = site.kit.runtime().outcomes();
    let address = site.http.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = "POST /counters/gone/slow HTTP/1.1\r\nhost: x\r\ntandem-deadline: 1s\r\ncontent-length: 0\r\n\r\n";
    connection.write_all(request.as_bytes()).await.unwrap();
    while site.kit.runtime().flows(&tandem_runtime::runtime::FlowFilter::default()).await.unwrap().0.is_empty() {
        tokio::task::yield_now().await;
    }
    drop(connection);
    let ended = tokio::time::timeout(Duration::from_secs(10), outcomes.recv()).await.unwrap().unwrap();
    assert_eq!(ended.outcome.as_str(), "TIMED_OUT");
}

#[tokio::test]
async fn egress_is_streamed_from_any_point_and_followed() {
    let site = Site::start().await;
    for _ in 0..3 {
        assert_eq!(site.post("/counters/a", &[], "1").await.status, 200);
    }
    let all = site.get("/egress/added?follow=false").await;
    let text = String::from_utf8(all.body.to_vec()).unwrap();
    let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(data, [r#"{"count":1}"#, r#"{"count":2}"#, r#"{"count":3}"#]);
    let request = Request::get(format!("{}/egress/added", site.http)).header("last-event-id", ids[1]);
    let mut stream = site.open(request.body(Full::default()).unwrap()).await.into_body();
    let mut next = async || {
        let frame = tokio::time::timeout(Duration::from_secs(10), stream.frame()).await.unwrap().unwrap().unwrap();
        String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
    };
    assert!(next().await.contains(r#"data: {"count":3}"#));
    assert_eq!(site.post("/counters/a", &[], "1").await.status, 200);
    assert!(next().await.contains(r#"data: {"count":4}"#));
    assert_eq!(site.get("/egress/nothing").await.status, 404);
}

#[tokio::test]
async fn new_routes_are_taken_up() {
    let site = Site::start().await;
    assert_eq!(site.post("/neu/a", &[], "1").await.status, 404);
    let mut topology = (*site.kit.runtime().topology()).clone();
    topology.routes.insert("neu".parse().unwrap(), route("POST", "/neu/{id}", "add"));
    site.kit.runtime().set_topology(topology);
    assert_eq!(site.post("/neu/a", &[], "1").await.status, 200);
}

/// Break it: leave a worker that the topology does not name any more in the pool of its function.
#[tokio::test]
async fn flows_go_to_the_workers_that_the_topology_names() {
    let site = Site::start().await;
    assert_eq!(site.post("/counters/a", &[], "1").await.json(), json!(1));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = tandem::Server::new(Counter).bind(listener).unwrap();
    let mut topology = (*site.kit.runtime().topology()).clone();
    for function in topology.functions.values_mut() {
        function.workers[0].url = format!("http://{}", server.address());
    }
    tokio::spawn(server.run_until(std::future::pending()));
    site.kit.runtime().set_topology(topology);
    for count in 2..10 {
        let answer = site.post("/counters/a", &[("tandem-deadline", "3s")], "1").await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!(count)));
    }
}

#[tokio::test]
async fn admin_shows_flows_state_and_metrics() {
    let site = Site::start().await;
    assert_eq!(site.post("/counters/a%2Fb", &[], "7").await.status, 200);
    assert_eq!(site.post("/counters/z", &[], "-7").await.status, 409);
    let flows = site.admin("/flows?outcome=REJECTED").await.json();
    assert_eq!((&flows["flows"][0]["instance"], flows["flows"].as_array().unwrap().len()), (&json!("counter/z"), 1));
    let state = site.admin("/state/counter/a%2Fb").await.json();
    assert_eq!((&state["values"], &state["entries"]), (&json!({"count": 7}), &json!({"notes": {"n7": 7}})));
    assert_eq!(site.admin("/state/counter").await.json(), json!({"keys": ["a/b"]}));
    let page = site.admin("/state/counter?values=true&limit=1").await.json();
    assert_eq!((&page["instances"][0]["key"], &page["next"]), (&json!("a/b"), &json!("a/b")));
    assert_eq!(site.admin("/state/nobody").await.status, 404);
    assert_eq!((site.admin("/livez").await.status.as_u16(), site.admin("/readyz").await.status.as_u16()), (200, 200));
    let metrics = String::from_utf8(site.admin("/metrics").await.body.to_vec()).unwrap();
    let line = r#"tandem_runtime_flows_ended_total{function="counter",outcome="REJECTED"} 1"#;
    assert!(metrics.contains(line), "{metrics}");
    assert_eq!(site.admin("/topology").await.json()["routes"]["add"]["function"], "counter");
}

#[tokio::test]
async fn admin_runs_handlers_but_not_for_web_pages() {
    let site = Site::start().await;
    let url = format!("{}/invoke/counter/a/add", site.admin);
    let ran = site.ask(Method::POST, url.clone(), &[], "3").await;
    assert_eq!((ran.status.as_u16(), ran.json(), ran.header("tandem-outcome")), (200, json!(3), "COMMITTED"));
    let page = site.ask(Method::POST, url, &[("origin", "https://example.org")], "3").await;
    assert_eq!((page.status.as_u16(), &page.json()["reason"]), (403, &json!("cross-origin")));
    let unknown = site.ask(Method::POST, format!("{}/invoke/counter/a/nope", site.admin), &[], "3").await;
    assert_eq!((unknown.status.as_u16(), &unknown.json()["reason"]), (404, &json!("unknown-handler")));
}

#[tokio::test]
async fn nonsense_on_the_wire_disturbs_nobody() {
    let site = Site::start().await;
    let address = site.http.trim_start_matches("http://").to_owned();
    let many_headers = "x-a: y\r\n".repeat(200);
    for bytes in [
        b"\x00\xff\xfe nonsense\r\n\r\n".to_vec(),
        format!("GET / HTTP/1.1\r\n{many_headers}\r\n").into_bytes(),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(100_000)).into_bytes(),
        b"POST /counters/a HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n1".to_vec(),
    ] {
        let mut connection = TcpStream::connect(&address).await.unwrap();
        // The server may have hung up before it has read everything.
        let _ = connection.write_all(&bytes).await;
        let _ = connection.shutdown().await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(10), connection.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(site.post("/counters/a", &[], "1").await.json(), json!(1));
}

#[tokio::test]
async fn server_that_stops_ends_its_streams() {
    let site = Site::start().await;
    let request = Request::get(format!("{}/egress/added", site.http)).body(Full::default()).unwrap();
    let stream = site.open(request).await.into_body();
    site.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), stream.collect()).await.unwrap().unwrap();
}
