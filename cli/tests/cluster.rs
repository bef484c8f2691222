//! `kubectl tandem` as a user meets it: the program itself against an API server on this machine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]
#![cfg(unix)]

#[path = "cluster/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use server::{Answers, Server};

/// Nothing here takes so long unless it is broken.
const PATIENCE: Duration = Duration::from_mins(1);
const NAMESPACE: &str = "shop";

/// A machine with a kubeconfig.
struct Machine {
    server: Server,
    directory: TempDir,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
struct Ended {
    out: String,
    err: String,
    status: i32,
}

impl Machine {
    async fn new() -> Self {
        let machine = Self { server: Server::start().await, directory: tempfile::tempdir().unwrap() };
        let url = format!("http://{}", machine.server.address);
        std::fs::write(machine.kubeconfig(), kubeconfig(&url)).unwrap();
        machine
    }

    fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("config")
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
        command.arg0(program).args(arguments).current_dir(self.directory.path()).kill_on_drop(true);
        for variable in ["TANDEM_ADMIN", "KUBERNETES_SERVICE_HOST", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY"] {
            command.env_remove(variable);
        }
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", self.directory.path());
        command
    }

    async fn run(&self, program: &str, arguments: &[&str]) -> Ended {
        ended(self.command(program, arguments)).await
    }

    /// `kubectl tandem ...`
    async fn plugin(&self, arguments: &[&str]) -> Ended {
        self.run("/usr/local/bin/kubectl-tandem", arguments).await
    }
}

async fn ended(mut command: Command) -> Ended {
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("the command ends").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { out: text(output.stdout), err: text(output.stderr), status: output.status.code().unwrap_or(-1) }
}

fn kubeconfig(url: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {}}],
        "contexts": [
            {"name": "here", "context": {"cluster": "test", "user": "me", "namespace": NAMESPACE}},
            {"name": "there", "context": {"cluster": "test", "user": "me"}},
        ],
    })
    .to_string()
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "tandem.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec,
        "status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": ""}]},
    })
}

fn pod(name: &str, labels: &Value, ready: bool) -> Value {
    let state = if ready { json!({"running": {}}) } else { json!({"waiting": {"reason": "ImagePullBackOff"}}) };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "uid": format!("{name}-1"), "namespace": NAMESPACE, "labels": labels},
        "spec": {"containers": []},
        "status": {
            "phase": if ready { "Running" } else { "Pending" },
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
            "containerStatuses": [
                {"name": "runtime", "image": "a", "imageID": "", "ready": ready, "restartCount": 0, "state": state},
            ],
        },
    })
}

fn runtime_pod(name: &str, ready: bool) -> Value {
    pod(name, &json!({"tandem.dev/runtime": "orders", "app.kubernetes.io/component": "runtime"}), ready)
}

fn worker_pod(name: &str) -> Value {
    pod(name, &json!({"tandem.dev/function": "order", "app.kubernetes.io/component": "worker"}), true)
}

/// A runtime with a function and a route.
fn add_shop(server: &Server) {
    server.add(
        "functionruntimes",
        object("FunctionRuntime", "orders", &json!({"replicas": 1, "store": {"embedded": {}}})),
    );
    let function =
        json!({"image": "a", "handlers": [{"name": "place"}], "states": [{"name": "total", "type": "Integer"}]});
    server.add("functions", object("Function", "order", &function));
    let route = json!({
        "http": {"method": "POST", "path": "/orders/{id}"}, "to": {"function": "order", "handler": "place"},
        "key": "request.path.id",
    });
    server.add("functionroutes", object("FunctionRoute", "place", &route));
}

