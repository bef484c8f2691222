//! YAML to trees that know the position of every key and value.
//!
//! serde-saphyr gives positions only where a type asks for them; the checker needs them for every field, known or not,
//! so this reads the events of the parser below it.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};

/// Most nodes of one document, each use of an alias counted: keeps a small file from unfolding into a large tree.
const NODES_MAX: usize = 100_000;
/// Deepest nesting of a document.
const DEPTH_MAX: usize = 64;

/// Line and column, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl From<&Marker> for Position {
    fn from(marker: &Marker) -> Self {
        Self { line: marker.line(), column: marker.col() + 1 }
    }
}

/// A value and where it starts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) position: Position,
    pub(crate) value: Value,
}

/// What YAML knows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Rc<Node>>),
    Object(Vec<Entry>),
}

/// One key of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_position: Position,
    pub(crate) value: Rc<Node>,
}

/// Why a document cannot be read, or not wholly.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    Malformed(Position, String),
    DuplicateKey(Position, String),
    TooLarge(Position),
}

/// The documents of a file that could be read, and everything that is wrong.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    pub(crate) roots: Vec<Rc<Node>>,
    pub(crate) faults: Vec<Fault>,
}

impl Node {
    /// The value of `key`, if this is an object that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Object(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_ref()),
            _ => None,
        }
    }

    /// The text, if this is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn count(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(|item| item.count()).sum(),
            Value::Object(entries) => entries.iter().map(|entry| entry.value.count()).sum::<usize>(),
            _ => 0,
        }
    }
}

/// Reads all documents of `text`. After a malformed document it goes on with the next one.
pub(crate) fn parse(text: &str) -> Documents {
    let mut parser = Parser::new_from_str(text);
    let mut documents = Documents::default();
    let mut builder = Builder::default();
    loop {
        match parser.next_event() {
            None | Some(Ok((Event::StreamEnd, _))) => break,
            Some(Ok((Event::DocumentStart(..), _))) => builder = Builder::default(),
            Some(Ok((Event::DocumentEnd, _))) => documents.roots.extend(builder.take_root(&mut documents.faults)),
            Some(Ok((event, span))) => {
                if let Err(fault) = builder.event(event, span) {
                    documents.faults.append(&mut builder.faults);
                    documents.faults.push(fault);
                    if !matches!(parser.proceed_next_document(), Ok(true)) {
                        break;
                    }
                }
            }
            Some(Err(error)) => {
                documents.faults.append(&mut builder.faults);
                documents.faults.push(malformed(&error));
                if !matches!(parser.proceed_next_document(), Ok(true)) {
                    break;
                }
            }
        }
    }
    documents
}

fn malformed(error: &ScanError) -> Fault {
    Fault::Malformed(error.marker().into(), error.info())
}

/// An object or list whose end has not come yet.
#[derive(Debug)]
struct Open {
    position: Position,
    anchor: usize,
    kind: OpenKind,
}

#[derive(Debug)]
enum OpenKind {
    List(Vec<Rc<Node>>),
    Object { entries: Vec<Entry>, known: HashSet<String>, key: Option<(String, Position)> },
}

/// Builds the tree of one document.
#[derive(Debug, Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    nodes: usize,
    faults: Vec<Fault>,
}

impl Builder {
    fn take_root(&mut self, faults: &mut Vec<Fault>) -> Option<Rc<Node>> {
        faults.append(&mut self.faults);
        self.root.take()
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Fault> {
        let position = Position::from(&span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref());
                self.close(anchor, Node { position, value })
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node =
                    node.ok_or_else(|| Fault::Malformed(position, "an alias within its own anchor".to_owned()))?;
                self.nodes += node.count();
                let value = node.value.clone();
                self.close(0, Node { position, value })
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open_one(Open { position, anchor, kind: OpenKind::List(Vec::new()) })
            }
            Event::MappingStart(_, anchor, _) => {
                let kind = OpenKind::Object { entries: Vec::new(), known: HashSet::new(), key: None };
                self.open_one(Open { position, anchor, kind })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { position, anchor, kind: OpenKind::List(items) }) => {
                    self.close(anchor, Node { position, value: Value::List(items) })
                }
                Some(Open { position, anchor, kind: OpenKind::Object { entries, .. } }) => {
                    self.close(anchor, Node { position, value: Value::Object(entries) })
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn open_one(&mut self, open: Open) -> Result<(), Fault> {
        if self.open.len() >= DEPTH_MAX {
            return Err(Fault::TooLarge(open.position));
        }
        self.open.push(open);
        Ok(())
    }

    /// A value is complete: it becomes a key, a value, an item or the root.
    fn close(&mut self, anchor: usize, node: Node) -> Result<(), Fault> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(Fault::TooLarge(node.position));
        }
        let position = node.position;
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(OpenKind::List(items)) => items.push(node),
            Some(OpenKind::Object { entries, known, key }) => match key.take() {
                None => *key = Some((key_text(&node)?, position)),
                Some((key, key_position)) => {
                    if known.insert(key.clone()) {
                        entries.push(Entry { key, key_position, value: node });
                    } else {
                        self.faults.push(Fault::DuplicateKey(key_position, key));
                    }
                }
            },
        }
        Ok(())
    }
}

