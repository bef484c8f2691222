//! Resources of tests.

use serde_json::{Value, json};

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "tandem.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
    })
}

pub(crate) fn runtime() -> Value {
    object("FunctionRuntime", "default", &json!({"store": {"tikv": {"endpoints": ["pd:2379"]}}, "replicas": 2}))
}

pub(crate) fn function(name: &str, image: &str) -> Value {
    object("Function", name, &json!({"image": image}))
}

pub(crate) fn route(name: &str, function: &str) -> Value {
    let http = json!({"method": "POST", "path": format!("/{name}/{{id}}")});
    let to = json!({"function": function, "handler": "place"});
    object("FunctionRoute", name, &json!({"http": http, "to": to, "key": "request.path.id"}))
}

pub(crate) fn egress(name: &str) -> Value {
    object("FunctionEgress", name, &json!({"stream": {}}))
}

/// A runtime, two functions, two routes, an egress.
pub(crate) fn shop() -> Vec<Value> {
    vec![
        runtime(),
        function("order", "order:1"),
        function("cart", "cart:1"),
        route("place", "order"),
        route("fill", "cart"),
        egress("events"),
    ]
}
