//! `tandem check` and `tandem new` as a user meets them: what they print and how they end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const ORDER: &str = "apiVersion: tandem.dev/v1alpha1\nkind: Function\nmetadata:\n  name: order\nspec:\n  image: shop/order:1\n  states:\n    - name: total\n      type: Integer\n";
const ROUTE: &str = "apiVersion: tandem.dev/v1alpha1\nkind: FunctionRoute\nmetadata: {name: place-order}\nspec:\n  http: {method: POST, path: \"/orders/{orderId}\"}\n  to: {function: order, handler: place}\n  key: request.path.orderId\n";

/// Runs `tandem` in `directory`.
fn tandem(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tandem")).args(arguments).current_dir(directory).output().unwrap()
}

fn check(directory: &Path, arguments: &[&str], status: i32, stdout: &str, stderr: &str) {
    let output = tandem(directory, arguments);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), stdout);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), stderr);
    assert_eq!(output.status.code(), Some(status));
}

/// A directory with `shop/` and these files in it.
fn shop(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join("shop").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    directory
}

#[test]
fn a_valid_application_is_counted() {
    let shop = shop(&[("order.yaml", ORDER), ("routes.yml", ROUTE)]);
    check(shop.path(), &["check", "shop"], 0, "1 function, 1 route: no problems\n", "");
}

#[test]
fn problems_are_printed_with_their_places() {
    let routes = ROUTE.replace("function: order", "function: ordr") + "  deadline: 2m\n";
    let order = ORDER.replace("Integer", "Int");
    let shop = shop(&[("order.yaml", &order), ("routes.yaml", &routes)]);
    let expected = "\
shop/order.yaml:9:13   error[E007] function order: type cannot be \"Int\"; use one of Any, Integer, Number, String, Boolean, Object, Array
shop/routes.yaml:6:18  error[E104] route place-order: function \"ordr\" does not exist; did you mean \"order\"?
shop/routes.yaml:8:13  error[E113] route place-order: deadline is 2m; allowed are 1ms to 60s
3 errors, nothing applied
";
    check(shop.path(), &["check", "shop"], 1, expected, "");
}

#[test]
fn warnings_do_not_fail() {
    let route = ROUTE.replace("POST", "GET").replace("request.path.orderId", "request.body.id");
    let shop = shop(&[("order.yaml", ORDER), ("routes.yaml", &route)]);
    let expected = "\
shop/routes.yaml:7:8  warning[W204] route place-order: request.body is used, but GET requests seldom have one; take the value from path, query or headers
1 function, 1 route: 1 warning
";
    check(shop.path(), &["check", "shop"], 0, expected, "");
}

#[test]
fn what_is_no_resource_of_ours_is_skipped() {
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n";
    let files = [
        ("a/b/order.yaml", ORDER),
        ("a/b/c/too-deep.yaml", "a: ["),
        (".hidden.yaml", "a: ["),
        ("Tandemfile", "workers: ["),
        ("notes.txt", "a: ["),
        ("deployment.yaml", deployment),
    ];
    let shop = shop(&files);
    check(shop.path(), &["check", "shop"], 0, "1 function: no problems\n", "");
    let expected = "note: shop/deployment.yaml:1:1: skipped Deployment of apps/v1\n1 function: no problems\n";
    check(shop.path(), &["check", "shop", "-v"], 0, expected, "");
}

#[test]
fn unreadable_paths_and_empty_directories_are_usage_errors() {
    let shop = shop(&[("notes.txt", "")]);
    let missing = "error: failed to read nowhere: No such file or directory (os error 2)\n";
    check(shop.path(), &["check", "nowhere"], 2, "", missing);
    check(shop.path(), &["check", "shop"], 2, "", "error: no resources of tandem.dev in shop\n");
    assert_eq!(tandem(shop.path(), &["check", "--nonsense"]).status.code(), Some(2));
}

