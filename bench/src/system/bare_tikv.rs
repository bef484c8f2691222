//! The floor on TiKV: the same reads and writes as plain optimistic transactions of the crate `tikv-client`, in one process
//! with the clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tandem_store_tikv::bare::{BareClient, BareEnd};
use tokio::sync::OnceCell;

use crate::rows::Rows;
use crate::serve::Counted;
use crate::system::bare::{changed, keys};
use crate::system::stores::{Place, Stores};
use crate::system::{Connector, Running};
use crate::tally::{Ended, Tally};
use crate::usage::Process;
use crate::workload::{Operation, Workload};

/// The crate has no limit. A lock that nobody can resolve would keep a client for ever.
const REQUEST_TIME_MAX: Duration = Duration::from_mins(1);

/// Data that clients work on.
#[derive(Debug)]
pub(crate) struct BareOnTikv {
    target: Target,
    place: Place,
}

impl BareOnTikv {
    /// With the data of `workload`.
    pub(crate) fn start(stores: &Arc<Stores>, workload: Workload) -> anyhow::Result<Self> {
        let place = Place::loaded(stores, workload)?;
        Ok(Self { target: Target(Arc::new(Shared::new(place.address(), place.rows()))), place })
    }
}

impl Running for BareOnTikv {
    fn connector(&self) -> Connector {
        Connector::BareTikv(self.target.clone())
    }

    fn processes(&self) -> Vec<Process> {
        self.place.stores().processes()
    }

    fn counted(&mut self) -> anyhow::Result<Counted> {
        let shared = &self.target.0;
        let own = Counted {
            attempts: Some(shared.attempts.load(Ordering::Relaxed)),
            conflicts: Some(shared.conflicts.load(Ordering::Relaxed)),
            ..Counted::default()
        };
        Ok(self.place.stores().counted()?.plus(&own))
    }

    fn end(self: Box<Self>, tally: &Tally) -> anyhow::Result<()> {
        self.place.check(tally)
    }
}

/// What clients need to connect.
#[derive(Clone, Debug)]
pub(crate) struct Target(Arc<Shared>);

struct Shared {
    address: String,
    rows: Rows,
    /// Made by the first client: connections belong to the runtime of whoever made them.
    client: OnceCell<BareClient>,
    attempts: AtomicU64,
    conflicts: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Shared {
    fn new(address: &str, rows: &Rows) -> Self {
        let (attempts, conflicts) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { address: address.to_owned(), rows: rows.clone(), client: OnceCell::new(), attempts, conflicts }
    }
}

impl Target {
    /// For a process that knows only where the data is.
    pub(crate) fn new(address: &str, rows: &Rows) -> Self {
        Self(Arc::new(Shared::new(address, rows)))
    }

    /// One more client. All of them share connections, as the crate means it.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        let shared = &self.0;
        // On the heap: the crate's own future is large.
        let connect = Box::pin(async { anyhow::Ok(BareClient::connect(&shared.address.parse()?).await?) });
        let client = shared.client.get_or_try_init(|| connect).await?.clone();
        Ok(Client { client, shared: Arc::clone(shared) })
    }
}

/// One of those who ask for transactions.
#[derive(Clone)]
pub(crate) struct Client {
    client: BareClient,
    shared: Arc<Shared>,
}

impl Client {
    /// One transaction, until it commits: reads what changes and that there is no record of the request, writes both.
    pub(crate) async fn request(&self, id: &str, operation: &Operation) -> anyhow::Result<Ended> {
        let Shared { rows, attempts, conflicts, .. } = &*self.shared;
        let keys = keys(rows, id, operation)?;
        let record = &keys[0];
        let began = Instant::now();
        while began.elapsed() < REQUEST_TIME_MAX {
            attempts.fetch_add(1, Ordering::Relaxed);
            let mut transaction = self.client.begin().await?;
            let Some(seen) = transaction.batch_get(&keys).await? else {
                conflicts.fetch_add(1, Ordering::Relaxed);
                transaction.give_up().await;
                continue;
            };
            if let Some(earlier) = seen.first().and_then(Option::as_ref) {
                // An attempt of which nobody knew was committed.
                transaction.give_up().await;
                return Rows::ended(earlier);
            }
            let changed = changed(operation, &keys, &seen)?;
            let ended = if changed.is_some() { Ended::Committed } else { Ended::Rejected };
            transaction.put(record, &rows.record_value(operation, ended == Ended::Committed)).await?;
            for (key, value) in changed.unwrap_or_default() {
                transaction.put(&key, &value.unwrap_or_else(Bytes::new)).await?;
            }
            match transaction.commit().await {
                BareEnd::Committed => return Ok(ended),
                // The next attempt sees what became of this one.
                BareEnd::Conflict | BareEnd::Unknown(_) => {
                    conflicts.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        anyhow::bail!("it was not committed within {REQUEST_TIME_MAX:?}")
    }
}
