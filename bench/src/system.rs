//! The systems that are compared, behind one face: start, connect, count, check.

use std::path::Path;
use std::time::Duration;

use tandem_store::embedded::{EmbeddedStore, Options};

use crate::rows::{Loading, Rows};
use crate::serve::Counted;
use crate::tally::{Ended, Tally};
use crate::usage::Process;
use crate::workload::{Operation, Workload};

pub(crate) mod bare;
pub(crate) mod bare_tikv;
pub(crate) mod floor;
pub(crate) mod postgres;
pub(crate) mod stores;
pub(crate) mod tandem;
pub(crate) mod tikv;

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
    /// HTTP, runtime, worker, stores that speak TiKV's protocol.
    Tikv,
    /// The same with three runtimes as one installation, over which the clients are spread.
    TikvThree,
    /// Plain transactions of the crate `tikv-client`, in the process of the clients.
    BareTikv,
    /// HTTP, an empty call over gRPC, a plain transaction of `tikv-client`. Counters only.
    TikvFloor,
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
            Self::Tikv => "tandem, one runtime",
            Self::TikvThree => "tandem, three runtimes",
            Self::BareTikv => "bare tikv-client",
            Self::TikvFloor => "empty call + bare tikv-client",
        }
    }
}

impl System {
    /// Whether it needs stores that speak TiKV's protocol.
    pub(crate) fn is_on_tikv(self) -> bool {
        matches!(self, Self::Tikv | Self::TikvThree | Self::BareTikv | Self::TikvFloor)
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
    /// Over HTTP, at these addresses in turn.
    Http(Vec<String>),
    /// Within this process.
    Bare(bare::Client),
    /// Within this process, on stores that speak TiKV's protocol.
    BareTikv(bare_tikv::Target),
    /// By PostgreSQL's protocol.
    Postgres(postgres::Target),
}

impl Connector {
    /// The client of this number.
    pub(crate) async fn connect(&self, client: usize) -> anyhow::Result<Client> {
        Ok(match self {
            Self::Http(addresses) => {
                Client::Http(crate::http::Client::connect(&addresses[client % addresses.len()]).await?)
            }
            Self::Bare(client) => Client::Bare(client.clone()),
            Self::BareTikv(target) => Client::BareTikv(target.connect().await?),
            Self::Postgres(target) => Client::Postgres(target.connect().await?),
        })
    }

    /// Whether the work is done in the threads of the clients. Then these need more than one.
    pub(crate) fn is_in_process(&self) -> bool {
        matches!(self, Self::Bare(_) | Self::BareTikv(_))
    }
}

/// One connection to a system.
pub(crate) enum Client {
    /// Over HTTP.
    Http(crate::http::Client),
    /// Within this process.
    Bare(bare::Client),
    /// Within this process, on stores that speak TiKV's protocol.
    BareTikv(bare_tikv::Client),
    /// By PostgreSQL's protocol.
    Postgres(postgres::Client),
}

impl Client {
    /// Makes one request and waits for its outcome.
    pub(crate) async fn request(&mut self, id: &str, operation: &Operation) -> anyhow::Result<Ended> {
        match self {
            Self::Http(client) => client.request(id, operation).await,
            Self::Bare(client) => client.request(id, operation).await,
            Self::BareTikv(client) => client.request(id, operation).await,
            Self::Postgres(client) => client.request(id, operation).await,
        }
    }
}

/// Runs a future to its end on a small runtime of its own.
pub(crate) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// A fresh directory for data, with what the workload has at first.
fn loaded(parent: &Path, workload: Workload) -> anyhow::Result<(tempfile::TempDir, Rows)> {
    let directory = tempfile::tempdir_in(parent)?;
    let rows = Rows::new(workload)?;
    block_on(async { rows.load(&embedded(directory.path())?, Loading::EMBEDDED).await })?;
    Ok((directory, rows))
}

/// Opens the embedded store in a directory.
fn embedded(data: &Path) -> anyhow::Result<EmbeddedStore> {
    Ok(EmbeddedStore::open(data, Options::default())?)
}

/// Compares what an embedded store has with what was acknowledged.
fn check_embedded(rows: &Rows, data: &Path, tally: &Tally) -> anyhow::Result<()> {
    block_on(async { rows.check(&embedded(data)?, tally).await })
}
