//! What a commit has to do, sorted by how each part is protected. Pure.
//!
//! | part | protected by |
//! | --- | --- |
//! | keys that are written | their locks |
//! | of these, keys that were read ([`Plan::guarded`]) | their locks, from the start of the transaction on; TiKV's own comparison of versions if the start is when they were read, otherwise a read at the start |
//! | keys that were only read | a read at the commit timestamp |
//! | ranges | a read at the commit timestamp, without the keys that are written: those are as if read by key |

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tandem_store::{Commit, Error, KeyRange, RangeRead, Read};

/// A commit, sorted.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Decides about all others. Nothing is written if there is none.
    pub(crate) primary: Bytes,
    /// What is written; the primary comes first.
    pub(crate) writes: Vec<(Bytes, Option<Bytes>)>,
    /// What was read and is written. Each key once.
    pub(crate) guarded: Vec<Read>,
    /// What was read and is not written. Each key once.
    pub(crate) only_read: Vec<Read>,
    /// Ranges that were scanned and in which a key can be.
    pub(crate) ranges: Vec<ScannedRange>,
}

/// A range that was scanned, around the keys that are written in it.
#[derive(Clone, Debug)]
pub(crate) struct ScannedRange {
    /// When it was seen.
    pub(crate) seen_at: Timestamp,
    /// Its parts without the keys that are written.
    pub(crate) parts: Vec<KeyRange>,
    /// The keys in it that are written.
    pub(crate) written: Vec<Bytes>,
}

/// Why there is nothing to do.
#[derive(Debug)]
pub(crate) enum Unplanned {
    /// These keys were seen with different values: it cannot be true at one time.
    Contradiction(Vec<Bytes>),
    /// The caller has broken the contract.
    Invalid(Error),
}

impl Plan {
    /// Sorts a commit.
    pub(crate) fn new(commit: Commit) -> Result<Self, Unplanned> {
        let Commit { primary, reads, ranges, mut writes } = commit;
        let invalid = |why: &str| Unplanned::Invalid(Error::Refused(why.to_owned()));
        let written: BTreeSet<Bytes> = writes.iter().map(|(key, _)| key.clone()).collect();
        if written.len() != writes.len() {
            return Err(invalid("a commit writes a key twice"));
        }
        match writes.iter().position(|(key, _)| *key == primary) {
            Some(place) => writes.swap(0, place),
            None if writes.is_empty() => {}
            None => return Err(invalid("the primary of a commit is not among its writes")),
        }
        let reads = once_each(reads).map_err(Unplanned::Contradiction)?;
        let (guarded, only_read) = reads.into_iter().partition(|read| written.contains(&read.key));
        let ranges = ranges.iter().filter(|read| !read.range.is_empty()).map(|read| around(read, &written)).collect();
        Ok(Self { primary, writes, guarded, only_read, ranges })
    }

    /// Whether nothing has to be read again at the commit timestamp.
    pub(crate) fn is_all_written(&self) -> bool {
        self.only_read.is_empty() && self.ranges.is_empty()
    }

    /// The timestamps at which keys that are protected by locks were seen, in order.
    pub(crate) fn seen_at(&self) -> Vec<Timestamp> {
        let of_ranges = self.ranges.iter().filter(|range| !range.written.is_empty()).map(|range| range.seen_at);
        let all: BTreeSet<Timestamp> = self.guarded.iter().map(|read| read.seen_at).chain(of_ranges).collect();
        all.into_iter().collect()
    }

    /// Whether this key was read at `at` or before.
    pub(crate) fn has_read_at(&self, key: &Bytes, at: Timestamp) -> bool {
        self.guarded.iter().any(|read| read.key == *key && read.seen_at <= at)
            || self.ranges.iter().any(|range| range.seen_at <= at && range.written.contains(key))
    }

    /// Whether anything was read of this key.
    pub(crate) fn has_read(&self, key: &Bytes) -> bool {
        self.guarded.iter().any(|read| read.key == *key) || self.ranges.iter().any(|range| range.written.contains(key))
    }

    /// Bytes of all keys and values that are written.
    pub(crate) fn bytes(&self) -> usize {
        self.writes.iter().map(mutation_bytes).sum()
    }
}

/// Bytes of a key and its value.
pub(crate) fn mutation_bytes((key, value): &(Bytes, Option<Bytes>)) -> usize {
    key.len() + value.as_ref().map_or(0, Bytes::len)
}

/// One read of each key, the last one. `Err` has the keys that were seen with different values.
fn once_each(reads: Vec<Read>) -> Result<Vec<Read>, Vec<Bytes>> {
    let mut by_key: BTreeMap<Bytes, Read> = BTreeMap::new();
    let mut contradictions = Vec::new();
    for read in reads {
        match by_key.get_mut(&read.key) {
            Some(other) if other.value != read.value => contradictions.push(read.key),
            Some(other) if other.seen_at >= read.seen_at => {}
            _ => {
                by_key.insert(read.key.clone(), read);
            }
        }
    }
    if contradictions.is_empty() { Ok(by_key.into_values().collect()) } else { Err(contradictions) }
}

