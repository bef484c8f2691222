//! Resources with one field made wrong, generated from the schemas of our definitions.

use serde_json::{Map, Value, json};
use tandem_crds::load::load_text;
use tandem_crds::resources::{API_VERSION, Kind};
use tandem_e2e_operator::objects;

/// Of a text that is far too long.
const LONG: usize = 1_000_000;
/// Texts of which one fits every pattern of ours.
const TEXTS: &[&str] =
    &["a", "1s", "1Gi", "/a", "a:1", "a.example:80", "http://a.example:80/a", "request.path.id", "100", "1", "A"];
/// Texts that fit few patterns.
const ODD_TEXTS: &[&str] = &[
    "",
    " ",
    "ünïcode–字",
    "١",
    "a\u{1}b",
    "a\nb",
    "a\u{7f}",
    "\u{0}",
    "-1",
    "NaN",
    "a b",
    "A_B",
    "é",
    "../a",
    "{{a}}",
    "a\u{202e}b",
];
/// Names of resources, right and wrong.
const NAMES: &[&str] = &["7a", "a.b", "A", "a_b", "-a", "a-", "", "ü", "a b", "a/b", "a\u{0}"];

/// A resource with one field that may be wrong.
pub(crate) struct Case {
    pub(crate) kind: Kind,
    /// `spec.handlers[0].name`
    pub(crate) field: String,
    /// What was done to it.
    pub(crate) what: String,
    /// It is there and empty, or a whole number with a point: only the checker may refuse it.
    pub(crate) is_loose: bool,
    pub(crate) object: Value,
}

/// A step on the way to a field.
#[derive(Clone, Debug)]
enum Step {
    Field(String),
    Item,
}

/// All cases of a kind.
pub(crate) fn cases(kind: Kind) -> Vec<Case> {
    let definition = json!(kind.definition());
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut cases = names(kind);
    walk(kind, schema, schema, &mut Vec::new(), &mut cases);
    cases
}

/// Specs that are right, the simplest first.
fn bases(kind: Kind) -> Vec<Value> {
    match kind {
        Kind::Runtime => {
            vec![json!({"store": {"embedded": {}}}), json!({"store": {"tikv": {"endpoints": ["pd:2379"]}}}), json!({})]
        }
        Kind::Function => vec![
            json!({"image": "a:1"}),
            json!({"endpoint": {"url": "http://a.example:80/a", "protocol": "Http"}, "handlers": [{"name": "a"}]}),
            json!({"endpoint": {"url": "http://a.example:80/a"}}),
        ],
        Kind::Route => vec![json!({
            "http": {"method": "POST", "path": "/a/{id}"}, "to": {"function": "a", "handler": "a"}, "key": "request.path.id",
        })],
        Kind::Egress => vec![json!({"stream": {}})],
    }
}

fn resource(kind: Kind, name: &str, spec: &Value) -> Value {
    let metadata = json!({"name": name, "namespace": objects::namespace(0)});
    json!({"apiVersion": API_VERSION, "kind": kind.name(), "metadata": metadata, "spec": spec})
}

fn names(kind: Kind) -> Vec<Case> {
    let mut names: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    names.extend([62, 63, 64, 253, 254].map(|length| "a".repeat(length)));
    let case = |name: String| Case {
        kind,
        field: "metadata.name".to_owned(),
        what: shown(&json!(name)),
        is_loose: false,
        object: resource(kind, &name, &bases(kind)[0]),
    };
    names.into_iter().map(case).collect()
}

/// Adds the cases of the field at `steps`, and of those in it.
fn walk(kind: Kind, root: &Value, schema: &Value, steps: &mut Vec<Step>, cases: &mut Vec<Case>) {
    let specs: Vec<Value> = bases(kind)
        .into_iter()
        .map(|mut base| {
            let _ = reach(&mut base, root, steps);
            base
        })
        .collect();
    let is_right = |spec: &&Value| load_text("it", &resource(kind, "a", spec).to_string()).problems.is_empty();
    // Where every spec with this field breaks a rule, both have to say so.
    let Some(base) = specs.iter().find(is_right).or_else(|| specs.first()) else { return };
    let field = format!("spec{}", path(steps));
    let mut add = |what: String, is_loose: bool, spec: Value| {
        cases.push(Case { kind, field: field.clone(), what, is_loose, object: resource(kind, "a", &spec) });
    };
    add("as it should be".to_owned(), false, base.clone());
    if let Some(without) = removed(base, root, steps) {
        add("missing".to_owned(), false, without);
    }
    let here = reach(&mut base.clone(), root, steps).clone();
    let mut values = wrong(schema, &here);
    // One field of each shape is enough for what takes long; every text has a bound, which is tried everywhere.
    if steps.len() == 1 && schema["type"] == "string" {
        values.push(json!("a".repeat(LONG)));
    }
    for value in values {
        let mut spec = base.clone();
        *reach(&mut spec, root, steps) = value.clone();
        add(shown(&value), is_loose(&value), spec);
    }
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        steps.push(Step::Field(name.clone()));
        walk(kind, root, property, steps, cases);
        steps.pop();
    }
    if schema["additionalProperties"].is_object() {
        steps.push(Step::Field("a".to_owned()));
        walk(kind, root, &schema["additionalProperties"], steps, cases);
        steps.pop();
    }
    if schema["items"].is_object() {
        steps.push(Step::Item);
        walk(kind, root, &schema["items"], steps, cases);
        steps.pop();
    }
}

fn path(steps: &[Step]) -> String {
    let step = |step: &Step| match step {
        Step::Field(name) => format!(".{name}"),
        Step::Item => "[0]".to_owned(),
    };
    steps.iter().map(step).collect()
}

