//! The floor of latency: an empty call over HTTP and gRPC, with or without a bare transaction.

use std::path::Path;

use anyhow::Context;
use tempfile::TempDir;

use crate::child::Child;
use crate::rows::Rows;
use crate::serve::Counted;
use crate::system::{Connector, Running, block_on, loaded};
use crate::tally::Tally;
use crate::usage::Process;
use crate::workload::Workload;

/// A running front with its worker.
#[derive(Debug)]
pub(crate) struct Floor {
    front: Child,
    worker: Child,
    data: Option<(TempDir, Rows)>,
}

impl Floor {
    /// Starts it; with data of `workload` below `parent` if something is `stored`.
    pub(crate) fn start(parent: &Path, workload: Workload, stored: bool) -> anyhow::Result<Self> {
        let Workload::Counter { keys, functions: 0, .. } = workload else {
            anyhow::bail!("the empty call stands for a counter, not for {workload}");
        };
        let keys = keys.to_string();
        let worker = Child::start(&["serve-nothing"])?;
        let mut arguments = vec!["serve-front", "--worker", worker.address(), "--keys", &keys];
        let data = if stored { Some(loaded(parent, workload)?) } else { None };
        if let Some((directory, _)) = &data {
            arguments.push("--data");
            arguments.push(directory.path().to_str().context("the path of the data is not UTF-8")?);
        }
        let front = Child::start(&arguments)?;
        Ok(Self { front, worker, data })
    }
}

impl Running for Floor {
    fn connector(&self) -> Connector {
        Connector::Http(self.front.address().to_owned())
    }

    fn processes(&self) -> Vec<Process> {
        vec![Process::alone("front", self.front.id()), Process::alone("worker", self.worker.id())]
    }

    fn counted(&mut self) -> anyhow::Result<Counted> {
        self.front.counted()
    }

    fn end(self: Box<Self>, tally: &Tally) -> anyhow::Result<()> {
        drop((self.front, self.worker));
        match &self.data {
            Some((directory, rows)) => block_on(rows.check(directory.path(), tally)),
            None => Ok(()),
        }
    }
}
