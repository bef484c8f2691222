//! The rights that the chart gives are those that the code needs: none is missing, and none is left over.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::Path;

use strum::IntoEnumIterator as _;
use tandem_crds::resources::Kind;
use tandem_operator::child::ChildKind;
use tandem_operator::kubeapi::resource_of;

/// What the operator does with children.
const CHILD: &[&str] = &["create", "delete", "get", "list", "patch", "watch"];
const READ: &[&str] = &["get", "list", "watch"];
/// Reads, and writes `metadata.finalizers`.
const READ_AND_FINALIZE: &[&str] = &["get", "list", "patch", "watch"];

/// Verbs by group and resource.
type Rights = BTreeMap<(String, String), Vec<String>>;

/// The words of a list as YAML writes it in one line.
fn words(list: &str) -> Vec<String> {
    let inside = list.trim().trim_start_matches('[').trim_end_matches(']');
    inside.split(',').map(|word| word.trim().trim_matches('"').to_owned()).collect()
}

/// The rules of the template: three lines each.
fn given() -> Rights {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/tandem/templates/_rules.tpl");
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut rights = Rights::new();
    for rule in lines.windows(3) {
        let Some(groups) = rule[0].strip_prefix("- apiGroups: ") else { continue };
        let resources = words(rule[1].strip_prefix("  resources: ").unwrap());
        let verbs = words(rule[2].strip_prefix("  verbs: ").unwrap());
        let groups = words(groups);
        assert_eq!((groups.len(), resources.len()), (1, 1), "a rule has one resource: {rule:?}");
        let before = rights.insert((groups[0].clone(), resources[0].clone()), verbs);
        assert_eq!(before, None, "{resources:?} has two rules");
    }
    rights
}

fn needed() -> Rights {
    let mut rights = Rights::new();
    let mut need = |group: &str, resource: &str, verbs: &[&str]| {
        let verbs = verbs.iter().map(|verb| (*verb).to_owned()).collect();
        rights.insert((group.to_owned(), resource.to_owned()), verbs);
    };
    for kind in ChildKind::iter() {
        let resource = kind.resource();
        need(&resource.group, &resource.plural, CHILD);
    }
    for kind in Kind::ALL {
        let resource = resource_of(kind);
        let (verbs, has_children) = match kind {
            Kind::Runtime => (READ_AND_FINALIZE, true),
            Kind::Function | Kind::Route => (READ, true),
            Kind::Egress => (READ, false),
        };
        need(&resource.group, &resource.plural, verbs);
        need(&resource.group, &format!("{}/status", resource.plural), &["get", "patch"]);
        if has_children {
            need(&resource.group, &format!("{}/finalizers", resource.plural), &["update"]);
        }
    }
    need("", "pods", READ);
    need("", "persistentvolumeclaims", &["delete", "get"]);
    need("events.k8s.io", "events", &["create", "patch"]);
    rights
}

#[test]
fn the_chart_gives_what_the_code_needs_and_no_more() {
    let (given, needed) = (given(), needed());
    let missing: Vec<_> = needed.iter().filter(|(resource, verbs)| given.get(*resource) != Some(*verbs)).collect();
    assert!(missing.is_empty(), "the chart gives no such rights: {missing:#?}");
    let left_over: Vec<_> = given.keys().filter(|resource| !needed.contains_key(*resource)).collect();
    assert!(left_over.is_empty(), "nothing needs the rights on {left_over:?}");
}
