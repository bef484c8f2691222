//! The ways to a route from outside of the cluster.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use tandem_crds::resources::Kind;

use crate::child::{Child, ChildKind, Live, Owner};
use crate::key::ObjectKey;
use crate::routes::build::build;
use crate::testing::compare;

fn children(http: &str, knows: bool) -> Vec<Child> {
    let owner = Owner { key: ObjectKey::new(Kind::Route, "shop", "place-order"), uid: "uid-3".to_owned() };
    let spec = format!("{{http: {http}, to: {{function: order, handler: place}}, key: request.path.id}}");
    build(&owner, "main", &serde_saphyr::from_str(&spec).unwrap(), |kind| knows || kind != ChildKind::HttpRoute)
}

#[test]
fn a_host_gets_an_ingress_or_an_http_route() {
    let ingress =
        children("{method: POST, path: '/orders/{id}/lines', host: shop.example, ingressClassName: nginx}", true);
    let gateway = "{name: public, namespace: gateways, sectionName: https}";
    let route = children(&format!("{{method: POST, path: /orders, host: shop.example, gateway: {gateway}}}"), true);
    compare("src/routes/testdata/hosts.yaml", &[ingress, route].concat());
}

#[test]
fn nothing_is_made_without_a_host_or_without_the_definition() {
    assert_eq!(children("{method: POST, path: /orders}", true), []);
    assert_eq!(children("{method: POST, path: /orders, host: a.example, gateway: {name: b}}", false), []);
}

#[test]
fn a_prefix_is_made_of_whole_segments() {
    let path = |path: &str| {
        let children = children(&format!("{{method: GET, path: '{path}', host: a.example}}"), true);
        let path = children[0].object["spec"]["rules"][0]["http"]["paths"][0].clone();
        format!("{} {}", path["pathType"].as_str().unwrap(), path["path"].as_str().unwrap())
    };
    assert_eq!(path("/orders"), "Exact /orders");
    assert_eq!(path("/orders/{id}"), "Prefix /orders");
    assert_eq!(path("/orders-{id}/lines"), "Prefix /");
    assert_eq!(path("/{*rest}"), "Prefix /");
}

#[test]
fn what_a_gateway_says_against_a_route_is_read() {
    let refusal = |conditions: serde_json::Value| {
        let parent = serde_json::json!({"parentRef": {"name": "public"}, "conditions": conditions});
        let route = serde_json::json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "place", "namespace": "shop", "generation": 2}, "status": {"parents": [parent]},
        });
        Live::read(ChildKind::HttpRoute, &serde_json::from_value(route).unwrap()).refusal
    };
    let condition = |type_: &str, status: &str, generation: i64| {
        let (reason, message) = ("NotAllowedByListeners", "no listener lets namespace shop in");
        serde_json::json!({
            "type": type_, "status": status, "reason": reason, "message": message, "observedGeneration": generation,
        })
    };
    let all_right = serde_json::json!([condition("Accepted", "True", 2), condition("ResolvedRefs", "True", 2)]);
    assert_eq!(refusal(all_right), None);
    let refused = serde_json::json!([condition("Accepted", "False", 2), condition("ResolvedRefs", "True", 2)]);
    let expected = "gateway public: NotAllowedByListeners: no listener lets namespace shop in";
    assert_eq!(refusal(refused).as_deref(), Some(expected));
    assert!(refusal(serde_json::json!([condition("ResolvedRefs", "False", 2)])).is_some());
    assert_eq!(refusal(serde_json::json!([condition("Accepted", "False", 1)])), None, "it is about an earlier form");
    assert_eq!(refusal(serde_json::json!([condition("Programmed", "False", 2)])), None);
}
