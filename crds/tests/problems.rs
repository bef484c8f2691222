//! Every problem that can be found, each with its place and its whole text; and all of them at once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fmt::Write;

use tandem_crds::check::report;
use tandem_crds::codes;
use tandem_crds::load::{FILE_BYTES_MAX, load, load_text};
use tandem_crds::problem::Problem;
use tandem_model::topology::Topology;

const ORDER: &str = "apiVersion: tandem.dev/v1alpha1\nkind: Function\nmetadata: {name: order}\nspec: {image: o}\n";

/// `spec` of a function named order.
fn function(spec: &str) -> String {
    format!("apiVersion: tandem.dev/v1alpha1\nkind: Function\nmetadata: {{name: order}}\nspec: {spec}\n")
}

/// The function order, and a route whose fields are the usual ones but for those in `overrides`.
fn route(overrides: &[(&str, &str)]) -> String {
    format!("{ORDER}---\n{}", one_route("r", overrides))
}

fn one_route(name: &str, overrides: &[(&str, &str)]) -> String {
    let mut fields = vec![
        ("http", "{method: POST, path: '/o/{id}'}"),
        ("to", "{function: order, handler: place}"),
        ("key", "request.path.id"),
    ];
    for (field, value) in overrides {
        match fields.iter_mut().find(|(known, _)| known == field) {
            Some(known) => known.1 = value,
            None => fields.push((field, value)),
        }
    }
    let mut text = format!("apiVersion: tandem.dev/v1alpha1\nkind: FunctionRoute\nmetadata: {{name: {name}}}\nspec:\n");
    for (field, value) in fields {
        writeln!(text, "  {field}: {value}").unwrap();
    }
    text
}

fn other(kind: &str, spec: &str) -> String {
    format!("{ORDER}---\napiVersion: tandem.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n")
}

/// Problems as the command line prints them.
fn lines(text: &str, previous: Option<&Topology>) -> Vec<String> {
    report(load_text("a.yaml", text), previous).problems.iter().map(line).collect()
}

fn line(problem: &Problem) -> String {
    let place = problem.location.as_ref().map(|location| format!("{location} ")).unwrap_or_default();
    format!("{place}{problem}")
}

fn check(text: &str, expected: &[&str]) {
    assert_eq!(lines(text, None), expected, "\n{text}");
}

/// As [`check`], after `before` was compiled.
fn check_after(before: &str, text: &str, expected: &[&str]) {
    let previous = report(load_text("before.yaml", before), None);
    assert_eq!(previous.errors(), 0, "{:?}", previous.problems);
    assert_eq!(lines(text, previous.topology.as_ref()), expected, "\n{text}");
}

#[test]
fn malformed_yaml() {
    check(
        "a: [1\n",
        &["a.yaml:1:4 error[E001] unclosed bracket '['; check indentation, quotes and brackets just before this place"],
    );
    check(
        &format!("{ORDER}---\na: ]\n---\n{ORDER}"),
        &[
            "a.yaml:6:4 error[E001] misplaced bracket; check indentation, quotes and brackets just before this place",
            "a.yaml:10:18 error[E010] function order: it is declared already at a.yaml:3:18; rename or remove one of them",
        ],
    );
}

#[test]
fn what_is_no_resource() {
    check("[1]", &["a.yaml:1:1 error[E002] the document is not an object; give it apiVersion, kind and metadata.name"]);
    check(
        "x: 1",
        &["a.yaml:1:1 error[E002] the document has no apiVersion and kind; give it apiVersion, kind and metadata.name"],
    );
    check(
        "apiVersion: tandem.dev/v1alpha1\nkind: Function\n",
        &["a.yaml:1:1 error[E002] a Function has no metadata.name; give it apiVersion, kind and metadata.name"],
    );
    check("", &[]);
    check("---\n---\n# nothing\n", &[]);
}

#[test]
fn unknown_kinds() {
    check(
        "apiVersion: tandem.dev/v1\nkind: Function\n",
        &["a.yaml:1:13 error[E003] \"tandem.dev/v1\" is not a known version; use tandem.dev/v1alpha1"],
    );
    check(
        "apiVersion: tandem.dev/v1alpha1\nkind: FunctionRout\n",
        &["a.yaml:2:7 error[E003] tandem.dev has no kind \"FunctionRout\"; did you mean \"FunctionRoute\"?"],
    );
}

