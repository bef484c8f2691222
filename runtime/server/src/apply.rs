//! Which topology runs: the last one that was right, whichever way it came.
//!
//! **Invariant:** a topology counts as a whole, or is refused with its problems and nothing changes.

use std::path::PathBuf;

use tandem_crds::bundle::Bundle;
use tandem_model::topology::Topology;
use tandem_runtime::runtime::Runtime;
use tandem_store::Store;
use tracing::{error, info, warn};

use crate::process::chain;
use crate::push::{Desk, Pushed};
use crate::topology::{self, Compiled, Error, Source};

/// Applies what files and pushes say.
pub struct Apply {
    source: Source,
    /// Where the application is remembered for the next start.
    kept: Option<PathBuf>,
    desk: Desk,
    application: Topology,
    topology: Topology,
}

impl Apply {
    /// Begins with what the process starts with.
    pub fn new(source: Source, kept: Option<PathBuf>, desk: Desk, compiled: &Compiled) -> Self {
        let Compiled { application, topology, warnings, bundle } = compiled.clone();
        warn_all(&warnings);
        desk.set_applied(bundle.unwrap_or_default());
        Self { source, kept, desk, application, topology }
    }

    /// Remembers what runs for the next start, where there is a place for it.
    pub fn keep(&self) -> Result<(), topology::KeptError> {
        self.kept.as_ref().map_or(Ok(()), |kept| topology::write_kept(kept, &self.application))
    }

    /// Takes what the files say now.
    pub fn reload<S: Store>(&mut self, runtime: &Runtime<S>) {
        match self.source.compile(Some(&self.application)) {
            Ok(Compiled { bundle: Some(bundle), .. }) if bundle.sequence <= self.desk.applied().sequence => {}
            Ok(compiled) => self.take(compiled, runtime),
            Err(refused) => self.refuse(&refused),
        }
    }

    /// Takes what was pushed, unless something later counts already.
    pub fn push<S: Store>(&mut self, pushed: Pushed, runtime: &Runtime<S>) {
        let Pushed { bundle, answer } = pushed;
        // Whoever asked may have given up.
        let _ = answer.send(self.push_bundle(&bundle, runtime));
    }

    fn push_bundle<S: Store>(&mut self, bundle: &Bundle, runtime: &Runtime<S>) -> Result<(), Error> {
        if bundle.sequence() < self.desk.applied().sequence {
            return Ok(());
        }
        let compiled = self.source.compile_bundle(bundle, Some(&self.application));
        let compiled = compiled.inspect_err(|refused| self.refuse(refused))?;
        self.take(compiled, runtime);
        Ok(())
    }

    fn refuse(&self, refused: &Error) {
        tell(refused, "the change is not applied; what runs goes on unchanged");
        self.desk.set_problem(Some(summary(refused)));
    }

    fn take<S: Store>(&mut self, compiled: Compiled, runtime: &Runtime<S>) {
        warn_all(&compiled.warnings);
        if compiled.topology != self.topology {
            runtime.set_topology(compiled.topology.clone());
            self.topology = compiled.topology;
            info!(
                revision = compiled.bundle.as_ref().map(|bundle| &bundle.revision),
                "resources reloaded, state was kept"
            );
        }
        if compiled.application != self.application {
            self.application = compiled.application;
            if let Err(error) = self.keep() {
                warn!(error = %chain(&error), "the topology is not remembered for the next start");
            }
        }
        self.desk.set_applied(compiled.bundle.unwrap_or_default());
        self.desk.set_problem(None);
    }
}

/// Why a topology is refused, in one line: its first problem.
pub(crate) fn summary(refused: &Error) -> String {
    match refused {
        Error::Problems(problems) => {
            let first = problems.iter().find(|problem| problem.is_error()).or_else(|| problems.first());
            let first = first.map(|problem| format!(", the first is: {problem}")).unwrap_or_default();
            format!("the resources have {} problems{first}", problems.len())
        }
        Error::Read(_) | Error::BundleFile { .. } | Error::Bundle(_) => chain(refused),
    }
}

fn warn_all(warnings: &[String]) {
    for warning in warnings {
        warn!(warning, "resources");
    }
}

pub(crate) fn tell(refused: &Error, so: &str) {
    if let Error::Problems(problems) = refused {
        for problem in problems {
            error!(problem = topology::line(problem), "resources");
        }
    }
    error!(error = %chain(refused), "{so}");
}
