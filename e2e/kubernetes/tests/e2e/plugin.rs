//! `kubectl tandem` on a real cluster: through the API server and the kubelet to the pods, with the rights of its user.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::kube::{Namespace, eventually, kubectl, output, test};
use crate::site::{self, Keeps, START_WITHIN};

/// The Role of the page `docs/src/how-to/kubectl.md`, without the name of its namespace.
const ROLE: &str = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: tandem-user}\nrules:\n  \
                    - {apiGroups: [tandem.dev], resources: [functionruntimes, functions, functionroutes, functionegresses], verbs: [list]}\n  \
                    - {apiGroups: [\"\"], resources: [pods], verbs: [list]}\n  \
                    - {apiGroups: [\"\"], resources: [pods/log], verbs: [get]}\n";
const FORWARD_RULE: &str = "  - {apiGroups: [\"\"], resources: [pods/portforward], verbs: [create, get]}\n";
const LOST_ROUTE: &str = "apiVersion: tandem.dev/v1alpha1\nkind: FunctionRoute\nmetadata: {name: lost}\nspec:\n  \
                          http: {method: POST, path: \"/lost/{id}\"}\n  to: {function: ordr, handler: place}\n  key: request.path.id\n";
const RESTOCK: &str = r#"{"quantity": 10, "price": 1499}"#;

/// How a command ended.
#[derive(Debug)]
struct Ended {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("{self:?}"))
    }
}

/// `tandem ... -n NAMESPACE`
fn tandem(namespace: &Namespace, arguments: &[&str]) -> anyhow::Result<Ended> {
    run(site::built("tandem")?.args(arguments).args(["-n", &namespace.name]))
}

fn run(command: &mut Command) -> anyhow::Result<Ended> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ended { status: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
}

/// It has to end so.
fn ends(ended: Ended, status: i32) -> anyhow::Result<Ended> {
    ensure!(ended.status == Some(status), "expected status {status}: {ended:?}");
    Ok(ended)
}

#[test]
fn the_plugin_shows_and_runs_what_is_in_a_namespace() -> anyhow::Result<()> {
    test("plugin", &[], |namespace| {
        site::operator()?;
        site::orders(namespace, &Keeps::Tikv(2))?;
        status_is_a_tree(namespace)?;
        handlers_flows_and_state(namespace)?;
        let logs = ends(tandem(namespace, &["logs"])?, 0)?;
        ensure!(logs.out.lines().all(|line| line.starts_with("orders-")) && !logs.out.is_empty(), "{logs:?}");
        ends(tandem(namespace, &["logs", "order", "-o", "json"])?, 0)?;
        checks_over_the_cluster(namespace)?;
        rights_are_those_of_the_user(namespace)
    })
}

fn status_is_a_tree(namespace: &Namespace) -> anyhow::Result<()> {
    // The path that `kubectl` takes: a program of that name in the path.
    let directory = tempfile::tempdir()?;
    std::os::unix::fs::symlink(site::built("tandem")?.get_program(), directory.path().join("kubectl-tandem"))?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut plugin = kubectl();
    plugin.env("PATH", format!("{}:{path}", directory.path().display()));
    let shown = ends(run(plugin.args(["tandem", "status", "-n", &namespace.name]))?, 0)?;
    for line in ["✓ runtime orders", "✓ pod orders-0", "✓ pod orders-1", "✓ function order", "✓ route place-order"]
    {
        ensure!(shown.out.contains(line), "{line} is missing:\n{}", shown.out);
    }
    ensure!(shown.out.trim_end().ends_with("all ready"), "{}", shown.out);
    let json = ends(tandem(namespace, &["status", "order", "-o", "json"])?, 0)?.json()?;
    let revision = &json["functions"][0]["revisions"][0];
    ensure!(revision["workersReady"].as_u64() >= Some(1) && revision["weight"] == 100, "{json}");
    Ok(())
}