#[test]
fn kinds_of_others_are_skipped_with_a_note() {
    let loaded = load_text("a.yaml", "apiVersion: apps/v1\nkind: Deployment\nspec: {x: 1}\n");
    assert_eq!(loaded.problems, []);
    assert_eq!(loaded.notes, ["a.yaml:1:1: skipped Deployment of apps/v1"]);
}

#[test]
fn lists_of_kubectl_are_unpacked() {
    let item = "{apiVersion: tandem.dev/v1alpha1, kind: Function, metadata: {name: a, uid: u}, spec: {imag: o}}";
    check(
        &format!("apiVersion: v1\nkind: List\nitems:\n  - {item}\n"),
        &["a.yaml:4:91 error[E004] function a: spec has no field \"imag\"; did you mean \"image\"?"],
    );
}

#[test]
fn fields_that_are_not_there() {
    check(
        &function("{imag: o}"),
        &["a.yaml:4:8 error[E004] function order: spec has no field \"imag\"; did you mean \"image\"?"],
    );
    check(
        &function("{image: o}\nspek: 1\nmetadata2: {}"),
        &[
            "a.yaml:5:1 error[E004] function order: the resource has no field \"spek\"; did you mean \"spec\"?",
            "a.yaml:6:1 error[E004] function order: the resource has no field \"metadata2\"; did you mean \"metadata\"?",
        ],
    );
    check(
        "apiVersion: tandem.dev/v1alpha1\nkind: Function\nmetadata: {name: order, lables: {}}\nspec: {image: o}\n",
        &["a.yaml:3:25 error[E004] function order: metadata has no field \"lables\"; did you mean \"labels\"?"],
    );
}

#[test]
fn keys_that_stand_twice() {
    check(&function("{image: o, image: p}"), &["a.yaml:4:18 error[E005] \"image\" is given twice; keep one of them"]);
}

#[test]
fn wrong_types() {
    check(
        &function("{image: 5}"),
        &["a.yaml:4:15 error[E006] function order: image must be a text, not the number 5; put it in quotes"],
    );
    check(
        &function("{image: o, handlers: place, retry: {attempts: '3'}}"),
        &[
            "a.yaml:4:28 error[E006] function order: handlers must be a list, not the text \"place\"; give a value of the right type",
            "a.yaml:4:53 error[E006] function order: attempts must be a whole number, not the text \"3\"; give a value of the right type",
        ],
    );
    check(
        &other("FunctionEgress", "\n  stream:"),
        &[
            "a.yaml:10:9 error[E006] egress x: stream must be an object, not empty; write {} for an object without fields",
        ],
    );
}

#[test]
fn values_out_of_bounds() {
    check(
        &function("{image: '', limits: {concurrency: 0}, retry: {attempts: 1000}}"),
        &[
            "a.yaml:4:15 error[E007] function order: image has 0 characters; 1 to 512 are allowed",
            "a.yaml:4:41 error[E007] function order: concurrency cannot be 0; choose a number from 1 to 100000",
            "a.yaml:4:63 error[E007] function order: attempts cannot be 1000; choose a number from 1 to 100",
        ],
    );
    check(
        &function("{image: o, handlers: [{name: place, isolation: Serialisable, timeout: 5}]}"),
        &[
            "a.yaml:4:54 error[E007] function order: isolation cannot be \"Serialisable\"; did you mean \"Serializable\"?",
            "a.yaml:4:77 error[E006] function order: timeout must be a text, not the number 5; put it in quotes",
        ],
    );
    check(
        &route(&[("deadline", "5 seconds"), ("body", "Xml"), ("http", "{method: post, path: orders}")]),
        &[
            "a.yaml:10:18 error[E007] route r: method cannot be \"post\"; did you mean \"POST\"?",
            "a.yaml:10:30 error[E007] route r: path cannot be \"orders\"; start it with /",
            "a.yaml:13:13 error[E007] route r: deadline cannot be \"5 seconds\"; write a duration like 5s",
            "a.yaml:14:9 error[E007] route r: body cannot be \"Xml\"; use one of Json, Raw",
        ],
    );
}

#[test]
fn fields_that_are_missing() {
    check(
        &format!(
            "{ORDER}---\napiVersion: tandem.dev/v1alpha1\nkind: FunctionRoute\nmetadata: {{name: r}}\nspec: {{to: {{}}}}\n"
        ),
        &[
            "a.yaml:9:7 error[E008] route r: spec has no http; add http",
            "a.yaml:9:7 error[E008] route r: spec has no key; add key",
            "a.yaml:9:12 error[E008] route r: to has no function; add function",
            "a.yaml:9:12 error[E008] route r: to has no handler; add handler",
        ],
    );
}

