//! Reads resources from YAML files, knowing where everything stands.
//!
//! All problems of all files are reported: a wrong field does not hide the next one, a malformed document does not hide
//! its neighbours. What can be decoded in spite of its problems is handed on, so that the compiler reports its share, too.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::de::DeserializeOwned;

use crate::codes;
use crate::problem::{Location, ObjectName, Problem};
use crate::resources::{API_VERSION, Function, FunctionEgress, FunctionRoute, FunctionRuntime, GROUP, Kind};
use crate::suggestion;

pub mod document;
mod rules;
mod schema;
mod yaml;

use schema::{Checked, Finding, Refused};
use yaml::{Fault, Node, Position, Value};

/// Largest file that is read, in bytes.
pub const FILE_BYTES_MAX: u64 = 4 << 20;
/// How far below a given directory files are looked for.
pub const DIRECTORY_DEPTH_MAX: usize = 3;
/// What messages call a resource as a whole.
const THE_RESOURCE: &str = "the resource";

/// Why files cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path that was named does not exist or cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where a resource and its fields stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    file: String,
    positions: BTreeMap<String, Position>,
}

impl Source {
    /// Whether `field` stands there at all.
    pub fn has(&self, field: &str) -> bool {
        self.positions.contains_key(field)
    }

    /// Where `field` stands, or else the nearest thing around it.
    pub fn locate(&self, field: &str) -> Location {
        let mut field = field;
        loop {
            if let Some(position) = self.positions.get(field) {
                return location(&self.file, *position);
            }
            field = match field.rfind(['.', '[']) {
                Some(end) => &field[..end],
                None if field.is_empty() => return location(&self.file, Position::default()),
                None => "",
            };
        }
    }
}

fn location(file: &str, position: Position) -> Location {
    Location { file: file.to_owned(), line: position.line, column: position.column }
}

/// A resource, and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Sourced<T> {
    /// The resource.
    pub resource: T,
    /// Where it is written; nothing if it came from a cluster.
    pub source: Option<Source>,
    /// Parts of it were wrong and were left out, so that what it lacks is no proof of anything.
    pub damaged: bool,
}

impl<T> Sourced<T> {
    /// A resource that is in no file.
    pub fn new(resource: T) -> Self {
        Self { resource, source: None, damaged: false }
    }

    /// Where `field` stands.
    pub fn locate(&self, field: &str) -> Option<Location> {
        self.source.as_ref().map(|source| source.locate(field))
    }
}

/// The resources of one application.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// At most one is allowed.
    pub runtimes: Vec<Sourced<FunctionRuntime>>,
    /// The functions.
    pub functions: Vec<Sourced<Function>>,
    /// The ways in.
    pub routes: Vec<Sourced<FunctionRoute>>,
    /// The ways out.
    pub egresses: Vec<Sourced<FunctionEgress>>,
    /// Resources that exist and could not be decoded: naming one of them is not a mistake of the one who names it.
    pub undecoded: Vec<ObjectName>,
}

impl Resources {
    /// How many there are.
    pub fn len(&self) -> usize {
        let decoded = self.runtimes.len() + self.functions.len() + self.routes.len() + self.egresses.len();
        decoded + self.undecoded.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// What could be decoded.
    pub resources: Resources,
    /// What is wrong, in the order of the files.
    pub problems: Vec<Problem>,
    /// What was left out on purpose, for those who wonder.
    pub notes: Vec<String>,
    /// The files that were read.
    pub files: Vec<PathBuf>,
}

/// Reads `paths`: files, and directories to a depth of [`DIRECTORY_DEPTH_MAX`] for `*.yaml` and `*.yml`. Hidden files are
/// skipped in directories.
pub fn load(paths: &[PathBuf]) -> Result<Loaded, Error> {
    let mut loaded = Loaded::default();
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() { list(path, 1, &mut files)? } else { files.push(path.clone()) }
    }
    // The same file by two paths is one file.
    let mut known = BTreeSet::new();
    files.retain(|path| known.insert(path.canonicalize().unwrap_or_else(|_| path.clone())));
    let mut seen = BTreeMap::new();
    for path in files {
        let read = |source| Error::Read { path: path.clone(), source };
        let name = path.display().to_string();
        let bytes = std::fs::metadata(&path).map_err(read)?.len();
        if bytes > FILE_BYTES_MAX {
            let message = format!("the file has {bytes} bytes, at most {FILE_BYTES_MAX} are read");
            let whole = location(&name, Position::default());
            loaded.problems.push(Problem::new(&codes::TOO_LARGE, "", message).at(Some(whole)));
        } else {
            let text = std::fs::read(&path).map_err(read)?;
            load_bytes(&name, &text, &mut seen, &mut loaded);
        }
        loaded.files.push(path);
    }
    Ok(loaded)
}

