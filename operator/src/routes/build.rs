//! The way to a route from outside of the cluster, as it should be. Pure, and cannot fail.

use serde_json::{Value, json};
use tandem_crds::resources::FunctionRouteSpec;
use tandem_crds::resources::route::Gateway;

use crate::child::{Child, ChildKind, Owner};
use crate::names::SERVICE_PORT;

/// The part of every child of a route.
pub const COMPONENT: &str = "route";

/// An HTTPRoute or an Ingress if the route has a host. `knows` says which kinds the cluster has.
pub fn build(owner: &Owner, runtime: &str, spec: &FunctionRouteSpec, knows: impl Fn(ChildKind) -> bool) -> Vec<Child> {
    let Some(host) = &spec.http.host else { return Vec::new() };
    let child = match &spec.http.gateway {
        Some(gateway) => http_route(owner, runtime, spec, host, gateway),
        None => ingress(owner, runtime, spec, host),
    };
    if knows(child.kind) { vec![child] } else { Vec::new() }
}

/// The part of a path before its first variable, and whether it is all of it.
fn fixed(path: &str) -> (&str, bool) {
    match path.find('{') {
        None => (path, true),
        Some(at) => {
            let prefix = path.get(..at).unwrap_or_default();
            // A prefix of a gateway or an Ingress is made of whole segments.
            let whole = prefix.rfind('/').and_then(|slash| prefix.get(..slash)).unwrap_or_default();
            (if whole.is_empty() { "/" } else { whole }, false)
        }
    }
}

fn http_route(owner: &Owner, runtime: &str, spec: &FunctionRouteSpec, host: &str, gateway: &Gateway) -> Child {
    let (path, is_whole) = fixed(&spec.http.path);
    let mut parent = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway.name});
    if let Some(namespace) = &gateway.namespace {
        parent["namespace"] = namespace.as_str().into();
    }
    if let Some(section) = &gateway.section_name {
        parent["sectionName"] = section.as_str().into();
    }
    let matches = json!([{
        "path": {"type": if is_whole { "Exact" } else { "PathPrefix" }, "value": path},
        "method": spec.http.method,
    }]);
    let rules = json!([{"matches": matches, "backendRefs": [{"name": runtime, "port": SERVICE_PORT}]}]);
    let route = json!({"parentRefs": [parent], "hostnames": [host], "rules": rules});
    owner.child(ChildKind::HttpRoute, &owner.key.name, COMPONENT, json!({"spec": route}))
}

fn ingress(owner: &Owner, runtime: &str, spec: &FunctionRouteSpec, host: &str) -> Child {
    let (path, is_whole) = fixed(&spec.http.path);
    let backend: Value = json!({"service": {"name": runtime, "port": {"number": SERVICE_PORT}}});
    let path_type = if is_whole { "Exact" } else { "Prefix" };
    let paths = json!([{"path": path, "pathType": path_type, "backend": backend}]);
    let mut ingress = json!({"rules": [{"host": host, "http": {"paths": paths}}]});
    if let Some(class) = &spec.http.ingress_class_name {
        ingress["ingressClassName"] = class.as_str().into();
    }
    owner.child(ChildKind::Ingress, &owner.key.name, COMPONENT, json!({"spec": ingress}))
}
