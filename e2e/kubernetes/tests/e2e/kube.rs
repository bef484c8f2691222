//! A namespace for one test, and what people do in it with `kubectl`. What a test that fails leaves behind is written down:
//! objects, events and logs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

/// Set, these tests run.
const ENABLED: &str = "TANDEM_E2E";
/// Where logs of what failed go.
const LOGS: &str = "TANDEM_E2E_LOGS";
/// Set, namespaces stay.
const KEEP: &str = "TANDEM_E2E_KEEP";
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A program that `make e2e` names, or else one of the `PATH`.
pub(crate) fn program(variable: &str, name: &str) -> Command {
    Command::new(std::env::var_os(variable).unwrap_or_else(|| name.into()))
}

pub(crate) fn kubectl() -> Command {
    program("KUBECTL", "kubectl")
}

/// Runs it and returns what it printed.
pub(crate) fn output(command: &mut Command, input: Option<&str>) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| shown.clone())?;
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        // If it does not want to hear more, it says why.
        let _ = pipe.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    bail!("{shown}: {}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Asks until there is an answer; the last refusal is in the error.
pub(crate) fn eventually<T>(
    what: &str,
    longest: Duration,
    mut ask: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if begun.elapsed() > longest => {
                return Err(error.context(format!("no {what} within {longest:?}")));
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// A namespace of one test.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        output(kubectl().args(["--namespace", &self.name]).args(arguments), None)
    }

    pub(crate) fn apply(&self, manifest: &str) -> anyhow::Result<String> {
        output(kubectl().args(["--namespace", &self.name, "apply", "--filename", "-"]), Some(manifest))
    }

    /// An object, or a list of them.
    pub(crate) fn get(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.kubectl(&[&["get", "--output", "json"], arguments].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Status, reason and message of a condition, once they are of the last generation.
    pub(crate) fn condition(&self, object: &str, kind: &str) -> anyhow::Result<(String, String, String)> {
        let object = self.get(&[object])?;
        let conditions = object["status"]["conditions"].as_array().context("no conditions")?;
        let condition = conditions.iter().find(|condition| condition["type"] == kind).context("no such condition")?;
        let seen = condition["observedGeneration"].as_i64();
        anyhow::ensure!(
            seen.is_none() || seen == object["metadata"]["generation"].as_i64(),
            "{kind} is of generation {seen:?}: {condition}"
        );
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        Ok((text("status"), text("reason"), text("message")))
    }

    /// Waits until `Ready` is true.
    pub(crate) fn await_ready(&self, object: &str, longest: Duration) -> anyhow::Result<()> {
        eventually(&format!("Ready {object}"), longest, || {
            let (status, reason, message) = self.condition(object, "Ready")?;
            anyhow::ensure!(status == "True", "{object}: Ready={status}, {reason}: {message}");
            Ok(())
        })
    }

    /// Names of the pods with these labels that are ready and are not ending.
    pub(crate) fn ready_pods(&self, labels: &str) -> anyhow::Result<Vec<String>> {
        let pods = self.get(&["pods", "--selector", labels])?;
        let pods = pods["items"].as_array().context("no list of pods")?;
        let is_ready = |pod: &&Value| {
            let conditions = pod["status"]["conditions"].as_array();
            let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
            pod["metadata"]["deletionTimestamp"].is_null() && conditions.is_some_and(|all| all.iter().any(ready))
        };
        let name = |pod: &Value| pod["metadata"]["name"].as_str().map(str::to_owned);
        Ok(pods.iter().filter(is_ready).filter_map(name).collect())
    }

    /// Waits for so many ready pods.
    pub(crate) fn await_pods(&self, labels: &str, count: usize, longest: Duration) -> anyhow::Result<Vec<String>> {
        eventually(&format!("{count} pods {labels}"), longest, || {
            let pods = self.ready_pods(labels)?;
            anyhow::ensure!(pods.len() == count, "{} pods are ready: {pods:?}", pods.len());
            Ok(pods)
        })
    }

    /// Writes down what there is.
    pub(crate) fn collect(&self, directory: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(directory)?;
        let put = |file: &str, text: anyhow::Result<String>| {
            let text = text.unwrap_or_else(|error| format!("{error:#}"));
            std::fs::write(directory.join(file), text)
        };
        let kinds = "functionruntimes,functions,functionroutes,functionegresses,statefulsets,deployments,services,configmaps,\
                     pods,persistentvolumeclaims,networkpolicies,poddisruptionbudgets,jobs";
        put("objects.yaml", self.kubectl(&["get", kinds, "--output", "yaml"]))?;
        put("overview.txt", self.kubectl(&["get", kinds, "--output", "wide"]))?;
        put("events.txt", self.kubectl(&["get", "events", "--sort-by", ".lastTimestamp"]))?;
        let pods = self.kubectl(&["get", "pods", "--output", "name"])?;
        for pod in pods.lines() {
            let name = pod.trim_start_matches("pod/");
            put(&format!("{name}.log"), self.kubectl(&["logs", "--all-containers", pod]))?;
            if let Ok(previous) = self.kubectl(&["logs", "--all-containers", "--previous", pod]) {
                put(&format!("{name}.previous.log"), Ok(previous))?;
            }
        }
        Ok(())
    }
}

/// Runs a test in a namespace of its own, and removes it afterwards. What a test that fails leaves behind is collected first.
pub(crate) fn test(
    name: &str,
    labels: &[&str],
    body: impl FnOnce(&Namespace) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    if !is_enabled() {
        return Ok(());
    }
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let namespace = Namespace { name: format!("{name}-{:x}{number}", std::process::id() & 0xfff) };
    output(kubectl().args(["create", "namespace", &namespace.name]), None)?;
    for label in labels {
        output(kubectl().args(["label", "namespace", &namespace.name, label]), None)?;
    }
    let ended = body(&namespace);
    let ended = ended.map_err(|error| {
        let directory = logs().join(name);
        let _ = namespace.collect(&directory);
        let _ = Namespace { name: crate::site::NAMESPACE.to_owned() }.collect(&directory.join("operator"));
        error.context(format!("what was there is in {}", directory.display()))
    });
    if std::env::var_os(KEEP).is_none() {
        // Namespaces end in the background; a test of deletion waits for itself.
        output(kubectl().args(["delete", "namespace", &namespace.name, "--wait=false"]), None)?;
    }
    ended
}

fn logs() -> PathBuf {
    std::env::var_os(LOGS).map_or_else(|| std::env::temp_dir().join("tandem-e2e"), PathBuf::from)
}

/// Whether these tests run; says once why not.
pub(crate) fn is_enabled() -> bool {
    static SAID: std::sync::Once = std::sync::Once::new();
    let enabled = std::env::var(ENABLED).is_ok_and(|value| value == "1");
    if !enabled {
        // Written past the capture of the test harness, which would show it only where a test fails.
        SAID.call_once(|| drop(writeln!(std::io::stderr(), "skipped tests on a cluster: they are run by `make e2e`")));
    }
    enabled
}