#[test]
fn rules_of_the_schema() {
    let both = "exactly one of image and endpoint must be set";
    check(
        &function("{image: o, endpoint: {url: 'http://h:1'}}"),
        &[&format!("a.yaml:4:7 error[E009] function order: {both}")],
    );
    check(&function("{}"), &[&format!("a.yaml:4:7 error[E009] function order: {both}")]);
    check(
        &other("FunctionEgress", "{}"),
        &["a.yaml:9:7 error[E009] egress x: exactly one way out must be named: stream"],
    );
    check(
        &other("FunctionRuntime", "{store: {}}"),
        &["a.yaml:9:15 error[E009] runtime x: exactly one store must be named: embedded or tikv"],
    );
    check(
        &ORDER.replace("name: order", "name: Order"),
        &[
            "a.yaml:3:18 error[E009] function Order: metadata.name must have 1 to 63 of a-z, 0-9 and '-', and start and end with a letter or digit",
        ],
    );
}

#[test]
fn what_is_too_large() {
    check(
        &format!("a: {}{}", "[".repeat(100), "]".repeat(100)),
        &["a.yaml:1:67 error[E012] the document is too large or too deep; split the file"],
    );
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("big.yaml");
    std::fs::write(&path, "#".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1)).unwrap();
    let problems = load(&[path]).unwrap().problems;
    assert_eq!(problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), ["E012"]);
}

#[test]
fn bytes_that_are_no_text() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.yaml");
    std::fs::write(&path, b"a: 1\nb: \xff\n").unwrap();
    let problems = load(&[path]).unwrap().problems;
    let found: Vec<String> = problems.iter().map(line).collect();
    assert_eq!(found.len(), 1);
    assert!(found[0].ends_with("a.yaml:2:1 error[E001] the file is not UTF-8; save it as UTF-8"), "{found:?}");
}

#[test]
fn names_in_lists() {
    check(
        &function(
            "{image: o, handlers: [{name: a}, {name: a}], states: [{name: s}, {name: s}], callers: [order, order]}",
        ),
        &[
            "a.yaml:4:47 error[E115] function order: handler \"a\" is listed twice; remove or rename one of them",
            "a.yaml:4:79 error[E115] function order: state \"s\" is listed twice; remove or rename one of them",
            "a.yaml:4:101 error[E115] function order: caller \"order\" is listed twice; remove or rename one of them",
        ],
    );
    check(
        &function("{image: o, callers: [ordr, payment, Bad_Name]}"),
        &[
            "a.yaml:4:28 error[E116] function order: caller \"ordr\" does not exist; did you mean \"order\"?",
            "a.yaml:4:34 error[E116] function order: caller \"payment\" does not exist; known: \"order\"",
            "a.yaml:4:43 error[E101] function order: function name \"Bad_Name\" must consist of a-z, 0-9 and '-', and start and end with a letter or digit; choose a name of the allowed form",
        ],
    );
}

#[test]
fn a_deletion_policy_that_is_not_acted_on_is_named() {
    check(
        &function("{image: o, deletionPolicy: Delete}"),
        &[
            "a.yaml:4:34 warning[W206] function order: its state stays when it is deleted, until its runtime goes with its own; use deletionPolicy: Retain; to remove state, use deletionPolicy: Delete of the FunctionRuntime",
        ],
    );
    check(&function("{image: o, deletionPolicy: Retain}"), &[]);
}

#[test]
fn one_runtime_and_one_namespace() {
    let two = other("FunctionRuntime", "{}")
        + "---\n"
        + &other("FunctionRuntime", "{}").replace("name: x", "name: y")[ORDER.len() + 4..];
    check(&two, &["a.yaml:13:18 error[E102] runtime y: there is another FunctionRuntime; keep one FunctionRuntime"]);
    let elsewhere = one_route("r", &[]).replace("name: r}", "name: r, namespace: shop}");
    check(
        &format!("{ORDER}---\n{elsewhere}"),
        &["error[E103] the resources are from several namespaces: (none), shop; check the namespaces one by one"],
    );
}

