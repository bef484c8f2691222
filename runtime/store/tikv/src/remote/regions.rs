//! What is known about regions: a cache, corrected by what stores answer.
//!
//! **Invariant:** the known regions do not overlap, and none is replaced by an older version of itself or of its
//! neighbourhood.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::wire::{errorpb, metapb};
use crate::cluster::Region;

/// A region, and who answers for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KnownRegion {
    pub(crate) region: metapb::Region,
    pub(crate) leader: metapb::Peer,
}

impl KnownRegion {
    pub(crate) fn name(&self) -> Region {
        name(&self.region)
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.region.start_key <= key && (self.region.end_key.is_empty() || key < self.region.end_key)
    }
}

fn name(region: &metapb::Region) -> Region {
    let epoch = region.region_epoch.unwrap_or_default();
    Region { id: region.id, version: epoch.version, members_version: epoch.conf_ver }
}

/// The known regions.
#[derive(Debug, Default)]
pub(crate) struct Regions(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_start: BTreeMap<Bytes, Arc<KnownRegion>>,
    starts: HashMap<u64, Bytes>,
}

impl Regions {
    /// The region of a key in PD's encoding.
    pub(crate) fn of_key(&self, key: &[u8]) -> Option<Region> {
        let known = self.lock();
        let before = known.by_start.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        before.filter(|(_, region)| region.contains(key)).map(|(_, region)| region.name())
    }

    /// The region of this name and version. `None` if it has changed since.
    pub(crate) fn get(&self, region: Region) -> Option<Arc<KnownRegion>> {
        let known = self.lock();
        let found = known.by_start.get(known.starts.get(&region.id)?)?;
        (found.name() == region).then(|| found.clone())
    }

    /// Learns of a region.
    pub(crate) fn insert(&self, region: KnownRegion) {
        self.lock().insert(region);
    }

    /// Forgets a region, so that it is looked up again.
    pub(crate) fn forget(&self, region: Region) {
        self.lock().remove(region.id);
    }

    /// Forgets all regions that a store leads, after it could not be reached.
    pub(crate) fn forget_store(&self, store: u64) {
        let mut known = self.lock();
        let led = known.by_start.values().filter(|region| region.leader.store_id == store);
        let led: Vec<u64> = led.map(|region| region.region.id).collect();
        for region in led {
            known.remove(region);
        }
    }

    /// Learns from the error with which a store refused a request for a region.
    pub(crate) fn learn(&self, region: &KnownRegion, error: &errorpb::Error) {
        let mut known = self.lock();
        if let Some(not_leader) = &error.not_leader {
            match &not_leader.leader {
                Some(leader) => known.lead(region, leader),
                None => known.remove(region.region.id),
            }
        } else if let Some(mismatch) = &error.epoch_not_match {
            known.remove(region.region.id);
            for current in &mismatch.current_regions {
                // Where the leader is now is not said; it was here a moment ago.
                let here = current.peers.iter().find(|peer| peer.store_id == region.leader.store_id);
                if let Some(leader) = here {
                    known.insert(KnownRegion { region: current.clone(), leader: *leader });
                }
            }
        } else if error.server_is_busy.is_none() && error.max_timestamp_not_synced.is_none() {
            known.remove(region.region.id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn insert(&mut self, new: KnownRegion) {
        let overlapping = self.overlapping(&new.region);
        let newer = |other: &Arc<KnownRegion>| {
            let (other, new) = (other.name(), new.name());
            let same_id = other.id == new.id && other.members_version > new.members_version;
            other.version > new.version || (other.version == new.version && same_id)
        };
        if overlapping.iter().any(newer) {
            return;
        }
        for old in overlapping {
            self.remove(old.region.id);
        }
        self.remove(new.region.id);
        let start = new.region.start_key.clone();
        self.starts.insert(new.region.id, start.clone());
        self.by_start.insert(start, Arc::new(new));
    }

    fn overlapping(&self, new: &metapb::Region) -> Vec<Arc<KnownRegion>> {
        let end = if new.end_key.is_empty() { Bound::Unbounded } else { Bound::Excluded(&new.end_key[..]) };
        let before_end = self.by_start.range::<[u8], _>((Bound::Unbounded, end)).rev();
        let reaching =
            before_end.take_while(|(_, known)| known.region.end_key.is_empty() || known.region.end_key > new.start_key);
        reaching.map(|(_, known)| known.clone()).collect()
    }

    fn remove(&mut self, id: u64) {
        if let Some(start) = self.starts.remove(&id) {
            self.by_start.remove(&start);
        }
    }

    fn lead(&mut self, region: &KnownRegion, leader: &metapb::Peer) {
        let Some(start) = self.starts.get(&region.region.id) else { return };
        let Some(known) = self.by_start.get_mut(start) else { return };
        if known.name() == region.name() {
            *known = Arc::new(KnownRegion { region: known.region.clone(), leader: *leader });
        }
    }
}

#[cfg(test)]
mod tests;
