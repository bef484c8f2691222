//! Schemas as Markdown: the tables of the reference, which are generated.

use serde_json::Value;

/// The fields of `schema` and of what is within it, as a table. Their names begin with `path`.
pub fn table(path: &str, schema: &Value) -> String {
    let mut page = "| field | type | default | bounds | |\n| --- | --- | --- | --- | --- |\n".to_owned();
    fields(path, schema, &mut page);
    page
}

fn fields(path: &str, schema: &Value, page: &mut String) {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let default = match field.get("default") {
            // The fields within say their own.
            Some(Value::Object(_)) if field.get("properties").is_some() => String::new(),
            Some(Value::String(default)) => format!("`{default}`"),
            Some(default) => format!("`{default}`"),
            None if required.contains(&name.as_str()) => "*required*".to_owned(),
            None => String::new(),
        };
        let row = [format!("`{path}`"), type_of(field), default, bounds(field), text(&field["description"])];
        page.push_str(&format!("| {} |\n", row.map(|cell| cell.replace('|', "\\|")).join(" | ")));
        fields(&path, field, page);
        if let Some(items) = field.get("items") {
            fields(&format!("{path}[]"), items, page);
        }
    }
}

fn type_of(field: &Value) -> String {
    let name = |schema: &Value| schema["type"].as_str().unwrap_or_default().to_owned();
    if field["pattern"].as_str().is_some_and(|pattern| pattern.contains("ms|s|m|h")) {
        return "duration".to_owned();
    }
    match field.get("items") {
        Some(items) => format!("list of {}", name(items)),
        None => name(field),
    }
}

fn bounds(field: &Value) -> String {
    let mut bounds = Vec::new();
    if let Some(values) = field["enum"].as_array() {
        bounds.push(
            values
                .iter()
                .map(|value| format!("`{}`", value.as_str().unwrap_or_default()))
                .collect::<Vec<_>>()
                .join(", "),
        );
    }
    for (least, most, unit) in
        [("minimum", "maximum", ""), ("minLength", "maxLength", " characters"), ("minItems", "maxItems", " entries")]
    {
        match (field[least].as_f64(), field[most].as_f64()) {
            (Some(least), Some(most)) => bounds.push(format!("{least} to {most}{unit}")),
            (None, Some(most)) if type_of(field) != "duration" => bounds.push(format!("at most {most}{unit}")),
            _ => {}
        }
    }
    if let Some(pattern) = field["pattern"].as_str()
        && type_of(field) != "duration"
    {
        bounds.push(format!("`{pattern}`"));
    }
    bounds.join("; ")
}

/// A description on one line.
pub fn text(description: &Value) -> String {
    description.as_str().unwrap_or_default().replace('\n', " ")
}