#[test]
fn json_says_the_same() {
    let shop = shop(&[("order.yaml", ORDER), ("routes.yaml", &ROUTE.replace("function: order", "function: ordr"))]);
    let output = tandem(shop.path(), &["check", "shop", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = serde_json::json!({
        "errors": 1,
        "warnings": 0,
        "problems": [{
            "code": "E104",
            "severity": "error",
            "object": "FunctionRoute place-order",
            "field": "spec.to.function",
            "message": "function \"ordr\" does not exist",
            "help": "did you mean \"order\"?",
            "location": {"file": "shop/routes.yaml", "line": 6, "column": 18},
        }],
        "notes": [],
        "topology": null,
    });
    assert_eq!(json, expected);
}

#[test]
fn stored_data_is_protected_by_the_previous_topology() {
    let shop = shop(&[("order.yaml", ORDER), ("routes.yaml", ROUTE)]);
    let written = ["check", "shop", "--topology", "running.json"];
    check(shop.path(), &written, 0, "1 function, 1 route: no problems\n", "");
    std::fs::write(shop.path().join("shop/order.yaml"), ORDER.replace("Integer", "String")).unwrap();
    let expected = "\
shop/order.yaml:9:13  error[E120] function order: state \"total\" changes from Integer to String; stored values could not be read
1 error, nothing applied
";
    check(shop.path(), &["check", "shop", "--previous", "running.json"], 1, expected, "");
    let no_topology = tandem(shop.path(), &["check", "shop", "--previous", "shop/order.yaml"]);
    assert_eq!(no_topology.status.code(), Some(2));
}

#[test]
fn a_file_that_is_named_twice_is_read_once() {
    let shop = shop(&[("order.yaml", ORDER)]);
    check(shop.path(), &["check", "shop", "shop/order.yaml", "./shop"], 0, "1 function: no problems\n", "");
}

#[test]
fn codes_are_explained() {
    let directory = tempfile::tempdir().unwrap();
    let expected = "\
E104: A function does not exist

A route leads to a function that no Function resource declares. Its requests could never run.

What to do: declare a Function of that name, or name another one.
";
    check(directory.path(), &["check", "--explain", "e104"], 0, expected, "");
    let unknown = "error: there is no problem code \"E999\"; codes look like E104\n";
    check(directory.path(), &["check", "--explain", "E999"], 2, "", unknown);
}

#[test]
fn a_new_function_passes_the_check() {
    for (language, code) in [("rust", "src/main.rs"), ("python-http", "main.py")] {
        let directory = tempfile::tempdir().unwrap();
        let output = tandem(directory.path(), &["new", "place-order", "--lang", language]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        check(directory.path(), &["check", "place-order"], 0, "1 function, 2 routes: no problems\n", "");
        let code = std::fs::read_to_string(directory.path().join("place-order").join(code)).unwrap();
        assert!(code.contains("place-order") && !code.contains("{{"), "{code}");
    }
}

/// `kubectl apply -f DIR`, Argo CD and Flux take each `*.yaml` of the directory for an object, so there may be no other one.
#[test]
fn directories_of_applications_can_be_given_to_kubectl_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    for language in ["rust", "python-http"] {
        assert!(tandem(directory.path(), &["new", language, "--lang", language]).status.success());
        check(directory.path(), &["check", language, "-v"], 0, "1 function, 2 routes: no problems\n", "");
    }
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let orders = "5 functions, 10 routes, 1 egress, 1 runtime: no problems\n";
    check(&examples, &["check", "orders", "-v"], 0, orders, "");
    check(&examples, &["check", "transfers", "-v"], 0, "1 function, 3 routes: no problems\n", "");
}

#[test]
fn a_new_function_may_have_any_name_that_a_function_may_have() {
    for name in ["123", "1e3", "null", "flows", "a", &"n".repeat(59)] {
        let directory = tempfile::tempdir().unwrap();
        let output = tandem(directory.path(), &["new", name, "--dir", "f", "--lang", "python-http"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        check(directory.path(), &["check", "f"], 0, "1 function, 2 routes: no problems\n", "");
    }
    let directory = tempfile::tempdir().unwrap();
    let too_long = "error: the name is too long: its routes are named after it\n";
    check(directory.path(), &["new", &"n".repeat(60)], 2, "", too_long);
}

#[test]
fn a_new_function_overwrites_nothing() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("f")).unwrap();
    std::fs::write(directory.path().join("f/route.yaml"), "mine").unwrap();
    let refused = "error: f/route.yaml exists; nothing was written\n";
    check(directory.path(), &["new", "order", "--dir", "f"], 1, "", refused);
    assert_eq!(std::fs::read_to_string(directory.path().join("f/route.yaml")).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(directory.path().join("f")).unwrap().count(), 1);
}

#[test]
fn a_new_function_needs_a_name_that_a_cluster_takes() {
    let directory = tempfile::tempdir().unwrap();
    let refused =
        "error: function name \"Order_1\" must consist of a-z, 0-9 and '-', and start and end with a letter or digit\n";
    check(directory.path(), &["new", "Order_1"], 2, "", refused);
}

/// The Python function, run by the interpreter that is there, follows the HTTP profile.
#[test]
fn a_new_python_function_answers_invocations() {
    let directory = tempfile::tempdir().unwrap();
    assert!(tandem(directory.path(), &["new", "counter", "--lang", "python-http", "--dir", "."]).status.success());
    let script = "import main\n\
        print(main.add({'key': 'a', 'payload': {'by': 2}, 'states': {'count': 3}}))\n\
        print(main.add({'key': 'a', 'payload': {'by': -9}, 'states': {'count': None}}))\n\
        print(main.get({'key': 'a', 'payload': None, 'states': {'count': 3}}))\n";
    let Ok(output) = Command::new("python3").args(["-c", script]).current_dir(directory.path()).output() else {
        println!("skipped: there is no python3");
        return;
    };
    let expected = "\
{'result': 5, 'writes': {'count': 5}}
{'reject': {'reason': 'below-zero', 'detail': 'a: -9'}}
{'result': 3}
";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected, "{}", String::from_utf8_lossy(&output.stderr));
}
