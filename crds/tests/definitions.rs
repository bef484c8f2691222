//! The CRD YAML in `generated/` is what the types say; what a cluster would refuse in a definition is refused here.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tandem_crds::resources::Kind;

fn path(kind: Kind) -> PathBuf {
    let plural = kind.definition().spec.names.plural;
    Path::new(env!("CARGO_MANIFEST_DIR")).join("generated").join(format!("{plural}.yaml"))
}

#[test]
fn generated_yaml_is_what_the_types_say() {
    for kind in Kind::ALL {
        let generated = serde_saphyr::to_string(&kind.definition()).unwrap();
        let path = path(kind);
        if std::env::var_os("UPDATE_CRDS").is_some() {
            std::fs::write(&path, &generated).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(stored == generated, "{} is stale: UPDATE_CRDS=1 cargo test -p tandem-crds", path.display());
        let read: Value = serde_saphyr::from_str(&stored).unwrap();
        assert_eq!(read, serde_json::to_value(kind.definition()).unwrap(), "what is written does not read back");
    }
}

#[test]
fn names_of_kinds_are_as_documented() {
    let names: Vec<(String, String, String)> = Kind::ALL
        .into_iter()
        .map(|kind| kind.definition().spec.names)
        .map(|names| (names.plural, names.short_names.unwrap().join(","), names.categories.unwrap().join(",")))
        .collect();
    let expected = [
        ("functions", "tfn"),
        ("functionroutes", "fnroute"),
        ("functionegresses", "fnegress"),
        ("functionruntimes", "fnrt"),
    ];
    let expected = expected.map(|(plural, short)| (plural.to_owned(), short.to_owned(), "tandem".to_owned()));
    assert_eq!(names, expected);
}

/// Every field says what it is, lists and texts are bounded (which also bounds the cost of CEL rules), and nothing in a
/// schema is of a form that the API server refuses.
#[test]
fn schemas_are_structural_bounded_and_documented() {
    fn walk(path: &str, schema: &Value, complaints: &mut Vec<String>) {
        for refused in ["$ref", "anyOf", "oneOf", "allOf", "definitions", "$schema", "nullable"] {
            if schema.get(refused).is_some() {
                complaints.push(format!("{path}: has {refused}"));
            }
        }
        let schema_type = schema["type"].as_str().unwrap_or_default();
        let is_bounded = match schema_type {
            "string" => {
                schema.get("maxLength").is_some() || schema.get("enum").is_some() || schema.get("format").is_some()
            }
            "array" => schema.get("maxItems").is_some() && schema.get("x-kubernetes-list-type").is_some(),
            "integer" => schema.get("minimum").is_some(),
            "object" | "boolean" => true,
            _ => false,
        };
        if !is_bounded {
            complaints.push(format!("{path}: {schema_type:?} has no bounds"));
        }
        if !path.ends_with("[]") && schema["description"].as_str().is_none_or(str::is_empty) {
            complaints.push(format!("{path}: has no description"));
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), property, complaints);
        }
        if let Some(items) = schema.get("items") {
            walk(&format!("{path}[]"), items, complaints);
        }
    }
    let mut complaints = Vec::new();
    for kind in Kind::ALL {
        let definition = serde_json::to_value(kind.definition()).unwrap();
        let mut schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
        // kube itself says that a status may be null.
        schema["properties"]["status"].as_object_mut().unwrap().remove("nullable");
        walk(&format!("{}.spec", kind.name()), &schema["properties"]["spec"], &mut complaints);
        walk(&format!("{}.status", kind.name()), &schema["properties"]["status"], &mut complaints);
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
}
