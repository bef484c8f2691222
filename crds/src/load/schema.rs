//! Checks a tree against the schema of its kind, as the API server would, but for all problems and with positions.
//!
//! Knows what our schemas use: types, properties, required, enum, bounds, pattern, lists by name, defaults, and rules.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use regex::Regex;
use serde_json::{Map, Value as Json};

use crate::codes::{self, Code};
use crate::load::rules;
use crate::load::yaml::{Entry, Node, Position, Value};
use crate::resources::{Kind, NAME_MESSAGE};
use crate::suggestion;

const NAME_FIELD: &str = "metadata.name";

/// Something wrong with one field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) code: &'static Code,
    pub(crate) field: String,
    pub(crate) position: Position,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

/// What became of a tree.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// The resource with defaults filled in and unknown fields left out.
    pub(crate) json: Json,
    /// Where each field stands, by path.
    pub(crate) positions: BTreeMap<String, Position>,
    pub(crate) findings: Vec<Finding>,
}

/// What to do with a value that has the right type and is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Keep it: the compiler may find more wrong with it.
    Keep,
    /// Leave it out, so that the rest can be decoded.
    Drop,
}

/// The schema of `kind`, with a real one for `metadata`, which the API server knows by itself.
pub(crate) fn of(kind: Kind) -> &'static Json {
    static SCHEMAS: OnceLock<BTreeMap<Kind, Json>> = OnceLock::new();
    let schemas = SCHEMAS.get_or_init(|| Kind::ALL.into_iter().map(|kind| (kind, schema_of(kind))).collect());
    schemas.get(&kind).unwrap_or(&Json::Null)
}

fn schema_of(kind: Kind) -> Json {
    let definition = kind.definition();
    let version = definition.spec.versions.into_iter().next();
    let schema = version.and_then(|version| version.schema).and_then(|schema| schema.open_api_v3_schema);
    let mut schema = serde_json::to_value(schema).unwrap_or_default();
    schema["properties"]["metadata"] = metadata_schema();
    schema["properties"]["apiVersion"] = serde_json::json!({"type": "string"});
    schema["properties"]["kind"] = serde_json::json!({"type": "string"});
    schema
}

fn metadata_schema() -> Json {
    let texts = serde_json::json!({"type": "object", "additionalProperties": {"type": "string"}});
    let anything = serde_json::json!({"x-kubernetes-preserve-unknown-fields": true});
    let text = serde_json::json!({"type": "string"});
    serde_json::json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": text, "namespace": text, "generateName": text, "labels": texts, "annotations": texts,
            "finalizers": anything, "ownerReferences": anything, "managedFields": anything, "uid": text,
            "resourceVersion": text, "generation": anything, "creationTimestamp": anything,
            "deletionTimestamp": anything, "deletionGracePeriodSeconds": anything, "selfLink": text,
        },
    })
}

/// Checks `root` against `schema`.
/// Messages call it `whole`.
pub(crate) fn check(root: &Node, schema: &Json, refused: Refused, whole: &'static str) -> Checked {
    let mut checker = Checker { checked: Checked::default(), refused, whole };
    let json = checker.node("", root, schema);
    checker.checked.json = json.unwrap_or_default();
    checker.checked
}

struct Checker {
    checked: Checked,
    refused: Refused,
    whole: &'static str,
}

