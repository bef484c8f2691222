//! The stream egress: records in commit order, the latest in memory, all of them in the store.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tandem_model::ids::EgressName;
use tandem_store::keys::{Layout, RowKey};
use tandem_store::{Error, Snapshot, Store, keys, rows};
use tokio::sync::watch;

use crate::runtime::EgressRecord;

/// Records of one egress that are kept in memory for those who follow it closely.
const LATEST_MAX: usize = 1_024;

/// All egresses.
#[derive(Debug, Default)]
pub(crate) struct Egresses(Mutex<HashMap<EgressName, Stream>>);

#[derive(Debug)]
struct Stream {
    changed: watch::Sender<u64>,
    latest: VecDeque<EgressRecord>,
    /// Everything above this sequence is in `latest`, if it was released by this process.
    complete_above: Option<u64>,
}

impl Default for Stream {
    fn default() -> Self {
        Self { changed: watch::Sender::new(0), latest: VecDeque::new(), complete_above: None }
    }
}

impl Egresses {
    fn lock(&self) -> MutexGuard<'_, HashMap<EgressName, Stream>> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit released a record.
    pub(crate) fn released(&self, egress: &EgressName, record: EgressRecord) {
        let mut streams = self.lock();
        let stream = streams.entry(egress.clone()).or_default();
        let sequence = record.sequence;
        stream.complete_above.get_or_insert_with(|| sequence.saturating_sub(1));
        stream.latest.push_back(record);
        if stream.latest.len() > LATEST_MAX
            && let Some(oldest) = stream.latest.pop_front()
        {
            stream.complete_above = Some(oldest.sequence);
        }
        stream.changed.send_replace(sequence);
    }

    /// Told the highest sequence whenever there is a new one.
    pub(crate) fn changed(&self, egress: &EgressName) -> watch::Receiver<u64> {
        self.lock().entry(egress.clone()).or_default().changed.subscribe()
    }

    /// Records above `after`, the oldest first, if no other process releases any.
    pub(crate) async fn read<S: Store>(
        &self,
        store: &S,
        layout: Layout,
        egress: &EgressName,
        after: u64,
        limit: usize,
    ) -> Result<Vec<EgressRecord>, Error> {
        if let Some(records) = self.latest(egress, after, limit) {
            return Ok(records);
        }
        read_stored(&store.snapshot().await?, layout, egress, after, limit).await
    }

    fn latest(&self, egress: &EgressName, after: u64, limit: usize) -> Option<Vec<EgressRecord>> {
        let streams = self.lock();
        let stream = streams.get(egress)?;
        if stream.complete_above.is_none_or(|complete| after < complete) {
            return None;
        }
        Some(stream.latest.iter().filter(|record| record.sequence > after).take(limit).cloned().collect())
    }
}

/// Merges the records of all slots.
pub(crate) async fn read_stored<P: Snapshot>(
    snapshot: &P,
    layout: Layout,
    egress: &EgressName,
    after: u64,
    limit: usize,
) -> Result<Vec<EgressRecord>, Error> {
    let mut records = Vec::new();
    for slot in layout.slots().all() {
        for (row, value) in snapshot.scan(&layout.egresses(slot, egress, after), limit, false).await? {
            let Ok(RowKey::Egress { sequence, .. }) = keys::parse(&row) else {
                return Err(Error::Damaged(format!("row {row:?} is not an egress record")));
            };
            let stored = rows::decode_egress(&value)?;
            records.push(EgressRecord { sequence, flow: stored.flow, payload: stored.payload });
        }
    }
    records.sort_by_key(|record| record.sequence);
    records.truncate(limit);
    Ok(records)
}
