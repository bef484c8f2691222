//! `tandem-runtime` as its user meets it: how it starts, what it says when it cannot, how it ends.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]
#![allow(dead_code, reason = "the support module is shared by several tests")]

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

#[path = "support/running.rs"]
mod running;

use running::{PATIENCE, Running, Worker, post};

const HEAD: &str = "apiVersion: config.tandem.dev/v1alpha1\nkind: RuntimeConfiguration\n";

/// A directory with an application of one function, `slow`, whose worker is this one, and a configuration for it.
fn site(worker: &Worker) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("app")).unwrap();
    write_resources(directory.path(), worker, "/slow/{key}");
    let text = format!(
        "{HEAD}store: {{embedded: {{directory: data}}}}\nlisten: {{http: \"127.0.0.1:0\", admin: \"127.0.0.1:0\"}}\n\
         topology: {{resources: [app]}}\ntelemetry: {{logFormat: Text}}\n"
    );
    std::fs::write(directory.path().join("runtime.yaml"), text).unwrap();
    directory
}

fn write_resources(directory: &Path, worker: &Worker, path: &str) {
    let text = format!(
        "apiVersion: tandem.dev/v1alpha1\nkind: Function\nmetadata: {{name: slow}}\nspec:\n  \
         endpoint: {{url: \"http://{}\", protocol: Http}}\n  handlers: [{{name: run}}]\n---\n\
         apiVersion: tandem.dev/v1alpha1\nkind: FunctionRoute\nmetadata: {{name: run}}\nspec:\n  \
         http: {{method: POST, path: \"{path}\"}}\n  to: {{function: slow, handler: run}}\n  key: request.path.key\n",
        worker.address
    );
    std::fs::write(directory.join("app/slow.yaml"), text).unwrap();
}

/// Runs it to its end, which comes at once; its status, and what it printed.
fn run(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let began = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem-runtime"));
    let output = command.current_dir(directory).env("RUST_BACKTRACE", "0").args(arguments).output().unwrap();
    assert!(began.elapsed() < PATIENCE, "it took {:?}", began.elapsed());
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), said)
}

#[test]
fn it_serves_and_drains_what_runs_when_it_is_told_to_end() {
    let worker = Worker::start();
    let site = site(&worker);
    let mut runtime = Running::start(site.path());
    let http = runtime.http.clone();
    let asking = std::thread::spawn(move || post(&http, "/slow/a"));
    worker.asked();
    runtime.signal("TERM");
    runtime.wait_for("no more requests are taken");
    // A flow that runs is waited for, and its client is answered.
    worker.answer();
    let answer = asking.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(runtime.ended(), Some(0));
}

