//! `tandem dev` and the commands that ask it, as processes, on an application without workers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Nothing here takes so long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(30);

const RESOURCES: &str = "\
apiVersion: tandem.dev/v1alpha1
kind: Function
metadata: {name: order}
spec:
  image: shop/order:1
  handlers:
  - {name: place}
  states:
  - {name: total, kind: Value, type: Integer}
---
apiVersion: tandem.dev/v1alpha1
kind: FunctionRoute
metadata: {name: place-order}
spec:
  http: {method: POST, path: \"/orders/{orderId}\"}
  to: {function: order, handler: place}
  key: request.path.orderId
";

fn tandem(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tandem")).args(arguments).env("NO_COLOR", "1").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn write_resources(directory: &Path, content: &str) {
    std::fs::write(directory.join("shop.yaml"), content).unwrap();
}

fn application() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    write_resources(directory.path(), RESOURCES);
    directory
}

/// A `tandem dev` that runs. Dropped, it is killed.
struct Dev {
    child: Child,
    lines: Receiver<String>,
    admin: String,
}

impl Dev {
    fn start(directory: &Path) -> Self {
        let ready = directory.join("ready.json");
        let mut child = Command::new(env!("CARGO_BIN_EXE_tandem"))
            .args(["dev", &directory.display().to_string(), "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--ready-file")
            .arg(&ready)
            .env("NO_COLOR", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let (out, error) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let other = sender.clone();
        std::thread::spawn(move || BufReader::new(out).lines().map_while(Result::ok).try_for_each(|l| sender.send(l)));
        std::thread::spawn(move || BufReader::new(error).lines().map_while(Result::ok).try_for_each(|l| other.send(l)));
        let mut dev = Self { child, lines, admin: String::new() };
        dev.wait_for("ready in");
        let addresses: serde_json::Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
        addresses["admin"].as_str().unwrap().clone_into(&mut dev.admin);
        dev
    }

    /// The next line that contains `part`.
    fn wait_for(&self, part: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no line with {part:?} came"));
            if line.contains(part) {
                return line;
            }
        }
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        tandem(&[arguments, &["--admin", &self.admin]].concat())
    }

    /// Ends it as Ctrl-C does.
    fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(Instant::now() < until, "it does not end");
            std::thread::yield_now();
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn changes_take_effect_as_a_whole_or_not_at_all() {
    let directory = application();
    let dev = Dev::start(directory.path());
    write_resources(directory.path(), &RESOURCES.replace("/orders/", "/bestellungen/"));
    dev.wait_for("reloaded");
    dev.wait_for("/bestellungen/{orderId}");
    write_resources(directory.path(), &RESOURCES.replace("function: order", "function: ordr"));
    let problem = dev.wait_for("E104");
    assert!(problem.contains("shop.yaml:") && problem.contains("did you mean \"order\"?"), "{problem}");
    dev.wait_for("nothing applied");
    write_resources(directory.path(), "kind: [");
    dev.wait_for("shop.yaml:1");
    dev.wait_for("nothing applied");
    write_resources(directory.path(), &RESOURCES.replace("/orders/", "/orders/neu/"));
    dev.wait_for("/orders/neu/{orderId}");
    dev.stop();
}

#[test]
fn state_type_may_not_change_between_two_runs() {
    let directory = application();
    Dev::start(directory.path()).stop();
    write_resources(directory.path(), &RESOURCES.replace("Integer", "String"));
    let path = directory.path().display().to_string();
    let again = tandem(&["dev", &path, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let error = text(&again.stderr);
    assert_eq!(again.status.code(), Some(1), "{error}");
    assert!(error.contains("E120") && error.contains("nothing applied"), "{error}");
    write_resources(directory.path(), RESOURCES);
    Dev::start(directory.path()).stop();
}

#[test]
fn what_keeps_it_from_starting_is_said_in_one_line() {
    let directory = application();
    let path = directory.path().display().to_string();
    let dev = Dev::start(directory.path());
    let check = |arguments: &[&str], expected: &str| {
        let ended = tandem(arguments);
        let error = text(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{error}");
        assert!(error.lines().last().unwrap_or_default().contains(expected), "{error}");
    };
    let any = ["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    check(&[&["dev", &path], &any[..]].concat(), "is in use by another process");
    check(&["dev", &path, "--http", "127.0.0.1:0", "--admin", dev.admin.trim_start_matches("http://")], "--admin");
    check(&["dev", "no-such-directory"], "is not a directory");
    dev.stop();
    let dev_file = directory.path().join("Tandemfile");
    std::fs::write(&dev_file, "workers:\n- {name: shop, functions: [order], command: [./shop]}\n").unwrap();
    check(&[&["dev", &path], &any[..]].concat(), "worker shop: failed to start");
    std::fs::write(&dev_file, "workers:\n- {name: shop, functions: [order], command: [sh, -c, 'exit 3']}\n").unwrap();
    check(&[&["dev", &path], &any[..]].concat(), "worker shop ended with exit status: 3");
}

#[test]
fn commands_end_with_the_status_of_the_answer() {
    let directory = application();
    let dev = Dev::start(directory.path());
    let check = |arguments: &[&str], status: i32, expected: &str| {
        let ended = dev.ask(arguments);
        let said = text(&ended.stdout) + &text(&ended.stderr);
        assert_eq!(ended.status.code(), Some(status), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    };
    check(&["flows", "list"], 0, "no flows");
    check(&["flows", "get", "000000000000000000000000"], 1, "unknown-flow");
    check(&["flows", "get", "nonsense"], 2, "malformed-flow-id");
    check(&["state", "get", "order", "o-1"], 1, "order/o-1 has no state");
    check(&["state", "list", "ordr"], 1, "unknown-function");
    check(&["invoke", "ordr", "o-1", "place"], 1, "unknown-function");
    check(&["invoke", "order", "o-1", "place", "--data", "{", "-o", "json"], 1, "malformed-json");
    check(&["invoke", "order", "o-1", "place", "--data", "@no-such-file"], 2, "no-such-file");
    check(&["invoke", "order", "o-1", "place", "--deadline", "100ms"], 1, "TIMED_OUT");
    check(&["flows", "list", "--outcome", "TIMED_OUT"], 0, "order/o-1 place");
    dev.stop();
    let nobody = tandem(&["flows", "list", "--admin", "http://127.0.0.1:9"]);
    assert_eq!(nobody.status.code(), Some(2), "{}", text(&nobody.stderr));
}