fn topology(member: &str) -> Answers {
    let report = json!({
        "revision": "5a0c", "sequence": 1, "member": member, "store": {"ready": true},
        "functions": [{"name": "order", "revisions": [{"revision": "", "workersReady": 1, "invocations": 12, "failures": 0}]}],
    });
    BTreeMap::from([("GET /v1alpha1/topology".to_owned(), (200, None, report))])
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_what_objects_and_pods_say() {
    let machine = Machine::new().await;
    add_shop(&machine.server);
    machine.server.add("pods", runtime_pod("orders-0", true));
    machine.server.admin("orders-0", topology("orders-0")).await;
    let shown = machine.plugin(&["status"]).await;
    assert_eq!(shown.status, 0, "{shown:?}");
    assert!(shown.out.contains("✓ pod orders-0"), "{shown:?}");
    assert!(shown.out.contains("serves 5a0c"), "{shown:?}");
    assert!(shown.out.ends_with("namespace shop: 1 runtime, 1 function, 1 route: all ready\n"), "{shown:?}");
    let json: Value = serde_json::from_str(&machine.plugin(&["status", "-o", "json"]).await.out).unwrap();
    assert_eq!(json["runtimes"][0]["pods"][0]["member"], "orders-0");
    // Another namespace has nothing, and that is no success.
    let other = machine.plugin(&["-n", "other", "status"]).await;
    assert_eq!((other.status, other.out.as_str()), (1, ""));
    assert!(other.err.contains("namespace other has nothing"), "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_names_pods_that_do_not_answer_and_fails_where_something_is_not_ready() {
    let machine = Machine::new().await;
    add_shop(&machine.server);
    machine.server.add("pods", runtime_pod("orders-0", true));
    let silent = machine.plugin(&["status"]).await;
    assert!(silent.out.contains("? pod orders-0"), "{silent:?}");
    assert!(silent.out.contains("error forwarding port 9090: connection refused"), "{silent:?}");
    assert!(silent.out.contains("1 pod did not answer"), "{silent:?}");
    assert_eq!(silent.status, 0, "what the operator says counts: {silent:?}");
    machine.server.lock().faults.insert("/portforward", 403);
    let forbidden = machine.plugin(&["status"]).await;
    assert!(forbidden.out.contains("resources: [pods/portforward], verbs: [create, get]"), "{forbidden:?}");
    let stalled = json!({"type": "Stalled", "status": "True", "reason": "Invalid", "message": "E104: no"});
    machine.server.lock().objects.get_mut("functionroutes").unwrap()[0]["status"]["conditions"] = json!([stalled]);
    let failed = machine.plugin(&["status", "place"]).await;
    assert_eq!(failed.status, 1, "{failed:?}");
    assert!(failed.out.contains("✗ route place  Stalled Invalid: E104: no"), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_fail_says_what_to_do() {
    let machine = Machine::new().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    std::fs::write(machine.directory.path().join("closed"), kubeconfig(&format!("http://{closed}"))).unwrap();
    std::fs::write(machine.directory.path().join("nonsense"), "contexts: 7\n").unwrap();
    let fails = async |arguments: &[&str], said: &str| {
        let ended = machine.plugin(arguments).await;
        assert_eq!(ended.status, 2, "{arguments:?}: {ended:?}");
        assert!(ended.err.starts_with("error: ") && ended.err.contains(said), "{arguments:?}: {ended:?}");
    };
    fails(&["status", "--kubeconfig", "nowhere"], "there is no kubeconfig").await;
    fails(&["status", "--kubeconfig", "nonsense"], "the kubeconfig cannot be used").await;
    fails(&["status", "--context", "prod"], "has no context \"prod\"; it has here, there").await;
    fails(&["status", "--kubeconfig", "closed"], &format!("http://{closed} cannot be reached")).await;
    fails(&["flows", "list"], "namespace shop has no FunctionRuntime").await;
    fails(&["flows", "list", "--context", "there"], "namespace default has no FunctionRuntime").await;
    add_shop(&machine.server);
    fails(&["flows", "list"], "no pod of FunctionRuntime orders is ready (it has none)").await;
    machine.server.add("pods", runtime_pod("orders-0", false));
    let why = "(orders-0: ImagePullBackOff); `kubectl tandem status -n shop` tells why";
    fails(&["state", "list", "order"], why).await;
    machine.server.lock().faults.insert("/functions", 404);
    fails(&["status"], "does not know functions.tandem.dev: install the chart tandem-crds").await;
    machine.server.lock().faults.insert("/functions", 403);
    let rule = "{apiGroups: [\"tandem.dev\"], resources: [functions], verbs: [list]}";
    fails(
        &["check"],
        &format!("you may not list functions.tandem.dev in namespace shop; a Role there needs the rule {rule}"),
    )
    .await;
    machine.server.lock().faults.insert("/functions", 401);
    fails(&["status"], "does not accept the credentials").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_run_through_a_pod() {
    let machine = Machine::new().await;
    add_shop(&machine.server);
    machine.server.add("pods", runtime_pod("orders-0", true));
    let rejection = json!({"title": "Rejected", "outcome": "REJECTED", "reason": "out-of-stock", "flow": "f1"});
    let answers = BTreeMap::from([
        ("POST /invoke/order/o-1/place".to_owned(), (200, Some("COMMITTED"), json!({"total": 4200}))),
        ("POST /invoke/order/o-2/place".to_owned(), (409, Some("REJECTED"), rejection)),
        ("GET /state/order?limit=1000".to_owned(), (200, None, json!({"keys": ["o-1", "o-2"]}))),
    ]);
    machine.server.admin("orders-0", answers).await;
    // As `tandem`, it is the options that choose the cluster.
    let done = machine.run("tandem", &["invoke", "order", "o-1", "place", "--data", "{}", "-n", NAMESPACE]).await;
    assert_eq!((done.status, done.out.as_str()), (0, "{\"total\":4200}\n"), "{done:?}");
    assert!(done.err.contains("COMMITTED  flow f1"), "{done:?}");
    let refused = machine.plugin(&["invoke", "order", "o-2", "place"]).await;
    assert_eq!(refused.status, 1, "{refused:?}");
    assert!(refused.err.contains("see `kubectl tandem flows get f1 -n shop`"), "{refused:?}");
    assert_eq!(machine.plugin(&["state", "list", "order"]).await.out, "o-1\no-2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_of_all_pods_are_listed() {
    let machine = Machine::new().await;
    add_shop(&machine.server);
    let flow = |id: &str, time: &str| {
        json!({
            "flow": id.repeat(24), "request": "r", "instance": "order/o-1", "handler": "place", "outcome": "COMMITTED",
            "attempts": 1, "acceptedAt": time, "durationMs": 1.0, "calls": [],
        })
    };
    for (name, flows) in [
        ("orders-0", json!([flow("1", "2026-01-01T00:00:01Z")])),
        ("orders-1", json!([flow("2", "2026-01-01T00:00:02Z"), flow("1", "2026-01-01T00:00:01Z")])),
    ] {
        machine.server.add("pods", runtime_pod(name, true));
        let answer = (200, None, json!({"running": [], "flows": flows}));
        machine.server.admin(name, BTreeMap::from([("GET /flows?limit=20".to_owned(), answer)])).await;
    }
    machine.server.add("pods", runtime_pod("orders-2", true));
    let listed = machine.plugin(&["flows", "list", "-o", "json"]).await;
    let json: Value = serde_json::from_str(&listed.out).unwrap();
    let ids: Vec<&str> = json["flows"].as_array().unwrap().iter().map(|flow| flow["flow"].as_str().unwrap()).collect();
    assert_eq!(ids, ["2".repeat(24), "1".repeat(24)]);
    assert!(listed.err.contains("pod orders-2 cannot be reached"), "{listed:?}");
    assert_eq!(listed.status, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_several_pods_are_in_the_order_of_time() {
    let machine = Machine::new().await;
    for (pod, log) in [
        ("order-7c9f-a", "2026-01-01T00:00:01Z first\n2026-01-01T00:00:03Z third\n"),
        ("order-7c9f-b", "2026-01-01T00:00:02Z second\n"),
    ] {
        machine.server.add("pods", worker_pod(pod));
        machine.server.lock().logs.insert(pod.to_owned(), log.to_owned());
    }
    let logs = machine.plugin(&["logs", "order"]).await;
    assert_eq!(logs.out, "order-7c9f-a  first\norder-7c9f-b  second\norder-7c9f-a  third\n", "{logs:?}");
    let asked = machine.server.lock().asked.clone();
    let read: Vec<&String> = asked.iter().filter(|path| path.contains("/log?")).collect();
    assert_eq!(read.len(), 2);
    let bounded = read.iter().all(|path| path.contains("tailLines=200") && path.contains("limitBytes="));
    assert!(bounded && read[0].contains("container=worker"), "{read:?}");
    let nobody = machine.plugin(&["logs", "cart"]).await;
    assert_eq!(nobody.status, 1, "{nobody:?}");
    machine.server.lock().faults.insert("/log", 403);
    let forbidden = machine.plugin(&["logs", "order"]).await;
    assert_eq!(forbidden.status, 1, "{forbidden:?}");
    assert!(forbidden.err.contains("resources: [pods/log], verbs: [get]"), "{forbidden:?}");
}

/// A `kubectl tandem logs ... -f` that runs.
struct Following {
    _child: Child,
    out: Lines<BufReader<ChildStdout>>,
    err: Lines<BufReader<ChildStderr>>,
}

impl Following {
    fn start(machine: &Machine, arguments: &[&str]) -> Self {
        let mut command = machine.command("kubectl-tandem", &[&["logs", "-f"], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        let err = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { _child: child, out, err }
    }

    /// The next line.
    async fn line(&mut self) -> String {
        tokio::time::timeout(PATIENCE, self.out.next_line()).await.expect("a line comes").unwrap().unwrap()
    }

    /// The next one on standard error that says so.
    async fn note(&mut self, part: &str) -> String {
        loop {
            let note = tokio::time::timeout(PATIENCE, self.err.next_line()).await;
            let note = note.unwrap_or_else(|_| panic!("no note says {part:?}")).unwrap().unwrap();
            if note.contains(part) {
                return note;
            }
        }
    }
}

fn prints(server: &Server, pod: &str, log: &str) {
    server.lock().logs.insert(pod.to_owned(), log.to_owned());
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_that_are_followed_come_from_later_pods_too() {
    let machine = Machine::new().await;
    machine.server.add("pods", worker_pod("order-a"));
    prints(&machine.server, "order-a", "2026-01-01T00:00:01Z old\n");
    let mut following = Following::start(&machine, &["order"]);
    assert_eq!(following.line().await, "order-a  old");
    prints(&machine.server, "order-b", "2026-01-01T00:00:02Z new\n");
    machine.server.add("pods", worker_pod("order-b"));
    assert_eq!(following.line().await, "order-b  new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_breaks_off_is_opened_again_where_it_was_left() {
    let machine = Machine::new().await;
    machine.server.add("pods", worker_pod("order-a"));
    machine.server.lock().breaking.insert("order-a".to_owned());
    prints(&machine.server, "order-a", "2026-01-01T00:00:01.5Z one\n2026-01-01T00:00:01.5Z two\n");
    let mut following = Following::start(&machine, &["order"]);
    assert_eq!([following.line().await, following.line().await], ["order-a  one", "order-a  two"]);
    let note = following.note("it is opened again").await;
    assert!(note.starts_with("note: order-a: ") && !note.contains("came to an end"), "{note}");
    let more = "2026-01-01T00:00:01.5Z one\n2026-01-01T00:00:01.5Z two\n2026-01-01T00:00:01.7Z three\n";
    prints(&machine.server, "order-a", more);
    assert_eq!(following.line().await, "order-a  three");
    // It comes to an end that is none: its container runs.
    prints(&machine.server, "order-a", &format!("{more}2026-01-01T00:00:02Z four\n"));
    assert_eq!(following.line().await, "order-a  four");
    following.note("order-a: its log came to an end before the container; it is opened again").await;
    let asked = machine.server.lock().asked.clone();
    assert!(asked.iter().any(|path| path.contains("sinceTime=2026-01-01T00%3A00%3A01Z")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_takes_the_place_of_another_is_followed_from_its_first_line() {
    let machine = Machine::new().await;
    add_shop(&machine.server);
    machine.server.add("pods", runtime_pod("orders-0", true));
    prints(&machine.server, "orders-0", "2026-01-01T00:00:02Z last words\n");
    let mut following = Following::start(&machine, &[]);
    assert_eq!(following.line().await, "orders-0  last words");
    {
        let mut state = machine.server.lock();
        state.objects.get_mut("pods").unwrap()[0]["metadata"]["uid"] = "orders-0-2".into();
        // Its clock is behind.
        state.logs.insert("orders-0".to_owned(), "2026-01-01T00:00:01Z first words\n".to_owned());
    }
    assert_eq!(following.line().await, "orders-0  first words");
}

#[tokio::test(flavor = "multi_thread")]
async fn following_goes_on_after_the_cluster_was_out_of_reach() {
    let machine = Machine::new().await;
    machine.server.add("pods", worker_pod("order-a"));
    prints(&machine.server, "order-a", "2026-01-01T00:00:01Z old\n");
    let mut following = Following::start(&machine, &["order"]);
    assert_eq!(following.line().await, "order-a  old");
    machine.server.lock().faults.insert("/pods", 410);
    following.note("it is asked again for 300 s").await;
    prints(&machine.server, "order-b", "2026-01-01T00:00:02Z new\n");
    machine.server.add("pods", worker_pod("order-b"));
    machine.server.lock().faults.clear();
    assert_eq!(following.line().await, "order-b  new");
    following.note("the cluster answers again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_may_not_be_read_is_not_asked_for_again() {
    let machine = Machine::new().await;
    machine.server.add("pods", worker_pod("order-a"));
    machine.server.lock().faults.insert("/log", 403);
    let mut following = Following::start(&machine, &["order"]);
    following.note("resources: [pods/log], verbs: [get]").await;
    machine.server.lock().faults.clear();
    prints(&machine.server, "order-a", "2026-01-01T00:00:01Z secret\n");
    prints(&machine.server, "order-b", "2026-01-01T00:00:02Z new\n");
    machine.server.add("pods", worker_pod("order-b"));
    assert_eq!(following.line().await, "order-b  new");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_puts_files_over_the_cluster() {
    let machine = Machine::new().await;
    add_shop(&machine.server);
    let route = "apiVersion: tandem.dev/v1alpha1\nkind: FunctionRoute\nmetadata: {name: again}\nspec:\n  \
                 http: {method: PUT, path: '/orders/{id}'}\n  to: {function: ordr, handler: place}\n  key: request.path.id\n";
    std::fs::write(machine.directory.path().join("again.yaml"), route).unwrap();
    let wrong = machine.plugin(&["check", "again.yaml"]).await;
    assert_eq!(wrong.status, 1, "{wrong:?}");
    assert!(wrong.out.starts_with("again.yaml:6:18  error[E104] route again"), "{wrong:?}");
    assert!(wrong.out.contains("did you mean \"order\"?"), "{wrong:?}");
    std::fs::write(machine.directory.path().join("again.yaml"), route.replace("ordr", "order")).unwrap();
    let right = machine.plugin(&["check", "again.yaml"]).await;
    assert_eq!(
        (right.status, right.out.as_str()),
        (0, "namespace shop: 1 function, 2 routes, 1 runtime: no problems\n")
    );
    let alone = machine.run("tandem", &["check", "--cluster"]).await;
    assert_eq!(
        (alone.status, alone.out.as_str()),
        (0, "namespace shop: 1 function, 1 route, 1 runtime: no problems\n")
    );
    let empty = machine.plugin(&["check", "-n", "other"]).await;
    assert_eq!(empty.status, 2, "{empty:?}");
    assert!(empty.err.contains("namespace other has nothing of tandem.dev"), "{empty:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn local_commands_do_not_ask_a_cluster() {
    let machine = Machine::new().await;
    add_shop(&machine.server);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = machine.command("tandem", &["flows", "list"]);
    command.env("TANDEM_ADMIN", format!("http://{closed}"));
    let local = ended(command).await;
    assert_eq!(local.status, 2, "{local:?}");
    assert!(local.err.contains(&format!("failed to reach the admin port at http://{closed}")), "{local:?}");
    let route = "apiVersion: tandem.dev/v1alpha1\nkind: Function\nmetadata: {name: order}\nspec: {image: a}\n";
    std::fs::write(machine.directory.path().join("order.yaml"), route).unwrap();
    assert_eq!(machine.run("tandem", &["check"]).await.out, "1 function: no problems\n");
    assert!(machine.server.lock().asked.is_empty(), "{:?}", machine.server.lock().asked);
}
