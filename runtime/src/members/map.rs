//! Who owns what: slots in partitions, partitions spread over the members by rendezvous hashing.
//!
//! Each runtime computes the map from the members that it sees, and two may see different ones for a while. That costs
//! time and nothing else: a map is only a hint where a request runs fastest.
//!
//! **Invariant:** the owner of a partition follows from the names of the members alone, the same in every runtime.

use std::sync::Arc;

use tandem_model::slot::{Slot, SlotCount};
use xxhash_rust::xxh3::xxh3_64;

use super::{Member, MemberId};

/// Ranges of slots that have one owner each.
pub const PARTITIONS: u16 = 64;

/// The partition that a slot is in.
pub fn partition_of(slot: Slot, slots: SlotCount) -> u16 {
    let partition = u32::from(slot.get()) * u32::from(PARTITIONS) / u32::from(slots.get());
    u16::try_from(partition).unwrap_or(u16::MAX).min(PARTITIONS - 1)
}

/// How much a member wants a partition: whoever wants it most owns it (Thaler and Ravishankar, 1998). A member that
/// comes takes from each other one its share, one that goes leaves its own to the others, and nothing else moves.
pub fn rendezvous(partition: u16, name: &str) -> u64 {
    let mut key = partition.to_be_bytes().to_vec();
    key.extend_from_slice(name.as_bytes());
    xxh3_64(&key)
}

/// Who owns what, as one runtime sees it.
#[derive(Clone, Debug)]
pub struct Map {
    /// Grows with each change that this runtime saw.
    pub revision: u64,
    /// This runtime.
    pub me: MemberId,
    /// All members that are live and that this runtime understands, this one included, by their ids.
    pub members: Vec<Arc<Member>>,
    slots: SlotCount,
    /// The owner of each partition; nobody if all members are draining.
    owners: Vec<Option<MemberId>>,
}

impl Map {
    /// The map of a runtime that has its store to itself.
    pub(crate) fn alone(slots: SlotCount) -> Self {
        let me = MemberId(0);
        let owners = vec![Some(me); usize::from(PARTITIONS)];
        Self { revision: 0, me, members: Vec::new(), slots, owners }
    }

    /// The map of these members.
    pub(crate) fn of(revision: u64, me: MemberId, members: Vec<Arc<Member>>, slots: SlotCount) -> Self {
        let takers: Vec<&Arc<Member>> = members.iter().filter(|member| !member.draining).collect();
        let owner = |partition| {
            let wants = takers.iter().map(|member| (rendezvous(partition, &member.name), member.id));
            wants.max().map(|(_, id)| id)
        };
        let owners = (0..PARTITIONS).map(owner).collect();
        Self { revision, me, members, slots, owners }
    }

    /// Whether the same members own the same.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let ids = |map: &Self| -> Vec<(MemberId, bool, String)> {
            map.members.iter().map(|member| (member.id, member.draining, member.address.clone())).collect()
        };
        self.owners == other.owners && ids(self) == ids(other)
    }

    /// Who owns a slot.
    pub fn owner(&self, slot: Slot) -> Option<MemberId> {
        self.owners.get(usize::from(partition_of(slot, self.slots))).copied().flatten()
    }

    /// The other member that owns a slot, if it is another one.
    pub fn elsewhere(&self, slot: Slot) -> Option<MemberId> {
        self.owner(slot).filter(|owner| *owner != self.me)
    }

    /// Whether this runtime is to look after what waits in a slot.
    pub fn is_mine(&self, slot: Slot) -> bool {
        self.owner(slot) == Some(self.me)
    }

    /// How many partitions a member owns.
    pub fn owned_by(&self, member: MemberId) -> usize {
        self.owners.iter().filter(|owner| **owner == Some(member)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str, draining: bool) -> Arc<Member> {
        let address = format!("http://{name}");
        let (version, beat) = (String::new(), 0);
        Arc::new(Member { id: MemberId(id), name: name.to_owned(), address, version, draining, beat })
    }

    fn map(members: &[Arc<Member>]) -> Map {
        Map::of(1, MemberId(0), members.to_vec(), SlotCount::DEFAULT)
    }

    fn pods(count: u64) -> Vec<Arc<Member>> {
        (0..count).map(|id| member(id, &format!("pod-{id}"), false)).collect()
    }

    /// Golden vectors: runtimes of different versions in one installation have to agree.
    #[test]
    fn the_owner_of_a_partition_is_a_format() {
        let wants = [(0, "pod-0"), (1, "pod-0"), (63, "pod-12"), (7, "")].map(|(at, name)| rendezvous(at, name));
        assert_eq!(wants, GOLDEN_WANTS);
        let map = map(&pods(3));
        let owners: Vec<u64> = map.owners.iter().take(16).map(|owner| owner.unwrap().0).collect();
        assert_eq!(owners, GOLDEN_OWNERS);
    }
    const GOLDEN_WANTS: [u64; 4] = [
        15_061_128_557_935_293_231,
        16_916_487_188_588_712_114,
        16_596_403_922_558_324_920,
        10_417_732_058_219_796_014,
    ];
    const GOLDEN_OWNERS: [u64; 16] = [0, 0, 0, 0, 0, 2, 1, 2, 2, 0, 2, 1, 0, 1, 1, 0];

    #[test]
    fn slots_are_split_into_ranges_of_nearly_one_size() {
        for slots in [1, 3, 64, 100, 1_024, u16::MAX] {
            let count = SlotCount::new(slots).unwrap();
            let of: Vec<u16> = count.all().map(|slot| partition_of(slot, count)).collect();
            assert!(of.is_sorted() && of.iter().all(|partition| *partition < PARTITIONS));
            let sizes: Vec<usize> = (0..PARTITIONS).map(|at| of.iter().filter(|of| **of == at).count()).collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{slots}: {sizes:?}");
        }
    }

    /// A member that comes or goes moves its own share and nothing else.
    #[test]
    fn a_member_that_comes_or_goes_moves_only_its_share() {
        for count in 1..20_u64 {
            let (before, after) = (map(&pods(count)), map(&pods(count + 1)));
            let moved = before.owners.iter().zip(&after.owners).filter(|(before, after)| before != after);
            let moved: Vec<_> = moved.collect();
            // Going is coming, seen backwards.
            assert!(moved.iter().all(|(_, after)| **after == Some(MemberId(count))), "with {count}");
            let share = usize::from(PARTITIONS) / (usize::try_from(count).unwrap() + 1);
            assert!(moved.len() <= 2 * share + 4, "{} of {share} moved with {count}", moved.len());
        }
    }

    #[test]
    fn who_drains_owns_nothing_and_who_comes_back_has_what_it_had() {
        let all = pods(4);
        let drained: Vec<_> = all.iter().map(|each| member(each.id.0, &each.name, each.id.0 == 2)).collect();
        let (before, after) = (map(&all), map(&drained));
        assert_eq!(after.owned_by(MemberId(2)), 0);
        assert!(before.owners.iter().zip(&after.owners).all(|(b, a)| b == a || *b == Some(MemberId(2))));
        let mut again = all;
        again[2] = member(77, "pod-2", false);
        let again = map(&again);
        assert_eq!(again.owned_by(MemberId(77)), before.owned_by(MemberId(2)));
        let nobody = map(&[member(0, "pod-0", true)]);
        assert_eq!((nobody.owner(Slot::new(0)), nobody.is_mine(Slot::new(0))), (None, false));
    }
}