impl Checker {
    /// What messages call a field: its last name.
    fn called<'p>(&self, path: &'p str) -> &'p str {
        if path.is_empty() {
            return self.whole;
        }
        path.rsplit('.').next().unwrap_or(path)
    }

    fn find(&mut self, code: &'static Code, field: &str, position: Position, message: String) -> &mut Finding {
        let field = field.to_owned();
        self.checked.findings.push(Finding { code, field, position, message, help: None });
        let last = self.checked.findings.len() - 1;
        &mut self.checked.findings[last]
    }

    /// The JSON of `node`; nothing if it has to be left out.
    fn node(&mut self, path: &str, node: &Node, schema: &Json) -> Option<Json> {
        self.checked.positions.insert(path.to_owned(), node.position);
        if schema["x-kubernetes-preserve-unknown-fields"] == true {
            return Some(untyped(node));
        }
        let findings_before = self.checked.findings.len();
        let json = match (schema["type"].as_str().unwrap_or_default(), &node.value) {
            ("object", Value::Object(entries)) => self.object(path, node, entries, schema),
            ("array", Value::List(items)) => self.list(path, node, items, schema),
            ("string", Value::Text(text)) => self.text(path, node, text, schema)?,
            ("integer", Value::Integer(number)) => self.integer(path, node, *number, schema)?,
            ("boolean", Value::Boolean(flag)) => Json::Bool(*flag),
            (expected, found) => {
                // YAML has no way to say "an object without fields" but `{}`; a bare `stream:` is null.
                let message = format!("{} must be {}, not {}", self.called(path), article(expected), described(found));
                let help = match found {
                    Value::Integer(_) | Value::Float(_) | Value::Boolean(_) if expected == "string" => {
                        Some("put it in quotes".to_owned())
                    }
                    Value::Null if expected == "object" => Some("write {} for an object without fields".to_owned()),
                    _ => None,
                };
                self.find(&codes::WRONG_TYPE, path, node.position, message).help = help;
                return None;
            }
        };
        if self.checked.findings.len() == findings_before {
            for broken in rules::broken(schema, &json) {
                // The one rule at the root is about the name, and the root has no way to say so in a schema.
                let name = (broken == NAME_MESSAGE).then(|| self.checked.positions.get(NAME_FIELD).copied()).flatten();
                let (path, position) = name.map_or((path, node.position), |position| (NAME_FIELD, position));
                self.find(&codes::RULE_BROKEN, path, position, broken);
            }
        }
        Some(json)
    }

    fn object(&mut self, path: &str, node: &Node, entries: &[Entry], schema: &Json) -> Json {
        let mut object = Map::new();
        let no_properties = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&no_properties);
        for entry in entries {
            let field = join(path, &entry.key);
            let others = schema.get("additionalProperties").filter(|others| others.is_object());
            let known = properties.get(&entry.key).or(others);
            if let Some(schema) = known {
                if let Some(value) = self.node(&field, &entry.value, schema) {
                    object.insert(entry.key.clone(), value);
                }
            } else {
                let names = properties.keys().map(String::as_str);
                let message = format!("{} has no field {:?}", self.called(path), entry.key);
                let help = suggestion::advice(&entry.key, names, codes::UNKNOWN_FIELD.help);
                self.checked.positions.insert(field.clone(), entry.key_position);
                self.find(&codes::UNKNOWN_FIELD, &field, entry.key_position, message).help = Some(help);
            }
        }
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            if !entries.iter().any(|entry| entry.key == required) {
                let message = format!("{} has no {required}", self.called(path));
                let finding = self.find(&codes::MISSING_FIELD, &join(path, required), node.position, message);
                finding.help = Some(format!("add {required}"));
            }
        }
        fill_defaults(&mut object, properties);
        Json::Object(object)
    }

    fn list(&mut self, path: &str, node: &Node, items: &[std::rc::Rc<Node>], schema: &Json) -> Json {
        self.count(path, node.position, items.len(), schema, Counted::Entries);
        let mut list = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let field = format!("{path}[{index}]");
            if let Some(value) = self.node(&field, item, &schema["items"]) {
                self.repeated(&field, item.position, &value, &list, schema);
                list.push(value);
            }
        }
        Json::Array(list)
    }

    /// Of a list that is a set, or a map by the names of its entries, no two may be the same.
    fn repeated(&mut self, field: &str, position: Position, value: &Json, before: &[Json], schema: &Json) {
        let (repeated, shown) = match schema["x-kubernetes-list-type"].as_str() {
            Some("set") if before.contains(value) => (field.to_owned(), value),
            Some("map") => {
                let keys = schema["x-kubernetes-list-map-keys"].as_array().map(Vec::as_slice).unwrap_or_default();
                let keys: Vec<&str> = keys.iter().filter_map(Json::as_str).collect();
                let is_same = |other: &Json| keys.iter().all(|key| other[*key] == value[*key]);
                let Some(first) = keys.first().filter(|_| before.iter().any(is_same)) else { return };
                (join(field, first), &value[*first])
            }
            _ => return,
        };
        let list = field.rfind('[').map(|end| self.called(&field[..end])).unwrap_or_default();
        let message = format!("{} {shown} is listed twice", list.strip_suffix('s').unwrap_or(list));
        let position = self.checked.positions.get(&repeated).copied().unwrap_or(position);
        self.find(&codes::DUPLICATE_NAME, &repeated, position, message);
    }

    fn text(&mut self, path: &str, node: &Node, text: &str, schema: &Json) -> Option<Json> {
        let findings_before = self.checked.findings.len();
        let name = self.called(path);
        self.count(path, node.position, text.chars().count(), schema, Counted::Characters);
        if let Some(allowed) = schema["enum"].as_array() {
            let allowed: Vec<&str> = allowed.iter().filter_map(Json::as_str).collect();
            if !allowed.contains(&text) {
                let message = format!("{name} cannot be {}", quoted(text));
                let help = suggestion::nearest(text, allowed.iter().copied());
                let help = help
                    .map_or_else(|| format!("use one of {}", allowed.join(", ")), |n| format!("did you mean {n:?}?"));
                self.find(&codes::OUT_OF_BOUNDS, path, node.position, message).help = Some(help);
            }
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && self.checked.findings.len() == findings_before
            && !matches(pattern, text)
        {
            let message = format!("{name} cannot be {}", quoted(text));
            self.find(&codes::OUT_OF_BOUNDS, path, node.position, message).help = Some(form(pattern));
        }
        let is_refused = self.checked.findings.len() > findings_before && self.refused == Refused::Drop;
        (!is_refused).then(|| Json::String(text.to_owned()))
    }

    fn integer(&mut self, path: &str, node: &Node, number: i64, schema: &Json) -> Option<Json> {
        let format_min = if schema["format"] == "int32" { i64::from(i32::MIN) } else { i64::MIN };
        let format_max = if schema["format"] == "int32" { i64::from(i32::MAX) } else { i64::MAX };
        let minimum = bound(schema, "minimum").unwrap_or(format_min);
        let maximum = bound(schema, "maximum").unwrap_or(format_max);
        if (minimum..=maximum).contains(&number) {
            return Some(Json::from(number));
        }
        let message = format!("{} cannot be {number}", self.called(path));
        let help = format!("choose a number from {minimum} to {maximum}");
        self.find(&codes::OUT_OF_BOUNDS, path, node.position, message).help = Some(help);
        None
    }

    fn count(&mut self, path: &str, position: Position, count: usize, schema: &Json, counted: Counted) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let (keys, unit) = match counted {
            Counted::Entries => (["minItems", "maxItems"], "entries"),
            Counted::Characters => (["minLength", "maxLength"], "characters"),
        };
        let [minimum, maximum] = keys.map(|key| bound(schema, key));
        let (minimum, maximum) = (minimum.unwrap_or(0), maximum.unwrap_or(i64::MAX));
        if !(minimum..=maximum).contains(&count) {
            let allowed =
                if maximum == i64::MAX { format!("at least {minimum}") } else { format!("{minimum} to {maximum}") };
            let message = format!("{} has {count} {unit}", self.called(path));
            self.find(&codes::OUT_OF_BOUNDS, path, position, message).help = Some(format!("{allowed} are allowed"));
        }
    }
}

