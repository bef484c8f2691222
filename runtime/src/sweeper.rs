//! Removes what is kept only for a time: request records after their retention, egress records after theirs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tandem_model::mechanism::{Mechanism, works};
use tandem_model::slot::Slot;
use tandem_store::{Commit, CommitResult, Error, Read, Snapshot, Store, rows};
use tracing::{debug, warn};

use crate::engine::Engine;
use crate::metrics::Expired;

/// Slots looked at in one step.
const SLOTS_A_STEP: usize = 16;
/// Wait between two steps: all 1024 slots are seen about once in five minutes.
const STEP_INTERVAL: Duration = Duration::from_secs(5);
/// Rows looked at in one slot in one step. A slot with more is continued in the next round.
const ROWS_A_SLOT_MAX: usize = 10_000;
/// Rows removed by one transaction.
const REMOVALS_MAX: usize = 500;

/// Goes round the slots.
pub(crate) struct Sweeper<S: Store> {
    engine: Arc<Engine<S>>,
    next: usize,
}

impl<S: Store> Sweeper<S> {
    pub(crate) fn new(engine: Arc<Engine<S>>) -> Self {
        Self { engine, next: 0 }
    }

    /// Sweeps until the engine stops.
    pub(crate) async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                () = self.engine.stop.cancelled() => return,
                () = tokio::time::sleep(STEP_INTERVAL) => {}
            }
            let slots: Vec<Slot> = self.engine.layout.slots().all().skip(self.next).take(SLOTS_A_STEP).collect();
            self.next = if slots.len() < SLOTS_A_STEP { 0 } else { self.next + SLOTS_A_STEP };
            for slot in slots {
                if let Err(error) = self.sweep(slot).await {
                    warn!(%error, %slot, "failed to remove expired rows");
                    break;
                }
            }
        }
    }

    /// Removes what has expired in one slot. Returns how many rows.
    pub(crate) async fn sweep(&self, slot: Slot) -> Result<usize, Error> {
        let snapshot = self.engine.store.snapshot().await?;
        let (layout, now) = (self.engine.layout, self.engine.clock.unix_ms());
        let topology = self.engine.topology.load_full();
        let (mut requests, mut egresses) = (Vec::new(), Vec::new());
        for (row, value) in snapshot.scan(&layout.requests(slot), ROWS_A_SLOT_MAX, false).await? {
            let record = rows::decode_record(&value)?;
            let ended_unix_ms = record.accepted_unix_ms + record.duration_us / 1_000;
            if ended_unix_ms.saturating_add(topology.retention_ms) < now || !works(Mechanism::Retention) {
                requests.push((row, value));
            }
        }
        for (name, egress) in &topology.egresses {
            for (row, value) in snapshot.scan(&layout.egresses(slot, name, 0), ROWS_A_SLOT_MAX, false).await? {
                let emitted_unix_ms = rows::decode_egress(&value)?.emitted_unix_ms;
                if emitted_unix_ms.saturating_add(egress.stream_retention_ms) >= now {
                    break;
                }
                egresses.push((row, value));
            }
        }
        let mut removed = 0;
        for (kind, expired) in [(Expired::Request, requests), (Expired::Egress, egresses)] {
            for rows in expired.chunks(REMOVALS_MAX) {
                if self.remove(&snapshot, rows).await? {
                    self.engine.metrics.expired(kind, rows.len());
                    removed += rows.len();
                }
            }
        }
        debug!(%slot, rows = removed, "swept");
        Ok(removed)
    }

    /// Whether they are gone, as far as the store says. What could not be removed now is found again in the next round.
    async fn remove(&self, snapshot: &S::Snapshot, rows: &[(Bytes, Bytes)]) -> Result<bool, Error> {
        let seen_at = snapshot.timestamp();
        let read = |(row, value): &(Bytes, Bytes)| Read { key: row.clone(), seen_at, value: Some(value.clone()) };
        let commit = Commit {
            primary: rows.first().map(|(row, _)| row.clone()).unwrap_or_default(),
            reads: rows.iter().map(read).collect(),
            ranges: Vec::new(),
            writes: rows.iter().map(|(row, _)| (row.clone(), None)).collect(),
        };
        Ok(matches!(self.engine.store.commit(commit).await?, CommitResult::Committed(_)))
    }
}
