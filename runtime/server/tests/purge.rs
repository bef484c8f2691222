//! `tandem-runtime purge` on a cluster: who is alive is named and left alone, and what is purged is begun anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what went wrong by panicking")]
#![allow(dead_code, reason = "the support module is shared by several tests")]

use std::path::Path;
use std::process::Command;

#[path = "support/running.rs"]
mod running;

use running::{Running, Worker, ask, post};

const HEAD: &str = "apiVersion: config.tandem.dev/v1alpha1\nkind: RuntimeConfiguration\n";

/// A runtime that others can reach.
const REACHED: &str =
    "listen: {http: \"127.0.0.1:0\", admin: \"127.0.0.1:0\", peer: \"127.0.0.1:0\"}\npeers: {member: shop-0}";
/// One that nobody can.
const UNREACHED: &str = "listen: {http: \"127.0.0.1:0\", admin: \"127.0.0.1:0\"}";

fn write_site(directory: &Path, worker: &Worker, (endpoints, prefix): (&[String], &str), listen: &str) {
    std::fs::create_dir(directory.join("app")).unwrap();
    let resources = format!(
        "apiVersion: tandem.dev/v1alpha1\nkind: Function\nmetadata: {{name: slow}}\nspec:\n  \
         endpoint: {{url: \"http://{}\", protocol: Http}}\n  handlers: [{{name: run}}]\n---\n\
         apiVersion: tandem.dev/v1alpha1\nkind: FunctionRoute\nmetadata: {{name: run}}\nspec:\n  \
         http: {{method: POST, path: \"/slow/{{key}}\"}}\n  to: {{function: slow, handler: run}}\n  key: request.path.key\n",
        worker.address
    );
    std::fs::write(directory.join("app/slow.yaml"), resources).unwrap();
    let store = format!("store: {{tikv: {{endpoints: {endpoints:?}, prefix: {prefix:?}}}}}");
    let text = format!("{HEAD}{store}\n{listen}\ntopology: {{resources: [app]}}\ntelemetry: {{logFormat: Text}}\n");
    std::fs::write(directory.join("runtime.yaml"), text).unwrap();
}

fn purge(directory: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem-runtime"));
    let output = command.current_dir(directory).args(["purge", "--config", "runtime.yaml"]).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// One request, which makes a record of itself.
fn request(runtime: &Running, worker: &Worker) -> String {
    let http = runtime.http.clone();
    let asking = std::thread::spawn(move || post(&http, "/slow/a"));
    worker.asked();
    worker.answer();
    let answer = asking.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let flow = answer.lines().find_map(|line| line.strip_prefix("tandem-flow: ")).unwrap();
    format!("/flows/{}", flow.trim())
}

#[test]
fn state_in_tikv_is_purged_once_nobody_is_alive() {
    let tokio = tokio::runtime::Runtime::new().unwrap();
    let Some(place) = tokio.block_on(tandem_e2e_tikv::shared()).expect("the cluster starts") else { return };
    let prefix = String::from_utf8(place.prefix).unwrap();
    let (worker, site) = (Worker::start(), tempfile::tempdir().unwrap());
    let store = (&place.cluster.pd_endpoints()[..], prefix.trim_end_matches('/'));
    write_site(site.path(), &worker, store, REACHED);
    let mut runtime = Running::start(site.path());
    let flow = request(&runtime, &worker);
    assert!(ask(&runtime.http, "GET", &flow, b"").starts_with("HTTP/1.1 200"));
    let (status, said) = purge(site.path());
    assert_eq!(status, Some(3), "{said}");
    assert!(said.contains("shop-0 at http://127.0.0.1:"), "{said}");
    assert!(ask(&runtime.http, "GET", &flow, b"").starts_with("HTTP/1.1 200"), "it has been touched");
    runtime.signal("TERM");
    assert_eq!(runtime.ended(), Some(0));
    std::fs::remove_file(site.path().join("ready.json")).unwrap();
    let (status, said) = purge(site.path());
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("nothing is left"), "{said}");
    let (status, said) = purge(site.path());
    assert_eq!((status, said.contains("there is nothing")), (Some(0), true), "it can be repeated: {said}");
    let runtime = Running::start(site.path());
    assert!(ask(&runtime.http, "GET", &flow, b"").starts_with("HTTP/1.1 404"), "the record is there still");
    request(&runtime, &worker);
}

#[test]
fn a_runtime_that_nobody_can_reach_is_seen_to_be_alive() {
    let tokio = tokio::runtime::Runtime::new().unwrap();
    let Some(place) = tokio.block_on(tandem_e2e_tikv::shared()).expect("the cluster starts") else { return };
    let prefix = String::from_utf8(place.prefix).unwrap();
    let (worker, site) = (Worker::start(), tempfile::tempdir().unwrap());
    let store = (&place.cluster.pd_endpoints()[..], prefix.trim_end_matches('/'));
    write_site(site.path(), &worker, store, UNREACHED);
    let mut runtime = Running::start(site.path());
    let flow = request(&runtime, &worker);
    let (status, said) = purge(site.path());
    assert_eq!(status, Some(3), "{said}");
    assert!(said.contains("runtimes are alive"), "{said}");
    assert!(ask(&runtime.http, "GET", &flow, b"").starts_with("HTTP/1.1 200"), "it has been touched");
    runtime.signal("TERM");
    assert_eq!(runtime.ended(), Some(0));
}
