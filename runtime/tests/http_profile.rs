//! The HTTP profile: the function of the documentation page, run by Python as it stands there; and bad answers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]
#![allow(dead_code, reason = "the support modules are shared by several tests")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tandem_model::ids::{Instance, Payload};
use tandem_model::outcome::{FlowRecord, Outcome};
use tandem_model::request::Request;
use tandem_model::topology::{
    Egress, Endpoint, Function, Handler, Isolation, Protocol, State, StateKind, Topology, ValueType,
};
use tandem_runtime::runtime::Options;
use tandem_store::memory::MemoryStore;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use script::{PATIENCE, Step, To, other};
use stage::{Stage, Worker, end_of, ended, eventually, topology};

#[path = "support/script.rs"]
mod script;
#[path = "support/stage.rs"]
mod stage;

const PAGE: &str = include_str!("../../docs/src/reference/http-profile.md");

/// The function of the page, in a process of its own that ends with it.
struct Python {
    process: Child,
    endpoint: Endpoint,
    _file: tempfile::TempDir,
}

impl Drop for Python {
    fn drop(&mut self) {
        // It is ours, and may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `None`, with a line that says so, on a machine without Python.
fn python() -> Option<Python> {
    let source = PAGE.split_once("```python\n").unwrap().1.split_once("```").unwrap().0;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wallet.py");
    std::fs::write(&file, source).unwrap();
    let started = Command::new("python3").arg(&file).arg("0").stdout(Stdio::piped()).spawn();
    let Ok(mut process) = started else {
        println!("skipped: python3 is not installed");
        return None;
    };
    let mut port = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let endpoint = http_endpoint(port.trim().parse().unwrap());
    Some(Python { process, endpoint, _file: directory })
}

fn http_endpoint(port: u16) -> Endpoint {
    Endpoint::new(format!("http://127.0.0.1:{port}/"), Protocol::Http)
}

/// What the resource of the page compiles to.
fn wallet(endpoint: Endpoint) -> Function {
    let handler = |name: &str, isolation| (name.parse().unwrap(), Handler { isolation, timeout_ms: None });
    let state = |name: &str, kind| (name.parse().unwrap(), State { kind, value_type: ValueType::Integer });
    let writing = ["deposit", "withdraw", "transfer"].map(|name| handler(name, Isolation::Serializable));
    let handlers = writing.into_iter().chain([handler("statement", Isolation::ReadOnly)]);
    let states =
        [state("balance", StateKind::Value), state("count", StateKind::Value), state("history", StateKind::Map)];
    let (handlers, states) = (Some(handlers.collect()), Some(states.into()));
    Function { workers: vec![endpoint], handlers, states, ..Function::default() }
}

async fn stage_of(name: &str, function: Function) -> (Stage<MemoryStore>, Worker) {
    let worker = Worker::start().await;
    let mut topology = topology(&[&worker]);
    topology.functions.insert(name.parse().unwrap(), function);
    topology.egresses.insert("transfers".parse().unwrap(), Egress { stream_retention_ms: Topology::RETENTION_MS });
    (Stage::of(MemoryStore::new(), Options::default(), topology).await, worker)
}

async fn ask(stage: &Stage<MemoryStore>, function: &str, key: &str, handler: &str, payload: Value) -> Arc<FlowRecord> {
    let instance = Instance::parse(function, key).unwrap();
    let (id, payload) = (stage.id().parse().unwrap(), Payload::json(payload.to_string()));
    let request = Request::new(stage.layout.slots(), id, instance, handler.parse().unwrap(), payload, PATIENCE);
    ended(stage.runtime.submit(request).await.unwrap()).await.record
}

fn returned(record: &Arc<FlowRecord>) -> Value {
    assert_eq!(record.outcome, Outcome::Committed, "{:?}", record.cause);
    serde_json::from_slice(&record.result.as_ref().unwrap().bytes).unwrap()
}

async fn values(stage: &Stage<MemoryStore>, key: &str) -> BTreeMap<String, Value> {
    let stored = stage.runtime.state(&Instance::parse("wallet", key).unwrap(), None, 100).await.unwrap();
    let json = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap();
    let values = stored.values.iter().map(|(name, bytes)| (name.to_string(), json(bytes)));
    let entries = stored.entries.iter().map(|(name, key, bytes)| {
        let key = String::from_utf8(key.to_vec()).unwrap();
        (format!("{name}/{key}"), json(bytes))
    });
    values.chain(entries).collect()
}

fn balance(of: &BTreeMap<String, Value>) -> Option<i64> {
    of.get("balance").and_then(Value::as_i64)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_function_of_the_page_does_what_the_page_says() {
    let Some(python) = python() else { return };
    let (stage, _worker) = stage_of("wallet", wallet(python.endpoint.clone())).await;
    let ask = async |key: &str, handler: &str, payload: Value| ask(&stage, "wallet", key, handler, payload).await;

    assert_eq!(returned(&ask("alice", "deposit", json!({"amount": 100})).await), 100);
    assert_eq!(returned(&ask("alice", "withdraw", json!({"amount": 30})).await), 70);
    let expected = [("balance", 70), ("count", 2), ("history/000001", 100), ("history/000002", -30)];
    let expected = expected.map(|(name, value)| (name.to_owned(), json!(value)));
    assert_eq!(values(&stage, "alice").await, BTreeMap::from(expected));

    let no = ask("alice", "withdraw", json!({"amount": 71})).await;
    assert_eq!(end_of(&no), (Outcome::Rejected, "insufficient-funds"));
    let cause = no.cause.as_ref().unwrap();
    assert_eq!((cause.detail.as_str(), cause.key().unwrap().as_str()), ("71 wanted, 70 left", "alice"));

    // Two steps, with a memo; the send and the egress record leave with the commit.
    assert_eq!(returned(&ask("alice", "transfer", json!({"to": "bob", "amount": 20})).await), 50);
    stage.rest().await;
    let balances = [values(&stage, "alice").await, values(&stage, "bob").await, values(&stage, "audit").await];
    assert_eq!(balances.each_ref().map(balance), [Some(50), Some(20), Some(20)]);
    let emitted = stage.runtime.egress(&"transfers".parse().unwrap(), 0, 10).await.unwrap();
    let emitted: Vec<Value> = emitted.iter().map(|record| serde_json::from_slice(&record.payload).unwrap()).collect();
    assert_eq!(emitted, [json!({"from": "alice", "to": "bob", "amount": 20})]);

    // A map, read from the end, page by page.
    let page = returned(&ask("alice", "statement", json!(2)).await);
    assert_eq!(page, json!({"amounts": [-20, -30], "more": true}));
    let page = returned(&ask("alice", "statement", json!(5)).await);
    assert_eq!(page, json!({"amounts": [-20, -30, 100], "more": false}));

    // A transfer that cannot be done leaves nothing; one to oneself is a cycle.
    let before = stage.rows().await;
    let no = ask("alice", "transfer", json!({"to": "bob", "amount": 51})).await;
    assert_eq!(end_of(&no), (Outcome::Rejected, "insufficient-funds"));
    let cycle = ask("alice", "transfer", json!({"to": "alice", "amount": 1})).await;
    assert_eq!(end_of(&cycle), (Outcome::Failed, "call-cycle"));
    assert_eq!(stage.rows_but(&[no.flow, cycle.flow]).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transfers_at_the_same_time_keep_the_sum() {
    let Some(python) = python() else { return };
    let (stage, _worker) = stage_of("wallet", wallet(python.endpoint.clone())).await;
    let people = ["alice", "bob", "carol", "dave"];
    for person in people {
        ask(&stage, "wallet", person, "deposit", json!({"amount": 100})).await;
    }
    let transfers = (0..24).map(|number| {
        let (from, to) = (people[number % 4], people[(number + 1 + number / 4 % 3) % 4]);
        ask(&stage, "wallet", from, "transfer", json!({"to": to, "amount": 10 + number}))
    });
    for record in futures_util::future::join_all(transfers).await {
        assert!(matches!(record.outcome, Outcome::Committed | Outcome::Rejected), "{:?}", end_of(&record));
    }
    let mut sum = 0;
    for person in people {
        sum += balance(&values(&stage, person).await).unwrap();
    }
    assert_eq!(sum, 400);
}

#[derive(Clone, Default)]
struct Calls(Arc<AtomicUsize>);

/// Answers as the payload says: `{"status": …, "body": …}`, or text that is not JSON. After the first step, an end.
async fn answers(Shared(calls): Shared<Calls>, Json(ask): Json<Value>) -> Response {
    calls.0.fetch_add(1, Ordering::SeqCst);
    let payload = &ask["payload"];
    if ask["results"].as_object().is_some_and(|results| !results.is_empty()) {
        return Json(json!({"result": {"results": ask["results"], "memo": ask["memo"]}})).into_response();
    }
    if ask["attempt"].as_u64() >= payload["wellFrom"].as_u64().or(Some(u64::MAX)) {
        return Json(json!({"result": ask["attempt"], "writes": {"value": 1}})).into_response();
    }
    let status = u16::try_from(payload["status"].as_u64().unwrap_or(200)).unwrap();
    let status = StatusCode::from_u16(status).unwrap();
    match &payload["text"] {
        Value::String(text) => (status, text.clone()).into_response(),
        _ => (status, payload["body"].to_string()).into_response(),
    }
}

/// A function `odd` that answers as it is told.
async fn odd() -> (Stage<MemoryStore>, Worker, Calls) {
    let (listener, calls) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Calls::default());
    let endpoint = http_endpoint(listener.local_addr().unwrap().port());
    let router = axum::Router::new().fallback(answers).with_state(calls.clone());
    tokio::spawn(tandem_runtime::ingress::server::serve(listener, router, CancellationToken::new()));
    let declare = |name: &str, kind| (name.parse().unwrap(), State { kind, value_type: ValueType::Any });
    let (handlers, states) = (
        Some([("run".parse().unwrap(), Handler::default())].into()),
        Some([declare("value", StateKind::Value), declare("entries", StateKind::Map)].into()),
    );
    let function = Function { workers: vec![endpoint], handlers, states, ..Function::default() };
    let (stage, worker) = stage_of("odd", function).await;
    (stage, worker, calls)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_makes_no_sense_fails_the_flow_at_once() {
    let (stage, _worker, calls) = odd().await;
    let call = json!({"id": "c", "function": "other", "key": "k", "handler": "run", "payload": []});
    let read = json!({"id": "r", "state": "entries"});
    let before = stage.rows().await;
    let mut flows = Vec::new();
    for (answer, reason, detail) in [
        (json!({"text": "garbage"}), "function-failed", "cannot be read"),
        (json!({"text": ""}), "function-failed", "cannot be read"),
        (json!({"body": [1]}), "function-failed", "cannot be read"),
        (json!({"body": {"resutl": 1, "writes": {"value": 1}}}), "function-failed", "unknown field `resutl`"),
        (json!({"body": {"calls": [{"id": "c"}]}}), "function-failed", "missing field"),
        (json!({"status": 404, "body": {"result": 1}}), "function-failed", "404"),
        (json!({"status": 302, "body": {}}), "function-failed", "302"),
        (json!({"body": {"calls": [call, call]}}), "function-failed", "twice"),
        (json!({"body": {"calls": [call], "result": 1}}), "function-failed", "must not have a result or effects"),
        (
            json!({"body": {"calls": [call], "writes": {"value": 1}}}),
            "function-failed",
            "must not have a result or effects",
        ),
        (
            json!({"body": {"reads": [read], "emits": [{"egress": "out", "payload": 1}]}}),
            "function-failed",
            "must not have",
        ),
        (json!({"body": {"writes": {"other": 1}}}), "unknown-state", "other"),
        (json!({"body": {"writes": {"entries": 1}}}), "state-kind", "entries"),
        (json!({"body": {"entries": {"entries": 1}}}), "function-failed", "must be an object"),
        (json!({"body": {"emits": [{"egress": "nowhere", "payload": 1}]}}), "unknown-egress", "nowhere"),
        (json!({"body": {"reject": {"reason": "Not A Reason"}}}), "invalid-rejection", ""),
    ] {
        calls.0.store(0, Ordering::SeqCst);
        let record = ask(&stage, "odd", "k", "run", answer.clone()).await;
        assert_eq!(end_of(&record), (Outcome::Failed, reason), "{answer}: {:?}", record.cause);
        assert!(record.cause.as_ref().unwrap().detail.contains(detail), "{answer}: {:?}", record.cause);
        assert_eq!((record.attempts, calls.0.load(Ordering::SeqCst)), (1, 1), "{answer}");
        flows.push(record.flow);
    }
    assert_eq!(stage.rows_but(&flows).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_500_is_tried_again() {
    let (stage, _worker, _) = odd().await;
    let record = ask(&stage, "odd", "k", "run", json!({"status": 500, "text": "down", "wellFrom": 3})).await;
    assert_eq!((returned(&record), record.attempts), (json!(3), 3));
    let record = ask(&stage, "odd", "k", "run", json!({"status": 503, "text": "down"})).await;
    assert_eq!((end_of(&record), record.attempts), ((Outcome::Failed, "function-failed"), 3));
    assert!(record.cause.as_ref().unwrap().detail.contains("down"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_is_not_there_is_a_lost_worker() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = http_endpoint(listener.local_addr().unwrap().port());
    drop(listener);
    let (stage, _worker) = stage_of("wallet", wallet(endpoint)).await;
    let record = ask(&stage, "wallet", "alice", "deposit", json!({"amount": 1})).await;
    assert_eq!(end_of(&record), (Outcome::Failed, "worker-lost"));
    assert!(record.attempts > 1, "it was not tried again");
    assert!(values(&stage, "alice").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_give_results_by_id_and_the_memo_back() {
    let (stage, _worker, _) = odd().await;
    stage.ask(other("there", vec![Step::Set(4)])).await;
    let call = |id: &str, steps: Vec<Step>, spawn: bool| {
        let payload = serde_json::to_value(steps).unwrap();
        json!({"id": id, "function": "other", "key": id, "handler": "run", "payload": payload, "spawn": spawn})
    };
    let calls = [
        call("there", vec![Step::Read], false),
        call("no", vec![Step::Set(1), Step::Reject], false),
        call("spawned", vec![Step::Set(1)], true),
    ];
    let reads = [json!({"id": "one", "state": "entries", "entry": "e"}), json!({"id": "all", "state": "entries"})];
    let body = json!({"calls": calls, "reads": reads, "memo": {"kept": [1, 2]}});
    let result = returned(&ask(&stage, "odd", "k", "run", json!({ "body": body })).await);
    assert_eq!(result["memo"], json!({"kept": [1, 2]}));
    let no = json!({"reject": {"reason": "no", "detail": "as told", "function": "other", "key": "no"}});
    let nothing = json!({"entries": [], "more": false});
    let expected =
        json!({"there": {"value": 4}, "no": no, "spawned": {"spawned": true}, "one": nothing, "all": nothing});
    assert_eq!(result["results"], expected);
    eventually("the spawned call is part of it", async || stage.value_of("other", "spawned").await == Some(1)).await;
    assert_eq!(stage.value_of("other", "no").await, None);
    // A function with an SDK can call one behind HTTP.
    let to = To::of("odd", "k", "run", vec![]);
    let record = stage.ask(other("caller", vec![Step::Call(to)])).await;
    assert_eq!(end_of(&record), (Outcome::Failed, "function-failed"), "its answer is null");
}