/// Keys are texts; numbers and booleans are read as they would be printed.
fn key_text(node: &Node) -> Result<String, Fault> {
    match &node.value {
        Value::Text(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(flag) => Ok(flag.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Null => Ok("null".to_owned()),
        Value::List(_) | Value::Object(_) => {
            Err(Fault::Malformed(node.position, "a key must be a text, not a list or an object".to_owned()))
        }
    }
}

/// The core schema of YAML 1.2; quoted and block scalars are texts.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let is_text_tag = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
    if !matches!(style, ScalarStyle::Plain) || is_text_tag {
        return Value::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Boolean(true),
        "false" | "False" | "FALSE" => return Value::Boolean(false),
        _ => {}
    }
    if let Some(number) = integer(text) {
        return Value::Integer(number);
    }
    let is_numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    let is_plain_number = text.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E'));
    match text.parse() {
        Ok(number) if is_numeric && is_plain_number => Value::Float(number),
        _ => Value::Text(text.to_owned()),
    }
}

fn integer(text: &str) -> Option<i64> {
    if let Some(digits) = text.strip_prefix("0x") {
        return i64::from_str_radix(digits, 16).ok();
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return i64::from_str_radix(digits, 8).ok();
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Rc<Node> {
        let documents = parse(text);
        assert_eq!(documents.faults, []);
        documents.roots.into_iter().next().unwrap()
    }

    #[test]
    fn positions_are_those_of_an_editor() {
        let root = one("a: 1\nb:\n  - x\n  - {c: \"ä\", d: y}\n");
        assert_eq!(root.get("a").unwrap().position, Position { line: 1, column: 4 });
        let Value::List(items) = &root.get("b").unwrap().value else { panic!("a list") };
        assert_eq!(items[0].position, Position { line: 3, column: 5 });
        assert_eq!(items[1].get("d").unwrap().position, Position { line: 4, column: 17 });
    }

    #[test]
    fn scalars_are_read_as_yaml_1_2_has_them() {
        let root = one("[1, -2, 0x10, 1.5, true, ~, yes, '1', 1e3, 5s, !!str 7, 00123abc]");
        let Value::List(items) = &root.value else { panic!("a list") };
        let values: Vec<Value> = items.iter().map(|item| item.value.clone()).collect();
        let text = |text: &str| Value::Text(text.to_owned());
        let expected = [
            Value::Integer(1),
            Value::Integer(-2),
            Value::Integer(16),
            Value::Float(1.5),
            Value::Boolean(true),
            Value::Null,
            text("yes"),
            text("1"),
            Value::Float(1000.0),
            text("5s"),
            text("7"),
            text("00123abc"),
        ];
        assert_eq!(values, expected);
    }

    #[test]
    fn a_malformed_document_does_not_hide_the_next() {
        let documents = parse("a: 1\n---\nb: [1\n---\nc: 3\n");
        assert_eq!(documents.roots.len(), 2);
        assert!(
            matches!(documents.faults[..], [Fault::Malformed(Position { line: 3, column: 4 }, _)]),
            "{documents:?}"
        );
    }

    #[test]
    fn duplicate_keys_are_found() {
        let documents = parse("a: 1\nb: {c: 1, c: 2}\na: 3\n");
        let at = |line, column, key: &str| Fault::DuplicateKey(Position { line, column }, key.to_owned());
        assert_eq!(documents.faults, [at(2, 11, "c"), at(3, 1, "a")]);
        assert_eq!(documents.roots.len(), 1);
    }

    #[test]
    fn aliases_are_unfolded_up_to_a_limit() {
        let root = one("a: &x {n: 1}\nb: *x\n");
        assert_eq!(root.get("b").unwrap().get("n").unwrap().value, Value::Integer(1));
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for n in 1..10 {
            let previous = format!("*a{}", n - 1);
            let line = format!("a{n}: &a{n} [{}]\n", vec![previous; 10].join(","));
            bomb.push_str(&line);
        }
        assert!(matches!(parse(&bomb).faults[..], [Fault::TooLarge(_)]));
        let deep = "[".repeat(1000);
        assert!(!parse(&deep).faults.is_empty());
    }
}
