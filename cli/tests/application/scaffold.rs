//! The first steps: a new function, run, called, and looked at.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::http::Request;
use super::process::{Dev, said, tandem};

/// A function whose flows run until their deadline, because it has no worker.
const IDLE: &str = "\
apiVersion: tandem.dev/v1alpha1
kind: Function
metadata: {name: idle}
spec:
  image: example/idle:0.1.0
  handlers:
  - {name: nap}
";

/// Runs a command on the admin port, which must end with `status`.
fn ask(dev: &Dev, status: i32, arguments: &[&str]) -> Output {
    let ended = dev.ask(arguments);
    assert_eq!(ended.status.code(), Some(status), "{arguments:?}: {}", said(&ended));
    ended
}

/// The same with `-o json`.
fn ask_json(dev: &Dev, status: i32, arguments: &[&str]) -> Value {
    let ended = ask(dev, status, &[arguments, &["-o", "json"]].concat());
    serde_json::from_slice(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&ended)))
}

fn has_python() -> bool {
    let mut python = Command::new("python3");
    python.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    python.status().is_ok_and(|status| status.success())
}

#[test]
fn new_function_in_python_answers_and_can_be_looked_at() {
    if !has_python() {
        println!("skipped: there is no python3");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("greeter");
    let path = directory.display().to_string();
    let new = ["new", "greeter", "--lang", "python-http", "--dir", &path];
    assert!(tandem(&new).status.success());
    assert_eq!(tandem(&new).status.code(), Some(1), "it wrote over what was there");
    std::fs::write(directory.join("idle.yaml"), IDLE).unwrap();
    let dev = Dev::start(&directory);
    over_http(&dev);
    invoke(&dev);
    look_at_flows(&dev);
    look_at_state(&dev);
    cancel(&dev);
    dev.stop();
}

fn over_http(dev: &Dev) {
    let add = |by: i64, id: &str| {
        let body = json!({"by": by}).to_string();
        Request::new("POST", "/greeter/a").json(&body).id(id).send(&dev.http).unwrap()
    };
    let first = add(2, "one");
    assert_eq!((first.status, first.text().as_str(), first.committed()), (200, "2", true), "{first:?}");
    assert_eq!(add(2, "one").outcome(), first.outcome());
    let below = add(-3, "two");
    assert_eq!((below.status, below.json()["reason"].as_str()), (409, Some("below-zero")), "{below:?}");
    let count = Request::new("GET", "/greeter/a").send(&dev.http).unwrap();
    assert_eq!((count.status, count.text().as_str()), (200, "2"), "{count:?}");
}

fn invoke(dev: &Dev) {
    let add = ["invoke", "greeter", "b", "add", "--data", r#"{"by": 5}"#, "--id", "inv-1"];
    let first = ask(dev, 0, &add);
    assert_eq!(String::from_utf8_lossy(&first.stdout).trim(), "5");
    let again = ask_json(dev, 0, &add);
    assert_eq!((&again["result"], &again["repeated"]), (&json!(5), &json!(true)), "{again}");
    assert_eq!((&again["outcome"], &again["request"]), (&json!("COMMITTED"), &json!("inv-1")), "{again}");
    let rejected = ask_json(dev, 1, &["invoke", "greeter", "b", "add", "--data", r#"{"by": -9}"#]);
    assert_eq!((&rejected["outcome"], &rejected["reason"]), (&json!("REJECTED"), &json!("below-zero")), "{rejected}");
    let other = ask_json(dev, 1, &["invoke", "greeter", "b", "add", "--data", r#"{"by": 6}"#, "--id", "inv-1"]);
    assert_eq!(other["reason"], json!("request-id-reused"), "{other}");
    let broken = ask(dev, 1, &["invoke", "greeter", "b", "add", "--data", r#"{"by": "x"}"#]);
    assert!(said(&broken).contains("FAILED") && said(&broken).contains("TypeError"), "{}", said(&broken));
    let unknown = ask(dev, 1, &["invoke", "greeter", "b", "subtract"]);
    assert!(said(&unknown).contains("unknown-handler"), "{}", said(&unknown));
    let nobody = tandem(&["invoke", "greeter", "b", "get", "--admin", "http://127.0.0.1:9"]);
    assert_eq!(nobody.status.code(), Some(2), "{}", said(&nobody));
}

fn look_at_flows(dev: &Dev) {
    let all = ask_json(dev, 0, &["flows", "list", "--function", "greeter"]);
    let flows = all["flows"].as_array().unwrap();
    let outcome = |outcome: &str| flows.iter().filter(|flow| flow["outcome"] == outcome).count();
    assert_eq!((outcome("COMMITTED"), outcome("REJECTED"), outcome("FAILED")), (3, 2, 1), "{all}");
    let rejected = ask_json(dev, 0, &["flows", "list", "--outcome", "REJECTED", "--limit", "1"]);
    let flow = &rejected["flows"][0];
    assert_eq!((flow["instance"].as_str(), rejected["flows"].as_array().unwrap().len()), (Some("greeter/b"), 1));
    let id = flow["flow"].as_str().unwrap();
    assert_eq!(&ask_json(dev, 0, &["flows", "get", id]), flow);
    let text = said(&ask(dev, 0, &["flows", "get", id]));
    assert!(text.contains("REJECTED") && text.contains("below-zero") && text.contains("greeter/b add"), "{text}");
    let late = ask_json(dev, 1, &["flows", "cancel", id]);
    assert_eq!(late["reason"], json!("too-late"), "{late}");
    let unknown = ask_json(dev, 1, &["flows", "get", "000000000000000000000000"]);
    assert_eq!(unknown["reason"], json!("unknown-flow"), "{unknown}");
    let malformed = ask_json(dev, 2, &["flows", "cancel", "nonsense"]);
    assert_eq!(malformed["reason"], json!("malformed-flow-id"), "{malformed}");
    ask(dev, 2, &["flows", "list", "--outcome", "MAYBE"]);
}

fn look_at_state(dev: &Dev) {
    let state = ask_json(dev, 0, &["state", "get", "greeter", "b"]);
    assert_eq!((&state["values"]["count"], &state["key"]), (&json!(5), &json!("b")), "{state}");
    assert!(said(&ask(dev, 0, &["state", "get", "greeter", "a"])).contains("count   2"));
    let nothing = ask_json(dev, 1, &["state", "get", "greeter", "c"]);
    assert_eq!(nothing["values"], json!({}), "{nothing}");
    // In an order of the store's own, which stays the same from page to page.
    let all = ask_json(dev, 0, &["state", "list", "greeter"]);
    assert!(all["keys"] == json!(["a", "b"]) || all["keys"] == json!(["b", "a"]), "{all}");
    let (first, second) = (all["keys"][0].as_str().unwrap(), all["keys"][1].as_str().unwrap());
    let page = ask_json(dev, 0, &["state", "list", "greeter", "--limit", "1"]);
    assert_eq!(page, json!({"keys": [first], "next": first}));
    let rest = ask_json(dev, 0, &["state", "list", "greeter", "--after", first]);
    assert_eq!(rest["keys"], json!([second]));
    assert_eq!(ask_json(dev, 0, &["state", "list", "idle"])["keys"], json!([]));
    let unknown = ask_json(dev, 1, &["state", "list", "greter"]);
    assert_eq!(unknown["reason"], json!("unknown-function"), "{unknown}");
}

fn cancel(dev: &Dev) {
    let begun = ask_json(dev, 0, &["invoke", "idle", "a", "nap", "--async", "--deadline", "30s"]);
    assert_eq!((&begun["outcome"], &begun["result"]), (&Value::Null, &Value::Null), "{begun}");
    let id = begun["flow"].as_str().unwrap();
    let running = ask_json(dev, 0, &["flows", "list"]);
    assert_eq!((&running["running"][0]["flow"], &running["running"][0]["instance"]), (&json!(id), &json!("idle/a")));
    assert!(said(&ask(dev, 0, &["flows", "get", id])).starts_with("RUNNING  idle/a nap"));
    let cancelled = ask_json(dev, 0, &["flows", "cancel", id]);
    assert_eq!(cancelled["outcome"], json!("CANCELLED"), "{cancelled}");
    assert_eq!(ask_json(dev, 0, &["flows", "cancel", id]), cancelled);
    assert_eq!(ask_json(dev, 0, &["flows", "get", id, "--wait", "5s"]), cancelled);
    assert_eq!(ask_json(dev, 0, &["flows", "list"])["running"], json!([]));
}
