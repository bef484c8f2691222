//! What one attempt of a flow reads through: a durable snapshot, and sealed rows on top of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tandem_model::mechanism::{Mechanism, works};
use tandem_store::{Error, KeyRange, Snapshot, Store};

use super::reads::{Seen, Source, successor};
use super::{Partition, ReadSet};

/// A consistent view at one point of the order of flows. While it is open the rows it needs are kept.
pub(crate) struct View<S: Store> {
    partition: Arc<Partition<S>>,
    base: S::Snapshot,
    /// Versions up to here are in the base.
    base_version: u64,
    /// Versions up to here are visible.
    version: AtomicU64,
    epoch: u64,
    /// Whether sealed rows are visible; they are not in views for read-only flows.
    live: bool,
    /// Rows of the base that were read before anybody asked for them. The base never changes.
    ahead: OnceLock<HashMap<Bytes, Option<Bytes>>>,
}

/// What a scan found.
#[derive(Debug)]
pub(crate) struct Scanned {
    /// Rows in the order asked for.
    pub(crate) rows: Vec<(Bytes, Bytes)>,
    /// It stopped at the limit.
    pub(crate) more: bool,
}

/// What to scan.
#[derive(Debug)]
pub(crate) struct ScanRequest {
    /// Which rows.
    pub(crate) range: KeyRange,
    /// How many at most.
    pub(crate) limit: usize,
    /// From the last row down.
    pub(crate) reverse: bool,
    /// The flow's own writes in the range.
    pub(crate) own: BTreeMap<Bytes, Option<Bytes>>,
}

impl<S: Store> Partition<S> {
    /// A view of everything that was sealed before this call.
    pub(crate) async fn view(self: &Arc<Self>) -> Result<View<S>, Error> {
        let base_version = self.enter();
        let opened = self.store().snapshot().await;
        let base = match opened {
            Ok(base) => base,
            Err(error) => {
                self.leave(base_version, false);
                return Err(error);
            }
        };
        let mut inner = self.lock();
        inner.live_views += 1;
        let (version, epoch) = (AtomicU64::new(inner.next_version - 1), inner.epoch);
        drop(inner);
        let ahead = OnceLock::new();
        Ok(View { partition: Arc::clone(self), base, base_version, version, epoch, live: true, ahead })
    }

    /// A view of a durable snapshot alone, for flows that only read.
    pub(crate) fn durable_view(self: &Arc<Self>, base: S::Snapshot) -> View<S> {
        let base_version = self.enter();
        View {
            partition: Arc::clone(self),
            base,
            base_version,
            version: AtomicU64::new(base_version),
            epoch: 0,
            live: false,
            ahead: OnceLock::new(),
        }
    }

    fn enter(&self) -> u64 {
        let mut inner = self.lock();
        let version = inner.durable_version;
        *inner.views.entry(version).or_default() += 1;
        version
    }

    fn leave(&self, base_version: u64, live: bool) {
        let mut inner = self.lock();
        if live {
            inner.live_views -= 1;
            // Whoever gathers a group may have waited for this flow.
            self.work.notify_one();
        }
        if let Some(count) = inner.views.get_mut(&base_version) {
            *count -= 1;
            if *count == 0 {
                inner.views.remove(&base_version);
                let floor = inner.floor();
                inner.sealed.forget_until(floor);
            }
        }
    }
}

impl<S: Store> Drop for View<S> {
    fn drop(&mut self) {
        self.partition.leave(self.base_version, self.live);
    }
}

