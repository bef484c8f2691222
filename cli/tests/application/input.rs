//! Requests that make no sense: each is refused with a reason of its own, changes nothing, and disturbs nobody.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::bank::{Transfer, accounts, bank, check_books, open_accounts};
use super::http::{Answer, Request, exchange, send_and_go};
use super::process::Dev;

const ACCOUNTS: usize = 3;
/// What a body may have by default.
const BODY_BYTES_MAX: usize = 1 << 20;
/// What keys may have.
const KEY_BYTES_MAX: usize = 1024;
/// What request ids may have.
const ID_BYTES_MAX: usize = 255;
/// A flow that never was.
const NO_FLOW: &str = "000000000000000000000000";

/// Routes whose key and request id come out of the body.
const ROUTES: &str = "\
apiVersion: tandem.dev/v1alpha1
kind: FunctionRoute
metadata: {name: pay}
spec:
  http: {method: POST, path: /pay}
  to: {function: account, handler: transfer}
  key: request.body.debtor
---
apiVersion: tandem.dev/v1alpha1
kind: FunctionRoute
metadata: {name: pay-once}
spec:
  http: {method: POST, path: /pay-once}
  to: {function: account, handler: transfer}
  key: \"'a-0'\"
  idempotencyKey: request.body.id
";

fn post(path: &str) -> Request {
    Request::new("POST", path)
}

fn transfer() -> Request {
    post("/accounts/a-0/transfers")
}

/// A request, and what must be said of it: status, reason, and what the detail names.
type Case = (Request, u16, &'static str, &'static str);

/// What is wrong with the way a request is written.
fn malformed() -> Vec<Case> {
    let good = r#"{"to": ["a-1"], "amount": 1}"#;
    let long_id = "i".repeat(ID_BYTES_MAX + 1);
    vec![
        (transfer().json("{\"to\": [\"a-1\"],\n \"amount\": }"), 400, "malformed-json", "line 2 column 12"),
        (transfer().json("{\"to\""), 400, "malformed-json", "line 1 column 5"),
        (transfer().json("{} {}"), 400, "malformed-json", "line 1 column 4"),
        (transfer().header("content-type", "application/json").body(b"\xff{}"), 400, "malformed-json", "byte 0"),
        (transfer().json(&"[".repeat(100_000)), 400, "malformed-json", "column"),
        (
            transfer().header("content-type", "text/plain").body(good.as_bytes()),
            415,
            "unsupported-media-type",
            "text/plain",
        ),
        (transfer().json(good).id(&long_id), 400, "malformed-header", "255"),
        (transfer().json(good).id("a").id("b"), 400, "malformed-header", "idempotency-key"),
        (transfer().json(good).id("\"open"), 400, "malformed-header", "idempotency-key"),
        (transfer().json(good).header("tandem-deadline", "soon"), 400, "malformed-header", "tandem-deadline"),
        (transfer().json(good).header("tandem-as-of", "noon"), 400, "malformed-header", "tandem-as-of"),
        (post("/accounts/%ff/transfers").json(good), 400, "malformed-path", "UTF-8"),
    ]
}

