//! What is released cannot be sabotaged: the switches of the mechanisms are compiled into tests alone.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::process::Command;

/// The feature with the switches.
const SABOTAGE: &str = "sabotage";

/// The features that a package is built with, as a tree.
fn features_of(package: &str, edges: &str) -> String {
    let mut tree = Command::new(env!("CARGO"));
    let tree = tree.args(["tree", "--offline", "--locked", "--package", package, "--edges", edges, "--target", "all"]);
    let output = tree.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn nothing_that_is_released_has_switches_for_its_mechanisms() {
    for package in ["tandem-cli", "tandem-server", "orders", "transfers", "tandem-bench"] {
        let features = features_of(package, "features,normal,build");
        assert!(features.contains("tandem"), "{package}: {features}");
        assert!(!features.contains(SABOTAGE), "{package} is built with the feature {SABOTAGE}");
    }
}

#[test]
fn it_would_be_seen() {
    assert!(features_of("tandem-verify", "features,normal,build,dev").contains(SABOTAGE));
}
