//! A runtime that is told by an operator what to run: by a file that is swapped as a cluster does it, and by pushes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]
#![allow(dead_code, reason = "the support module is shared by several tests")]

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;
use tandem_crds::bundle::{Bundle, Workers};
use tandem_crds::load::load_text;
use tempfile::TempDir;

#[path = "support/running.rs"]
mod running;

use running::{Running, Worker, ask, post};

const PATH: &str = "/v1alpha1/topology";

/// The application, with its route at `path`; it has a function whose workers are behind a name, too.
fn bundle(worker: &Worker, path: &str, sequence: u64) -> Bundle {
    let text = format!(
        "apiVersion: tandem.dev/v1alpha1\nkind: Function\nmetadata: {{name: slow}}\nspec:\n  \
         endpoint: {{url: \"http://{}\", protocol: Http}}\n  handlers: [{{name: run}}]\n---\n\
         apiVersion: tandem.dev/v1alpha1\nkind: Function\nmetadata: {{name: far}}\nspec: {{image: a}}\n---\n\
         apiVersion: tandem.dev/v1alpha1\nkind: FunctionRoute\nmetadata: {{name: run}}\nspec:\n  \
         http: {{method: POST, path: \"{path}\"}}\n  to: {{function: slow, handler: run}}\n  key: request.path.key\n",
        worker.address
    );
    let of_far = |revision: &str, weight| {
        let (revision, url) = (revision.to_owned(), "http://127.0.0.1:1".to_owned());
        Workers { revision, url, weight }
    };
    let workers = BTreeMap::from([("far".to_owned(), vec![of_far("new", 10), of_far("old", 90)])]);
    Bundle::new(&load_text("test", &text).resources, workers, sequence).unwrap()
}

/// Puts a bundle where the runtime looks, as a `ConfigMap` is mounted: the file is a link through a directory that is
/// replaced as a whole.
fn mount(site: &Path, bundle: &Bundle) {
    let data = site.join(format!("data-{}", bundle.sequence()));
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("bundle.json.gz"), bundle.to_gzip().unwrap()).unwrap();
    let (new, current) = (site.join("..new"), site.join("..data"));
    std::os::unix::fs::symlink(&data, &new).unwrap();
    std::fs::rename(&new, &current).unwrap();
}

fn site(bundle: &Bundle) -> TempDir {
    let site = tempfile::tempdir().unwrap();
    mount(site.path(), bundle);
    std::os::unix::fs::symlink("..data/bundle.json.gz", site.path().join("bundle.json.gz")).unwrap();
    let text = "apiVersion: config.tandem.dev/v1alpha1\nkind: RuntimeConfiguration\nstore: {embedded: {directory: data}}\n\
                listen: {http: \"127.0.0.1:0\", admin: \"127.0.0.1:0\"}\ntopology: {bundle: bundle.json.gz}\n\
                telemetry: {logFormat: Text}\n";
    std::fs::write(site.path().join("runtime.yaml"), text).unwrap();
    site
}

