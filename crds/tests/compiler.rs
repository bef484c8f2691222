//! The compiler on resources that no schema has seen: as an operator with old definitions in its cluster might meet them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;
use tandem_crds::compile::compile;
use tandem_crds::load::{Resources, Sourced};
use tandem_crds::resources::duration::Duration;
use tandem_crds::resources::egress::Stream;
use tandem_crds::resources::function::{Endpoint, Handler, Isolation, Protocol, State, StateKind, ValueType};
use tandem_crds::resources::route::{Body, Http, Reply, Target};
use tandem_crds::resources::runtime::Store;
use tandem_crds::resources::{
    Function, FunctionEgress, FunctionEgressSpec, FunctionRoute, FunctionRouteSpec, FunctionRuntime,
    FunctionRuntimeSpec, FunctionSpec, Kind,
};
use tandem_model::topology::Topology;

fn codes(resources: &Resources) -> Vec<&'static str> {
    match compile(resources, None) {
        Ok(compiled) => compiled.warnings.iter().map(|problem| problem.code).collect(),
        Err(problems) => problems.iter().map(|problem| problem.code).collect(),
    }
}

fn order() -> FunctionSpec {
    FunctionSpec { image: Some("order:1".to_owned()), ..FunctionSpec::default() }
}

fn place_order() -> FunctionRouteSpec {
    FunctionRouteSpec {
        http: Http { method: "POST".to_owned(), path: "/orders/{id}".to_owned(), ..Http::default() },
        to: Target { function: "order".to_owned(), handler: "place".to_owned() },
        key: "request.path.id".to_owned(),
        idempotency_key: None,
        reply: Reply::Wait,
        deadline: None,
        body: Body::Json,
    }
}

fn application(function: FunctionSpec, route: FunctionRouteSpec) -> Resources {
    Resources {
        functions: vec![Sourced::new(Function::new("order", function))],
        routes: vec![Sourced::new(FunctionRoute::new("place-order", route))],
        ..Resources::default()
    }
}

#[test]
fn a_small_application_compiles() {
    assert_eq!(codes(&application(order(), place_order())), <[&str; 0]>::default());
}

#[test]
fn what_a_schema_would_have_refused_is_refused_again() {
    let mut route = place_order();
    route.http.method = "FETCH".to_owned();
    route.deadline = Some(Duration("soon".to_owned()));
    assert_eq!(codes(&application(order(), route)), ["E112", "E106"]);
    let mut function = FunctionSpec::default();
    function.retry.attempts = 0;
    assert_eq!(codes(&application(function, place_order())), ["E117", "E114"]);
    let endpoint = Some(Endpoint { url: "http://h:1".to_owned(), protocol: Protocol::Http });
    let function = FunctionSpec { endpoint, ..FunctionSpec::default() };
    assert_eq!(codes(&application(function, place_order())), ["E124"]);
}

#[test]
fn a_runtime_without_a_store_and_an_egress_without_a_way_out_are_refused() {
    let mut resources = application(order(), place_order());
    let spec = FunctionRuntimeSpec { store: Store { embedded: None, tikv: None }, ..FunctionRuntimeSpec::default() };
    resources.runtimes.push(Sourced::new(FunctionRuntime::new("default", spec)));
    resources.egresses.push(Sourced::new(FunctionEgress::new("events", FunctionEgressSpec { stream: None })));
    assert_eq!(codes(&resources), ["E119", "E123"]);
}

#[test]
fn the_same_name_twice_is_refused_without_files_too() {
    let mut resources = application(order(), place_order());
    resources.functions.push(resources.functions[0].clone());
    assert_eq!(codes(&resources), ["E010"]);
}

