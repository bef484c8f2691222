//! Instructions of the functions that every request goes through.
//!
//! Each count is of [`TIMES`] runs on as many inputs, after one round that is not counted, so that what happens only
//! once (tables that are built on first use, memory that the allocator asks for) is not in it.

#![allow(missing_docs, clippy::exit, reason = "the macros make public items, and a main that exits")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on panics")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gungraun::{library_benchmark, library_benchmark_group, main};
use http::request::Parts;
use prost::Message;
use tandem_model::expression::Expression;
use tandem_model::flow::{CallId, Effects, Tree, Turn};
use tandem_model::ids::{FlowId, HandlerName, Instance, Payload, RequestId, StateName};
use tandem_model::limits::Limits;
use tandem_model::outcome::{CallStatus, CallTrace, FlowRecord, Outcome};
use tandem_model::request::Request;
use tandem_model::slot::SlotCount;
use tandem_model::topology::{Body, HttpMatch, Reply, Route, Topology};
use tandem_proto::function::v1alpha1 as wire;
use tandem_runtime::ingress::entry;
use tandem_runtime::ingress::routes::{Found, RouteTable};
use tandem_store::embedded::{self, EmbeddedStore};
use tandem_store::keys::{self, Layout};
use tandem_store::{Commit, CommitResult, Snapshot, Store, rows};

/// How often each function is run for one count.
const TIMES: usize = 100;
/// Frames of one message between runtime and worker.
const FRAMES: usize = 16;
/// Calls of the entry in one tree.
const CALLS: usize = 8;
/// Instances that one read touches.
const ROWS_READ: usize = 4;

/// Runs something on every input.
fn each<T, R>(inputs: &[T], run: impl Fn(&T) -> R) {
    for input in inputs {
        black_box(run(black_box(input)));
    }
}

/// Inputs, after a round on them that is not counted.
fn warmed<T, R>(make: impl Fn(usize) -> T, run: impl Fn(&T) -> R) -> Vec<T> {
    let inputs: Vec<T> = (0..TIMES).map(make).collect();
    each(&inputs, run);
    inputs
}

fn instance(number: usize) -> Instance {
    Instance::parse("account", &format!("customer-{number:04}")).unwrap()
}

fn handler() -> HandlerName {
    "transfer".parse().unwrap()
}

fn state() -> StateName {
    "balance".parse().unwrap()
}

fn layout() -> Layout {
    Layout::new(SlotCount::DEFAULT)
}

fn request_id(number: usize) -> RequestId {
    format!("0193b5a0-7c1e-7d60-9d0c-{number:012}").parse().unwrap()
}

