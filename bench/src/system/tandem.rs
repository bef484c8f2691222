//! Tandem: the load generator, the runtime with its store, and the worker are three processes.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use tempfile::TempDir;

use crate::child::Child;
use crate::http::Client;
use crate::rows::Rows;
use crate::serve::Counted;
use crate::system::{Connector, Running, block_on, check_embedded, loaded};
use crate::tally::{Ended, Tally};
use crate::usage::Process;
use crate::workload::{Operation, Workload};

/// A running Tandem.
#[derive(Debug)]
pub(crate) struct Tandem {
    runtime: Child,
    worker: Child,
    directory: TempDir,
    rows: Rows,
    functions: String,
}

impl Tandem {
    /// Starts it with the data of `workload` below `parent`.
    pub(crate) fn start(parent: &Path, workload: Workload) -> anyhow::Result<Self> {
        let (directory, rows) = loaded(parent, workload)?;
        let functions = workload.functions().to_string();
        let worker = Child::start(&["serve-worker", "--functions", &functions])?;
        let runtime = start_runtime(directory.path(), worker.address(), &functions)?;
        Ok(Self { runtime, worker, directory, rows, functions })
    }
}

/// Starts a runtime on the data in `directory`.
fn start_runtime(directory: &Path, worker: &str, functions: &str) -> anyhow::Result<Child> {
    let data = directory.to_str().context("the path of the data is not UTF-8")?;
    Child::start(&["serve-runtime", "--data", data, "--worker", worker, "--functions", functions])
}

impl Running for Tandem {
    fn connector(&self) -> Connector {
        Connector::Http(vec![self.runtime.address().to_owned()])
    }

    fn processes(&self) -> Vec<Process> {
        vec![Process::alone("runtime", self.runtime.id()), Process::alone("worker", self.worker.id())]
    }

    fn counted(&mut self) -> anyhow::Result<Counted> {
        self.runtime.counted()
    }

    fn restart(&mut self, id: &str, operation: &Operation) -> anyhow::Result<Option<(Duration, Ended)>> {
        self.runtime.kill();
        let started = Instant::now();
        self.runtime = start_runtime(self.directory.path(), self.worker.address(), &self.functions)?;
        let ended = block_on(async { Client::connect(self.runtime.address()).await?.request(id, operation).await })?;
        Ok(Some((started.elapsed(), ended)))
    }

    fn end(self: Box<Self>, tally: &Tally) -> anyhow::Result<()> {
        drop((self.runtime, self.worker));
        check_embedded(&self.rows, self.directory.path(), tally)
    }
}
