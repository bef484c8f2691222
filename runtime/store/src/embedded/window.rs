//! Which keys changed, and when: what a commit is validated against.
//!
//! **Invariant:** every key that was committed after the floor is in it, with the timestamp of its last commit.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tandem_model::ids::Timestamp;

use crate::Commit;

/// Recently committed keys.
#[derive(Debug)]
pub(super) struct Window {
    /// Reads from views before this cannot be judged: what changed until here has been forgotten.
    floor: Timestamp,
    changed: BTreeMap<Bytes, Timestamp>,
    /// The same in the order of time. A key that was committed again is in it more than once.
    by_time: VecDeque<(Timestamp, Bytes)>,
    keys_max: usize,
    bytes: usize,
}

/// Keys are up to some kilobytes long; this bounds the memory of the window where they are.
const BYTES_MAX: usize = 64 << 20;
/// Even what no live view is older than is remembered for a while, because a flow may have let go of its view before it
/// commits: so much of the bound is kept for that.
const KEPT_FRACTION: usize = 4;

impl Window {
    pub(super) fn new(floor: Timestamp, keys_max: usize) -> Self {
        Self { floor, changed: BTreeMap::new(), by_time: VecDeque::new(), keys_max: keys_max.max(1), bytes: 0 }
    }

    /// What `commit` has read and is not true any more. Empty if it may be applied.
    pub(super) fn conflicts(&self, commit: &Commit) -> Vec<Bytes> {
        let changed_after = |key: &Bytes, seen_at: Timestamp| {
            seen_at < self.floor || self.changed.get(key).is_some_and(|changed| *changed > seen_at)
        };
        let reads = commit.reads.iter().filter(|read| changed_after(&read.key, read.seen_at));
        let mut conflicts: Vec<Bytes> = reads.map(|read| read.key.clone()).collect();
        for read in commit.ranges.iter().filter(|read| !read.range.is_empty()) {
            if read.seen_at < self.floor {
                conflicts.push(read.range.start.clone());
                continue;
            }
            let in_range = self.changed.range(read.range.bounds());
            conflicts.extend(in_range.filter(|(_, changed)| **changed > read.seen_at).map(|(key, _)| key.clone()));
        }
        conflicts
    }

    /// Remembers that `key` changed at `at`, which must not be before what was recorded last.
    pub(super) fn record(&mut self, key: Bytes, at: Timestamp) {
        self.bytes += key.len();
        self.changed.insert(key.clone(), at);
        self.by_time.push_back((at, key));
    }

    /// Forgets what no view needs, and more than that where the bound is exceeded: then older views can only conflict.
    pub(super) fn forget(&mut self, oldest_live: Timestamp) {
        while let Some((at, _)) = self.by_time.front() {
            let needed = *at > oldest_live;
            let exceeds = |part: usize| self.by_time.len() > self.keys_max / part || self.bytes > BYTES_MAX / part;
            if !exceeds(if needed { 1 } else { KEPT_FRACTION }) {
                break;
            }
            let at = *at;
            // All keys of one commit go together, so that the floor is a whole commit.
            while let Some((_, key)) = self.by_time.pop_front_if(|(same, _)| *same == at) {
                self.bytes -= key.len();
                if self.changed.get(&key) == Some(&at) {
                    self.changed.remove(&key);
                }
            }
            self.floor = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyRange, RangeRead, Read};

    fn read(key: &'static str, seen_at: u64) -> Commit {
        let read = Read { key: Bytes::from_static(key.as_bytes()), seen_at: Timestamp(seen_at), value: None };
        Commit { reads: vec![read], ..Commit::default() }
    }

    fn range(prefix: &str, seen_at: u64) -> Commit {
        let range = RangeRead { range: KeyRange::prefix(prefix.as_bytes()), seen_at: Timestamp(seen_at) };
        Commit { ranges: vec![range], ..Commit::default() }
    }

    fn window(keys_max: usize, until: u64) -> Window {
        let mut window = Window::new(Timestamp(100), keys_max);
        for at in 101..=until {
            window.record(Bytes::from(format!("k{at}")), Timestamp(at));
        }
        window
    }

    #[test]
    fn a_key_conflicts_only_with_views_before_its_change() {
        let window = window(10, 103);
        assert_eq!(window.conflicts(&read("k102", 101)), [Bytes::from("k102")]);
        assert!(window.conflicts(&read("k102", 102)).is_empty());
        assert!(window.conflicts(&read("other", 100)).is_empty());
        assert_eq!(window.conflicts(&range("k10", 101)).len(), 2);
        assert!(window.conflicts(&range("k2", 100)).is_empty());
    }

    #[test]
    fn a_view_before_the_floor_always_conflicts() {
        let window = window(10, 103);
        assert_eq!(window.conflicts(&read("other", 99)).len(), 1);
        assert_eq!(window.conflicts(&range("other", 99)).len(), 1);
    }

    #[test]
    fn the_bound_holds_even_if_a_view_stays() {
        let mut window = window(10, 150);
        window.forget(Timestamp(100));
        assert_eq!((window.changed.len(), window.by_time.len()), (10, 10));
        assert_eq!(window.floor, Timestamp(140));
        assert_eq!(window.conflicts(&read("k105", 139)).len(), 1, "what was forgotten must conflict");
        assert!(window.conflicts(&read("k105", 140)).is_empty());
    }

    #[test]
    fn what_no_view_needs_is_forgotten_but_for_a_part() {
        let mut window = window(40, 150);
        window.forget(Timestamp(145));
        assert_eq!(window.by_time.len(), 10);
        assert_eq!(window.bytes, 40, "ten keys of four bytes");
    }

    #[test]
    fn a_key_that_changed_again_stays_when_its_first_change_is_forgotten() {
        let mut window = Window::new(Timestamp(0), 2);
        for (key, at) in [("hot", 1), ("a", 2), ("hot", 3)] {
            window.record(Bytes::from(key), Timestamp(at));
        }
        window.forget(Timestamp(0));
        assert_eq!(window.floor, Timestamp(1));
        assert_eq!(window.conflicts(&read("hot", 2)).len(), 1);
    }
}
