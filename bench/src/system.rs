//! The systems that are compared, behind one face: start, connect, count, check.

use std::path::Path;
use std::time::Duration;

use crate::serve::Counted;
use crate::tally::{Ended, Tally};
use crate::usage::Process;
use crate::workload::{Operation, Workload};

pub(crate) mod bare;
pub(crate) mod floor;
pub(crate) mod postgres;
pub(crate) mod tandem;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    /// HTTP, runtime, worker, embedded store.
    Tandem,
    /// Bare transactions of the embedded store, each with a sync of its own.
    BareAlone,
    /// Bare transactions of the embedded store, which the store joins into groups.
    BareGrouped,
    /// HTTP, an empty call over gRPC, a bare transaction. Counters only.
    Floor,
    /// HTTP and an empty call over gRPC; nothing is stored. Counters only.
    EmptyCall,
    /// One transaction of PostgreSQL.
    Postgres,
}

impl System {
    /// As tables show it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Tandem => "tandem",
            Self::BareAlone => "bare, one sync each",
            Self::BareGrouped => "bare, grouped by the store",
            Self::Floor => "empty call + bare",
            Self::EmptyCall => "empty call alone",
            Self::Postgres => "postgres",
        }
    }
}

/// A system that runs, with the data of one workload.
pub(crate) trait Running {
    /// How clients reach it.
    fn connector(&self) -> Connector;
    /// The processes that it consists of, the load generator excepted.
    fn processes(&self) -> Vec<Process>;
    /// What it has counted so far.
    fn counted(&mut self) -> anyhow::Result<Counted>;
    /// Kills it, starts it again, and says how long it took from the start of the process to the answer of this request.
    /// `None` if it cannot be restarted.
    fn restart(&mut self, _id: &str, _operation: &Operation) -> anyhow::Result<Option<(Duration, Ended)>> {
        Ok(None)
    }
    /// Ends it, and compares what it has stored with what was acknowledged.
    fn end(self: Box<Self>, tally: &Tally) -> anyhow::Result<()>;
}

/// How clients reach a system.
#[derive(Clone)]
pub(crate) enum Connector {
    /// Over HTTP, at this address.
    Http(String),
    /// Within this process.
    Bare(bare::Client),
    /// By PostgreSQL's protocol.
    Postgres(postgres::Target),
}

impl Connector {
    /// One more client.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        Ok(match self {
            Self::Http(address) => Client::Http(crate::http::Client::connect(address).await?),
            Self::Bare(client) => Client::Bare(client.clone()),
            Self::Postgres(target) => Client::Postgres(target.connect().await?),
        })
    }

    /// Whether the work is done in the threads of the clients. Then these need more than one.
    pub(crate) fn is_in_process(&self) -> bool {
        matches!(self, Self::Bare(_))
    }
}

/// One connection to a system.
pub(crate) enum Client {
    /// Over HTTP.
    Http(crate::http::Client),
    /// Within this process.
    Bare(bare::Client),
    /// By PostgreSQL's protocol.
    Postgres(postgres::Client),
}

impl Client {
    /// Makes one request and waits for its outcome.
    pub(crate) async fn request(&mut self, id: &str, operation: &Operation) -> anyhow::Result<Ended> {
        match self {
            Self::Http(client) => client.request(id, operation).await,
            Self::Bare(client) => client.request(id, operation).await,
            Self::Postgres(client) => client.request(id, operation).await,
        }
    }
}

/// Runs a future to its end on a small runtime of its own.
pub(crate) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// A fresh directory for data, with what the workload has at first.
fn loaded(parent: &Path, workload: Workload) -> anyhow::Result<(tempfile::TempDir, crate::rows::Rows)> {
    let directory = tempfile::tempdir_in(parent)?;
    let rows = crate::rows::Rows::new(workload)?;
    block_on(rows.load(directory.path()))?;
    Ok((directory, rows))
}
