//! What the files of an application say: resources compiled to a topology, and how to start the workers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tandem_model::ids::FunctionName;
use tandem_model::topology::{Protocol, Topology};

use super::Error;
use super::console::Console;

/// How the code of the functions is started on this machine, in YAML, beside the resources. Its name does not end like
/// theirs: `kubectl apply -f DIR`, Argo CD and Flux take every `*.yaml` for an object of the cluster.
pub(super) const DEV_FILE: &str = "Tandemfile";

/// An application that can be run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Application {
    /// Without workers: where they are is only known once they have been started.
    pub(super) topology: Topology,
    /// How to start them.
    pub(super) workers: Vec<Worker>,
}

/// What [`DEV_FILE`] says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct DevFile {
    #[serde(default)]
    workers: Vec<Worker>,
}

/// One kind of worker process.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Worker {
    /// In front of each line that it prints.
    pub(super) name: String,
    /// The functions whose code it runs.
    pub(super) functions: Vec<FunctionName>,
    /// The program and its arguments. It listens where `TANDEM_WORKER_ADDRESS` says.
    pub(super) command: Vec<String>,
    /// How many of them.
    #[serde(default = "one")]
    pub(super) instances: u16,
    /// How it is talked to.
    #[serde(default)]
    pub(super) protocol: WorkerProtocol,
    /// Where it runs, relative to the application's directory.
    #[serde(default)]
    pub(super) directory: PathBuf,
    /// Variables that are added to ours.
    #[serde(default)]
    pub(super) environment: BTreeMap<String, String>,
}

/// [`Protocol`] in the words of the resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) enum WorkerProtocol {
    #[default]
    Grpc,
    Http,
}

impl From<WorkerProtocol> for Protocol {
    fn from(protocol: WorkerProtocol) -> Self {
        match protocol {
            WorkerProtocol::Grpc => Self::Grpc,
            WorkerProtocol::Http => Self::Http,
        }
    }
}

fn one() -> u16 {
    1
}

/// Reads and compiles everything in `directory`, as the successor of `previous`. Problems are printed, each with its
/// place; the error only counts them.
pub(super) fn read(directory: &Path, previous: Option<&Topology>, console: &Console) -> Result<Application, Error> {
    let report = tandem_crds::check::check(&[directory.to_owned()], previous)?;
    for problem in &report.problems {
        let place = problem.location.as_ref().map(|location| format!("{location}  ")).unwrap_or_default();
        console.problem(problem.is_error(), &format!("{place}{problem}"));
    }
    let (errors, warnings) = (report.errors(), report.warnings());
    let Some(topology) = report.topology else {
        return Err(Error::Resources(count(errors, warnings)));
    };
    let workers = read_workers(&directory.join(DEV_FILE), &topology)?;
    for function in without_workers(&topology, &workers) {
        console
            .problem(false, &format!("no worker in {DEV_FILE} runs function {function}; its flows will wait in vain"));
    }
    Ok(Application { topology, workers })
}

fn count(errors: usize, warnings: usize) -> String {
    let plural = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    match warnings {
        0 => plural(errors, "error"),
        _ => format!("{} and {}", plural(errors, "error"), plural(warnings, "warning")),
    }
}

fn read_workers(path: &Path, topology: &Topology) -> Result<Vec<Worker>, Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::File { doing: "read", path: path.to_owned(), source }),
    };
    parse_workers(&text, topology).map_err(|error| Error::DevFile(format!("{}: {error}", path.display())))
}

fn parse_workers(text: &str, topology: &Topology) -> Result<Vec<Worker>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let file: DevFile = serde_saphyr::from_str(text).map_err(|error| first_line(&error.to_string()))?;
    let mut names = BTreeSet::new();
    for worker in &file.workers {
        let wrong = |what: String| Err(format!("worker {:?} {what}", worker.name));
        if !names.insert(&worker.name) {
            return wrong("is there twice".to_owned());
        }
        if worker.command.is_empty() {
            return wrong("has no command".to_owned());
        }
        if worker.instances == 0 {
            return wrong("has no instances; leave it out instead".to_owned());
        }
        if let Some(unknown) = worker.functions.iter().find(|name| !topology.functions.contains_key(name)) {
            let known: Vec<&str> = topology.functions.keys().map(FunctionName::as_str).collect();
            return wrong(format!("names function {unknown}, which has no resource; there are {}", known.join(", ")));
        }
    }
    Ok(file.workers)
}

/// Errors of YAML show the lines around; the first line says what and where.
fn first_line(text: &str) -> String {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("not valid").to_owned()
}

fn without_workers<'a>(topology: &'a Topology, workers: &[Worker]) -> Vec<&'a FunctionName> {
    let served: BTreeSet<&FunctionName> = workers.iter().flat_map(|worker| &worker.functions).collect();
    let idle =
        topology.functions.iter().filter(|(name, function)| function.workers.is_empty() && !served.contains(name));
    idle.map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use tandem_model::topology::Function;

    use super::*;

    fn topology() -> Topology {
        let names = ["order", "payment"].map(|name| (name.parse().unwrap(), Function::default()));
        Topology { functions: names.into(), ..Topology::default() }
    }

    #[test]
    fn workers_have_sensible_defaults() {
        let text = "workers:\n- name: shop\n  functions: [order]\n  command: [./shop, --fast]\n";
        let workers = parse_workers(text, &topology()).unwrap();
        assert_eq!((workers[0].instances, workers[0].protocol), (1, WorkerProtocol::Grpc));
        let names: Vec<_> = without_workers(&topology(), &workers).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["payment"]);
        assert!(parse_workers("", &topology()).unwrap().is_empty());
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, expected: &str| {
            let error = parse_workers(text, &topology()).unwrap_err();
            assert!(error.contains(expected), "{error:?} does not contain {expected:?}");
        };
        let worker = "workers:\n- name: shop\n  functions: [order]\n  command: [a]\n";
        check(&worker.replace("order", "ordr"), "\"shop\" names function ordr");
        check(&worker.replace("[a]", "[]"), "no command");
        check(&format!("{worker}{}", &worker["workers:\n".len()..]), "twice");
        check(&format!("{worker}  instances: 0\n"), "no instances");
        check(&format!("{worker}  comand: [b]\n"), "comand");
        check("workers: [", "line 1");
    }
}