/// Reads resources from `text`, which positions call `file`.
pub fn load_text(file: &str, text: &str) -> Loaded {
    let mut loaded = Loaded::default();
    load_bytes(file, text.as_bytes(), &mut BTreeMap::new(), &mut loaded);
    loaded
}

/// YAML files below `directory`, in the order of their names.
fn list(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    let read = |source| Error::Read { path: directory.to_owned(), source };
    let entries = std::fs::read_dir(directory).map_err(read)?.collect::<Result<Vec<_>, _>>().map_err(read)?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            if depth < DIRECTORY_DEPTH_MAX {
                list(&path, depth + 1, files)?;
            }
        } else if matches!(extension, "yaml" | "yml") {
            files.push(path);
        }
    }
    Ok(())
}

/// Where each resource was first declared.
type Seen = BTreeMap<(String, String, String), Location>;

fn load_bytes(file: &str, bytes: &[u8], seen: &mut Seen, loaded: &mut Loaded) {
    let text = match text_of(file, bytes) {
        Ok(text) => text,
        Err(problem) => return loaded.problems.push(*problem),
    };
    let documents = yaml::parse(text);
    for fault in documents.faults {
        loaded.problems.push(fault_problem(file, fault));
    }
    for root in documents.roots {
        load_document(file, &root, seen, loaded);
    }
}

/// The text of a file, or that it is none.
fn text_of<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, Box<Problem>> {
    std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
        let position = Position { line, column: 1 };
        let problem = Problem::new(&codes::MALFORMED_YAML, "", "the file is not UTF-8").help("save it as UTF-8");
        Box::new(problem.at(Some(location(file, position))))
    })
}

fn fault_problem(file: &str, fault: Fault) -> Problem {
    let (code, position, message) = match fault {
        Fault::Malformed(position, message) => (&codes::MALFORMED_YAML, position, message),
        Fault::DuplicateKey(position, key) => (&codes::DUPLICATE_KEY, position, format!("{key:?} is given twice")),
        Fault::TooLarge(position) => (&codes::TOO_LARGE, position, "the document is too large or too deep".to_owned()),
    };
    Problem::new(code, "", message).at(Some(location(file, position)))
}

fn load_document(file: &str, root: &Node, seen: &mut Seen, loaded: &mut Loaded) {
    if root.value == Value::Null {
        return; // an empty document, as between two `---`
    }
    if let Some(items) = list_items(root) {
        for item in items {
            load_document(file, item, seen, loaded);
        }
        return;
    }
    let Some(kind) = kind_of(file, root, loaded) else { return };
    let name_node = root.get("metadata").and_then(|metadata| metadata.get("name"));
    let Some(name) = name_node.and_then(Node::text) else {
        let message = format!("a {} has no metadata.name", kind.name());
        loaded.problems.push(Problem::new(&codes::NOT_A_RESOURCE, "", message).at(Some(location(file, root.position))));
        return;
    };
    let object = ObjectName::new(kind, name);
    let namespace = root.get("metadata").and_then(|metadata| metadata.get("namespace")).and_then(Node::text);
    let position = name_node.map_or(root.position, |node| node.position);
    let here = location(file, position);
    let id = (kind.name().to_owned(), namespace.unwrap_or_default().to_owned(), name.to_owned());
    if let Some(first) = seen.get(&id) {
        let message = format!("it is declared already at {first}");
        let problem = Problem::new(&codes::DUPLICATE_OBJECT, object, message).field("metadata.name");
        loaded.problems.push(problem.at(Some(here)));
        return;
    }
    seen.insert(id, here);
    decode_as(kind, file, root, object, loaded);
}

/// The resources in a `List`, as `kubectl get -o yaml` prints several.
fn list_items(root: &Node) -> Option<&[Rc<Node>]> {
    let text = |key| root.get(key).and_then(Node::text);
    if text("apiVersion") != Some("v1") || text("kind") != Some("List") {
        return None;
    }
    match &root.get("items")?.value {
        Value::List(items) => Some(items),
        _ => None,
    }
}

