//! PD and three stores that speak TiKV's protocol, as processes of the benchmark, with places for the data of some systems.
//!
//! The stores are test stores, not TiKV. `TANDEM_PD_ENDPOINTS` names a real cluster to be measured instead; then nothing is
//! counted of its processes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tandem_e2e_tikv::binaries::builder;
use tandem_e2e_tikv::{Cluster, Options, slots};
use tandem_store_tikv::TikvStore;
use tandem_store_tikv::options::Options as StoreOptions;
use tempfile::TempDir;

use crate::rows::{Loading, Rows};
use crate::serve::Counted;
use crate::system::block_on;
use crate::tally::Tally;
use crate::usage::Process;
use crate::workload::Workload;

/// Regions of each place are cut when the cluster is made, so the number of places is fixed then.
pub(crate) const PLACES: usize = 4;
/// All keys begin with it. The test store wants one first byte for all, and takes some keys with `t` for rows of TiDB, whose
/// values it would write anew.
const PREFIX: &str = "m";
/// A port may be taken by somebody else between looking for it and using it.
const ATTEMPTS: usize = 3;

/// A running cluster.
#[derive(Debug)]
pub(crate) struct Stores {
    cluster: Cluster,
    /// What the names of places begin with.
    run: String,
    taken: AtomicUsize,
    // Removed when the processes are gone.
    _directory: Option<TempDir>,
}

/// Whether there can be a cluster: it is built if that was never done. Otherwise a word about why it is left out.
pub(crate) fn are_there() -> bool {
    if Cluster::of_environment().is_some() {
        return true;
    }
    match builder().build() {
        Ok(_) => true,
        Err(error) => {
            eprintln!("stores that speak TiKV's protocol cannot be had here, so they are left out: {error}");
            false
        }
    }
}

/// What a reader has to know about the stores.
pub(crate) fn described() -> String {
    match Cluster::of_environment() {
        Some(_) => "a cluster that was there before".to_owned(),
        None => "3 test stores (not TiKV, no Raft) and a real PD, on the same machine".to_owned(),
    }
}

impl Stores {
    /// Starts a cluster with its data below `parent`, or takes the one of the environment.
    pub(crate) fn start(parent: &Path, regions: u16) -> anyhow::Result<Arc<Self>> {
        if let Some(cluster) = Cluster::of_environment() {
            let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
            let run = format!("{PREFIX}-bench-{:x}-", since.as_nanos());
            return Ok(Arc::new(Self { cluster, run, taken: AtomicUsize::new(0), _directory: None }));
        }
        let run = PREFIX.to_owned();
        let mut attempt = 1;
        loop {
            let directory = tempfile::tempdir_in(parent.canonicalize()?)?;
            let mut options = Options { directory: Some(directory.path().to_owned()), ..Options::default() };
            for place in 0..PLACES {
                let store: StoreOptions = address(&["localhost".to_owned()], &run, place).parse()?;
                options.splits.extend(slots::cuts(&store.rows_prefix(), slots::SLOTS, regions));
            }
            match block_on(async { Ok(Cluster::start(options).await?) }) {
                Ok(cluster) => {
                    let taken = AtomicUsize::new(0);
                    return Ok(Arc::new(Self { cluster, run, taken, _directory: Some(directory) }));
                }
                Err(error) if attempt == ATTEMPTS => return Err(error.context("the stores did not start")),
                Err(_) => attempt += 1,
            }
        }
    }

    /// The processes, if they are ours.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let pd = self.cluster.pd_process().map(|id| Process::alone("pd", id));
        let stores = self.cluster.store_processes().into_iter().map(|id| Process::alone("store", id));
        pd.into_iter().chain(stores).collect()
    }

    /// What the stores have counted, if they are ours.
    pub(crate) fn counted(&self) -> anyhow::Result<Counted> {
        if self.cluster.is_outside() {
            return Ok(Counted::default());
        }
        let figures = block_on(async { Ok(self.cluster.all_figures().await?) })?;
        Ok(Counted {
            syncs: Some(figures.log_writes),
            stored_bytes: Some(figures.batch_bytes),
            store_requests: Some(figures.requests.values().sum()),
            ..Counted::default()
        })
    }
}

fn address(endpoints: &[String], run: &str, place: usize) -> String {
    format!("tikv://{}/{run}{place}", endpoints.join(","))
}

/// The data of one system in a cluster.
#[derive(Debug)]
pub(crate) struct Place {
    stores: Arc<Stores>,
    address: String,
    rows: Rows,
}

impl Place {
    /// A place where nothing was before, with what `workload` has at first.
    pub(crate) fn loaded(stores: &Arc<Stores>, workload: Workload) -> anyhow::Result<Self> {
        let number = stores.taken.fetch_add(1, Ordering::Relaxed);
        let place = Self {
            stores: Arc::clone(stores),
            address: address(&stores.cluster.pd_endpoints(), &stores.run, number),
            rows: Rows::new(workload)?,
        };
        block_on(async { place.rows.load(&open(&place.address).await?, Loading::INTO_STORES).await })?;
        Ok(place)
    }

    /// As `--store` takes it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The rows that it holds.
    pub(crate) fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The cluster that it lies in.
    pub(crate) fn stores(&self) -> &Stores {
        &self.stores
    }

    /// Compares all that is stored with what was acknowledged.
    pub(crate) fn check(&self, tally: &Tally) -> anyhow::Result<()> {
        block_on(async { self.rows.check(&open(&self.address).await?, tally).await })
    }
}

/// Opens the store at an address.
pub(crate) async fn open(address: &str) -> anyhow::Result<TikvStore> {
    Ok(TikvStore::open(&address.parse()?).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_installations_that_do_not_contain_each_other() {
        let endpoints = ["a:1".to_owned(), "b:2".to_owned()];
        let of = |place| address(&endpoints, PREFIX, place).parse::<StoreOptions>().unwrap();
        assert_eq!(of(0).endpoints, endpoints);
        let prefixes: Vec<Vec<u8>> = (0..PLACES).map(|place| of(place).rows_prefix()).collect();
        for (one, prefix) in prefixes.iter().enumerate() {
            assert_eq!(prefix[0], b'm', "the test store keeps notes below the next first byte");
            let others = prefixes.iter().enumerate().filter(|(other, _)| *other != one);
            assert!(others.into_iter().all(|(_, other)| !other.starts_with(prefix)));
        }
    }
}