#[test]
fn targets_of_routes() {
    check(
        &route(&[("to", "{function: ordr, handler: place}")]),
        &["a.yaml:11:18 error[E104] route r: function \"ordr\" does not exist; did you mean \"order\"?"],
    );
    check(
        &one_route("r", &[]),
        &[
            "a.yaml:6:18 error[E104] route r: function \"order\" does not exist; declare a Function of that name, or name another one",
            "warning[W205] no Function is declared; add a Function",
        ],
    );
    let pinned = function("{image: o, handlers: [{name: place}, {name: show, isolation: ReadOnly, timeout: 20s}]}");
    let text = |overrides: &[(&str, &str)]| format!("{pinned}---\n{}", one_route("r", overrides));
    check(
        &text(&[("to", "{function: order, handler: plaice}")]),
        &["a.yaml:11:34 error[E105] route r: function \"order\" has no handler \"plaice\"; did you mean \"place\"?"],
    );
    check(
        &text(&[("to", "{function: order, handler: show}"), ("reply", "Accept"), ("deadline", "5s")]),
        &[
            "a.yaml:13:10 warning[W203] route r: reply is Accept, but handler show only reads; use reply: Wait",
            "a.yaml:14:13 warning[W202] route r: handler show may take 20s, but the flow ends after 5s; lengthen the deadline or shorten the timeout",
        ],
    );
    check(
        &text(&[("to", "{function: order, handler: show}")]),
        &[
            "a.yaml:10:3 warning[W202] route r: handler show may take 20s, but the flow ends after 10s; lengthen the deadline or shorten the timeout",
        ],
    );
}

#[test]
fn a_broken_function_does_not_break_its_routes() {
    let broken = function("{image: o, handlers: [{name: 5}]}");
    check(
        &format!("{broken}---\n{}", one_route("r", &[])),
        &["a.yaml:4:36 error[E006] function order: name must be a text, not the number 5; put it in quotes"],
    );
}

#[test]
fn paths_of_routes() {
    let path = |path: &str| route(&[("http", &format!("{{method: POST, path: '{path}'}}")), ("key", "\"'k'\"")]);
    check(
        &path("/a/{b}c"),
        &[
            "a.yaml:10:30 error[E107] route r: path \"/a/{b}c\": \"{b}c\" must end with the } of its variable; write a pattern like /orders/{orderId}",
        ],
    );
    check(
        &path("/flows/{id}"),
        &["a.yaml:10:30 error[E122] route r: path \"/flows/{id}\" is below /flows; use another first segment"],
    );
    let second = |http: &str| format!("{}---\n{}", route(&[]), one_route("s", &[("http", http), ("key", "\"'k'\"")]));
    check(
        &second("{method: POST, path: '/o/{name}'}"),
        &[
            "a.yaml:18:30 error[E108] route s: POST /o/{name} takes what route r (/o/{id}) takes; change the path or the method of one of them",
        ],
    );
    check(&second("{method: GET, path: '/o/{name}'}"), &[]);
    check(&second("{method: POST, path: /o/new}"), &[]);
}

#[test]
fn expressions_of_routes() {
    let key = |key: &str| route(&[("key", key)]);
    check(
        &key("orderId"),
        &[
            "a.yaml:12:8 error[E109] route r: \"orderId\" uses \"orderId\"; only `request` is known here; write an expression like request.path.orderId",
        ],
    );
    check(
        &key("request.pth.id"),
        &["a.yaml:12:8 error[E109] route r: request has no field \"pth\"; did you mean \"path\"?"],
    );
    check(
        &key("request.path.ids"),
        &["a.yaml:12:8 error[E110] route r: path \"/o/{id}\" has no variable \"ids\"; did you mean \"id\"?"],
    );
    check(
        &route(&[("body", "Raw"), ("idempotencyKey", "request.body.id")]),
        &[
            "a.yaml:14:19 error[E111] route r: request.body does not exist, because body is Raw; take the value from path, query or headers, or use body: Json",
        ],
    );
    check(
        &route(&[("http", "{method: GET, path: /o}"), ("key", "request.body.id")]),
        &[
            "a.yaml:12:8 warning[W204] route r: request.body is used, but GET requests seldom have one; take the value from path, query or headers",
        ],
    );
    check(
        &key(&"(".repeat(500)),
        &[
            "a.yaml:12:8 error[E125] route r: the expression nests 500 brackets, at most 6 are allowed; take a simpler key, or compute it in the client",
        ],
    );
    let problems = lines(&key("request."), None);
    assert!(
        problems[0].starts_with("a.yaml:12:8 error[E109] route r: \"request.\" is not a valid CEL expression"),
        "{problems:?}"
    );
}