thread_local! {
    /// Patterns are those of our own schemas: a handful, each tried on every resource.
    static PATTERNS: RefCell<HashMap<String, Option<Regex>>> = RefCell::default();
}

/// A pattern that is none matches everything: it is ours, and a test compiles all of them.
fn matches(pattern: &str, text: &str) -> bool {
    PATTERNS.with_borrow_mut(|patterns| {
        let regex = patterns.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).ok());
        regex.as_ref().is_none_or(|regex| regex.is_match(text))
    })
}

/// What a bound counts.
#[derive(Clone, Copy)]
enum Counted {
    Entries,
    Characters,
}

/// Defaults as the API server fills them in: a field that is absent and has a default gets it, then its own fields do.
fn fill_defaults(object: &mut Map<String, Json>, properties: &Map<String, Json>) {
    for (name, schema) in properties {
        if let Some(default) = schema.get("default")
            && !object.contains_key(name)
        {
            object.insert(name.clone(), default.clone());
        }
    }
}

/// Bounds are written as numbers that may be floats in JSON, and all of ours are whole.
#[expect(clippy::cast_possible_truncation, reason = "bounds of our own schemas are whole and small")]
fn bound(schema: &Json, key: &str) -> Option<i64> {
    let value = schema.get(key)?;
    value.as_i64().or_else(|| value.as_f64().map(|number| number as i64))
}

/// `spec.to` and `function` to `spec.to.function`.
fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A text in a message, not longer than needed.
fn quoted(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let cut: String = text.chars().take(SHOWN_MAX).collect();
    if cut.len() < text.len() { format!("{cut:?}...") } else { format!("{cut:?}") }
}

fn article(expected: &str) -> &'static str {
    match expected {
        "object" => "an object",
        "array" => "a list",
        "string" => "a text",
        "integer" => "a whole number",
        "boolean" => "true or false",
        _ => "something else",
    }
}

fn described(value: &Value) -> String {
    match value {
        Value::Null => "empty".to_owned(),
        Value::Boolean(flag) => format!("{flag}"),
        Value::Integer(number) => format!("the number {number}"),
        Value::Float(number) => format!("the number {number}"),
        Value::Text(text) => format!("the text {}", quoted(text)),
        Value::List(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// What a pattern means to people.
fn form(pattern: &str) -> String {
    match pattern {
        crate::resources::duration::DURATION_PATTERN => codes::INVALID_DURATION.help.to_owned(),
        "^/" => "start it with /".to_owned(),
        other => format!("it must match {other}"),
    }
}

fn untyped(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Boolean(flag) => Json::Bool(*flag),
        Value::Integer(number) => Json::from(*number),
        Value::Float(number) => Json::from(*number),
        Value::Text(text) => Json::String(text.clone()),
        Value::List(items) => items.iter().map(|item| untyped(item)).collect(),
        Value::Object(entries) => {
            entries.iter().map(|entry| (entry.key.clone(), untyped(&entry.value))).collect::<Map<_, _>>().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_compiles() {
        fn check(schema: &Json) {
            if let Some(pattern) = schema["pattern"].as_str() {
                assert!(Regex::new(pattern).is_ok(), "{pattern}");
            }
            for property in schema["properties"].as_object().into_iter().flat_map(Map::values) {
                check(property);
            }
            if let Some(items) = schema.get("items") {
                check(items);
            }
        }
        for kind in Kind::ALL {
            check(of(kind));
        }
    }
}
