//! Processes on a simulated TiKV cluster without faults but those that a test orders. Time must be paused.

use std::time::Duration;

use bytes::Bytes;
use tandem_store::conformance::Transaction;
use tandem_store::{CommitResult, Error, Snapshot, Store};
use tandem_store_tikv::retry::Timeouts;
use tandem_store_tikv::simulated::{Action, Call, Shape, SimulatedClient, SimulatedCluster};
use tandem_store_tikv::store::ClusterStore;
use tokio::time::sleep;

/// The store under test.
pub(crate) type Tested = ClusterStore<SimulatedClient>;

/// A cluster of two stores with regions that end at these keys.
pub(crate) fn cluster(borders: &[&'static str]) -> SimulatedCluster {
    let borders = borders.iter().map(|border| (*border).into()).collect();
    SimulatedCluster::new(0, &Shape { stores: 2, borders })
}

/// A process.
pub(crate) fn process(cluster: &SimulatedCluster) -> Tested {
    ClusterStore::new(cluster.process(), Timeouts::default())
}

/// Lets something happen to a request of a process, after `skip` others of the kind.
pub(crate) fn order(store: &Tested, call: Call, skip: u32, action: Action) {
    let client = store.cluster();
    client.cluster().order(client.process(), call, skip, action);
}

/// Waits in virtual time.
pub(crate) async fn wait_ms(ms: u64) {
    sleep(Duration::from_millis(ms)).await;
}

/// Writes rows in one transaction that reads nothing; the first is the primary.
pub(crate) async fn put(store: &Tested, rows: &[(&str, &str)]) -> Result<CommitResult, Error> {
    let mut transaction = Transaction::begin(store).await;
    for (key, value) in rows {
        transaction = transaction.put(key, value);
    }
    transaction.end().await
}

/// What a key has now.
pub(crate) async fn now(store: &Tested, key: &str) -> Option<String> {
    let view = store.snapshot().await.unwrap();
    let value = view.get(&Bytes::copy_from_slice(key.as_bytes())).await.unwrap();
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

/// Whether it is committed.
pub(crate) fn is_committed(result: &Result<CommitResult, Error>) -> bool {
    matches!(result, Ok(CommitResult::Committed(_)))
}

/// Whether somebody was told that it is not applied, and never will be.
pub(crate) fn is_rejected(result: &Result<CommitResult, Error>) -> bool {
    matches!(result, Ok(CommitResult::Conflict(_)) | Err(_))
}
