//! Resources compiled to the topology that is run, and the topology of the last run, which the next one is compared with.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use tandem_crds::bundle::{self, Bundle, Workers};
use tandem_crds::check::check;
use tandem_crds::compile::compile;
use tandem_crds::load;
use tandem_crds::problem::Problem;
use tandem_model::ids::FunctionName;
use tandem_model::topology::{Endpoint, Protocol, Topology};

use crate::files;
use crate::push::Applied;

/// The topology of the last run, below the data directory.
pub const KEPT_FILE: &str = "topology.json";

/// Where a topology comes from.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Files and directories of resources.
    pub resources: Vec<PathBuf>,
    /// The bundle of an operator, instead of them.
    pub bundle: Option<PathBuf>,
    /// Where workers listen, besides those that resources name.
    pub workers: Vec<(FunctionName, Endpoint)>,
    /// Flows at one time, if fewer than the resources allow.
    pub flows_in_flight_max: Option<usize>,
}

/// A topology, and what is strange about it.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// As the resources say; the next one is compared with it.
    pub application: Topology,
    /// As it is run: with workers and limits of this process.
    pub topology: Topology,
    /// What is allowed, and probably not meant.
    pub warnings: Vec<String>,
    /// The bundle that it comes from.
    pub bundle: Option<Applied>,
}

/// Why there is no topology.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path cannot be read.
    #[error("failed to read the resources")]
    Read(#[from] load::Error),
    /// The resources have problems; warnings are among them.
    #[error("the resources have {} problems, nothing applied", .0.len())]
    Problems(Vec<Problem>),
    /// The bundle cannot be read.
    #[error("failed to read the bundle {path}")]
    BundleFile {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The bundle is not what it should be.
    #[error("failed to take the bundle")]
    Bundle(#[from] bundle::Error),
}

/// A problem with its place in front.
pub fn line(problem: &Problem) -> String {
    let place = problem.location.as_ref().map(|location| format!("{location}  ")).unwrap_or_default();
    format!("{place}{problem}")
}

impl Source {
    /// Compiles what the files say now, as the successor of `previous`.
    pub fn compile(&self, previous: Option<&Topology>) -> Result<Compiled, Error> {
        if let Some(path) = &self.bundle {
            let read = std::fs::read(path);
            let bytes = read.map_err(|source| Error::BundleFile { path: path.clone(), source })?;
            return self.compile_bundle(&Bundle::read(&bytes)?, previous);
        }
        let report = check(&self.resources, previous)?;
        let Some(application) = report.topology else { return Err(Error::Problems(report.problems)) };
        Ok(self.compiled(application.clone(), application, &report.problems))
    }

    /// Compiles a bundle, as the successor of `previous`.
    pub fn compile_bundle(&self, bundle: &Bundle, previous: Option<&Topology>) -> Result<Compiled, Error> {
        let compiled = compile(&bundle.resources()?, previous).map_err(Error::Problems)?;
        let mut topology = compiled.topology.clone();
        for (name, function) in &mut topology.functions {
            for Workers { revision, url, weight } in bundle.workers().get(name.as_str()).into_iter().flatten() {
                let revision = revision.clone();
                function.weights.insert(revision.clone(), *weight);
                function.workers.push(Endpoint { revision, ..Endpoint::new(url.clone(), Protocol::Grpc) });
            }
        }
        let bundle = Applied { revision: bundle.revision().to_owned(), sequence: bundle.sequence() };
        Ok(Compiled { bundle: Some(bundle), ..self.compiled(topology, compiled.topology, &compiled.warnings) })
    }

    /// With workers and limits of this process.
    fn compiled(&self, mut topology: Topology, application: Topology, problems: &[Problem]) -> Compiled {
        let mut warnings: Vec<String> = problems.iter().map(line).collect();
        for (name, endpoint) in &self.workers {
            match topology.functions.get_mut(name) {
                Some(function) => function.workers.push(endpoint.clone()),
                None => warnings.push(format!("topology.workers names function {name}, which has no resource")),
            }
        }
        for (name, function) in &mut topology.functions {
            let known: BTreeSet<Endpoint> = function.workers.drain(..).collect();
            function.workers.extend(known);
            if function.workers.is_empty() {
                warnings.push(format!("no worker runs function {name}; its flows will wait in vain"));
            }
        }
        let most = topology.limits.flows_in_flight_max;
        topology.limits.flows_in_flight_max = self.flows_in_flight_max.map_or(most, |own| own.min(most));
        Compiled { application, topology, warnings, bundle: None }
    }
}

/// Why the topology of the last run cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// The file cannot be used.
    #[error("failed to {doing} {path}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The file makes no sense.
    #[error("{path} is damaged or of a newer version; with it removed, changes of state types are not noticed once")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}

/// The topology of the last run; nothing if there was none.
pub fn read_kept(path: &Path) -> Result<Option<Topology>, KeptError> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let topology = serde_json::from_slice(&bytes);
            topology.map(Some).map_err(|source| KeptError::Damaged { path: path.to_owned(), source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeptError::File { doing: "read", path: path.to_owned(), source }),
    }
}

/// Remembers the topology of this run.
pub fn write_kept(path: &Path, topology: &Topology) -> Result<(), KeptError> {
    let json = serde_json::to_vec_pretty(topology);
    let json = json.map_err(|source| KeptError::Damaged { path: path.to_owned(), source })?;
    files::write(path, &json).map_err(|source| KeptError::File { doing: "write", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topology_of_the_last_run_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(KEPT_FILE);
        assert_eq!(read_kept(&path).unwrap(), None);
        let topology = Topology { format: Topology::FORMAT, ..Topology::default() };
        write_kept(&path, &topology).unwrap();
        assert_eq!(read_kept(&path).unwrap(), Some(topology));
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(read_kept(&path), Err(KeptError::Damaged { .. })));
    }

    #[test]
    fn workers_and_limits_of_the_process_count_and_are_not_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let text = "apiVersion: tandem.dev/v1alpha1\nkind: Function\nmetadata: {name: order}\nspec: {image: a}\n";
        std::fs::write(directory.path().join("order.yaml"), text).unwrap();
        let endpoint = Endpoint::new("http://w:1", Protocol::Grpc);
        let named = |name: &str| (name.parse().unwrap(), endpoint.clone());
        let resources = vec![directory.path().to_owned()];
        let mut source = Source {
            resources,
            bundle: None,
            workers: vec![named("order"), named("ordr")],
            flows_in_flight_max: Some(7),
        };
        let compiled = source.compile(None).unwrap();
        let order = &compiled.topology.functions[&"order".parse().unwrap()];
        assert_eq!((order.workers.as_slice(), compiled.topology.limits.flows_in_flight_max), (&[endpoint][..], 7));
        assert!(compiled.application.functions[&"order".parse().unwrap()].workers.is_empty());
        assert_eq!(compiled.warnings, ["topology.workers names function ordr, which has no resource"]);
        source.workers.clear();
        let warnings = source.compile(None).unwrap().warnings;
        assert_eq!(warnings, ["no worker runs function order; its flows will wait in vain"]);
    }
}