/// What the schema allows at its bounds, the compiler allows; one step further both refuse.
#[test]
fn bounds_of_schema_and_compiler_are_the_same() {
    let numbers = |kind: Kind, pointer: &str| -> Vec<(String, i64, i64)> {
        let schema = schema(kind);
        let properties = schema.pointer(&format!("{pointer}/properties")).unwrap().as_object().unwrap();
        let whole = |field: &Value, bound: &str| field[bound].as_f64().unwrap().to_string().parse::<i64>().unwrap();
        let integers = properties.iter().filter(|(_, field)| field["type"] == "integer");
        integers.map(|(name, field)| (name.clone(), whole(field, "minimum"), whole(field, "maximum"))).collect()
    };
    let spec = |pointer: &[&str], value: i64| {
        pointer.iter().rev().fold(Value::from(value), |json, key| serde_json::json!({*key: json}))
    };
    let check = |kind: Kind, path: &[&str], value: i64, expected: &[&str]| {
        let mut resources = application(order(), place_order());
        let mut spec = spec(path, value);
        if kind == Kind::Runtime {
            let spec: FunctionRuntimeSpec = serde_json::from_value(spec).unwrap();
            resources.runtimes.push(Sourced::new(FunctionRuntime::new("default", spec)));
        } else {
            spec["image"] = "order:1".into();
            resources.functions = vec![Sourced::new(Function::new("order", serde_json::from_value(spec).unwrap()))];
        }
        assert_eq!(codes(&resources), expected, "{path:?} {value}");
    };
    let places: [(Kind, &str, &[&str]); 5] = [
        (Kind::Runtime, "/properties/spec", &[]),
        (Kind::Runtime, "/properties/spec/properties/limits", &["limits"]),
        (Kind::Function, "/properties/spec", &[]),
        (Kind::Function, "/properties/spec/properties/limits", &["limits"]),
        (Kind::Function, "/properties/spec/properties/retry", &["retry"]),
    ];
    let mut checked = 0;
    for (kind, pointer, path) in places {
        for (name, minimum, maximum) in numbers(kind, pointer) {
            let path: Vec<&str> = path.iter().copied().chain([name.as_str()]).collect();
            check(kind, &path, minimum, &[]);
            check(kind, &path, maximum, &[]);
            check(kind, &path, minimum - 1, &["E114"]);
            check(kind, &path, maximum + 1, &["E114"]);
            checked += 1;
        }
    }
    assert_eq!(checked, 15);
}