/// What is well written and leads nowhere.
fn misdirected() -> Vec<Case> {
    let good = r#"{"to": ["a-1"], "amount": 1}"#;
    let long_key = format!("/accounts/{}/transfers", "k".repeat(KEY_BYTES_MAX + 1));
    vec![
        (post("/acounts/a-0/transfers").json(good), 404, "no-route", "/acounts/a-0/transfers"),
        (Request::new("DELETE", "/accounts/a-0"), 405, "method-not-allowed", "DELETE"),
        (Request::new("BREW", "/accounts/a-0"), 405, "method-not-allowed", "BREW"),
        (post("/pay").json(good), 400, "key-expression", "request.body.debtor"),
        (post("/pay"), 400, "key-expression", "request.body.debtor"),
        (post("/pay").json(r#"{"debtor": ["a-0"]}"#), 400, "key-expression", "request.body.debtor"),
        (post("/pay").json(r#"{"debtor": ""}"#), 400, "key-expression", "request.body.debtor"),
        (post("/pay-once").json(good), 400, "idempotency-expression", "request.body.id"),
        (post(&long_key).json(good), 400, "key-expression", "1024"),
        (transfer().json(good).header("tandem-as-of", "2026-01-01T00:00:00Z"), 400, "as-of-needs-read-only", ""),
        (Request::new("GET", &format!("/flows/{NO_FLOW}")), 404, "unknown-flow", NO_FLOW),
        (Request::new("DELETE", &format!("/flows/{NO_FLOW}")), 404, "unknown-flow", NO_FLOW),
        (Request::new("GET", "/flows/nonsense"), 400, "malformed-flow-id", ""),
        (Request::new("PUT", &format!("/flows/{NO_FLOW}")), 405, "method-not-allowed", "PUT"),
        (Request::new("GET", &format!("/flows/{NO_FLOW}?wait=long")), 400, "malformed-query", "long"),
        (Request::new("GET", "/egress/no-such"), 404, "unknown-egress", "no-such"),
    ]
}

/// Checks an answer, and gives its reason.
fn check_problem(answer: &Answer, status: u16, reason: &str, detail: &str) -> String {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{reason}: {}", answer.text());
    let problem = answer.json();
    let found = (answer.status, problem["status"].as_u64(), problem["reason"].as_str());
    assert_eq!(found, (status, Some(status.into()), Some(reason)), "{}", answer.text());
    assert!(problem["detail"].as_str().unwrap().contains(detail), "{detail:?} is not in {}", answer.text());
    assert!(problem["type"].as_str().unwrap().ends_with(&format!("#{reason}")), "{}", answer.text());
    assert!(problem["title"].is_string(), "{}", answer.text());
    reason.to_owned()
}

#[test]
fn nonsense_is_refused_with_its_own_reason_and_nothing_is_applied() {
    let directory = bank();
    std::fs::write(directory.path().join("routes.yaml"), ROUTES).unwrap();
    let dev = Dev::start(directory.path());
    open_accounts(&dev, ACCOUNTS);
    let first = Transfer::number(1, ACCOUNTS);
    let answer = first.request.settle(&dev.http);
    assert!(answer.committed(), "{answer:?}");
    let flows = || Request::new("GET", "/flows?limit=1000").send(&dev.admin).unwrap().json();
    let before = (accounts(&dev), flows());

    let mut reasons = BTreeSet::new();
    for (request, status, reason, detail) in malformed().into_iter().chain(misdirected()) {
        reasons.insert(check_problem(&request.send(&dev.http).unwrap(), status, reason, detail));
    }
    let reused = post("/accounts/a-1/transfers").json(r#"{"to": ["a-0"], "amount": 7}"#).id("t-1");
    reasons.insert(check_problem(&reused.send(&dev.http).unwrap(), 422, "request-id-reused", "t-1"));
    assert_eq!(reasons.len(), 14, "{reasons:?}");
    let no_method = Request::new("DELETE", "/accounts/a-0").send(&dev.http).unwrap();
    assert_eq!(no_method.header("allow").map(|allow| allow.contains("GET") && allow.contains("PUT")), Some(true));

    assert_eq!((accounts(&dev), flows()), before);
    // The server is none the worse for it, and the id that was tried for another body still has its answer.
    assert_eq!(first.request.settle(&dev.http).outcome(), answer.outcome());
    let second = Transfer::number(2, ACCOUNTS);
    let second_answer = second.request.settle(&dev.http);
    check_books(&dev, &[(first, answer), (second, second_answer)]);
    dev.stop();
}

#[test]
fn too_much_is_refused_and_the_server_goes_on() {
    let directory = bank();
    let dev = Dev::start(directory.path());
    open_accounts(&dev, ACCOUNTS);
    let before = accounts(&dev);

    let large = format!("{{\"to\": [\"{}\"], \"amount\": 1}}", "x".repeat(BODY_BYTES_MAX));
    let refused = transfer().json(&large).send(&dev.http).expect("the whole answer arrives, though not all was read");
    check_problem(&refused, 413, "payload-too-large", &BODY_BYTES_MAX.to_string());
    let declared = transfer().header("content-type", "application/json").header("content-length", "99999999999");
    check_problem(&declared.send(&dev.http).unwrap(), 413, "payload-too-large", "99999999999");
    let chunks = "10000\r\n".to_owned() + &"x".repeat(0x10000) + "\r\n";
    let mut chunked =
        String::from("POST /accounts/a-0/transfers HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    (0..=BODY_BYTES_MAX / 0x10000).for_each(|_| chunked.push_str(&chunks));
    check_problem(&exchange(&dev.http, chunked.as_bytes()).unwrap(), 413, "payload-too-large", "more");
    // The largest body that is allowed is read, and refused for what is in it.
    let empty = r#"{"to": [], "amount": 1}"#;
    let largest = empty.to_owned() + &" ".repeat(BODY_BYTES_MAX - empty.len());
    check_problem_of_function(&transfer().json(&largest).send(&dev.http).unwrap(), "bad-creditors");

    // The header is refused before there is a request that could be answered with a document.
    let mut many = transfer().json("{}");
    for number in 0..100 {
        many = many.header(&format!("x-{number}"), "1");
    }
    assert_eq!(many.send(&dev.http).unwrap().status, 431);
    let long = transfer().json("{}").header("x-long", &"x".repeat(100_000));
    assert_eq!(long.send(&dev.http).unwrap().status, 431);
    assert_eq!(exchange(&dev.http, b"this is no HTTP\r\n\r\n").unwrap().status, 400);
    assert_eq!(exchange(&dev.http, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n").unwrap().status, 400);
    half_requests(&dev);

    assert_eq!(accounts(&dev), before);
    let transfer = Transfer::number(1, ACCOUNTS);
    let answer = transfer.request.settle(&dev.http);
    check_books(&dev, &[(transfer, answer)]);
    dev.stop();
}

fn check_problem_of_function(answer: &Answer, reason: &str) {
    assert_eq!((answer.status, answer.json()["reason"].as_str()), (409, Some(reason)), "{}", answer.text());
}

/// Many that begin and do not go on hold nobody up.
fn half_requests(dev: &Dev) {
    let mut begun = String::from("POST /accounts/a-0/transfers HTTP/1.1\r\nhost: test\r\n");
    let _ = write!(begun, "content-type: application/json\r\ncontent-length: 100\r\n\r\n{{");
    for length in [0, 1, begun.len() / 2, begun.len()] {
        (0..20).for_each(|_| send_and_go(&dev.http, &begun.as_bytes()[..length], true));
    }
    let open: Vec<_> = (0..200).map(|_| std::net::TcpStream::connect(&dev.http).unwrap()).collect();
    assert_eq!(Request::new("GET", "/accounts/a-0").send(&dev.http).unwrap().status, 200);
    drop(open);
}
