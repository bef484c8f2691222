//! Resources of the load.

use serde_json::{Value, json};

fn object(kind: &str, namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": tandem_crds::resources::API_VERSION,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    })
}

/// The runtime of a namespace.
pub fn runtime(namespace: &str) -> Value {
    object("FunctionRuntime", namespace, "default", &json!({"store": {"embedded": {}}}))
}

/// A function with an image of that version, and with what functions usually declare.
pub fn function(namespace: &str, name: &str, version: u32) -> Value {
    let spec = json!({
        "image": format!("registry.example/{name}:{version}"),
        "handlers": [{"name": "place", "timeout": "4s"}, {"name": "show", "isolation": "ReadOnly"}],
        "states": [{"name": "status", "type": "String"}, {"name": "lines", "kind": "Map", "type": "Object"}],
        "env": [{"name": "SHOP", "value": "north"}],
    });
    object("Function", namespace, name, &spec)
}

/// A route to the handler `place` of a function.
pub fn route(namespace: &str, name: &str, function: &str) -> Value {
    let spec = json!({
        "http": {"method": "POST", "path": format!("/{name}/{{id}}")},
        "to": {"function": function, "handler": "place"},
        "key": "request.path.id",
    });
    object("FunctionRoute", namespace, name, &spec)
}

/// A route whose key the schema lets in, and nobody can compute.
pub fn broken_route(namespace: &str, name: &str, function: &str) -> Value {
    let mut route = route(namespace, name, function);
    route["spec"]["key"] = "1 +".into();
    route
}

/// `name` of the namespace of that number.
pub fn namespace(number: usize) -> String {
    format!("shop-{number:02}")
}

/// What is applied: first the runtimes, then all functions, then all routes, each kind over all namespaces in turn.
pub fn shops(functions: usize, routes: usize, namespaces: usize) -> Vec<Value> {
    let place = |number: usize| namespace(number % namespaces);
    let runtimes = (0..namespaces).map(|number| runtime(&namespace(number)));
    let all = (0..functions).map(|number| function(&place(number), &function_name(number), 1));
    let routes = (0..routes.min(functions)).map(|number| {
        let name = format!("place-{number:05}");
        route(&place(number), &name, &function_name(number))
    });
    runtimes.chain(all).chain(routes).collect()
}

/// The name of the function of that number.
pub fn function_name(number: usize) -> String {
    format!("function-{number:05}")
}
