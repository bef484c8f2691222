use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::cluster::{self, Objects};
use crate::status::gather::{Asked, Gathered, Report};
use crate::status::view::view;

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": type_, "status": status, "reason": reason, "message": message})
}

fn ready() -> Vec<Value> {
    vec![condition("Ready", "True", "Ready", "")]
}

fn object(name: &str, spec: &Value, conditions: &[Value], more: &Value) -> Value {
    let mut status = json!({"observedGeneration": 2, "conditions": conditions});
    if let (Some(status), Some(more)) = (status.as_object_mut(), more.as_object()) {
        status.extend(more.clone());
    }
    json!({"metadata": {"name": name, "generation": 2}, "spec": spec, "status": status})
}

fn route(name: &str, path: &str, function: &str, conditions: &[Value]) -> Value {
    let spec = json!({"http": {"method": "POST", "path": path}, "to": {"function": function, "handler": "run"}});
    object(name, &spec, conditions, &json!({}))
}

fn pod(name: &str, answer: Option<Result<Value, &str>>) -> Asked {
    let answer = answer.map(|answer| match answer {
        Ok(report) => Ok(serde_json::from_value::<Report>(report).unwrap()),
        Err(error) => Err(error.to_owned()),
    });
    let is_running = answer.is_some();
    let state = if is_running { "Running" } else { "ImagePullBackOff" }.to_owned();
    let (name, uid) = (name.to_owned(), name.to_owned());
    let pod = cluster::Pod { name, uid, is_ready: is_running, is_running, is_ending: false, restarts: 0, state };
    Asked { pod, answer }
}

fn report(member: &str, invocations: u64, failures: u64) -> Value {
    let revision = |revision: &str, invocations: u64, failures: u64| json!({"revision": revision, "workersReady": 2, "invocations": invocations, "failures": failures});
    json!({
        "revision": "5a0c", "sequence": 3, "member": member, "store": {"ready": true},
        "functions": [{"name": "order", "revisions": [
            revision("7c9f0a12", invocations, failures),
            {"revision": "b4", "workersReady": 0, "invocations": 0, "failures": 0,
             "problem": {"reason": "HandlersDiffer", "message": "handler run is missing"}},
        ]}],
    })
}

/// A shop where some things are well and others are not.
fn shop() -> Gathered {
    let revisions = json!({"revisions": [
        {"revision": "7c9f0a12", "weight": 90, "state": "Active", "since": ""},
        {"revision": "b4", "weight": 10, "state": "Ramping", "since": ""},
    ]});
    let replaced = [
        condition("Ready", "True", "PreviousRevision", "revision 7c9f0a12 serves"),
        condition("Reconciling", "True", "RollingOut", "revision b4 has 10%"),
    ];
    let missing = [
        condition("Ready", "False", "FunctionMissing", "E104: function \"ordr\" does not exist"),
        condition("Stalled", "True", "FunctionMissing", "E104: function \"ordr\" does not exist"),
    ];
    let spread = json!({"readyReplicas": 2, "replicas": 3, "topologyRevision": "5a0c", "servingRevision": "5a0c"});
    let runtime = json!({"replicas": 3, "store": {"tikv": {"endpoints": ["pd:2379"]}}});
    let waiting = [condition("Ready", "False", "ImageUnavailable", "pod orders-2: ImagePullBackOff")];
    let objects = Objects {
        runtimes: vec![object("orders", &runtime, &waiting, &spread)],
        functions: vec![
            object("order", &json!({"image": "a"}), &replaced, &revisions),
            object("legacy", &json!({"endpoint": {"url": "http://legacy"}}), &ready(), &json!({})),
        ],
        routes: vec![route("place", "/orders/{id}", "order", &ready()), route("lost", "/lost", "ordr", &missing)],
        egresses: vec![object("events", &json!({"stream": {}}), &ready(), &json!({}))],
    };
    let pods = vec![
        pod("orders-0", Some(Ok(report("orders-0", 1_204, 3)))),
        pod("orders-1", Some(Err("no answer within 5 s"))),
        pod("orders-2", None),
    ];
    Gathered { namespace: "shop".to_owned(), objects, pods: BTreeMap::from([("orders".to_owned(), pods)]) }
}

fn shown(gathered: &Gathered, name: Option<&str>) -> String {
    let view = view(gathered);
    let view = match name {
        Some(name) => view.only(name),
        None => view,
    };
    text(&view, Palette::plain())
}

