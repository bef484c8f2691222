//! The floor: the same reads and writes as bare transactions of the embedded store, in one process with the clients.

use std::path::Path;

use bytes::Bytes;
use tandem_store::embedded::{EmbeddedStore, Options};
use tandem_store::{Commit, CommitResult, Read, Snapshot, Store};
use tempfile::TempDir;

use crate::rows::{self, Rows};
use crate::serve::Counted;
use crate::system::{Connector, Running, check_embedded, loaded};
use crate::tally::{Ended, Tally};
use crate::usage::Process;
use crate::workload::{Operation, Workload};

/// An open store.
#[derive(Debug)]
pub(crate) struct Bare {
    client: Client,
    directory: TempDir,
}

/// One of those who ask for transactions.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    store: EmbeddedStore,
    rows: Rows,
}

impl Bare {
    /// Opens a store with the data of `workload` below `parent`. `alone`: each transaction has a sync of its own.
    pub(crate) fn start(parent: &Path, workload: Workload, alone: bool) -> anyhow::Result<Self> {
        let (directory, rows) = loaded(parent, workload)?;
        let usual = Options::default();
        let group_commits_max = if alone { 1 } else { usual.group_commits_max };
        let store = EmbeddedStore::open(directory.path(), Options { group_commits_max, ..usual })?;
        Ok(Self { client: Client { store, rows }, directory })
    }
}

impl Running for Bare {
    fn connector(&self) -> Connector {
        Connector::Bare(self.client.clone())
    }

    fn processes(&self) -> Vec<Process> {
        Vec::new()
    }

    fn counted(&mut self) -> anyhow::Result<Counted> {
        let statistics = self.client.store.statistics();
        Ok(Counted {
            syncs: Some(statistics.syncs),
            attempts: Some(statistics.commits + statistics.conflicts),
            conflicts: Some(statistics.conflicts),
            ..Counted::default()
        })
    }

    fn end(self: Box<Self>, tally: &Tally) -> anyhow::Result<()> {
        let Self { client: Client { store, rows }, directory } = *self;
        drop(store);
        check_embedded(&rows, directory.path(), tally)
    }
}

impl Client {
    /// One transaction.
    pub(crate) async fn request(&mut self, id: &str, operation: &Operation) -> anyhow::Result<Ended> {
        run(&self.store, &self.rows, id, operation).await
    }
}

/// Until it commits: reads what changes and that there is no record of the request, writes both.
pub(crate) async fn run(store: &EmbeddedStore, rows: &Rows, id: &str, operation: &Operation) -> anyhow::Result<Ended> {
    let keys = keys(rows, id, operation)?;
    let record = keys[0].clone();
    loop {
        let snapshot = store.snapshot().await?;
        let seen = snapshot.batch_get(&keys).await?;
        let changed = changed(operation, &keys, &seen)?;
        let ended = if changed.is_some() { Ended::Committed } else { Ended::Rejected };
        let mut writes = changed.unwrap_or_default();
        writes.push((record.clone(), Some(rows.record_value(operation, ended == Ended::Committed))));
        let seen_at = snapshot.timestamp();
        let reads = keys.iter().cloned().zip(seen).map(|(key, value)| Read { key, seen_at, value }).collect();
        let commit = Commit { primary: record.clone(), reads, ranges: Vec::new(), writes };
        match store.commit(commit).await? {
            CommitResult::Committed(_) => return Ok(ended),
            CommitResult::Conflict(_) => {}
            CommitResult::Undetermined(why) => anyhow::bail!("undetermined: {why}"),
        }
    }
}

/// What a request reads: its record, what changes, the order if there is one, what is only read.
pub(crate) fn keys(rows: &Rows, id: &str, operation: &Operation) -> anyhow::Result<Vec<Bytes>> {
    let mut keys = vec![rows.record(id, operation)?];
    for change in &operation.changes {
        keys.push(rows.cell(change.cell)?);
    }
    if let Some(order) = &operation.order {
        keys.push(rows.order(&order.key)?);
    }
    for cell in &operation.reads {
        keys.push(rows.cell(*cell)?);
    }
    Ok(keys)
}

type Writes = Vec<(Bytes, Option<Bytes>)>;

/// What to write, if the keys of [`keys`] were seen so. `None` if a number is not there or would fall below zero.
pub(crate) fn changed(operation: &Operation, keys: &[Bytes], seen: &[Option<Bytes>]) -> anyhow::Result<Option<Writes>> {
    let last = 1 + operation.changes.len();
    let mut writes = Vec::with_capacity(keys.len());
    for ((change, key), number) in operation.changes.iter().zip(&keys[1..last]).zip(Rows::numbers(&seen[1..last])?) {
        let Some(after) = number.and_then(|number| number.checked_add_signed(change.by)) else { return Ok(None) };
        writes.push((key.clone(), Some(rows::encode(after)?)));
    }
    if let (Some(order), Some(key)) = (&operation.order, keys.get(last)) {
        writes.push((key.clone(), Some(rows::encode(order.total.unsigned_abs())?)));
    }
    Ok(Some(writes))
}