impl<S: Store> View<S> {
    /// The snapshot below.
    pub(crate) fn base(&self) -> &S::Snapshot {
        &self.base
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Moves the view to the present, if everything that was read so far is still so; else says what has changed.
    ///
    /// Waiting for a turn would be in vain without it. What is being read at this moment is noted with the version it
    /// is read at, and validated by it. (The idea is the timestamp extension of Riegel, Felber and Fetzer, "A Lazy
    /// Snapshot Algorithm with Eager Validation", 2006.)
    pub(crate) fn extend(&self, reads: &ReadSet) -> Result<(), Vec<Bytes>> {
        let inner = self.partition.lock();
        let changed = if inner.epoch == self.epoch { reads.changed(&inner.sealed) } else { Vec::new() };
        if changed.is_empty() || !works(Mechanism::ViewExtension) {
            self.version.store(inner.next_version - 1, Ordering::Release);
            return Ok(());
        }
        Err(changed)
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether sealed flows that it may have seen were thrown away: nothing that is read through it can be sealed.
    pub(crate) fn is_void(&self) -> bool {
        self.partition.lock().epoch != self.epoch
    }

    /// Reads rows that will be asked for, with one batch read of the store, so that nobody has to wait for each. Nothing of
    /// it counts as read before somebody asks for it. Only the first call does something.
    pub(crate) async fn read_ahead(&self, rows: &[Bytes]) -> Result<(), Error> {
        let sealed = self.read_sealed(rows, self.version());
        let missing = rows.iter().zip(&sealed).filter(|(_, seen)| seen.is_none());
        let missing: Vec<Bytes> = missing.map(|(row, _)| row.clone()).collect();
        let values = self.base.batch_get(&missing).await?;
        // Who was first has read as much.
        let _ = self.ahead.set(missing.into_iter().zip(values).collect());
        Ok(())
    }

    /// Reads rows, in their order, with at most one batch read of the store.
    pub(crate) async fn read(&self, rows: &[Bytes]) -> Result<Vec<Seen>, Error> {
        let version = self.version();
        let mut found = self.read_sealed(rows, version);
        let in_base = |value: Option<Bytes>| Some(Seen { source: Source::Base, value, at: version });
        if let Some(ahead) = self.ahead.get() {
            for (seen, row) in found.iter_mut().zip(rows).filter(|(seen, _)| seen.is_none()) {
                *seen = ahead.get(row).and_then(|value| in_base(value.clone()));
            }
        }
        let missing: Vec<Bytes> =
            rows.iter().zip(&found).filter(|(_, seen)| seen.is_none()).map(|(row, _)| row.clone()).collect();
        let mut values = match missing.as_slice() {
            [] => Vec::new(),
            [row] => vec![self.base.get(row).await?],
            rows => self.base.batch_get(rows).await?,
        }
        .into_iter();
        for seen in found.iter_mut().filter(|seen| seen.is_none()) {
            *seen = in_base(values.next().flatten());
        }
        Ok(found.into_iter().flatten().collect())
    }

    fn read_sealed(&self, rows: &[Bytes], at: u64) -> Vec<Option<Seen>> {
        if !self.live {
            return vec![None; rows.len()];
        }
        let inner = self.partition.lock();
        let sealed = rows.iter().map(|row| inner.sealed.get(row, self.base_version, at));
        let seen =
            sealed.map(|found| found.map(|(version, value)| Seen { source: Source::Sealed(version), value, at }));
        seen.collect()
    }

    /// Scans rows, the flow's own writes included, and notes in `reads` exactly the range that was looked at.
    pub(crate) async fn scan(&self, request: ScanRequest, reads: &mut ReadSet) -> Result<Scanned, Error> {
        let version = self.version();
        let sealed = self.scan_sealed(&request.range, version);
        let patches = sealed.len() + request.own.len();
        // Each patch hides at most one row of the base, so this many base rows are enough for a full page.
        let wanted = request.limit.saturating_add(patches).saturating_add(1);
        let base = self.base.scan(&request.range, wanted, request.reverse).await?;
        let mut merged: BTreeMap<Bytes, Option<Bytes>> =
            base.into_iter().map(|(row, value)| (row, Some(value))).collect();
        merged.extend(sealed.iter().map(|(row, seen)| (row.clone(), seen.value.clone())));
        merged.extend(request.own);
        let present = merged.into_iter().filter_map(|(row, value)| value.map(|value| (row, value)));
        let mut rows: Vec<(Bytes, Bytes)> = if request.reverse {
            present.rev().take(request.limit + 1).collect()
        } else {
            present.take(request.limit + 1).collect()
        };
        let more = rows.len() > request.limit;
        rows.truncate(request.limit);
        let seen = seen_range(request.range, rows.last().filter(|_| more).map(|(row, _)| row), request.reverse);
        let sealed = sealed.into_iter().filter(|(row, _)| seen.contains(row)).collect();
        reads.add_range(seen, version, sealed);
        Ok(Scanned { rows, more })
    }

    fn scan_sealed(&self, range: &KeyRange, at: u64) -> Vec<(Bytes, Seen)> {
        if !self.live {
            return Vec::new();
        }
        let inner = self.partition.lock();
        let rows = inner.sealed.range(range.bounds(), self.base_version, at);
        rows.map(|(row, version, value)| (row, Seen { source: Source::Sealed(version), value, at })).collect()
    }
}

/// The part of `range` that a scan which stopped at `last` has looked at.
fn seen_range(range: KeyRange, last: Option<&Bytes>, reverse: bool) -> KeyRange {
    match last {
        None => range,
        Some(last) if reverse => KeyRange { start: last.clone(), end: range.end },
        Some(last) => KeyRange { start: range.start, end: Some(successor(last)) },
    }
}