fn payload() -> Payload {
    Payload::json(&br#"{"to":["customer-0007"],"amount":1250,"reference":"invoice 2024-117, second half"}"#[..])
}

// Identity: slot, flow id, digest.

fn derive((instance, id): &(Instance, RequestId)) -> FlowId {
    FlowId::derive(SlotCount::DEFAULT.slot_of(&instance.key), instance, id)
}

fn new_request((instance, id): &(Instance, RequestId)) -> Request {
    let deadline = Duration::from_secs(10);
    Request::new(SlotCount::DEFAULT, id.clone(), instance.clone(), handler(), payload(), deadline)
}

fn named(number: usize) -> (Instance, RequestId) {
    (instance(number), request_id(number))
}

#[library_benchmark]
#[bench::of_100(warmed(named, derive))]
fn flow_id(inputs: Vec<(Instance, RequestId)>) -> Vec<(Instance, RequestId)> {
    each(&inputs, derive);
    inputs
}

#[library_benchmark]
#[bench::of_100(warmed(named, new_request))]
fn request_new(inputs: Vec<(Instance, RequestId)>) -> Vec<(Instance, RequestId)> {
    each(&inputs, new_request);
    inputs
}

// Row keys.

fn key_of_request(flow: &FlowId) -> Bytes {
    layout().request(*flow)
}

fn key_of_state((instance, state): &(Instance, StateName)) -> Bytes {
    layout().state_value(instance, state)
}

fn parse(key: &Bytes) -> keys::RowKey {
    keys::parse(key).unwrap()
}

#[library_benchmark]
#[bench::of_100(warmed(|number| derive(&named(number)), key_of_request))]
fn request_key(inputs: Vec<FlowId>) -> Vec<FlowId> {
    each(&inputs, key_of_request);
    inputs
}

#[library_benchmark]
#[bench::of_100(warmed(|number| (instance(number), state()), key_of_state))]
fn state_key(inputs: Vec<(Instance, StateName)>) -> Vec<(Instance, StateName)> {
    each(&inputs, key_of_state);
    inputs
}

#[library_benchmark]
#[bench::of_100(warmed(|number| key_of_state(&(instance(number), state())), parse))]
fn parse_key(inputs: Vec<Bytes>) -> Vec<Bytes> {
    each(&inputs, parse);
    inputs
}

// Request records.

fn record(number: usize) -> FlowRecord {
    let (instance, request) = named(number);
    let call = |depth| CallTrace {
        depth,
        instance: instance.clone(),
        handler: handler(),
        duration_us: 417,
        status: CallStatus::Done,
    };
    let calls = vec![call(0), call(1), call(1)];
    FlowRecord {
        flow: derive(&(instance.clone(), request.clone())),
        request,
        handler: handler(),
        digest: [7; 16],
        outcome: Outcome::Committed,
        cause: None,
        result: Some(payload()),
        attempts: 1,
        accepted_unix_ms: 1_733_000_000_000,
        duration_us: 1_250,
        calls,
        instance,
    }
}

fn encode(record: &FlowRecord) -> Bytes {
    rows::encode_record(record)
}

fn decode(bytes: &Bytes) -> FlowRecord {
    rows::decode_record(bytes).unwrap()
}

#[library_benchmark]
#[bench::of_100(warmed(record, encode))]
fn encode_record(inputs: Vec<FlowRecord>) -> Vec<FlowRecord> {
    each(&inputs, encode);
    inputs
}

#[library_benchmark]
#[bench::of_100(warmed(|number| encode(&record(number)), decode))]
fn decode_record(inputs: Vec<Bytes>) -> Vec<Bytes> {
    each(&inputs, decode);
    inputs
}

// The tree of calls of a flow.

struct Family {
    entry: Instance,
    callees: Vec<Instance>,
    effects: Effects,
}

fn family(number: usize) -> Family {
    let rows = (0..3).map(|row| (Bytes::from(format!("row {number} {row}")), Some(Bytes::from_static(b"1250"))));
    Family {
        entry: instance(number),
        callees: (0..CALLS).map(|callee| instance(TIMES + number * CALLS + callee)).collect(),
        effects: Effects { writes: rows.collect(), ..Effects::default() },
    }
}

/// Calls side by side, which all write and return.
fn grow(family: &Family) -> usize {
    let mut tree = Tree::new(Limits::default(), family.entry.clone(), handler());
    let call = |callee: &Instance| tree.call(CallId::ENTRY, callee.clone(), handler()).unwrap();
    let calls: Vec<CallId> = family.callees.iter().map(call).collect();
    for call in calls {
        assert_eq!(tree.turn(call), Turn::Now);
        tree.finish(call, family.effects.clone()).unwrap();
    }
    tree.finish(CallId::ENTRY, family.effects.clone()).unwrap();
    tree.take_effects().rows.len()
}

#[library_benchmark]
#[bench::of_100(warmed(family, grow))]
fn tree_of_8_calls(inputs: Vec<Family>) -> Vec<Family> {
    each(&inputs, grow);
    inputs
}

// The ingress: which route, which request.

const ROUTES: [(&str, &str); 4] = [
    ("/accounts/{id}/transfers", "request.path.id"),
    ("/tenants/{tenant}/accounts/{id}", "request.path.tenant + '/' + request.path.id"),
    ("/orders", "request.body.customer.id"),
    ("/files/{*path}", "request.path.path"),
];

struct Call {
    table: Arc<RouteTable>,
    parts: Parts,
    body: Bytes,
}

fn table() -> Arc<RouteTable> {
    let mut topology = Topology::default();
    for (at, (path, key)) in ROUTES.iter().enumerate() {
        let route = Route {
            http: HttpMatch { method: "POST".to_owned(), path: (*path).to_owned() },
            function: "account".parse().unwrap(),
            handler: handler(),
            key: Expression::parse(key).unwrap(),
            idempotency_key: None,
            reply: Reply::Wait,
            deadline_ms: None,
            body: Body::Json,
        };
        topology.routes.insert(format!("route-{at}").parse().unwrap(), route);
    }
    Arc::new(RouteTable::build(Arc::new(topology)))
}

fn posts(path: impl Fn(usize) -> String) -> Vec<Call> {
    let table = table();
    let post = |number: usize| {
        let http = http::Request::post(path(number)).header("content-type", "application/json");
        let http = http.header("idempotency-key", request_id(number).as_str()).header("host", "127.0.0.1:8080");
        let (parts, ()) = http.body(()).unwrap().into_parts();
        let body = format!(r#"{{"customer":{{"id":"customer-{number:04}","tier":2}},"items":[1,2,3]}}"#);
        Call { table: Arc::clone(&table), parts, body: body.into() }
    };
    let calls: Vec<Call> = (0..TIMES).map(post).collect();
    each(&calls, enter);
    calls
}

fn enter(call: &Call) -> Request {
    let found = call.table.find("POST", call.parts.uri.path());
    let Ok(Found::Route(entry, variables)) = found else { unreachable!("every path of this file has a route") };
    let request = entry::request(&call.table.topology, &entry, &variables, &call.parts, call.body.clone());
    request.unwrap_or_else(|problem| unreachable!("{}", problem.reason))
}

fn find(call: &Call) -> bool {
    matches!(call.table.find("POST", call.parts.uri.path()), Ok(Found::Route(..)))
}

#[library_benchmark]
#[bench::of_100(posts(|number| format!("/tenants/north/accounts/customer-{number:04}")))]
fn route_find(inputs: Vec<Call>) -> Vec<Call> {
    each(&inputs, find);
    inputs
}

#[library_benchmark]
#[bench::path_key(posts(|number| format!("/accounts/customer-{number:04}/transfers")))]
#[bench::expression_key(posts(|number| format!("/tenants/north/accounts/customer-{number:04}")))]
#[bench::body_key(posts(|_| "/orders".to_owned()))]
fn entry_request(inputs: Vec<Call>) -> Vec<Call> {
    each(&inputs, enter);
    inputs
}

// Expressions, without what the ingress does around them.

struct Evaluation {
    expression: Expression,
    request: serde_json::Value,
}

fn evaluation(number: usize) -> Evaluation {
    Evaluation {
        expression: Expression::parse("request.path.tenant + '/' + request.path.id").unwrap(),
        request: serde_json::json!({"method": "POST", "path": {"tenant": "north", "id": format!("customer-{number:04}")}}),
    }
}

fn evaluate(evaluation: &Evaluation) -> String {
    evaluation.expression.evaluate(&evaluation.request).unwrap()
}

#[library_benchmark]
#[bench::of_100(warmed(evaluation, evaluate))]
fn expression(inputs: Vec<Evaluation>) -> Vec<Evaluation> {
    each(&inputs, evaluate);
    inputs
}

// The function protocol.

fn states() -> Vec<wire::StateValue> {
    let value = |state: &str| wire::StateValue { state: state.to_owned(), value: Some(Bytes::from_static(b"1250")) };
    ["balance", "opened", "sent", "received"].map(value).into()
}

fn invoke(number: usize) -> wire::RuntimeFrame {
    let invoke = wire::Invoke {
        invocation_id: number as u64,
        flow_id: derive(&named(number)).to_string(),
        function: "account".to_owned(),
        key: format!("customer-{number:04}"),
        handler: "transfer".to_owned(),
        payload: payload().bytes,
        content_type: payload().content_type,
        attempt: 1,
        deadline_ms: 9_950,
        states: states(),
        ..wire::Invoke::default()
    };
    wire::RuntimeFrame { frame: Some(wire::runtime_frame::Frame::Invoke(invoke)) }
}

fn finished(number: usize) -> wire::WorkerFrame {
    let write = |state: &str| {
        let value = Some(Bytes::from_static(b"1250"));
        let write = wire::Write { state: state.to_owned(), entry: None, value };
        wire::Effect { effect: Some(wire::effect::Effect::Write(write)) }
    };
    let finished = wire::Finished {
        invocation_id: number as u64,
        result: Some(wire::finished::Result::Value(payload().bytes)),
        effects: ["balance", "sent"].map(write).into(),
        content_type: String::new(),
    };
    wire::WorkerFrame { frame: Some(wire::worker_frame::Frame::Finished(finished)) }
}

fn invocations(batch: usize) -> wire::AttachRequest {
    wire::AttachRequest { frames: (0..FRAMES).map(|frame| invoke(batch * FRAMES + frame)).collect() }
}

fn answers(batch: usize) -> wire::AttachResponse {
    wire::AttachResponse { frames: (0..FRAMES).map(|frame| finished(batch * FRAMES + frame)).collect() }
}

fn decode_answers(bytes: &Bytes) -> wire::AttachResponse {
    wire::AttachResponse::decode(bytes.clone()).unwrap()
}

fn decode_invocations(bytes: &Bytes) -> wire::AttachRequest {
    wire::AttachRequest::decode(bytes.clone()).unwrap()
}

fn bytes_of(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

#[library_benchmark]
#[bench::of_16_frames(warmed(invocations, bytes_of))]
fn encode_invokes(inputs: Vec<wire::AttachRequest>) -> Vec<wire::AttachRequest> {
    each(&inputs, bytes_of);
    inputs
}

#[library_benchmark]
#[bench::of_16_frames(warmed(|batch| bytes_of(&invocations(batch)), decode_invocations))]
fn decode_invokes(inputs: Vec<Bytes>) -> Vec<Bytes> {
    each(&inputs, decode_invocations);
    inputs
}

#[library_benchmark]
#[bench::of_16_frames(warmed(|batch| bytes_of(&answers(batch)), decode_answers))]
fn decode_finished(inputs: Vec<Bytes>) -> Vec<Bytes> {
    each(&inputs, decode_answers);
    inputs
}

// Reads of the embedded store, in the thread of who reads.

struct Disk {
    threads: tokio::runtime::Runtime,
    snapshot: <EmbeddedStore as Store>::Snapshot,
    rows: Vec<Vec<Bytes>>,
    _store: EmbeddedStore,
    _directory: tempfile::TempDir,
}

impl Disk {
    fn read_all(&self) {
        let read = |rows: &Vec<Bytes>| self.threads.block_on(self.snapshot.batch_get(rows)).unwrap().len();
        each(&self.rows, read);
    }
}

fn disk() -> Disk {
    let threads = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let options = embedded::Options { reserve_bytes: 0, ..embedded::Options::default() };
    let store = EmbeddedStore::open(directory.path(), options).unwrap();
    let row = |number: usize| key_of_state(&(instance(number), state()));
    let writes: Vec<_> = (0..TIMES * ROWS_READ).map(|at| (row(at), Some(Bytes::from_static(b"1250")))).collect();
    let commit = Commit { primary: row(0), writes, ..Commit::default() };
    let committed = threads.block_on(store.commit(commit)).unwrap();
    assert!(matches!(committed, CommitResult::Committed(_)), "{committed:?}");
    let snapshot = threads.block_on(store.snapshot()).unwrap();
    let rows = (0..TIMES).map(|at| (0..ROWS_READ).map(|of| row(of * TIMES + at)).collect()).collect();
    let disk = Disk { threads, snapshot, rows, _store: store, _directory: directory };
    disk.read_all();
    disk
}

#[library_benchmark]
#[bench::of_4_rows(disk())]
fn embedded_batch_get(disk: Disk) -> Disk {
    disk.read_all();
    disk
}

library_benchmark_group!(name = identity, benchmarks = [flow_id, request_new]);
library_benchmark_group!(name = row, benchmarks = [request_key, state_key, parse_key, encode_record, decode_record]);
library_benchmark_group!(name = tree, benchmarks = [tree_of_8_calls]);
library_benchmark_group!(name = ingress, benchmarks = [route_find, expression, entry_request]);
library_benchmark_group!(name = protocol, benchmarks = [encode_invokes, decode_invokes, decode_finished]);
library_benchmark_group!(name = store, benchmarks = [embedded_batch_get]);

main!(library_benchmark_groups = [identity, row, tree, ingress, protocol, store]);
