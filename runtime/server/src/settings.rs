//! What counts in the end: the file, overridden by flags, checked as far as that goes without a look at the network.
//!
//! **Invariant:** all problems are reported at once, each with the place of the value it is about; of two that are about
//! the same value only the first.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tandem_crds::codes::{self, Code};
use tandem_crds::load::Source;
use tandem_crds::problem::{self, Location as Place, Problem};
use tandem_crds::resources::duration;
use tandem_model::ids::FunctionName;
use tandem_model::topology::{Endpoint, Protocol};
use tandem_runtime::telemetry;

use crate::configuration::{self, Configuration, LogFormat};
use crate::flags::Flags;
use crate::store::{Location, Tikv};

mod check;

use check::Checker;

/// What a process is started with.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where state lives.
    pub store: Location,
    /// Where requests come in.
    pub http: SocketAddr,
    /// Where people and tools ask.
    pub admin: SocketAddr,
    /// How it takes part among others on the same store.
    pub peers: Option<Peers>,
    /// Files and directories of resources.
    pub resources: Vec<PathBuf>,
    /// The bundle of an operator, instead of them.
    pub bundle: Option<PathBuf>,
    /// Where workers of functions listen, besides those that resources name.
    pub workers: Vec<(FunctionName, Endpoint)>,
    /// Flows at one time, if fewer than the resources allow.
    pub flows_in_flight_max: Option<usize>,
    /// Threads that run flows.
    pub threads: Option<usize>,
    /// How long flows may take to end when the process does.
    pub drain_grace: Duration,
    /// How the log is written.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_filter: String,
    /// Where traces go.
    pub traces: Option<String>,
    /// Where the addresses are written once requests are taken.
    pub ready_file: Option<PathBuf>,
}

/// How a runtime takes part among others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    /// Where it listens for them.
    pub listen: SocketAddr,
    /// What they are told; `listen`, with the port that was taken, if absent.
    pub advertise: Option<String>,
    /// Its name.
    pub member: Option<String>,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] configuration::Error),
    /// Something in it, or in the flags, is wrong.
    #[error("the configuration has {} problems", .0.len())]
    Problems(Vec<Problem>),
}

/// Reads the file that the flags name, if they name one, and applies the other flags.
pub fn read(flags: &Flags) -> Result<Settings, Error> {
    checked(flags, |checker, configuration| checker.settings(configuration, flags.ready_file.clone()))
}

/// Reads only where state lives.
pub fn read_store(flags: &Flags) -> Result<Location, Error> {
    checked(flags, |checker, configuration| checker.store(&configuration.store))
}

fn checked<T>(flags: &Flags, check: impl FnOnce(&mut Checker, &Configuration) -> Option<T>) -> Result<T, Error> {
    let (document, base) = match &flags.config {
        Some(path) => (Some(configuration::read(path)?), path.parent().map(Path::to_owned).unwrap_or_default()),
        None => (None, PathBuf::new()),
    };
    let document = document.unwrap_or_default();
    if document.json.is_null() && flags.config.is_some() {
        return Err(Error::Problems(document.problems));
    }
    let mut problems = document.problems;
    let mut configuration = decode(document.json, &document.source, &mut problems);
    let overridden = flags.apply(&mut configuration, &mut problems);
    let origin = Origin { source: flags.config.is_some().then_some(document.source), overridden, base };
    let mut checker = Checker { origin, problems };
    let value = check(&mut checker, &configuration);
    problem::sort(&mut checker.problems);
    match value {
        Some(value) if !checker.problems.iter().any(Problem::is_error) => Ok(value),
        _ => Err(Error::Problems(checker.problems)),
    }
}

/// A store by itself, checked; what is wrong is said in one line.
pub fn location(store: &configuration::Store) -> Result<Location, String> {
    let mut checker = Checker { origin: Origin::default(), problems: Vec::new() };
    let location = checker.store(store);
    let said: Vec<String> = checker.problems.iter().map(|p| format!("{}; {}", p.message, p.help)).collect();
    location.filter(|_| said.is_empty()).ok_or_else(|| said.join("; "))
}

/// The document as its type. Whatever a schema refuses is not in it any more.
fn decode(json: serde_json::Value, source: &Source, problems: &mut Vec<Problem>) -> Configuration {
    if json.is_null() {
        return Configuration::default();
    }
    serde_json::from_value(json).unwrap_or_else(|error| {
        if problems.is_empty() {
            let problem = Problem::new(&codes::UNREADABLE_RESOURCE, "", error.to_string());
            problems.push(problem.help("compare it with the reference").at(Some(source.locate(""))));
        }
        Configuration::default()
    })
}

/// Where values came from.
#[derive(Debug, Default)]
struct Origin {
    source: Option<Source>,
    /// Flags by the fields that they override.
    overridden: BTreeMap<&'static str, &'static str>,
    /// What paths in the file are relative to.
    base: PathBuf,
}

impl Origin {
    /// The flag that says what a field is.
    fn flag(&self, field: &str) -> Option<&'static str> {
        let within =
            |outer: &str| field.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        self.overridden.iter().find(|(outer, _)| within(outer)).map(|(_, flag)| *flag)
    }

    fn locate(&self, field: &str) -> Option<Place> {
        if let Some(flag) = self.flag(field) {
            return Some(Place { file: flag.to_owned(), line: 0, column: 0 });
        }
        self.source.as_ref().map(|source| source.locate(field))
    }

    /// A path as it is meant: those in a file are relative to the directory of the file.
    fn path(&self, field: &str, path: &str) -> PathBuf {
        if self.flag(field).is_some() { PathBuf::from(path) } else { self.base.join(path) }
    }
}
