//! Rows of flows that are sealed and perhaps not yet durable, each with the version of its flow.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;

/// A value of a row, and the version that wrote it.
type Version = (u64, Option<Bytes>);

/// Values of one row by version, oldest first.
type Versions = VecDeque<Version>;

/// A small multi-version table above the store.
#[derive(Debug, Default)]
pub(crate) struct SealedRows {
    rows: BTreeMap<Bytes, Versions>,
    /// Every insertion in order, so that both ends can be cut without a scan.
    order: VecDeque<(u64, Bytes)>,
}

impl SealedRows {
    /// Adds a value. Versions must not go down.
    pub(crate) fn insert(&mut self, row: Bytes, version: u64, value: Option<Bytes>) {
        self.rows.entry(row.clone()).or_default().push_back((version, value));
        self.order.push_back((version, row));
    }

    /// The latest value of `row` with `above < version <= until`.
    pub(crate) fn get(&self, row: &Bytes, above: u64, until: u64) -> Option<(u64, Option<Bytes>)> {
        latest(self.rows.get(row)?, above, until)
    }

    /// The same for all rows of a range.
    pub(crate) fn range(
        &self,
        range: (Bound<Bytes>, Bound<Bytes>),
        above: u64,
        until: u64,
    ) -> impl Iterator<Item = (Bytes, u64, Option<Bytes>)> {
        let rows = self.rows.range(range);
        rows.filter_map(move |(row, versions)| {
            latest(versions, above, until).map(|(version, value)| (row.clone(), version, value))
        })
    }

    /// Whether `row` was written by a version above `version`.
    pub(crate) fn is_changed(&self, row: &Bytes, version: u64) -> bool {
        self.rows.get(row).and_then(Versions::back).is_some_and(|(latest, _)| *latest > version)
    }

    /// Rows of a range that were written by a version above `version`.
    pub(crate) fn changed_in(&self, range: (Bound<Bytes>, Bound<Bytes>), version: u64) -> impl Iterator<Item = &Bytes> {
        let changed = move |versions: &Versions| versions.back().is_some_and(|(latest, _)| *latest > version);
        self.rows.range(range).filter(move |(_, versions)| changed(versions)).map(|(row, _)| row)
    }

    /// Forgets all versions up to and including `floor`.
    pub(crate) fn forget_until(&mut self, floor: u64) {
        while self.order.front().is_some_and(|(version, _)| *version <= floor) {
            let Some((_, row)) = self.order.pop_front() else { break };
            self.cut(&row, Versions::pop_front);
        }
    }

    /// Throws away all versions above `version`.
    pub(crate) fn drop_above(&mut self, version: u64) {
        while self.order.back().is_some_and(|(latest, _)| *latest > version) {
            let Some((_, row)) = self.order.pop_back() else { break };
            self.cut(&row, Versions::pop_back);
        }
    }

    /// Number of row versions held.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    fn cut(&mut self, row: &Bytes, pop: fn(&mut Versions) -> Option<Version>) {
        let Some(versions) = self.rows.get_mut(row) else { return };
        pop(versions);
        if versions.is_empty() {
            self.rows.remove(row);
        }
    }
}

fn latest(versions: &Versions, above: u64, until: u64) -> Option<(u64, Option<Bytes>)> {
    let found = versions.iter().rev().find(|(version, _)| *version <= until);
    found.filter(|(version, _)| *version > above).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn filled() -> SealedRows {
        let mut rows = SealedRows::default();
        rows.insert(row("a"), 1, Some(row("a1")));
        rows.insert(row("b"), 2, Some(row("b2")));
        rows.insert(row("a"), 3, None);
        rows
    }

    #[test]
    fn a_view_sees_the_versions_between_its_base_and_itself() {
        let rows = filled();
        assert_eq!(rows.get(&row("a"), 0, 2), Some((1, Some(row("a1")))));
        assert_eq!(rows.get(&row("a"), 0, 3), Some((3, None)));
        assert_eq!(rows.get(&row("a"), 1, 2), None);
        assert_eq!(rows.range((Bound::Unbounded, Bound::Unbounded), 0, 2).count(), 2);
    }

    #[test]
    fn changes_after_a_version_are_found() {
        let rows = filled();
        assert!(rows.is_changed(&row("a"), 2));
        assert!(!rows.is_changed(&row("a"), 3));
        assert_eq!(rows.changed_in((Bound::Unbounded, Bound::Unbounded), 1).count(), 2);
    }

    #[test]
    fn both_ends_can_be_cut() {
        let mut rows = filled();
        rows.forget_until(1);
        assert_eq!(rows.get(&row("a"), 0, 2), None);
        rows.drop_above(2);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows.get(&row("b"), 0, 9), Some((2, Some(row("b2")))));
    }
}