/// The status and the body of an answer.
fn parts(answer: &str) -> (&str, Json) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
    let body = body.split_once('{').map(|(_, rest)| format!("{{{rest}")).unwrap_or_default();
    let body = body.rsplit_once('}').map(|(all, _)| format!("{all}}}")).unwrap_or_default();
    (&head[9..12], serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

fn push(runtime: &Running, bundle: &Bundle) -> (String, Json) {
    let answer = ask(&runtime.admin, "PUT", PATH, &bundle.to_json().unwrap());
    let (status, body) = parts(&answer);
    (status.to_owned(), body)
}

fn serves(runtime: &Running, worker: &Worker, path: &str) -> bool {
    worker.answer();
    post(&runtime.http, path).starts_with("HTTP/1.1 200")
}

#[test]
fn what_comes_later_counts_whichever_way_it_comes() {
    let worker = Worker::start();
    let first = bundle(&worker, "/one/{key}", 1);
    let site = site(&first);
    let mut runtime = Running::start(site.path());
    assert!(serves(&runtime, &worker, "/one/a"));

    let third = bundle(&worker, "/three/{key}", 3);
    let (status, told) = push(&runtime, &third);
    assert_eq!((status.as_str(), told["revision"].as_str().unwrap()), ("200", third.revision()), "{told}");
    assert!(serves(&runtime, &worker, "/three/a"));

    // The file lags behind: what it says now was replaced by the push.
    mount(site.path(), &bundle(&worker, "/two/{key}", 2));
    let fourth = bundle(&worker, "/four/{key}", 4);
    mount(site.path(), &fourth);
    runtime.wait_for(fourth.revision());
    assert!(!runtime.said().contains(bundle(&worker, "/two/{key}", 2).revision()), "{}", runtime.said());
    assert!(serves(&runtime, &worker, "/four/a"));

    let (status, told) = push(&runtime, &third);
    assert_eq!((status.as_str(), told["revision"].as_str().unwrap()), ("200", fourth.revision()), "it is too late");
    runtime.signal("TERM");
    assert_eq!(runtime.ended(), Some(0));
}

#[test]
fn what_is_wrong_is_refused_with_its_problems_and_changes_nothing() {
    let worker = Worker::start();
    let first = bundle(&worker, "/one/{key}", 1);
    let site = site(&first);
    let mut runtime = Running::start(site.path());
    let (status, told) = push(&runtime, &bundle(&worker, "no-slash", 2));
    assert_eq!(status, "422");
    assert!(told["problems"][0].as_str().unwrap().contains("E107"), "{told}");
    let answer = ask(&runtime.admin, "PUT", PATH, b"{}");
    assert_eq!(parts(&answer).0, "400", "{answer}");
    let report = ask(&runtime.admin, "GET", PATH, b"");
    let (status, report) = parts(&report);
    assert_eq!((status, report["revision"].as_str().unwrap()), ("200", first.revision()));
    assert!(serves(&runtime, &worker, "/one/a"));
    runtime.signal("TERM");
    assert_eq!(runtime.ended(), Some(0));
}

#[test]
fn workers_of_each_revision_are_reported() {
    let worker = Worker::start();
    let site = site(&bundle(&worker, "/one/{key}", 1));
    let mut runtime = Running::start(site.path());
    assert!(serves(&runtime, &worker, "/one/a"));
    let report = runtime.until("the refused workers are known", |runtime| {
        let report = parts(&ask(&runtime.admin, "GET", PATH, b"")).1;
        (!report["functions"][0]["revisions"][1]["problem"].is_null()).then_some(report)
    });
    let (far, slow) = (&report["functions"][0], &report["functions"][1]);
    assert_eq!((far["name"].as_str(), slow["name"].as_str()), (Some("far"), Some("slow")));
    assert_eq!(far["revisions"][0]["revision"], "new");
    assert_eq!(report["store"], serde_json::json!({"ready": true}));
    assert_eq!(far["revisions"][1]["problem"]["reason"], "Unreachable");
    assert_eq!(far["revisions"][1]["workersReady"], 0);
    let expected = serde_json::json!({"revision": "", "workersReady": 1, "invocations": 1, "failures": 0});
    assert_eq!(slow["revisions"][0], expected);
    runtime.signal("TERM");
    assert_eq!(runtime.ended(), Some(0));
}

#[test]
fn a_bundle_that_is_wrong_from_the_start_is_waited_out() {
    let worker = Worker::start();
    let site = site(&bundle(&worker, "no-slash", 1));
    let admin = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let configuration = std::fs::read_to_string(site.path().join("runtime.yaml")).unwrap();
    let configuration = configuration.replace("admin: \"127.0.0.1:0\"", &format!("admin: \"{admin}\""));
    std::fs::write(site.path().join("runtime.yaml"), configuration).unwrap();
    let starting = Running::begin(site.path());
    let ready = |starting: &mut Running, expected: &str| {
        starting.until(expected, |_| {
            let answer = ask(&admin, "GET", "/readyz", b"");
            answer.contains(expected).then_some(answer)
        })
    };
    let mut runtime = starting;
    let answer = ready(&mut runtime, "E107");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(ask(&admin, "GET", "/livez", b"").starts_with("HTTP/1.1 200"));
    let (status, report) = {
        let answer = ask(&admin, "GET", PATH, b"");
        let (s, r) = parts(&answer);
        (s.to_owned(), r)
    };
    assert_eq!((status.as_str(), report["revision"].as_str()), ("200", Some("")), "{report}");
    assert!(report["problem"].as_str().unwrap().contains("E107"), "{report}");
    let answer = ask(&admin, "PUT", PATH, &bundle(&worker, "also-wrong", 2).to_json().unwrap());
    assert!(answer.starts_with("HTTP/1.1 422"), "{answer}");
    let right = bundle(&worker, "/right/{key}", 3);
    let answer = ask(&admin, "PUT", PATH, &right.to_json().unwrap());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    runtime.is_ready(site.path());
    let answer = ask(&admin, "GET", PATH, b"");
    assert_eq!(parts(&answer).1["revision"], right.revision());
    assert!(serves(&runtime, &worker, "/right/a"));
    // From then on, what is wrong changes nothing, and is told.
    mount(site.path(), &bundle(&worker, "no-slash", 4));
    let report = runtime.until("it is told", |_| {
        let report = parts(&ask(&admin, "GET", PATH, b"")).1;
        (!report["problem"].is_null()).then_some(report)
    });
    assert_eq!(report["revision"], right.revision());
    assert!(serves(&runtime, &worker, "/right/b"));
    runtime.signal("TERM");
    assert_eq!(runtime.ended(), Some(0));
}

#[test]
fn a_runtime_that_waits_for_a_bundle_can_be_told_to_end() {
    let worker = Worker::start();
    let site = site(&bundle(&worker, "no-slash", 1));
    let mut runtime = Running::begin(site.path());
    runtime.wait_for("waiting for another bundle");
    runtime.signal("TERM");
    assert_eq!(runtime.ended(), Some(0));
}
