//! The ways to a route from outside of the cluster.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use tandem_crds::resources::Kind;

use crate::child::{Child, ChildKind, Owner};
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