fn handlers_flows_and_state(namespace: &Namespace) -> anyhow::Result<()> {
    let restock = ["invoke", "inventory", "abbey-road", "restock", "--data", RESTOCK, "-o", "json"];
    let committed = ends(tandem(namespace, &restock)?, 0)?.json()?;
    ensure!(committed["outcome"] == "COMMITTED", "{committed}");
    let flow = committed["flow"].as_str().context("no flow")?;
    // Whichever of the pods ran it.
    let record = ends(tandem(namespace, &["flows", "get", flow, "-o", "json"])?, 0)?.json()?;
    ensure!(record["outcome"] == "COMMITTED" && record["instance"] == "inventory/abbey-road", "{record}");
    let listed = ends(tandem(namespace, &["flows", "list", "-o", "json"])?, 0)?.json()?;
    let flows = listed["flows"].as_array().context("no flows")?;
    ensure!(flows.iter().filter(|one| one["flow"] == flow).count() == 1, "{listed}");
    let state = ends(tandem(namespace, &["state", "get", "inventory", "abbey-road", "-o", "json"])?, 0)?.json()?;
    ensure!(state["values"]["available"] == 10, "{state}");
    ends(tandem(namespace, &["state", "get", "inventory", "nothing"])?, 1)?;
    let calls = tandem(namespace, &["status", "inventory", "-o", "json"])?.json()?;
    ensure!(calls["functions"][0]["revisions"][0]["calls"].as_u64() >= Some(1), "{calls}");
    Ok(())
}

fn checks_over_the_cluster(namespace: &Namespace) -> anyhow::Result<()> {
    ends(tandem(namespace, &["check"])?, 0)?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("lost.yaml");
    std::fs::write(&file, LOST_ROUTE)?;
    let file = file.display().to_string();
    let found = ends(tandem(namespace, &["check", &file])?, 1)?;
    ensure!(found.out.starts_with(&format!("{file}:6:")) && found.out.contains("E104"), "{found:?}");
    namespace.apply(LOST_ROUTE)?;
    eventually("route that is not ready", START_WITHIN, || {
        let shown = ends(tandem(namespace, &["status", "lost"])?, 1)?;
        ensure!(shown.out.contains("route lost") && shown.out.contains("FunctionMissing"), "{shown:?}");
        Ok(())
    })?;
    namespace.kubectl(&["delete", "functionroute", "lost"]).map(drop)
}

fn rights_are_those_of_the_user(namespace: &Namespace) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let kubeconfig = directory.path().join("user");
    namespace.kubectl(&["create", "serviceaccount", "somebody"])?;
    write_kubeconfig(namespace, &kubeconfig)?;
    let kubeconfig = kubeconfig.display().to_string();
    let somebody = |arguments: &[&str]| tandem(namespace, &[arguments, &["--kubeconfig", &kubeconfig]].concat());
    let nothing = ends(somebody(&["status"])?, 2)?;
    ensure!(nothing.err.contains("you may not list"), "{nothing:?}");
    namespace.apply(ROLE)?;
    let account = format!("--serviceaccount={}:somebody", namespace.name);
    namespace.kubectl(&["create", "rolebinding", "somebody", "--role=tandem-user", &account])?;
    let silent = eventually("rights", START_WITHIN, || ends(somebody(&["status"])?, 0))?;
    ensure!(silent.out.contains("resources: [pods/portforward]"), "{silent:?}");
    ends(somebody(&["logs"])?, 0)?;
    ends(somebody(&["flows", "list"])?, 2)?;
    namespace.apply(&format!("{ROLE}{FORWARD_RULE}"))?;
    eventually("rights", START_WITHIN, || ends(somebody(&["flows", "list"])?, 0)).map(drop)
}

/// A kubeconfig like that of these tests, for the account `somebody`.
fn write_kubeconfig(namespace: &Namespace, file: &Path) -> anyhow::Result<()> {
    let token = namespace.kubectl(&["create", "token", "somebody"])?;
    let config =
        output(kubectl().args(["config", "view", "--raw", "--minify", "--flatten", "--output", "json"]), None)?;
    let mut config: Value = serde_json::from_str(&config)?;
    config["users"][0]["user"] = serde_json::json!({"token": token});
    std::fs::write(file, config.to_string()).map_err(Into::into)
}
