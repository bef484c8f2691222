//! Who owns what: slots in partitions, and for each member an arc of partitions that follow each other.
//!
//! A store keeps slots that follow each other in one region. So flows that a member runs at the same time, and commits
//! together, touch few regions, and what a commit costs is mostly the number of regions that it touches.
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

/// Where a member stands in the row of all: a number that follows from its name alone, so that who comes or goes changes
/// nothing in the order of the others. All arcs are of one size, so those of the others move a little.
pub fn place(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

/// Which one of so many in a row owns a partition.
fn owner_in_row(partition: u16, members: usize) -> usize {
    usize::from(partition) * members / usize::from(PARTITIONS)
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

    /// The map of these members. One that nobody can reach has everything to itself: what it gets was meant for it.
    pub(crate) fn of(revision: u64, me: MemberId, members: Vec<Arc<Member>>, slots: SlotCount) -> Self {
        let is_taking = |member: &&Arc<Member>| !member.draining;
        if let Some(unreachable) = members.iter().filter(is_taking).find(|one| one.id == me && !one.is_reachable()) {
            let owners = vec![Some(unreachable.id); usize::from(PARTITIONS)];
            return Self { revision, me, members, slots, owners };
        }
        let takers = members.iter().filter(is_taking).filter(|member| member.is_reachable());
        let mut row: Vec<(u64, &str, MemberId)> =
            takers.map(|member| (place(&member.name), member.name.as_str(), member.id)).collect();
        row.sort_unstable();
        let owner = |partition| row.get(owner_in_row(partition, row.len())).map(|(_, _, id)| *id);
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
        let places = ["pod-0", "pod-1", "pod-2", "pod-12", ""].map(place);
        assert_eq!(places, GOLDEN_PLACES);
        let map = map(&pods(3));
        let owners: Vec<u64> = map.owners.iter().map(|owner| owner.unwrap().0).collect();
        assert_eq!(owners.chunk_by(PartialEq::eq).map(|arc| (arc[0], arc.len())).collect::<Vec<_>>(), GOLDEN_ARCS);
    }
    const GOLDEN_PLACES: [u64; 5] = [
        16_828_687_411_263_918_497,
        2_863_186_999_116_046_461,
        12_438_101_212_790_695_746,
        9_819_288_523_034_116_756,
        3_244_421_341_483_603_138,
    ];
    const GOLDEN_ARCS: [(u64, usize); 3] = [(1, 22), (2, 21), (0, 21)];

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

    /// Each member has one arc, and all arcs are of one size.
    #[test]
    fn what_a_member_owns_is_of_a_piece() {
        for count in 1..=u64::from(PARTITIONS) {
            let map = map(&pods(count));
            let arcs: Vec<usize> = map.owners.chunk_by(PartialEq::eq).map(<[_]>::len).collect();
            assert_eq!(arcs.len(), usize::try_from(count).unwrap());
            assert!(arcs.iter().max().unwrap() - arcs.iter().min().unwrap() <= 1, "{count}: {arcs:?}");
        }
        let crowd = map(&pods(u64::from(PARTITIONS) + 10));
        assert!(crowd.owners.iter().all(Option::is_some));
    }

    /// A member that comes or goes moves half of all partitions at the most, a third in the mean.
    #[test]
    fn a_member_that_comes_or_goes_moves_no_more_than_half() {
        for count in 1..20_u64 {
            let (before, after) = (map(&pods(count)), map(&pods(count + 1)));
            // Going is coming, seen backwards.
            let moved = before.owners.iter().zip(&after.owners).filter(|(before, after)| before != after).count();
            let rounding = usize::try_from(count).unwrap();
            assert!(moved <= usize::from(PARTITIONS) / 2 + rounding, "{moved} moved with {count}");
        }
    }

    #[test]
    fn who_drains_owns_nothing_and_who_comes_back_has_what_it_had() {
        let all = pods(4);
        let drained: Vec<_> = all.iter().map(|each| member(each.id.0, &each.name, each.id.0 == 2)).collect();
        let (before, after) = (map(&all), map(&drained));
        assert_eq!(after.owned_by(MemberId(2)), 0);
        assert!(after.owners.iter().all(Option::is_some));
        let mut again = all;
        again[2] = member(77, "pod-2", false);
        let again = map(&again);
        let renamed = |owner: &Option<MemberId>| owner.map(|id| if id == MemberId(2) { MemberId(77) } else { id });
        assert_eq!(again.owners, before.owners.iter().map(renamed).collect::<Vec<_>>());
        let nobody = map(&[member(0, "pod-0", true)]);
        assert_eq!((nobody.owner(Slot::new(0)), nobody.is_mine(Slot::new(0))), (None, false));
    }

    #[test]
    fn who_cannot_be_reached_owns_nothing_of_the_others_and_everything_of_its_own() {
        let mut all = pods(3);
        let hidden = Arc::new(Member { address: String::new(), ..(*all[2]).clone() });
        all[2] = Arc::clone(&hidden);
        let others = map(&all);
        assert_eq!((others.owned_by(MemberId(2)), others.owned_by(MemberId(1))), (0, usize::from(PARTITIONS) / 2));
        let own = Map::of(1, MemberId(2), all.clone(), SlotCount::DEFAULT);
        assert_eq!(own.owned_by(MemberId(2)), usize::from(PARTITIONS));
        all[2] = Arc::new(Member { draining: true, ..(*hidden).clone() });
        let stopping = Map::of(1, MemberId(2), all, SlotCount::DEFAULT);
        assert_eq!(stopping.owned_by(MemberId(2)), 0, "it hands over");
    }
}
