use tandem_crds::load::load_text;

use super::*;

const NAMESPACE: &str = "shop";

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "tandem.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec, "status": {"conditions": "of a kind that nobody knows"},
    })
}

fn function(name: &str, total: &str) -> Value {
    let spec = json!({"image": "a", "handlers": [{"name": "place"}], "states": [{"name": "total", "type": total}]});
    object("Function", name, &spec)
}

fn route(name: &str, path: &str, function: &str, handler: &str) -> Value {
    let spec = json!({
        "http": {"method": "POST", "path": path}, "to": {"function": function, "handler": handler},
        "key": "request.path.id",
    });
    object("FunctionRoute", name, &spec)
}

/// A function and a route to it.
fn shop() -> Objects {
    Objects {
        functions: vec![function("order", "Integer")],
        routes: vec![route("place", "/orders/{id}", "order", "place")],
        ..Objects::default()
    }
}

fn check(objects: &Objects, files: Option<&str>) -> Checked {
    compare(&decode(objects), files.map(|text| load_text("a.yaml", text)), NAMESPACE)
}

fn lines(problems: &[Problem]) -> Vec<String> {
    let place = |problem: &Problem| problem.location.as_ref().map(|place| format!("{place} ")).unwrap_or_default();
    problems.iter().map(|problem| format!("{}{} {}", place(problem), problem.code, problem.object)).collect()
}

#[test]
fn a_route_in_a_file_may_lead_to_a_function_of_the_cluster() {
    let route = "apiVersion: tandem.dev/v1alpha1\nkind: FunctionRoute\nmetadata: {name: again}\nspec:\n  \
                 http: {method: PUT, path: '/orders/{id}'}\n  to: {function: order, handler: place}\n  key: request.path.id\n";
    let checked = check(&shop(), Some(route));
    assert_eq!(lines(&checked.report.problems), [""; 0]);
    assert_eq!(checked.report.resources.routes.len(), 2);
    let missing = check(&shop(), Some(&route.replace("function: order", "function: ordr")));
    assert_eq!(lines(&missing.report.problems), ["a.yaml:6:18 E104 FunctionRoute again"]);
}

#[test]
fn a_file_that_takes_the_path_of_a_route_in_the_cluster_is_to_blame() {
    let route = "apiVersion: tandem.dev/v1alpha1\nkind: FunctionRoute\nmetadata: {name: again}\nspec:\n  \
                 http: {method: POST, path: '/orders/{other}'}\n  to: {function: order, handler: place}\n  \
                 key: request.path.other\n";
    let found = check(&shop(), Some(route)).report.problems;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].location.is_some() && found[0].object == "FunctionRoute again", "{found:?}");
}

#[test]
fn what_a_file_breaks_in_the_cluster_is_said_and_what_was_broken_before_is_told_apart() {
    let mut objects = shop();
    objects.routes.push(route("old", "/old/{id}", "nobody", "place"));
    let function = "apiVersion: tandem.dev/v1alpha1\nkind: Function\nmetadata: {name: order}\nspec:\n  image: b\n  \
                    handlers: [{name: take}]\n  states: [{name: total, type: Integer}]\n";
    let checked = check(&objects, Some(function));
    assert_eq!(lines(&checked.report.problems), ["E105 FunctionRoute place"]);
    assert_eq!(lines(&checked.before), ["E104 FunctionRoute old"]);
    // Without files, all of it is what is asked for.
    let alone = check(&objects, None);
    assert_eq!(lines(&alone.report.problems), ["E104 FunctionRoute old"]);
    assert!(alone.before.is_empty());
}

#[test]
fn what_is_stored_binds_the_file_although_a_neighbour_is_broken() {
    let mut objects = shop();
    objects.routes.push(route("old", "/old/{id}", "nobody", "place"));
    let function = "apiVersion: tandem.dev/v1alpha1\nkind: Function\nmetadata: {name: order}\nspec:\n  image: b\n  \
                    handlers: [{name: place}]\n  states: [{name: total, type: String}]\n";
    assert_eq!(lines(&check(&objects, Some(function)).report.problems), ["a.yaml:7:32 E120 Function order"]);
}

#[test]
fn an_object_in_a_broken_file_is_no_longer_that_of_the_cluster() {
    let broken = "apiVersion: tandem.dev/v1alpha1\nkind: FunctionRoute\nmetadata: {name: place}\nspec: 7\n";
    let checked = check(&shop(), Some(broken));
    assert!(checked.report.errors() > 0);
    assert!(checked.report.resources.routes.is_empty(), "{:?}", checked.report.resources.routes);
}

#[test]
fn an_object_of_another_version_is_a_problem_of_its_own() {
    let mut objects = shop();
    objects.egresses.push(object("FunctionEgress", "new", &json!({"stream": "of another kind"})));
    assert_eq!(lines(&check(&objects, None).report.problems), ["E011 FunctionEgress new"]);
    let fixed = "apiVersion: tandem.dev/v1alpha1\nkind: FunctionEgress\nmetadata: {name: new}\nspec: {stream: {}}\n";
    assert_eq!(lines(&check(&objects, Some(fixed)).report.problems), [""; 0]);
}

#[test]
fn files_may_say_which_namespace_they_are_for() {
    let text = |namespace: &str| {
        format!(
            "apiVersion: tandem.dev/v1alpha1\nkind: Function\nmetadata: {{name: a{namespace}}}\nspec: {{image: a}}\n"
        )
    };
    let named = |texts: &[String]| namespace_of(&load_text("a.yaml", &texts.join("---\n")).resources);
    assert_eq!(named(&[text("")]), None);
    assert_eq!(named(&[text(""), text(", namespace: prod")]), Some("prod".to_owned()));
    assert_eq!(named(&[text("1, namespace: prod"), text("2, namespace: test")]), None);
    // Whoever wants another one than the files say gets to know.
    let other = check(&shop(), Some(&text(", namespace: prod")));
    assert!(lines(&other.report.problems).iter().any(|line| line.starts_with("E1")), "{:?}", other.report.problems);
}
