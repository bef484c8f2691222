//! What a flow read, so that it can be checked whether it is still true.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::{BufMut, Bytes, BytesMut};
use tandem_model::mechanism::{Mechanism, works};
use tandem_store::KeyRange;

use super::sealed::SealedRows;

/// Where a value was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// In the durable snapshot below the view.
    Base,
    /// In a sealed flow of this version.
    Sealed(u64),
}

/// One value, or the absence of one, and where it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) source: Source,
    pub(crate) value: Option<Bytes>,
    /// Version of the view when it was read: nothing sealed later may have changed it.
    pub(crate) at: u64,
}

/// All rows and ranges that the calls of a flow read, rejected calls included: their "no" rests on what they saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadSet {
    rows: HashMap<Bytes, Seen>,
    /// Ranges as seen in the base. Rows that were seen in sealed flows are cut out, and are in `rows`.
    ranges: Vec<SeenRange>,
}

/// A range of the base, and the version of the view when it was scanned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeenRange {
    pub(crate) range: KeyRange,
    pub(crate) at: u64,
}

impl ReadSet {
    /// Notes a row. Of two notes the older view's stays: it is the one that has to hold for the longest. That need not be
    /// the first one that comes, since a read may still be on its way while the view moves to the present.
    pub(crate) fn add(&mut self, row: Bytes, seen: Seen) {
        match self.rows.entry(row) {
            Entry::Occupied(mut noted) if seen.at < noted.get().at => {
                noted.insert(seen);
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(place) => {
                place.insert(seen);
            }
        }
    }

    /// Notes a range, and which of its rows were seen in sealed flows (in key order).
    pub(crate) fn add_range(&mut self, range: KeyRange, at: u64, sealed: Vec<(Bytes, Seen)>) {
        let mut start = range.start;
        for (row, seen) in sealed {
            if start < row {
                let range = KeyRange { start: start.clone(), end: Some(row.clone()) };
                self.ranges.push(SeenRange { range, at });
            }
            start = successor(&row);
            self.add(row, seen);
        }
        if range.end.as_ref().is_none_or(|end| start < *end) {
            self.ranges.push(SeenRange { range: KeyRange { start, end: range.end }, at });
        }
    }

    /// What is known of a row.
    pub(crate) fn get(&self, row: &Bytes) -> Option<&Seen> {
        self.rows.get(row)
    }

    /// All rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&Bytes, &Seen)> {
        self.rows.iter()
    }

    /// All ranges of the base.
    pub(crate) fn ranges(&self) -> &[SeenRange] {
        &self.ranges
    }

    /// Whether nothing of it was seen in a flow that was not durable then.
    pub(crate) fn are_durable(&self) -> bool {
        self.rows.values().all(|seen| seen.source == Source::Base)
    }

    /// Only what is noted of these rows: what snapshot isolation has validated.
    #[must_use]
    pub(crate) fn only(&self, rows: &[Bytes]) -> Self {
        let rows = rows.iter().filter_map(|row| self.rows.get(row).map(|seen| (row.clone(), seen.clone())));
        Self { rows: rows.collect(), ranges: Vec::new() }
    }

    /// Rows of it that a flow wrote which was sealed after they were read.
    pub(crate) fn changed(&self, sealed: &SealedRows) -> Vec<Bytes> {
        let rows = self.rows.iter().filter(|_| works(Mechanism::SealingReads));
        let rows = rows.filter(|(row, seen)| sealed.is_changed(row, seen.at)).map(|(row, _)| row.clone());
        let changed_in =
            |seen: &SeenRange| sealed.changed_in(seen.range.bounds(), seen.at).cloned().collect::<Vec<_>>();
        let in_ranges = self.ranges.iter().filter(|_| works(Mechanism::SealingRanges)).flat_map(changed_in);
        rows.chain(in_ranges).collect()
    }
}

/// The first key behind `row`.
pub(crate) fn successor(row: &Bytes) -> Bytes {
    let mut next = BytesMut::with_capacity(row.len() + 1);
    next.put_slice(row);
    next.put_u8(0);
    next.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn rows_seen_in_sealed_flows_are_cut_out_of_a_range() {
        let mut reads = ReadSet::default();
        let seen = Seen { source: Source::Sealed(7), value: None, at: 8 };
        reads.add_range(KeyRange { start: row("a"), end: Some(row("z")) }, 8, vec![(row("m"), seen.clone())]);
        let after_m = Bytes::from_static(b"m\0");
        let expected =
            [KeyRange { start: row("a"), end: Some(row("m")) }, KeyRange { start: after_m, end: Some(row("z")) }];
        let ranges: Vec<KeyRange> = reads.ranges().iter().map(|seen| seen.range.clone()).collect();
        assert_eq!(ranges, expected);
        assert_eq!(reads.get(&row("m")), Some(&seen));
    }

    #[test]
    fn a_read_that_was_overtaken_by_a_younger_one_still_has_to_hold() {
        let mut reads = ReadSet::default();
        let seen = |at, value| Seen { source: Source::Base, value: Some(row(value)), at };
        reads.add(row("k"), seen(8, "new"));
        reads.add(row("k"), seen(4, "old"));
        reads.add(row("k"), seen(6, "old"));
        let mut sealed = SealedRows::default();
        sealed.insert(row("k"), 5, Some(row("new")));
        assert_eq!(reads.changed(&sealed), [row("k")]);
    }

    #[test]
    fn a_phantom_is_a_change() {
        let mut reads = ReadSet::default();
        reads.add_range(KeyRange { start: row("a"), end: Some(row("z")) }, 4, Vec::new());
        let mut sealed = SealedRows::default();
        sealed.insert(row("k"), 4, Some(row("seen")));
        assert!(reads.changed(&sealed).is_empty());
        sealed.insert(row("k"), 5, Some(row("new")));
        assert_eq!(reads.changed(&sealed), [row("k")]);
    }
}
