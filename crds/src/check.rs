//! Reads and compiles in one step: what `tandem check`, `tandem dev` and a pipeline do.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tandem_model::topology::Topology;

use crate::compile::compile;
use crate::load::{self, Resources, load};
use crate::problem::{self, Problem};

/// What is in the files, and what is wrong with it.
#[derive(Clone, Debug)]
pub struct Report {
    /// Compiled; nothing if there are errors.
    pub topology: Option<Topology>,
    /// Errors and warnings, in the order of files and lines.
    pub problems: Vec<Problem>,
    /// What was left out on purpose.
    pub notes: Vec<String>,
    /// The files that were read.
    pub files: Vec<PathBuf>,
    /// What was read.
    pub resources: Resources,
}

impl Report {
    /// How many problems keep the resources from being applied.
    pub fn errors(&self) -> usize {
        self.problems.iter().filter(|problem| problem.is_error()).count()
    }

    /// How many problems do not.
    pub fn warnings(&self) -> usize {
        self.problems.len() - self.errors()
    }
}

/// Reads `paths` as [`load()`] does and compiles what is there, as the successor of `previous`. Fails only if a path cannot
/// be read; everything else is a problem in the report.
pub fn check(paths: &[PathBuf], previous: Option<&Topology>) -> Result<Report, load::Error> {
    let loaded = load(paths)?;
    Ok(report(loaded, previous))
}

/// Compiles what was read.
pub fn report(loaded: load::Loaded, previous: Option<&Topology>) -> Report {
    let load::Loaded { resources, mut problems, notes, files } = loaded;
    let (topology, found) = match compile(&resources, previous) {
        Ok(compiled) => (Some(compiled.topology), compiled.warnings),
        Err(found) => (None, found),
    };
    // A value that the schema refuses is often refused by the compiler, too; one line for one mistake.
    let known: BTreeSet<_> = problems.iter().map(|problem| (problem.object.clone(), problem.field.clone())).collect();
    problems.extend(found.into_iter().filter(|p| !known.contains(&(p.object.clone(), p.field.clone()))));
    problem::sort(&mut problems);
    let has_errors = problems.iter().any(Problem::is_error);
    let topology = topology.filter(|_| !has_errors);
    Report { topology, problems, notes, files, resources }
}
