//! The command: up, status, down, and what it says when it cannot.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result};
use tandem_e2e_tikv::Options;
use tandem_e2e_tikv::shared::alone;

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem-tikv"));
    command.args(arguments).arg("--directory").arg(directory);
    command
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].concat().iter().map(|byte| char::from(*byte)).collect()
}

/// Ends a cluster in the background whatever becomes of the test.
struct Down<'a>(&'a Path);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        let _ = command(self.0, &["down"]).output();
    }
}

#[tokio::test]
async fn a_cluster_in_the_background_comes_up_tells_of_itself_and_goes_down() -> Result<()> {
    // Says why it is skipped, and builds what is not there yet.
    if alone(Options::default().stores(1)).await?.is_none() {
        return Ok(());
    }
    let scratch = tempfile::tempdir()?;
    let directory = scratch.path();
    let status = command(directory, &["status"]).output()?;
    assert_eq!(status.status.code(), Some(1));
    assert!(text(&status).contains("there is no cluster in"), "{}", text(&status));

    let _down = Down(directory);
    let up = command(directory, &["up", "--stores", "1", "--port", "0", "-o", "json"]).output()?;
    assert!(up.status.success(), "{}", text(&up));
    let told: serde_json::Value = serde_json::from_slice(&up.stdout)?;
    let pd = told["processes"][0]["process"].as_u64().context("PD runs")?;
    let again = command(directory, &["up", "--port", "0"]).output()?;
    assert!(text(&again).contains(&format!("process {pd}")), "the same one: {}", text(&again));
    assert!(text(&again).contains("tandem dev --store tikv://127.0.0.1:") && text(&again).contains("not TiKV"));

    let status = command(directory, &["status", "-o", "json"]).output()?;
    assert_eq!((status.status.code(), &status.stdout), (Some(0), &up.stdout));
    let down = command(directory, &["down"]).output()?;
    assert_eq!(text(&down), "down; data is kept\n");
    assert_eq!(command(directory, &["status"]).output()?.status.code(), Some(1));
    let down = command(directory, &["down", "--wipe"]).output()?;
    assert!(down.status.success() && text(&down).starts_with("nothing ran in"), "{}", text(&down));
    assert!(!directory.exists());
    Ok(())
}

#[test]
fn without_go_the_command_says_what_is_missing() {
    let scratch = tempfile::tempdir().unwrap();
    let mut up = command(&scratch.path().join("cluster"), &["up"]);
    let output =
        up.env("PATH", scratch.path()).env("TANDEM_TIKV_CACHE", scratch.path().join("cache")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).starts_with("error: Go is missing: PD and the test stores are built with it; install Go"));
    assert!(!scratch.path().join("cluster").exists());
}

#[test]
fn wrong_arguments_are_told_apart_from_failures() {
    let scratch = tempfile::tempdir().unwrap();
    for wrong in [&["up", "--stores", "0"][..], &["up", "--splits", "zz"], &["upp"]] {
        let output = command(scratch.path(), wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", text(&output));
    }
    let help = Command::new(env!("CARGO_BIN_EXE_tandem-tikv")).arg("--help").output().unwrap();
    assert!(help.status.success() && text(&help).contains("no Raft"), "{}", text(&help));
}
