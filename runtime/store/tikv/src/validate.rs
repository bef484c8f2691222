//! Whether what was read is still true at a later time. Values are compared: nothing else counts.

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tandem_model::mechanism::{Mechanism, works};
use tandem_store::{KeyRange, Read};

use crate::cluster::{Cluster, ReadFailure};
use crate::pending::Pending;
use crate::plan::{Plan, ScannedRange};
use crate::read::{self, Patience};
use crate::retry::Deadline;

/// A range that was seen longer ago than this conflicts: the garbage collection may have removed what was seen.
const RANGE_AGE_MAX_MS: u64 = 240_000;

/// Rows of the parts of a range.
type Parts = Vec<Vec<(Bytes, Bytes)>>;

/// What the ranges had when they were seen.
#[derive(Debug)]
pub(crate) struct Seen(Vec<Parts>);

/// Why something is not true any more, or why nobody knows.
#[derive(Debug)]
pub(crate) enum Invalid {
    /// These keys have changed, or are about to.
    Changed(Vec<Bytes>),
    /// A read failed.
    Failed(ReadFailure),
}

impl Invalid {
    /// Locks that do not go at once stand for a change.
    fn of(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Locked(locks) => Self::Changed(locks.into_iter().map(|lock| lock.key).collect()),
            other => Self::Failed(other),
        }
    }
}

/// Reads for a transaction that began at `start`.
#[derive(Debug)]
pub(crate) struct Validator<'a, C> {
    pub(crate) cluster: &'a C,
    pub(crate) pending: &'a Pending,
    pub(crate) start: Timestamp,
    pub(crate) deadline: Deadline,
}

impl<C: Cluster> Validator<'_, C> {
    /// Whether keys that were seen before the transaction begins still have the same values when it does. From there on its
    /// locks guard them: whoever writes them from now on commits after the start, since they were read at the start. Must be
    /// asked before anything is locked. A read just before the start would not do: what is committed in one phase may be
    /// committed at the very timestamp that somebody else was given to start at.
    ///
    /// What was seen at the start or later needs no second look: since it was read, it cannot change at or before the time
    /// at which it was seen, and whatever has changed after the start is in the way of its lock.
    pub(crate) async fn guarded_at_start(&self, plan: &Plan) -> Result<(), Invalid> {
        let mut reads = plan.guarded.clone();
        for range in plan.ranges.iter().filter(|range| range.seen_at < self.start) {
            let values = self.get(range.seen_at, &range.written).await?;
            let keys = range.written.iter().zip(values);
            reads.extend(keys.map(|(key, value)| Read { key: key.clone(), seen_at: range.seen_at, value }));
        }
        reads.retain(|read| read.seen_at < self.start && works(Mechanism::TikvGuards));
        self.keys_at(&reads, self.start).await
    }

    /// Whether the keys have these values.
    pub(crate) async fn keys_at(&self, reads: &[Read], at: Timestamp) -> Result<(), Invalid> {
        let keys: Vec<Bytes> = reads.iter().map(|read| read.key.clone()).collect();
        let values = self.get(at, &keys).await?;
        let changed: Vec<Bytes> = reads
            .iter()
            .zip(&values)
            .filter(|(read, value)| read.value != **value && counts(read))
            .map(|(read, _)| read.key.clone())
            .collect();
        if changed.is_empty() { Ok(()) } else { Err(Invalid::Changed(changed)) }
    }

    /// What the ranges had when they were seen. Does not depend on when the transaction commits.
    pub(crate) async fn seen(&self, plan: &Plan) -> Result<Seen, Invalid> {
        let mut seen = Vec::with_capacity(plan.ranges.len());
        for range in &plan.ranges {
            seen.push(self.parts(range, range.seen_at).await?);
        }
        Ok(Seen(seen))
    }

    /// Whether everything that was only read is as it was seen.
    pub(crate) async fn everything_at(&self, plan: &Plan, seen: &Seen, at: Timestamp) -> Result<(), Invalid> {
        self.keys_at(&plan.only_read, at).await?;
        for (range, before) in plan.ranges.iter().zip(&seen.0).filter(|_| works(Mechanism::TikvRanges)) {
            if at.unix_ms().saturating_sub(range.seen_at.unix_ms()) > RANGE_AGE_MAX_MS {
                return Err(Invalid::Changed(range.parts.iter().map(|part| part.start.clone()).collect()));
            }
            let now = self.parts(range, at).await?;
            let changed: Vec<Bytes> =
                before.iter().zip(&now).flat_map(|(before, now)| differences(before, now)).collect();
            if !changed.is_empty() {
                return Err(Invalid::Changed(changed));
            }
        }
        Ok(())
    }

    async fn parts(&self, range: &ScannedRange, at: Timestamp) -> Result<Parts, Invalid> {
        let mut parts = Vec::with_capacity(range.parts.len());
        for part in &range.parts {
            parts.push(self.scan(at, part).await?);
        }
        Ok(parts)
    }

    async fn get(&self, at: Timestamp, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, Invalid> {
        self.pending.wait_for_keys(keys.iter()).await;
        let patience = Patience::OnlyForLaterThan(self.start);
        read::batch_get(self.cluster, at, keys, patience, self.deadline).await.map_err(Invalid::of)
    }

    async fn scan(&self, at: Timestamp, part: &KeyRange) -> Result<Vec<(Bytes, Bytes)>, Invalid> {
        self.pending.wait_for_range(part).await;
        let patience = Patience::OnlyForLaterThan(self.start);
        let everything = (usize::MAX, false);
        read::scan(self.cluster, at, part, everything, patience, self.deadline).await.map_err(Invalid::of)
    }
}

/// Whether a read is validated. Always.
fn counts(read: &Read) -> bool {
    works(if read.value.is_some() { Mechanism::TikvReads } else { Mechanism::TikvAbsences })
}

/// Keys that are in one only, or have another value in the other. Both are in order.
fn differences(before: &[(Bytes, Bytes)], now: &[(Bytes, Bytes)]) -> Vec<Bytes> {
    let (mut before, mut now) = (before.iter().peekable(), now.iter().peekable());
    let mut changed = Vec::new();
    loop {
        let key = match (before.peek(), now.peek()) {
            (None, None) => return changed,
            (Some((key, _)), None) | (None, Some((key, _))) => key,
            (Some((one, _)), Some((other, _))) => one.min(other),
        };
        let key = key.clone();
        let was = before.next_if(|(other, _)| *other == key);
        let is = now.next_if(|(other, _)| *other == key);
        if was != is {
            changed.push(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[(&'static str, &'static str)]) -> Vec<(Bytes, Bytes)> {
        rows.iter()
            .map(|(key, value)| (Bytes::from_static(key.as_bytes()), Bytes::from_static(value.as_bytes())))
            .collect()
    }

    #[test]
    fn rows_that_came_went_or_changed_are_found() {
        let before = rows(&[("a", "1"), ("b", "1"), ("d", "1")]);
        let now = rows(&[("b", "2"), ("c", "1"), ("d", "1")]);
        assert_eq!(differences(&before, &now), ["a", "b", "c"].map(Bytes::from));
        assert_eq!(differences(&before, &before), Vec::<Bytes>::new());
        assert_eq!(differences(&before, &[]), ["a", "b", "d"].map(Bytes::from));
        assert_eq!(differences(&[], &now), ["b", "c", "d"].map(Bytes::from));
    }
}
