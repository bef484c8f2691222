//! The samples of every kind are valid, and compile to the topology that is written down.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use tandem_crds::check::{Report, check};
use tandem_crds::resources::Kind;
use tandem_model::topology::Topology;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples")
}

fn report() -> Report {
    check(&[directory()], None).unwrap()
}

#[test]
fn samples_have_no_problems() {
    assert_eq!(report().problems, []);
}

#[test]
fn every_kind_has_a_sample() {
    for kind in Kind::ALL {
        let singular = kind.definition().spec.names.singular.unwrap();
        let text = std::fs::read_to_string(directory().join(format!("{singular}.yaml"))).unwrap();
        assert!(text.contains(&format!("kind: {}\n", kind.name())), "{singular}.yaml");
    }
}

/// The topology is a format: runtimes of another version read it. A change here needs [`Topology::FORMAT`] to be thought
/// about.
#[test]
fn samples_compile_to_the_golden_topology() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/samples.json");
    let topology = serde_json::to_string_pretty(&report().topology.unwrap()).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &topology).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == topology, "{} differs: UPDATE_GOLDEN=1 cargo test -p tandem-crds", path.display());
}

#[test]
fn the_golden_topology_reads_back() {
    let topology = report().topology.unwrap();
    let text = serde_json::to_string(&topology).unwrap();
    assert_eq!(serde_json::from_str::<Topology>(&text).unwrap(), topology);
}

/// The sample of the runtime claims to show the defaults.
#[test]
fn the_sample_of_the_runtime_shows_the_defaults() {
    let without: Vec<PathBuf> = ["function.yaml", "functionroute.yaml", "functionegress.yaml"]
        .into_iter()
        .map(|name| directory().join(name))
        .collect();
    assert_eq!(check(&without, None).unwrap().topology, report().topology);
}

/// A resource that was read and written again says the same: the operator applies what it has read.
#[test]
fn samples_survive_the_types() {
    let resources = report().resources;
    let mut again = String::new();
    let mut add = |json: serde_json::Value| {
        again.push_str("---\n");
        again.push_str(&serde_saphyr::to_string(&json).unwrap());
    };
    for one in &resources.runtimes {
        add(serde_json::to_value(&one.resource).unwrap());
    }
    for one in &resources.functions {
        add(serde_json::to_value(&one.resource).unwrap());
    }
    for one in &resources.routes {
        add(serde_json::to_value(&one.resource).unwrap());
    }
    for one in &resources.egresses {
        add(serde_json::to_value(&one.resource).unwrap());
    }
    let again = tandem_crds::check::report(tandem_crds::load::load_text("again.yaml", &again), None);
    assert_eq!(again.problems, []);
    assert_eq!(again.topology, report().topology);
}