#[test]
fn a_second_interrupt_does_not_wait() {
    let worker = Worker::start();
    let site = site(&worker);
    let mut runtime = Running::start(site.path());
    let http = runtime.http.clone();
    let asking = std::thread::spawn(move || post(&http, "/slow/a"));
    worker.asked();
    runtime.signal("INT");
    runtime.wait_for("no more requests are taken");
    let began = Instant::now();
    runtime.signal("INT");
    assert_eq!(runtime.ended(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(5), "it waited {:?}", began.elapsed());
    worker.answer();
    let answer = asking.join().unwrap();
    assert!(!answer.contains("COMMITTED"), "nobody was there to commit it: {answer}");
}

#[test]
fn resources_are_watched_and_wrong_ones_change_nothing() {
    let worker = Worker::start();
    let site = site(&worker);
    let mut runtime = Running::start(site.path());
    write_resources(site.path(), &worker, "no-slash");
    runtime.wait_for("the change is not applied");
    assert!(runtime.said().contains("slow.yaml:"), "{}", runtime.said());
    write_resources(site.path(), &worker, "/other/{key}");
    runtime.wait_for("resources reloaded");
    assert!(post(&runtime.http, "/slow/a").starts_with("HTTP/1.1 404"));
    worker.answer();
    assert!(post(&runtime.http, "/other/a").starts_with("HTTP/1.1 200"));
    runtime.signal("TERM");
    assert_eq!(runtime.ended(), Some(0));
}

#[test]
fn check_touches_neither_ports_nor_the_store() {
    let worker = Worker::start();
    let site = site(&worker);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let check = ["--config", "runtime.yaml", "--check", "--http", &address];
    assert_eq!(run(site.path(), &check), (Some(0), "the configuration is right: embedded store in data\n".to_owned()));
    assert!(!site.path().join("data").exists());
    write_resources(site.path(), &worker, "no-slash");
    let (status, said) = run(site.path(), &check);
    assert!(status == Some(2) && said.contains("app/slow.yaml:12:30  error[E007]"), "{status:?} {said}");
    std::fs::write(site.path().join("runtime.yaml"), format!("{HEAD}stor: 1\n")).unwrap();
    let (status, said) = run(site.path(), &check);
    assert!(status == Some(2) && said.contains("runtime.yaml:3:1  error[E004]"), "{status:?} {said}");
}

#[test]
fn what_it_is_told_wrong_ends_it_with_2() {
    let directory = tempfile::tempdir().unwrap();
    let check = |arguments: &[&str], expected: &str| {
        let (status, said) = run(directory.path(), arguments);
        assert!(status == Some(2) && said.contains(expected), "{arguments:?}: {status:?} {said}");
    };
    check(&["--config", "no-such.yaml"], "error: failed to read no-such.yaml: No such file");
    check(&["--colour"], "unexpected argument '--colour'");
    check(&["--log-format", "jason"], "invalid value 'jason'");
    check(&[], "error[E008] no store is named");
    check(&["--store", "data", "--resources", "no-such"], "error[E013] no-such cannot be read");
}

#[test]
fn what_it_cannot_have_ends_it_with_1() {
    let worker = Worker::start();
    let site = site(&worker);
    let check = |arguments: &[&str], expected: &str| {
        let (status, said) = run(site.path(), &[&["--config", "runtime.yaml"], arguments].concat());
        assert!(status == Some(1) && said.contains(expected), "{arguments:?}: {status:?} {said}");
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let expected =
        format!("error: {address} is in use by another process; choose another address with listen.http (--http)");
    check(&["--http", &address], &expected);
    check(&["--admin", "192.0.2.1:1"], "error: failed to listen on 192.0.2.1:1 (listen.admin (--admin))");
    std::fs::write(site.path().join("file"), "").unwrap();
    check(&["--store", "file/data"], "error: failed to make file/data: ");
    check(&["--ready-file", "no/such/ready.json"], "error: failed to write no/such/ready.json: ");
    let mut runtime = Running::start(site.path());
    check(&[], "is in use by another process");
    runtime.signal("TERM");
    assert_eq!(runtime.ended(), Some(0));
}

/// A cluster that is not there is said within seconds, so that whoever runs the process can try again.
#[test]
fn a_store_that_does_not_answer_ends_it_with_1() {
    let worker = Worker::start();
    let site = site(&worker);
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // Takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for address in [gone, silent.local_addr().unwrap()] {
        let store = format!("tikv://{address}/x");
        let (status, said) = run(site.path(), &["--config", "runtime.yaml", "--store", &store]);
        let expected = format!("error: failed to open the TiKV at {address}, prefix x: ");
        assert!(status == Some(1) && said.contains(&expected), "{status:?} {said}");
    }
}

#[test]
fn the_schema_is_printed() {
    let directory = tempfile::tempdir().unwrap();
    let (status, said) = run(directory.path(), &["--print-schema"]);
    assert_eq!(status, Some(0));
    let printed: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(&printed, tandem_server::configuration::schema());
}

#[test]
fn a_purge_removes_all_state_but_not_of_a_runtime_that_lives() {
    let worker = Worker::start();
    let site = site(&worker);
    let mut runtime = Running::start(site.path());
    let (status, said) = run(site.path(), &["purge", "--config", "runtime.yaml"]);
    assert_eq!(status, Some(3), "{said}");
    assert!(said.contains("in use by another process"), "{said}");
    runtime.signal("TERM");
    assert_eq!(runtime.ended(), Some(0));
    assert!(site.path().join("data/store/data").exists());
    let (status, said) = run(site.path(), &["purge", "--config", "runtime.yaml"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(!site.path().join("data/store").exists() && !site.path().join("data/topology.json").exists());
    let (status, said) = run(site.path(), &["purge", "--config", "runtime.yaml"]);
    assert_eq!((status, said.contains("nothing is left")), (Some(0), true), "it can be repeated: {said}");
}

#[test]
fn a_purge_says_what_is_wrong() {
    let site = tempfile::tempdir().unwrap();
    let (status, said) = run(site.path(), &["purge"]);
    assert_eq!(status, Some(2), "{said}");
    let (status, said) = run(site.path(), &["purge", "--config", "nowhere.yaml"]);
    assert_eq!((status, said.contains("nowhere.yaml")), (Some(2), true), "{said}");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (status, said) = run(site.path(), &["purge", "--store", &format!("tikv://{silent}/shop")]);
    assert_eq!((status, said.contains(&silent.to_string())), (Some(1), true), "{said}");
}
