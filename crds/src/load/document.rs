//! Reads one YAML document that is no resource, a configuration file, by its schema: all problems, each with its place.
//!
//! It has `apiVersion` and `kind` as resources have, and nothing else in common with them.

use serde_json::Value as Json;

use super::yaml::{Node, Position, Value};
use super::{Refused, Source, fault_problem, finding_problem, location, schema, text_of, yaml};
use crate::codes::{self, Code};
use crate::problem::Problem;
use crate::suggestion;

/// What a document has to be.
#[derive(Clone, Copy, Debug)]
pub struct Form<'a> {
    /// Its `apiVersion`: `config.tandem.dev/v1alpha1`.
    pub api_version: &'a str,
    /// Its `kind`.
    pub kind: &'a str,
    /// A schema without references and choices, as those of resources are.
    pub schema: &'a Json,
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// What is right in it, with defaults filled in; what a schema refuses is left out.
    pub json: Json,
    /// Where its fields stand.
    pub source: Source,
    /// What is wrong with it, in the order of its lines.
    pub problems: Vec<Problem>,
}

/// Reads `bytes`, which positions call `file`.
pub fn read(file: &str, bytes: &[u8], form: &Form<'_>) -> Document {
    let mut document =
        Document { source: Source { file: file.to_owned(), ..Source::default() }, ..Document::default() };
    let text = match text_of(file, bytes) {
        Ok(text) => text,
        Err(problem) => {
            document.problems.push(*problem);
            return document;
        }
    };
    let documents = yaml::parse(text);
    document.problems.extend(documents.faults.into_iter().map(|fault| fault_problem(file, fault)));
    let mut roots = documents.roots.iter().filter(|root| root.value != Value::Null);
    let wrong = |code: &'static Code, position, message: String| {
        Problem::new(code, "", message).at(Some(location(file, position)))
    };
    match roots.next() {
        Some(root) if is_of(file, root, form, &mut document.problems) => {
            let checked = schema::check(root, form.schema, Refused::Drop, "the document");
            document.problems.extend(checked.findings.iter().map(|finding| finding_problem(file, "", finding)));
            document.source.positions = checked.positions;
            document.json = checked.json;
        }
        None if document.problems.is_empty() => {
            let problem = wrong(&codes::NOT_A_RESOURCE, Position::default(), "the file is empty".to_owned());
            document.problems.push(problem.help(beginning(form)));
        }
        Some(_) | None => {}
    }
    if let Some(second) = roots.next() {
        let problem = wrong(&codes::NOT_A_RESOURCE, second.position, "there is a second document".to_owned());
        document.problems.push(problem.help("keep one of them"));
    }
    document
}

/// How a file begins.
fn beginning(form: &Form<'_>) -> String {
    format!("begin with apiVersion: {} and kind: {}", form.api_version, form.kind)
}

/// Whether the document says that it is what it has to be. If not, its fields may mean anything, and are not looked at.
fn is_of(file: &str, root: &Node, form: &Form<'_>, problems: &mut Vec<Problem>) -> bool {
    let before = problems.len();
    for (field, expected) in [("apiVersion", form.api_version), ("kind", form.kind)] {
        let found = root.get(field);
        let position = found.map_or(root.position, |node| node.position);
        let (code, message, help) = match found.and_then(Node::text) {
            Some(text) if text == expected => continue,
            Some(text) if field == "apiVersion" => version_help(text, form),
            Some(text) => (
                &codes::UNKNOWN_KIND,
                format!("{field} is {text:?}"),
                suggestion::nearest(text, [expected])
                    .map_or_else(|| format!("use {expected}"), |near| format!("did you mean {near:?}?")),
            ),
            None => {
                (&codes::NOT_A_RESOURCE, format!("the document has no {field}"), format!("add {field}: {expected}"))
            }
        };
        let problem = Problem::new(code, "", message).field(field).help(help);
        problems.push(problem.at(Some(location(file, position))));
    }
    problems.len() == before
}

/// Another version of the same group was most often written for a newer program.
fn version_help(text: &str, form: &Form<'_>) -> (&'static Code, String, String) {
    let group = |version: &str| version.split_once('/').map(|(group, _)| group.to_owned());
    let message = format!("apiVersion is {text:?}");
    let help = if group(text) == group(form.api_version) {
        format!(
            "this program reads {}; use the program that the file was written for, or change the file",
            form.api_version
        )
    } else {
        format!("use {}", form.api_version)
    };
    (&codes::UNKNOWN_KIND, message, help)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let schema = serde_json::json!({
            "type": "object", "additionalProperties": false,
            "properties": {
                "apiVersion": {"type": "string"}, "kind": {"type": "string"},
                "size": {"type": "integer", "minimum": 1, "maximum": 9},
            },
        });
        let form = Form { api_version: "config.tandem.dev/v1", kind: "Thing", schema: &schema };
        let document = read("thing.yaml", text.as_bytes(), &form);
        let line = |problem: &Problem| format!("{} {problem}", problem.location.as_ref().unwrap());
        document.problems.iter().map(line).collect()
    }

    const HEAD: &str = "apiVersion: config.tandem.dev/v1\nkind: Thing\n";

    #[test]
    fn fields_are_checked_with_their_places() {
        assert_eq!(problems(HEAD), [""; 0]);
        assert_eq!(
            problems(&format!("{HEAD}sise: 3\nsize: 12\nsize: 1\n")),
            [
                "thing.yaml:5:1 error[E005] \"size\" is given twice; keep one of them",
                "thing.yaml:3:1 error[E004] the document has no field \"sise\"; did you mean \"size\"?",
                "thing.yaml:4:7 error[E007] size cannot be 12; choose a number from 1 to 9",
            ]
        );
    }

    #[test]
    fn a_document_of_another_kind_is_not_looked_into() {
        let text = "apiVersion: config.tandem.dev/v2\nkind: Thinf\nanything: 1\n";
        assert_eq!(
            problems(text),
            [
                "thing.yaml:1:13 error[E003] apiVersion is \"config.tandem.dev/v2\"; this program reads config.tandem.dev/v1; use the program that the file was written for, or change the file",
                "thing.yaml:2:7 error[E003] kind is \"Thinf\"; did you mean \"Thing\"?",
            ]
        );
        assert_eq!(problems("size: 1\n").len(), 2);
        assert_eq!(problems("").len(), 1);
        assert_eq!(problems("[").len(), 1);
        assert_eq!(problems(&format!("{HEAD}---\n{HEAD}")).len(), 1);
    }
}