const SHOP: &str = "\
✗ runtime orders           Not ready ImageUnavailable: pod orders-2: ImagePullBackOff  2 of 3 pods  serves 5a0c  store tikv
├─ ✓ pod orders-0          Ready  serves 5a0c
├─ ? pod orders-1          Ready  did not answer: no answer within 5 s
├─ ✗ pod orders-2          Not ready: ImagePullBackOff
├─ … function order        Reconciling RollingOut (serves meanwhile): revision b4 has 10%
│  ├─ revision 7c9f0a12    Active  90% of new flows  2 workers  1,204 calls, 3 failed
│  ├─ revision b4          Ramping  10% of new flows  0 workers  0 calls, 0 failed  HandlersDiffer: handler run is missing (says orders-0)
│  └─ ✓ route place        Ready  POST /orders/{id} → order run
├─ ✓ function legacy       Ready
│  └─ workers of your own  0 workers  0 calls, 0 failed
├─ ✗ route lost            Stalled FunctionMissing: E104: function \"ordr\" does not exist  POST /lost → ordr run
└─ ✓ egress events         Ready  GET /egress/events

2 pods did not answer: what they know is missing above
namespace shop: 1 runtime, 2 functions, 2 routes, 1 egress: 2 not ready: runtime orders, route lost
";

#[test]
fn a_namespace_is_one_tree() {
    let shown = shown(&shop(), None);
    assert!(shown == SHOP, "{shown}");
}

#[test]
fn one_function_is_shown_with_what_belongs_to_it() {
    let shown = shown(&shop(), Some("order"));
    assert!(shown.starts_with("… function order"), "{shown}");
    assert!(shown.ends_with("\nnamespace shop: 1 function, 1 route: all ready\n"), "{shown}");
    let view = view(&shop()).only("order");
    assert!(view.ready, "a revision that serves while the next one comes is well");
    assert!(!super::super::view::view(&shop()).ready);
    assert!(super::super::view::view(&shop()).only("nobody").is_empty());
    assert_eq!(super::super::view::view(&shop()).only("orders").functions.len(), 2);
}

#[test]
fn programs_read_the_same() {
    let json = serde_json::to_value(view(&shop())).unwrap();
    assert_eq!(json["ready"], false);
    assert_eq!(json["runtimes"][0]["health"], "NotReady");
    assert_eq!(json["runtimes"][0]["pods"][1]["error"], "no answer within 5 s");
    assert_eq!(json["runtimes"][0]["pods"][0]["servingRevision"], "5a0c");
    let revision = json!({
        "revision": "7c9f0a12", "state": "Active", "weight": 90, "workersReady": 2, "calls": 1204, "failures": 3,
    });
    assert_eq!(json["functions"][0]["revisions"][0], revision);
    assert_eq!(json["functions"][0]["reason"], "RollingOut");
    assert_eq!(json["functions"][0]["serves"], true);
    assert_eq!(json["routes"][1]["health"], "Stalled");
}

#[test]
fn calls_of_all_pods_are_added_and_the_fewest_workers_count() {
    let mut shop = shop();
    let mut second = report("orders-1", 800, 1);
    second["functions"][0]["revisions"][0]["workersReady"] = 1.into();
    shop.pods.get_mut("orders").unwrap()[1] = pod("orders-1", Some(Ok(second)));
    let view = view(&shop);
    let revision = &view.functions[0].revisions[0];
    assert_eq!((revision.workers_ready, revision.calls, revision.failures), (Some(1), 2_004, 4));
}

#[test]
fn what_the_operator_has_not_seen_is_not_ready() {
    let mut shop = shop();
    shop.objects.runtimes.clear();
    shop.objects.functions.truncate(1);
    shop.objects.functions[0]["metadata"]["generation"] = 3.into();
    shop.objects.routes.truncate(1);
    shop.objects.routes[0]["status"] = Value::Null;
    shop.objects.egresses.clear();
    let shown = shown(&shop, None);
    let expected = "\
… function order      Reconciling NotSeen: the operator has not looked at the last change yet
├─ revision 7c9f0a12  Active  90% of new flows  workers and calls unknown
├─ revision b4        Ramping  10% of new flows  workers and calls unknown
└─ ✗ route place      Not ready NotSeen: the operator has not looked at it yet; is it running, and does it look after this namespace?  POST /orders/{id} → order run

there is no FunctionRuntime, so nothing runs here: apply one
namespace shop: 1 function, 1 route: 2 not ready: function order, route place
";
    assert!(shown == expected, "{shown}");
}