/// The schema of the field below `schema`.
fn below<'s>(schema: &'s Value, step: &Step) -> &'s Value {
    match step {
        Step::Item => &schema["items"],
        Step::Field(name) => schema["properties"].get(name).unwrap_or_else(|| &schema["additionalProperties"]),
    }
}

/// The field at `steps`; what is not there yet on the way is made.
fn reach<'v>(spec: &'v mut Value, root: &Value, steps: &[Step]) -> &'v mut Value {
    let (mut value, mut schema) = (spec, root);
    for step in steps {
        schema = below(schema, step);
        value = match step {
            Step::Field(name) => {
                if !value.is_object() {
                    *value = json!({});
                }
                if value.get(name).is_none() {
                    value[name.as_str()] = right(schema);
                }
                &mut value[name.as_str()]
            }
            Step::Item => {
                if value.get(0).is_none() {
                    *value = json!([right(schema)]);
                }
                &mut value[0]
            }
        };
    }
    value
}

fn removed(spec: &Value, root: &Value, steps: &[Step]) -> Option<Value> {
    let mut spec = spec.clone();
    let (last, parents) = steps.split_last()?;
    let Step::Field(name) = last else { return None };
    reach(&mut spec, root, parents).as_object_mut()?.remove(name)?;
    Some(spec)
}

/// A value that the schema allows.
fn right(schema: &Value) -> Value {
    if let Some(default) = schema.get("default") {
        return default.clone();
    }
    match schema["type"].as_str().unwrap_or_default() {
        "string" => match schema["enum"].get(0) {
            Some(first) => first.clone(),
            None => json!(TEXTS.iter().find(|text| fits(schema, text)).unwrap_or(&"a")),
        },
        "integer" => json!(whole(schema, "minimum").unwrap_or(1).max(1)),
        "boolean" => json!(true),
        "array" => {
            let least = whole(schema, "minItems").unwrap_or_default();
            (0..least).map(|_| right(&schema["items"])).collect()
        }
        _ => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            required.map(|name| (name.to_owned(), right(&schema["properties"][name]))).collect::<Map<_, _>>().into()
        }
    }
}

fn fits(schema: &Value, text: &str) -> bool {
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let pattern = schema["pattern"].as_str().unwrap_or_default();
    length >= whole(schema, "minLength").unwrap_or_default()
        && regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
}

#[expect(clippy::cast_possible_truncation, reason = "bounds of our own schemas are whole and small")]
fn whole(schema: &Value, key: &str) -> Option<i64> {
    let value = schema.get(key)?;
    value.as_i64().or_else(|| value.as_f64().map(|number| number as i64))
}

/// Values that are wrong, or at the edge of what is right.
fn wrong(schema: &Value, here: &Value) -> Vec<Value> {
    let mut values = vec![Value::Null, json!("wrong"), json!(7), json!(true), json!([]), json!({}), json!(1.5)];
    match schema["type"].as_str().unwrap_or_default() {
        "string" => {
            values.extend(ODD_TEXTS.iter().map(|text| json!(text)));
            let most = whole(schema, "maxLength").and_then(|most| usize::try_from(most).ok());
            for most in most.into_iter().filter(|most| *most < LONG) {
                values.extend([json!("a".repeat(most)), json!("a".repeat(most + 1)), json!("ü".repeat(most))]);
            }
        }
        "integer" => {
            values.extend([
                json!(-1),
                json!(0),
                json!(1.0),
                json!(1e300),
                json!(u64::MAX),
                json!(i64::MAX),
                json!(i64::MIN),
            ]);
            values.extend([json!(i64::from(i32::MAX) + 1), json!(i64::from(i32::MIN) - 1), json!("7")]);
            let edges = [
                whole(schema, "minimum").map(|least| [least, least - 1]),
                whole(schema, "maximum").map(|most| [most, most + 1]),
            ];
            values.extend(edges.into_iter().flatten().flatten().map(|edge| json!(edge)));
        }
        "array" => {
            let item = right(&schema["items"]);
            values.extend([json!([item, item]), json!([null]), json!([[]])]);
            let most = whole(schema, "maxItems").and_then(|most| usize::try_from(most).ok()).unwrap_or_default();
            values.extend([many(&item, most), many(&item, most + 1)]);
        }
        "object" => {
            let mut more = here.clone();
            if let Some(more) = more.as_object_mut() {
                more.insert("nobodyKnowsThis".to_owned(), json!("a"));
            }
            values.push(more);
        }
        _ => {}
    }
    values
}

/// So many items, each with a name of its own where items have one.
fn many(item: &Value, count: usize) -> Value {
    let one = |index: usize| {
        let name = json!(format!("a{index}"));
        let mut item = item.clone();
        match &mut item {
            Value::Object(fields) => {
                fields.entry("name").and_modify(|old| *old = name.clone());
                item
            }
            Value::String(_) => name,
            _ => item,
        }
    };
    (0..count).map(one).collect()
}

/// Whether the API server makes something else of it without a word: it drops what is empty and may be missing, and takes `1.0` for
/// `1` where no rule reads it.
fn is_loose(value: &Value) -> bool {
    value.is_null() || value.is_f64()
}

/// A value in a message.
fn shown(value: &Value) -> String {
    const SHOWN_MAX: usize = 40;
    let text = value.to_string();
    let cut: String = text.chars().take(SHOWN_MAX).collect();
    if cut.len() < text.len() { format!("= {cut}... ({} bytes)", text.len()) } else { format!("= {cut}") }
}