/// The kind of a document, if it is one of ours.
fn kind_of(file: &str, root: &Node, loaded: &mut Loaded) -> Option<Kind> {
    let whole = |position| Some(location(file, position));
    let (api_version, kind) = (root.get("apiVersion"), root.get("kind"));
    let texts = (api_version.and_then(Node::text), kind.and_then(Node::text));
    let (Some(version_text), Some(kind_text)) = texts else {
        let message = match &root.value {
            Value::Object(_) => "the document has no apiVersion and kind",
            _ => "the document is not an object",
        };
        loaded.problems.push(Problem::new(&codes::NOT_A_RESOURCE, "", message).at(whole(root.position)));
        return None;
    };
    let (group, _) = version_text.split_once('/').unwrap_or(("", version_text));
    if group != GROUP {
        let position = location(file, root.position);
        loaded.notes.push(format!("{position}: skipped {kind_text} of {version_text}"));
        return None;
    }
    if version_text != API_VERSION {
        let message = format!("{version_text:?} is not a known version");
        let position = api_version.map_or(root.position, |node| node.position);
        let problem = Problem::new(&codes::UNKNOWN_KIND, "", message).help(format!("use {API_VERSION}"));
        loaded.problems.push(problem.field("apiVersion").at(whole(position)));
        return None;
    }
    let known = Kind::from_name(kind_text);
    if known.is_none() {
        let names = Kind::ALL.map(Kind::name);
        let position = kind.map_or(root.position, |node| node.position);
        let problem = Problem::new(&codes::UNKNOWN_KIND, "", format!("{GROUP} has no kind {kind_text:?}"));
        let problem = problem.field("kind").help(suggestion::advice(kind_text, names, ""));
        loaded.problems.push(problem.at(whole(position)));
    }
    known
}

fn decode_as(kind: Kind, file: &str, root: &Node, object: ObjectName, loaded: &mut Loaded) {
    let checked = schema::check(root, schema::of(kind), Refused::Keep, THE_RESOURCE);
    let object_text = object.to_string();
    loaded.problems.extend(checked.findings.iter().map(|finding| finding_problem(file, &object_text, finding)));
    let decoding = Decoding { file, kind, root, checked };
    let resources = &mut loaded.resources;
    let outcome = match kind {
        Kind::Runtime => decoding.decode().map(|runtime| resources.runtimes.push(runtime)),
        Kind::Function => decoding.decode().map(|function| resources.functions.push(function)),
        Kind::Route => decoding.decode().map(|route| resources.routes.push(route)),
        Kind::Egress => decoding.decode().map(|egress| resources.egresses.push(egress)),
    };
    if let Err(undecoded) = outcome {
        if let Some(reason) = undecoded {
            let problem = Problem::new(&codes::UNREADABLE_RESOURCE, &object, reason);
            loaded.problems.push(problem.at(Some(location(file, root.position))));
        }
        loaded.resources.undecoded.push(object);
    }
}

fn finding_problem(file: &str, object: &str, finding: &Finding) -> Problem {
    let problem = Problem::new(finding.code, object, &*finding.message).field(&*finding.field);
    let problem = problem.at(Some(location(file, finding.position)));
    match &finding.help {
        Some(help) => problem.help(&**help),
        None if finding.code == &codes::RULE_BROKEN => problem.help(""),
        None => problem,
    }
}

/// A checked document on its way to its type.
struct Decoding<'a> {
    file: &'a str,
    kind: Kind,
    root: &'a Node,
    checked: Checked,
}

impl Decoding<'_> {
    /// The resource, if need be without the values that are refused. An error names the reason if no problem does yet.
    fn decode<T: DeserializeOwned>(self) -> Result<Sourced<T>, Option<String>> {
        let damaged = !self.checked.findings.is_empty();
        let source = Some(Source { file: self.file.to_owned(), positions: self.checked.positions });
        let first = serde_json::from_value(self.checked.json);
        let decoded = match first {
            Ok(resource) => Ok(resource),
            Err(error) if !damaged => Err(Some(error.to_string())),
            Err(_) => {
                let again = schema::check(self.root, schema::of(self.kind), Refused::Drop, THE_RESOURCE);
                serde_json::from_value(again.json).map_err(|_| None)
            }
        };
        decoded.map(|resource| Sourced { resource, source, damaged })
    }
}