/// A rule: its kind, where it stands, which one there, what it replaces, something it accepts, something it refuses.
type Case = (Kind, &'static str, usize, Option<Value>, Value, Value);

/// The rules on what only a cluster looks at.
fn cases_of_a_cluster() -> Vec<Case> {
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let case = |kind, pointer, index, accepted: &str, refused: &str| -> Case {
        (kind, pointer, index, None, json(accepted), json(refused))
    };
    let change = |pointer, index, old: &str, accepted: &str, refused: &str| -> Case {
        (Kind::Runtime, pointer, index, Some(json(old)), json(accepted), json(refused))
    };
    let (spec, store) = ("/properties/spec", "/properties/spec/properties/store");
    let tikv = "/properties/spec/properties/store/properties/tikv";
    let volume = "/properties/spec/properties/store/properties/embedded/properties/volume";
    let env = "/properties/spec/properties/env/items";
    let value_from = "/properties/spec/properties/env/items/properties/valueFrom";
    let embedded_two = r#"{"store": {"embedded": {}}, "replicas": 2}"#;
    let embedded_scaled = r#"{"store": {"embedded": {}}, "autoscaling": {}}"#;
    vec![
        case(Kind::Runtime, spec, 0, r#"{"store": {"tikv": {}}, "replicas": 2}"#, embedded_two),
        case(Kind::Runtime, spec, 1, r#"{"store": {"tikv": {}}, "autoscaling": {}}"#, embedded_scaled),
        change(store, 1, r#"{"tikv": {}}"#, r#"{"tikv": {"prefix": "a"}}"#, r#"{"embedded": {}}"#),
        change(tikv, 0, r#"{"prefix": "a"}"#, r#"{"prefix": "a"}"#, "{}"),
        change(tikv, 1, "{}", "{}", r#"{"keyspace": "a"}"#),
        change(volume, 0, r#"{"size": "1Gi"}"#, r#"{"size": "1Gi"}"#, r#"{"size": "2Gi"}"#),
        case(
            Kind::Runtime,
            "/properties/spec/properties/autoscaling",
            0,
            r#"{"minReplicas": 2, "maxReplicas": 2}"#,
            r#"{"minReplicas": 3, "maxReplicas": 2}"#,
        ),
        case(Kind::Function, env, 0, r#"{"value": "a"}"#, r#"{"value": "a", "valueFrom": {}}"#),
        case(
            Kind::Function,
            value_from,
            0,
            r#"{"secretKeyRef": {}}"#,
            r#"{"secretKeyRef": {}, "configMapKeyRef": {}}"#,
        ),
        case(
            Kind::Route,
            "/properties/spec/properties/http",
            0,
            r#"{"host": "a", "gateway": {}}"#,
            r#"{"host": "a", "gateway": {}, "ingressClassName": "a"}"#,
        ),
        case(Kind::Route, "/properties/spec/properties/http", 1, r#"{"host": "a"}"#, r#"{"gateway": {}}"#),
    ]
}

/// Each CEL rule of the schemas, with something it accepts and something it refuses. `old` is what is replaced.
#[test]
fn rules_accept_and_refuse() {
    let named = |name: &str| serde_json::json!({"metadata": {"name": name}});
    let label_63 = "a".repeat(63);
    let http = serde_json::json!({"url": "http://a:1", "protocol": "Http"});
    let cases: [Case; 11] = [
        (Kind::Function, "", 0, None, named("order-2"), named("Order")),
        (Kind::Function, "", 0, None, named(&label_63), named(&format!("{label_63}a"))),
        (Kind::Route, "", 0, None, named("a"), named("-a")),
        (Kind::Egress, "", 0, None, named("a"), named("a.b")),
        (Kind::Runtime, "", 0, None, named("a"), named("")),
        (
            Kind::Function,
            "/properties/spec",
            0,
            None,
            serde_json::json!({"image": "a"}),
            serde_json::json!({"image": "a", "endpoint": {}}),
        ),
        (Kind::Function, "/properties/spec", 0, None, serde_json::json!({"endpoint": {}}), serde_json::json!({})),
        (
            Kind::Function,
            "/properties/spec",
            1,
            None,
            serde_json::json!({"endpoint": http, "handlers": [{"name": "a"}]}),
            serde_json::json!({"endpoint": http}),
        ),
        (Kind::Egress, "/properties/spec", 0, None, serde_json::json!({"stream": {}}), serde_json::json!({})),
        (
            Kind::Runtime,
            "/properties/spec/properties/store",
            0,
            None,
            serde_json::json!({"embedded": {}}),
            serde_json::json!({}),
        ),
        (Kind::Runtime, "/properties/spec/properties/slots", 0, Some(Value::from(16)), 16.into(), 17.into()),
    ];
    let mut tested = std::collections::BTreeSet::new();
    for (kind, pointer, index, old, accepted, refused) in cases.into_iter().chain(cases_of_a_cluster()) {
        let rule = &rules_at(kind, pointer)[index];
        assert!(holds(rule, &accepted, old.as_ref()), "{rule} refuses {accepted}");
        assert!(!holds(rule, &refused, old.as_ref()), "{rule} accepts {refused}");
        tested.insert((kind.name(), pointer, index));
    }
    let all: usize = Kind::ALL.into_iter().map(|kind| schema(kind).to_string().matches("\"rule\":").count()).sum();
    assert_eq!(tested.len(), all, "a rule has no case here");
}

fn schema(kind: Kind) -> Value {
    let definition = serde_json::to_value(kind.definition()).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn rules_at(kind: Kind, pointer: &str) -> Vec<Value> {
    let rules = schema(kind).pointer(&format!("{pointer}/x-kubernetes-validations")).cloned();
    rules.and_then(|rules| rules.as_array().cloned()).unwrap_or_default()
}

fn holds(rule: &Value, value: &Value, old: Option<&Value>) -> bool {
    let mut context = cel::Context::default();
    context.add_variable("self", value).unwrap();
    if let Some(old) = old {
        context.add_variable("oldSelf", old).unwrap();
    }
    let program = cel::Program::compile(rule["rule"].as_str().unwrap()).unwrap();
    assert!(rule["message"].as_str().is_some_and(|message| !message.is_empty()), "{rule} has no message");
    program.execute(&context).unwrap() == cel::Value::Bool(true)
}

/// Mostly sensible texts, so that the compiler gets far, and some that are anything.
fn text(sensible: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![
        6 => proptest::sample::select(sensible).prop_map(str::to_owned),
        1 => proptest::collection::vec(any::<char>(), 0..12).prop_map(String::from_iter),
    ]
}

fn name() -> impl Strategy<Value = String> {
    text(&["order", "payment", "inventory", "a", "A", "", "-"])
}

fn duration() -> impl Strategy<Value = Duration> {
    text(&["5s", "1500ms", "2m", "24h", "0s", "s", "999999999h"]).prop_map(Duration)
}

fn handler() -> impl Strategy<Value = Handler> {
    let isolation = prop_oneof![Just(Isolation::Serializable), Just(Isolation::Snapshot), Just(Isolation::ReadOnly)];
    (text(&["place", "show", "x", "1"]), isolation, option::of(duration()))
        .prop_map(|(name, isolation, timeout)| Handler { name, isolation, timeout })
}

fn state() -> impl Strategy<Value = State> {
    let value_type = prop_oneof![Just(ValueType::Any), Just(ValueType::Integer), Just(ValueType::String)];
    (text(&["total", "lines", ""]), prop_oneof![Just(StateKind::Value), Just(StateKind::Map)], value_type)
        .prop_map(|(name, kind, value_type)| State { name, kind, value_type })
}

fn function() -> impl Strategy<Value = Function> {
    let url = text(&["http://h:1", "http://h:1/x", "h", "http://", "https://u@h:0?#"]);
    let protocol = prop_oneof![Just(Protocol::Grpc), Just(Protocol::Http)];
    let endpoint = option::weighted(0.3, (url, protocol).prop_map(|(url, protocol)| Endpoint { url, protocol }));
    let lists = (option::of(vec(handler(), 0..4)), option::of(vec(state(), 0..4)), option::of(vec(name(), 0..3)));
    (name(), option::of(name()), endpoint, lists, any::<i32>(), any::<bool>()).prop_map(
        |(name, image, endpoint, (handlers, states, callers), number, odd)| {
            let mut spec = FunctionSpec { image, endpoint, handlers, states, callers, ..FunctionSpec::default() };
            if odd {
                spec.retry.attempts = number;
                spec.limits.concurrency = number;
            }
            Function::new(&name, spec)
        },
    )
}

fn route() -> impl Strategy<Value = FunctionRoute> {
    let path =
        text(&["/", "/orders/{id}", "/orders/{x}", "/orders/new", "/{*all}", "/a-{id}/b", "/flows/x", "{", "/{a}{b}"]);
    let http =
        (text(&["GET", "POST", "get"]), path).prop_map(|(method, path)| Http { method, path, ..Http::default() });
    let to = (name(), text(&["place", "show", "9"])).prop_map(|(function, handler)| Target { function, handler });
    let expression =
        || text(&["request.path.id", "request.body.a", "request.path['x']", "x", "1 +", "[request][0].path.a"]);
    let reply = prop_oneof![Just(Reply::Wait), Just(Reply::Accept)];
    let body = prop_oneof![Just(Body::Json), Just(Body::Raw)];
    (name(), http, to, expression(), option::of(expression()), (reply, body), option::of(duration())).prop_map(
        |(name, http, to, key, idempotency_key, (reply, body), deadline)| {
            FunctionRoute::new(&name, FunctionRouteSpec { http, to, key, idempotency_key, reply, deadline, body })
        },
    )
}

fn runtime() -> impl Strategy<Value = FunctionRuntime> {
    (name(), any::<i32>(), any::<i64>(), any::<bool>(), duration()).prop_map(|(name, small, large, odd, retention)| {
        let mut spec = FunctionRuntimeSpec { retention, ..FunctionRuntimeSpec::default() };
        if odd {
            spec.slots = small;
            spec.limits.calls_max = small;
            spec.limits.payload_bytes_max = large;
            spec.store.embedded = None;
        }
        FunctionRuntime::new(&name, spec)
    })
}

fn egress() -> impl Strategy<Value = FunctionEgress> {
    (name(), option::of(duration())).prop_map(|(name, retention)| {
        FunctionEgress::new(&name, FunctionEgressSpec { stream: retention.map(|retention| Stream { retention }) })
    })
}

fn resources() -> impl Strategy<Value = Resources> {
    (vec(runtime(), 0..3), vec(function(), 0..4), vec(route(), 0..5), vec(egress(), 0..3)).prop_map(
        |(runtimes, functions, routes, egresses)| Resources {
            runtimes: runtimes.into_iter().map(Sourced::new).collect(),
            functions: functions.into_iter().map(Sourced::new).collect(),
            routes: routes.into_iter().map(Sourced::new).collect(),
            egresses: egresses.into_iter().map(Sourced::new).collect(),
            undecoded: Vec::new(),
        },
    )
}

/// The same resources in the order in which another reader might list them.
fn reversed(resources: &Resources) -> Resources {
    let mut reversed = resources.clone();
    reversed.functions.reverse();
    reversed.routes.reverse();
    reversed.egresses.reverse();
    reversed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_resources_compile_or_say_why(resources in resources()) {
        match compile(&resources, None) {
            Ok(compiled) => {
                prop_assert!(compiled.warnings.iter().all(|problem| !problem.is_error()));
                let text = serde_json::to_string(&compiled.topology).unwrap();
                prop_assert_eq!(serde_json::from_str::<Topology>(&text).unwrap(), compiled.topology);
            }
            Err(problems) => prop_assert!(problems.iter().any(tandem_crds::problem::Problem::is_error)),
        }
    }

    #[test]
    fn compiling_twice_gives_the_same(resources in resources()) {
        prop_assert_eq!(compile(&resources, None), compile(&resources, None));
    }

    #[test]
    fn order_of_resources_does_not_matter_to_what_is_valid(resources in resources()) {
        let (forth, back) = (compile(&resources, None), compile(&reversed(&resources), None));
        prop_assert_eq!(forth.ok().map(|compiled| compiled.topology), back.ok().map(|compiled| compiled.topology));
    }

    #[test]
    fn nothing_changes_for_a_topology_that_follows_itself(resources in resources()) {
        if let Ok(compiled) = compile(&resources, None) {
            prop_assert_eq!(compile(&resources, Some(&compiled.topology)), Ok(compiled));
        }
    }

    #[test]
    fn any_expression_compiles_or_is_refused(key in "[a-c(){}\\[\\]'\"+?:!&|<=.,0-9 /\n\\\\]{0,80}") {
        let mut route = place_order();
        route.key = key;
        drop(compile(&application(order(), route), None));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(?s).{0,200}") {
        let loaded = tandem_crds::load::load_text("any.yaml", &text);
        prop_assert!(loaded.resources.is_empty() || text.contains("tandem.dev"));
    }
}
