//! The hash from an instance's key to its slot. A format: it never changes once data is stored.

use std::fmt;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use crate::ids::Key;

/// A slot number, `0..slots`. All rows of an instance lie in the slot of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(u16);

impl Slot {
    /// Wraps a number that came from [`SlotCount::slot_of`] or from a row key.
    pub fn new(slot: u16) -> Self {
        Self(slot)
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many slots the data of a runtime is laid out in. Fixed for ever once data is stored; 1024 by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotCount(NonZeroU16);

impl Default for SlotCount {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl SlotCount {
    /// 1024 slots.
    pub const DEFAULT: Self = Self(NonZeroU16::new(1024).expect("1024 is not zero"));

    /// `None` if `count` is zero.
    pub fn new(count: u16) -> Option<Self> {
        NonZeroU16::new(count).map(Self)
    }

    /// The number of slots.
    pub fn get(self) -> u16 {
        self.0.get()
    }

    /// The slot of `key`: the 64-bit XXH3 (seed 0) of its hash part, modulo the number of slots.
    ///
    /// Of the key alone: instances of different functions with the same key share a slot, so that a flow over them
    /// commits in one place. See [`hash_part`] for keys with a `{tag}`.
    pub fn slot_of(self, key: &Key) -> Slot {
        let hash = xxhash_rust::xxh3::xxh3_64(hash_part(key.as_str()).as_bytes());
        let slot = hash % u64::from(self.0.get());
        Slot(u16::try_from(slot).expect("a value below a u16 fits a u16"))
    }

    /// All slots in order.
    pub fn all(self) -> impl Iterator<Item = Slot> {
        (0..self.0.get()).map(Slot)
    }
}

/// The part of a key that chooses its slot: what stands between the first `{` and the next `}`, if that is not empty,
/// else the whole key. `{o-1}/payment` and `{o-1}/shipment` share the slot of `o-1`. The rule of Redis Cluster.
pub fn hash_part(key: &str) -> &str {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    tag.filter(|tag| !tag.is_empty()).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden vectors: if one of these changes, stored data can no longer be found.
    #[test]
    fn slots_are_a_format() {
        let keys = ["o-1", "sku-7", "c-9", "ä", "{o-1}/payment"];
        let slots = keys.map(|key| SlotCount::DEFAULT.slot_of(&key.parse().unwrap()).get());
        assert_eq!(slots, GOLDEN_SLOTS);
    }
    const GOLDEN_SLOTS: [u16; 5] = [674, 902, 473, 180, 674];

    #[test]
    fn tag_chooses_the_slot() {
        let slot = |key: &str| SlotCount::DEFAULT.slot_of(&key.parse().unwrap());
        assert_eq!(slot("{o-1}/payment"), slot("o-1"));
        assert_eq!(hash_part("a{b}c{d}"), "b");
        assert_eq!(hash_part("a{}c"), "a{}c");
        assert_eq!(hash_part("a{b"), "a{b");
        assert_eq!(hash_part("}a{b}"), "b");
    }

    #[test]
    fn slots_are_spread_evenly() {
        let mut counts = vec![0_u32; 16];
        for n in 0..16_000 {
            let slot = SlotCount::new(16).unwrap().slot_of(&format!("key-{n}").parse().unwrap());
            counts[usize::from(slot.get())] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
