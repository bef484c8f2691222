//! All versions of all rows, and what a commit is judged by: the part that the stores in memory share.
//!
//! **Invariant:** the versions of a row are in the order of their timestamps.

use std::collections::BTreeMap;

use bytes::Bytes;
use tandem_model::ids::Timestamp;

use crate::{Commit, KeyRange};

/// Every version of every row since the beginning.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Versions by key, oldest first. `None` is a deletion.
    versions: BTreeMap<Bytes, Vec<(Timestamp, Option<Bytes>)>>,
    last: Timestamp,
}

impl History {
    /// The timestamp that was handed out last.
    pub(crate) fn last(&self) -> Timestamp {
        self.last
    }

    /// How many keys were ever written.
    pub(crate) fn keys(&self) -> usize {
        self.versions.len()
    }

    /// What `commit` has read and is not true any more. Empty if it may be applied.
    pub(crate) fn conflicts(&self, commit: &Commit) -> Vec<Bytes> {
        let newest = |versions: &Vec<(Timestamp, Option<Bytes>)>| versions.last().map(|(at, _)| *at);
        let reads = commit.reads.iter().filter(|read| {
            let version = self.versions.get(&read.key).and_then(newest);
            version.is_some_and(|version| version > read.seen_at)
        });
        let keys = reads.map(|read| read.key.clone());
        let ranges = commit.ranges.iter().filter(|read| !read.range.is_empty()).flat_map(|read| {
            let rows = self.versions.range(read.range.bounds());
            let changed = rows.filter(|(_, versions)| newest(versions).is_some_and(|version| version > read.seen_at));
            changed.map(|(key, _)| key.clone())
        });
        keys.chain(ranges).collect()
    }

    /// Hands out the next timestamp: the wall time, unless that would go backwards.
    pub(crate) fn next_timestamp(&mut self, unix_ms: u64) -> Timestamp {
        self.last = super::next_timestamp(self.last, unix_ms);
        self.last
    }

    /// Writes at a timestamp that was handed out, and after which none of these rows was written.
    pub(crate) fn write(&mut self, at: Timestamp, writes: Vec<(Bytes, Option<Bytes>)>) {
        for (key, value) in writes {
            self.versions.entry(key).or_default().push((at, value));
        }
    }

    /// The value of a row in the view at a timestamp.
    pub(crate) fn get(&self, key: &Bytes, at: Timestamp) -> Option<Bytes> {
        visible(self.versions.get(key)?, at)
    }

    /// All rows as they are now, in key order, each with the timestamp at which it was written.
    pub(crate) fn versioned_rows(&self) -> impl Iterator<Item = (Timestamp, Bytes, Bytes)> + '_ {
        self.versions.iter().filter_map(|(key, versions)| {
            let (at, value) = versions.last()?;
            Some((*at, key.clone(), value.clone()?))
        })
    }

    /// Rows of a range in the view at a timestamp, in key order.
    pub(crate) fn rows(&self, range: &KeyRange, at: Timestamp) -> impl DoubleEndedIterator<Item = (Bytes, Bytes)> + '_ {
        let rows = (!range.is_empty()).then(|| self.versions.range(range.bounds()));
        let rows = rows.into_iter().flatten();
        rows.filter_map(move |(key, versions)| Some((key.clone(), visible(versions, at)?)))
    }

    /// The first rows of a range, or the last.
    pub(crate) fn scan(&self, range: &KeyRange, at: Timestamp, limit: usize, reverse: bool) -> Vec<(Bytes, Bytes)> {
        let rows = self.rows(range, at);
        if reverse { rows.rev().take(limit).collect() } else { rows.take(limit).collect() }
    }
}

fn visible(versions: &[(Timestamp, Option<Bytes>)], at: Timestamp) -> Option<Bytes> {
    let later = versions.partition_point(|(version, _)| *version <= at);
    versions.get(later.checked_sub(1)?)?.1.clone()
}