fn around(read: &RangeRead, written: &BTreeSet<Bytes>) -> ScannedRange {
    let inside: Vec<Bytes> = written.range(read.range.bounds()).cloned().collect();
    let mut parts = Vec::with_capacity(inside.len() + 1);
    let mut start = read.range.start.clone();
    for key in &inside {
        parts.push(KeyRange { start, end: Some(key.clone()) });
        start = next_key(key);
    }
    parts.push(KeyRange { start, end: read.range.end.clone() });
    parts.retain(|part| !part.is_empty());
    ScannedRange { seen_at: read.seen_at, parts, written: inside }
}

/// The first key after `key`.
pub(crate) fn next_key(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn read(key: &str, seen_at: u64, value: Option<&str>) -> Read {
        Read { key: bytes(key), seen_at: Timestamp(seen_at), value: value.map(bytes) }
    }

    fn commit(reads: Vec<Read>, ranges: Vec<RangeRead>, writes: &[&str]) -> Commit {
        let writes: Vec<_> = writes.iter().map(|key| (bytes(key), Some(bytes("")))).collect();
        Commit { primary: writes.last().map(|(key, _)| key.clone()).unwrap_or_default(), reads, ranges, writes }
    }

    #[test]
    fn reads_are_sorted_by_what_protects_them() {
        let reads = vec![read("a", 5, None), read("b", 5, Some("1")), read("a", 5, None)];
        let plan = Plan::new(commit(reads, Vec::new(), &["c", "a"])).expect("nothing is wrong with it");
        assert_eq!(plan.primary, bytes("a"));
        assert_eq!(plan.writes[0].0, bytes("a"));
        assert_eq!(plan.guarded, [read("a", 5, None)]);
        assert_eq!(plan.only_read, [read("b", 5, Some("1"))]);
        assert_eq!(plan.seen_at(), [Timestamp(5)]);
        assert!(plan.has_read(&bytes("a")) && !plan.has_read(&bytes("c")));
        assert!(!plan.is_all_written());
    }

    #[test]
    fn keys_that_were_seen_at_different_times_are_told_apart() {
        let reads = vec![read("a", 5, None), read("b", 6, None)];
        let plan = Plan::new(commit(reads, Vec::new(), &["a", "b"])).expect("nothing is wrong with it");
        assert_eq!(plan.seen_at(), [Timestamp(5), Timestamp(6)]);
        assert!(plan.has_read_at(&bytes("a"), Timestamp(5)) && !plan.has_read_at(&bytes("b"), Timestamp(5)));
        assert!(plan.has_read_at(&bytes("b"), Timestamp(6)));
        assert!(plan.is_all_written());
    }

    #[test]
    fn a_contradiction_is_found() {
        let reads = vec![read("a", 5, None), read("a", 6, Some("1"))];
        let unplanned = Plan::new(commit(reads, Vec::new(), &["b"])).expect_err("it cannot be true");
        assert!(matches!(unplanned, Unplanned::Contradiction(keys) if keys == [bytes("a")]));
    }

    #[test]
    fn a_primary_that_is_not_written_is_refused() {
        let mut commit = commit(Vec::new(), Vec::new(), &["b"]);
        commit.primary = bytes("c");
        assert!(matches!(Plan::new(commit), Err(Unplanned::Invalid(Error::Refused(_)))));
    }

    #[test]
    fn a_range_is_cut_around_what_is_written() {
        let range = |start: &str, end: &str| KeyRange { start: bytes(start), end: Some(bytes(end)) };
        let scanned = RangeRead { range: range("b", "e"), seen_at: Timestamp(5) };
        let plan = Plan::new(commit(Vec::new(), vec![scanned], &["a", "b", "d", "e"])).expect("nothing is wrong");
        assert_eq!(plan.ranges[0].parts, [range("b\0", "d"), range("d\0", "e")]);
        assert_eq!(plan.ranges[0].written, [bytes("b"), bytes("d")]);
        assert_eq!(plan.seen_at(), [Timestamp(5)]);
        assert!(plan.has_read(&bytes("d")) && !plan.has_read(&bytes("e")));
    }

    #[test]
    fn a_range_without_keys_is_no_range() {
        let scanned = RangeRead { range: KeyRange { start: bytes("b"), end: Some(bytes("b")) }, seen_at: Timestamp(5) };
        let plan = Plan::new(commit(Vec::new(), vec![scanned], &["a"])).expect("nothing is wrong");
        assert!(plan.is_all_written());
    }
}
