//! An API server without a node: it stores and serves, and ends with its handle.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;
use tandem_e2e_kubernetes::control_plane::{ControlPlane, Options};

const SOON: Duration = Duration::from_mins(1);

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[tokio::test]
async fn controllers_collect_what_an_owner_leaves_behind_and_nothing_outlives_the_handle() -> anyhow::Result<()> {
    let Some(control_plane) = ControlPlane::start_if_built(Options { controllers: true, ..Options::default() }).await?
    else {
        return Ok(());
    };
    let kubectl = |arguments: &[&str]| output(control_plane.kubectl().args(arguments));
    kubectl(&["create", "configmap", "owner"])?;
    let uid = kubectl(&["get", "configmap", "owner", "--output", "jsonpath={.metadata.uid}"])?;
    kubectl(&["create", "configmap", "child"])?;
    let owner = serde_json::json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}]);
    let patch = serde_json::json!({"metadata": {"ownerReferences": owner}}).to_string();
    kubectl(&["patch", "configmap", "child", "--type=merge", "--patch", &patch])?;
    kubectl(&["delete", "configmap", "owner"])?;
    let begun = Instant::now();
    while !kubectl(&["get", "configmap", "child", "--ignore-not-found", "--output", "name"])?.is_empty() {
        ensure!(begun.elapsed() < SOON, "the child outlives its owner");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let directory = control_plane.kubeconfig().parent().map(std::path::Path::to_owned);
    drop(control_plane);
    ensure!(directory.is_some_and(|directory| !directory.exists()), "the directory is still there");
    Ok(())
}
