//! Who numbers the messages that instances of a slot send, when several runtimes commit to one store.
//!
//! A message's number says where it comes among those that its sender's slot has sent. Numbers have to follow the order
//! of commits, whoever commits. So each slot has a row that names the runtime which numbers for it and up to where; each
//! commit that sends from the slot validates that row, and whoever is not named in it writes it in the very commit that
//! sends. Commits of the one who was named before then conflict in the store, and those that got through came before.
//!
//! **Invariant:** of two commits that send from one slot, the later one has the greater numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::{BufMut, Bytes, BytesMut};
use tandem_model::flow::OutgoingMessage;
use tandem_model::ids::Timestamp;
use tandem_model::mechanism::{Mechanism, works};
use tandem_model::slot::Slot;
use tandem_store::Read;
use tandem_store::keys::Layout;

use super::Seen;
use super::numbers::{self, Block};

/// Numbers that are taken at a time. A runtime that is overtaken leaves the rest unused.
const NUMBERS_TAKEN: u64 = 1 << 20;
/// First byte of the row.
const FORMAT: u8 = 1;

/// Whether others may write to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Nobody: the versions of this process number its messages.
    Alone,
    /// Others may.
    Shared,
}

/// A lane's row as a flow saw it that found its slot not held.
#[derive(Clone, Debug)]
pub(crate) struct SeenLane {
    pub(crate) from: Slot,
    pub(crate) seen: Seen,
}

/// The slots that this process numbers for.
#[derive(Debug)]
pub(super) struct Lanes {
    layout: Layout,
    sharing: Sharing,
    /// Names this process in the rows.
    holder: u64,
    held: HashMap<Slot, Hold>,
    /// Numbers for egress records.
    pub(super) block: Option<Block>,
}

#[derive(Debug)]
struct Hold {
    value: Bytes,
    since: Since,
    next: u64,
    limit: u64,
}

#[derive(Clone, Copy, Debug)]
enum Since {
    /// The commit that takes it has this version, and is on its way.
    Sealed(u64),
    /// It was committed at this time.
    Durable(Timestamp),
}

/// What the commit of a group has to be validated against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// Slots that its messages are sent from, if those need numbers of their own.
    pub(super) slots: BTreeSet<Slot>,
    /// The block that its egress records have their numbers from, if those need numbers of their own.
    pub(super) block: Option<Bytes>,
}

/// What taking a lane adds to a flow.
pub(super) struct Taking {
    pub(super) row: Bytes,
    pub(super) seen: Seen,
    pub(super) value: Bytes,
}

impl Lanes {
    pub(super) fn new(layout: Layout, sharing: Sharing, holder: u64) -> Self {
        Self { layout, sharing, holder, held: HashMap::new(), block: None }
    }

    /// Whether there are numbers for so many egress records, or none are needed.
    pub(super) fn can_emit(&self, count: usize) -> bool {
        self.sharing == Sharing::Alone || count == 0 || self.block.as_ref().is_some_and(|block| block.has(count))
    }

    /// The slots that messages are sent from and how many from each, if they need numbers of their own.
    pub(super) fn needed(&self, messages: &[OutgoingMessage]) -> BTreeMap<Slot, u64> {
        let mut needed = BTreeMap::new();
        if self.sharing == Sharing::Shared && works(Mechanism::LaneNumbers) {
            for message in messages {
                *needed.entry(self.layout.slots().slot_of(&message.from.key)).or_default() += 1;
            }
        }
        needed
    }

    /// Whether so many numbers of a slot are at hand.
    pub(super) fn is_held(&self, from: Slot, count: u64) -> bool {
        self.held.get(&from).is_some_and(|hold| hold.limit - hold.next >= count)
    }

    /// Takes a slot over from whoever the row names.
    pub(super) fn take(&mut self, lane: &SeenLane, version: u64) -> Taking {
        let used = lane.seen.value.as_ref().and_then(limit_of).unwrap_or(0);
        let next = used.max(version);
        let limit = next + NUMBERS_TAKEN;
        let value = value_of(self.holder, limit);
        let hold = Hold { value: value.clone(), since: Since::Sealed(version), next, limit };
        self.held.insert(lane.from, hold);
        Taking { row: self.layout.lane(lane.from), seen: lane.seen.clone(), value }
    }

    /// The next number of a slot that is held.
    pub(super) fn next(&mut self, from: Slot) -> Option<u64> {
        let hold = self.held.get_mut(&from)?;
        hold.next += 1;
        Some(hold.next)
    }