#[test]
fn durations() {
    check(
        &route(&[("deadline", "61s")]),
        &["a.yaml:13:13 error[E113] route r: deadline is 61s; allowed are 1ms to 60s"],
    );
    check(
        &other("FunctionEgress", "{stream: {retention: 10ms}}"),
        &["a.yaml:9:28 error[E113] egress x: retention is 10ms; allowed are 1s to 8784h"],
    );
    check(
        &other("FunctionRuntime", "{limits: {deadline: 0s}}"),
        &["a.yaml:9:27 error[E113] runtime x: deadline is 0s; allowed are 1ms to 60s"],
    );
}

#[test]
fn urls_of_endpoints() {
    let url = |url: &str| function(&format!("{{endpoint: {{url: '{url}'}}}}"));
    check(
        &url("http://h:99999"),
        &[
            "a.yaml:4:24 error[E118] function order: \"http://h:99999\" has no host, or a port that is none; write a URL like http://localhost:9000",
        ],
    );
    check(
        &url("http://h:1/path"),
        &[
            "a.yaml:4:24 error[E118] function order: \"http://h:1/path\" has a path, which the Grpc protocol does not use; write a URL like http://localhost:9000",
        ],
    );
    check(
        &url("localhost:1"),
        &[
            "a.yaml:4:24 error[E007] function order: url cannot be \"localhost:1\"; it must match ^https?://[^/?#\\s]+(/[^?#\\s]*)?$",
        ],
    );
}

#[test]
fn what_stored_data_cannot_follow() {
    let before =
        function("{image: o, states: [{name: total, type: Integer}, {name: old}, {name: free, type: Integer}]}");
    let after = function("{image: o, states: [{name: total, type: String, kind: Map}, {name: free}]}");
    check_after(
        &before,
        &after,
        &[
            "a.yaml:4:26 warning[W201] function order: state \"old\" is no longer declared; declare it again if its values still matter",
            "a.yaml:4:47 error[E120] function order: state \"total\" changes from Integer to String; stored values could not be read",
            "a.yaml:4:61 error[E120] function order: state \"total\" changes from Value to Map; stored values could not be read",
        ],
    );
    check_after(
        &before,
        &ORDER.replace("order", "shop"),
        &[
            "warning[W201] function order: the function is no longer declared; what it stored stays, and nobody can reach it; declare it again if its values still matter",
        ],
    );
    check_after(
        ORDER,
        &other("FunctionRuntime", "{slots: 16}"),
        &[
            "a.yaml:9:15 error[E121] runtime x: slots changes from 1024 to 16; nothing that is stored would be found again; keep the number, or start with an empty store",
        ],
    );
    check_after(
        &other("FunctionRuntime", "{slots: 16}"),
        ORDER,
        &[
            "error[E121] slots changes from 16 to 1024; nothing that is stored would be found again; keep the number, or start with an empty store",
        ],
    );
    check_after(&before, &before, &[]);
}

/// Nothing hides anything: one file with many mistakes, all found in one run.
#[test]
fn all_problems_at_once() {
    let text = [
        function("{imag: o}"),
        one_route("a", &[("to", "{function: ordr, handler: place}"), ("key", "x"), ("deadline", "2h")]),
        "a: [\n".to_owned(),
        one_route("b", &[("key", "request.path.nope"), ("replay", "Wait")]),
    ]
    .join("---\n");
    let report = report(load_text("a.yaml", &text), None);
    let found: BTreeSet<&str> = report.problems.iter().map(|problem| problem.code).collect();
    let expected = ["E001", "E004", "E104", "E108", "E109", "E110", "E113"];
    assert_eq!(found, expected.into_iter().collect());
    assert!(report.topology.is_none());
}

/// A code without a test here is a code that nobody has seen.
#[test]
fn every_code_is_tested() {
    /// What the schema refuses first when it comes from a file; the property tests and `compile` tests see them. Files
    /// that are named are the affair of the runtime's configuration, and of its tests.
    const BEHIND_THE_SCHEMA: [&str; 9] = ["E011", "E013", "E106", "E112", "E114", "E117", "E119", "E123", "E124"];
    let source = include_str!("problems.rs");
    for code in codes::ALL {
        let is_tested =
            source.contains(&format!("[{}]", code.code)) || source.contains(&format!("[\"{}\"]", code.code));
        assert!(is_tested || BEHIND_THE_SCHEMA.contains(&code.code), "{} has no test", code.code);
    }
}
