//! The floor of latency: an empty call over HTTP and gRPC, with or without a bare transaction.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tempfile::TempDir;

use crate::child::Child;
use crate::rows::Rows;
use crate::serve::Counted;
use crate::system::stores::{Place, Stores};
use crate::system::{Connector, Running, check_embedded, loaded};
use crate::tally::Tally;
use crate::usage::Process;
use crate::workload::Workload;

/// A running front with its worker.
#[derive(Debug)]
pub(crate) struct Floor {
    front: Child,
    worker: Child,
    data: Data,
}

/// Where a bare transaction goes.
#[derive(Debug)]
enum Data {
    Nowhere,
    Embedded(TempDir, Rows),
    Stores(Place),
}

/// Where a bare transaction is to go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Into<'a> {
    /// There is none.
    Nothing,
    /// An embedded store with its data below this directory.
    Embedded(&'a Path),
    /// Stores that speak TiKV's protocol.
    Stores(&'a Arc<Stores>),
}

impl Floor {
    /// Starts it, with the data of `workload`.
    pub(crate) fn start(into: Into<'_>, workload: Workload) -> anyhow::Result<Self> {
        let Workload::Counter { keys, functions: 0, .. } = workload else {
            anyhow::bail!("the empty call stands for a counter, not for {workload}");
        };
        let keys = keys.to_string();
        let worker = Child::start(&["serve-nothing"])?;
        let mut arguments = vec!["serve-front", "--worker", worker.address(), "--keys", &keys];
        let data = match into {
            Into::Nothing => Data::Nowhere,
            Into::Embedded(parent) => {
                let (directory, rows) = loaded(parent, workload)?;
                Data::Embedded(directory, rows)
            }
            Into::Stores(stores) => Data::Stores(Place::loaded(stores, workload)?),
        };
        match &data {
            Data::Nowhere => {}
            Data::Embedded(directory, _) => {
                let path = directory.path().to_str().context("the path of the data is not UTF-8")?;
                arguments.extend(["--data", path]);
            }
            Data::Stores(place) => arguments.extend(["--store", place.address()]),
        }
        let front = Child::start(&arguments)?;
        Ok(Self { front, worker, data })
    }
}

impl Running for Floor {
    fn connector(&self) -> Connector {
        Connector::Http(vec![self.front.address().to_owned()])
    }

    fn processes(&self) -> Vec<Process> {
        let own = [Process::alone("front", self.front.id()), Process::alone("worker", self.worker.id())];
        let stores = if let Data::Stores(place) = &self.data { place.stores().processes() } else { Vec::new() };
        own.into_iter().chain(stores).collect()
    }

    fn counted(&mut self) -> anyhow::Result<Counted> {
        let own = self.front.counted()?;
        Ok(if let Data::Stores(place) = &self.data { place.stores().counted()?.plus(&own) } else { own })
    }

    fn end(self: Box<Self>, tally: &Tally) -> anyhow::Result<()> {
        drop((self.front, self.worker));
        match &self.data {
            Data::Embedded(directory, rows) => check_embedded(rows, directory.path(), tally),
            Data::Stores(place) => place.check(tally),
            Data::Nowhere => Ok(()),
        }
    }
}