    /// What a group that sends from these slots and ends with this version has to validate. All groups before it are
    /// durable.
    pub(super) fn reads(&self, used: &Used, durable_version: u64, last_version: u64) -> Vec<Read> {
        let read = |from: &Slot| {
            let key = self.layout.lane(*from);
            match self.held.get(from).map(|hold| (hold.since, &hold.value)) {
                // It is taken by this very group.
                Some((Since::Sealed(version), _)) if version > durable_version && version <= last_version => None,
                Some((Since::Durable(seen_at), value)) => Some(Read { key, seen_at, value: Some(value.clone()) }),
                // Not known any more: nothing that can be true, so that its flows run again.
                Some((Since::Sealed(_), _)) | None => {
                    Some(Read { key, seen_at: Timestamp::ZERO, value: Some(Bytes::new()) })
                }
            }
        };
        let block = used.block.as_ref().map(|value| {
            let (key, value) = (numbers::row_key(self.holder), value.clone());
            match self.block.as_ref().filter(|block| block.value == value) {
                Some(block) => Read { key, seen_at: block.since, value: Some(value) },
                // Others may have numbered above it by now.
                None => Read { key, seen_at: Timestamp::ZERO, value: Some(Bytes::new()) },
            }
        });
        used.slots.iter().filter_map(read).chain(block).collect()
    }

    /// Everything up to a version was committed, the last of it at this time, which is zero if it is not known.
    pub(super) fn durable(&mut self, used: &Used, version: u64, timestamp: Timestamp) {
        for from in &used.slots {
            let Some(hold) = self.held.get_mut(from) else { continue };
            if matches!(hold.since, Since::Sealed(taken) if taken <= version) {
                if timestamp == Timestamp::ZERO {
                    self.held.remove(from);
                } else {
                    hold.since = Since::Durable(timestamp);
                }
            }
        }
    }

    /// What was sealed and is not durable was thrown away, because these rows had changed.
    pub(super) fn thrown_away(&mut self, changed: &[Bytes]) {
        let layout = self.layout;
        self.held
            .retain(|from, hold| matches!(hold.since, Since::Durable(_)) && !changed.contains(&layout.lane(*from)));
        if changed.contains(&numbers::row_key(self.holder)) {
            self.block = None;
        }
    }
}

fn value_of(holder: u64, limit: u64) -> Bytes {
    let mut value = BytesMut::with_capacity(1 + 2 * size_of::<u64>());
    value.put_u8(FORMAT);
    value.put_u64(holder);
    value.put_u64(limit);
    value.freeze()
}

/// Numbers up to here may be in use.
fn limit_of(value: &Bytes) -> Option<u64> {
    let (head, limit) = value.split_last_chunk()?;
    (head.first() == Some(&FORMAT)).then_some(u64::from_be_bytes(*limit))
}

#[cfg(test)]
mod tests {
    use tandem_model::slot::SlotCount;

    use super::*;
    use crate::partition::Source;

    fn seen(from: u16, value: Option<Bytes>) -> SeenLane {
        SeenLane { from: Slot::new(from), seen: Seen { source: Source::Base, value, at: 1 } }
    }

    #[test]
    fn the_row_of_a_lane_is_a_format() {
        let value = value_of(3, 258);
        assert_eq!(&value[..], [1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(limit_of(&value), Some(258));
    }

    #[test]
    fn whoever_takes_over_goes_on_above_all_that_may_be_in_use() {
        let layout = Layout::new(SlotCount::DEFAULT);
        let (mut one, mut two) = (Lanes::new(layout, Sharing::Shared, 7), Lanes::new(layout, Sharing::Shared, 8));
        let first = one.take(&seen(5, None), 1_000);
        let highest = std::iter::repeat_with(|| one.next(Slot::new(5)).unwrap()).take(100).max().unwrap();
        let second = two.take(&seen(5, Some(first.value)), 1);
        let lowest = two.next(Slot::new(5)).unwrap();
        assert!(lowest > highest && highest > 1_000);
        // And back again.
        one.take(&seen(5, Some(second.value)), 2_000);
        assert!(one.next(Slot::new(5)).unwrap() > lowest);
    }

    #[test]
    fn what_was_taken_in_vain_is_not_held() {
        let layout = Layout::new(SlotCount::DEFAULT);
        let mut lanes = Lanes::new(layout, Sharing::Shared, 7);
        let used = Used { slots: [1, 2, 3].map(Slot::new).into(), block: None };
        for slot in &used.slots {
            lanes.take(&seen(slot.get(), None), 10);
        }
        let held = |lanes: &Lanes| used.slots.iter().filter(|slot| lanes.is_held(**slot, 1)).count();
        assert!(lanes.reads(&used, 9, 10).is_empty());
        lanes.durable(&Used { slots: [Slot::new(1), Slot::new(2)].into(), block: None }, 10, Timestamp(5));
        assert_eq!(lanes.reads(&used, 10, 11).iter().filter(|read| read.seen_at == Timestamp(5)).count(), 2);
        lanes.thrown_away(&[layout.lane(Slot::new(1))]);
        assert_eq!((held(&lanes), lanes.is_held(Slot::new(2), 1)), (1, true));
    }
}
