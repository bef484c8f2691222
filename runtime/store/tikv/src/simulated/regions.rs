//! Regions and the stores that lead them: who may be asked about which key, and what moves.

use bytes::Bytes;
use tandem_model::ids::Timestamp;

use crate::cluster::{Failure, Region};

/// A region and its borders, as somebody knew them at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) region: Region,
    pub(super) start: Bytes,
    pub(super) end: Option<Bytes>,
    /// The store that leads it.
    pub(super) leader: usize,
}

impl Known {
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.start <= key && self.end.as_ref().is_none_or(|end| key < end)
    }

    /// Whether it holds the keys just below `end`, which is exclusive.
    pub(super) fn reaches(&self, end: Option<&Bytes>) -> bool {
        match end {
            None => self.end.is_none(),
            Some(end) => self.start < *end && self.end.as_ref().is_none_or(|own| end <= own),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct StoreState {
    down_until_ms: u64,
    /// The latest time at which anybody has read here.
    read_until: Timestamp,
}

/// All regions, in the order of their keys, without gaps.
#[derive(Debug)]
pub(super) struct Regions {
    list: Vec<Known>,
    stores: Vec<StoreState>,
    next_id: u64,
    /// Regions whose leader is new, and until when it does not know what was read before.
    unsynced: Vec<(u64, u64)>,
}

impl Regions {
    /// One region for each border and one more, spread over the stores.
    pub(super) fn new(stores: usize, borders: &[Bytes]) -> Self {
        let starts = std::iter::once(Bytes::new()).chain(borders.iter().cloned());
        let ends = borders.iter().cloned().map(Some).chain(std::iter::once(None));
        let list: Vec<Known> = starts
            .zip(ends)
            .enumerate()
            .map(|(index, (start, end))| {
                let region = Region { id: index as u64 + 1, version: 1, members_version: 1 };
                Known { region, start, end, leader: index % stores }
            })
            .collect();
        let next_id = list.len() as u64 + 1;
        Self { list, stores: vec![StoreState::default(); stores], next_id, unsynced: Vec::new() }
    }

    fn index_of(&self, key: &[u8]) -> usize {
        self.list.partition_point(|known| known.start <= key).saturating_sub(1)
    }

    /// What the placement driver says of the region that holds a key.
    pub(super) fn of(&self, key: &[u8]) -> Known {
        self.list[self.index_of(key)].clone()
    }

    /// What the placement driver says of the region that holds the keys just below `end`.
    pub(super) fn below(&self, end: Option<&Bytes>) -> Known {
        let found = self.list.iter().rfind(|known| known.reaches(end));
        found.unwrap_or(&self.list[0]).clone()
    }

    /// Whether a store serves this now. The second is what it says if it does not.
    pub(super) fn admit(&self, known: &Known, keys: &[Bytes], now_ms: u64, ahead: bool) -> Result<(), Refusal> {
        if self.stores[known.leader].down_until_ms > now_ms {
            return Err(Refusal::Down);
        }
        let Some(region) = self.list.iter().find(|region| region.region.id == known.region.id) else {
            return Err(Refusal::RegionNotFound);
        };
        if region.leader != known.leader {
            return Err(Refusal::NotLeader);
        }
        if region.region != known.region {
            return Err(Refusal::EpochNotMatch);
        }
        if keys.iter().any(|key| !region.contains(key)) {
            return Err(Refusal::KeyNotInRegion);
        }
        let is_unsynced = self.unsynced.iter().any(|(id, until_ms)| *id == region.region.id && *until_ms > now_ms);
        if ahead && is_unsynced { Err(Refusal::MaxTimestampNotSynced) } else { Ok(()) }
    }

    /// The latest time at which anybody has read at a store.
    pub(super) fn read_until(&self, store: usize) -> Timestamp {
        self.stores[store].read_until
    }

    /// Somebody has read at a store.
    pub(super) fn was_read(&mut self, store: usize, at: Timestamp) {
        let store = &mut self.stores[store];
        store.read_until = store.read_until.max(at);
    }

    /// Splits the region of `at` there. Whether it could.
    pub(super) fn split(&mut self, at: &Bytes) -> bool {
        let index = self.index_of(at);
        let left = &mut self.list[index];
        if left.start == *at {
            return false;
        }
        left.region.version += 1;
        let region = Region { id: self.next_id, ..left.region };
        let right = Known { region, start: at.clone(), end: left.end.replace(at.clone()), leader: left.leader };
        self.next_id += 1;
        self.list.insert(index + 1, right);
        true
    }

    /// Joins the region of a key with the one behind it, which is gone then. Whether it could.
    pub(super) fn merge(&mut self, key: &[u8], latest: Timestamp) -> bool {
        let index = self.index_of(key);
        if index + 1 >= self.list.len() {
            return false;
        }
        let gone = self.list.remove(index + 1);
        let kept = &mut self.list[index];
        kept.end = gone.end;
        kept.region.version = kept.region.version.max(gone.region.version) + 1;
        // What was read at the other leader must be known to the one that stays.
        let leader = kept.leader;
        self.was_read(leader, latest);
        true
    }

    /// Moves the leader of a key's region to another store, which knows from then on all that was read before `latest`.
    pub(super) fn transfer(&mut self, key: &[u8], to: usize, latest: Timestamp, synced_at_ms: u64) -> bool {
        let index = self.index_of(key);
        if self.list[index].leader == to {
            return false;
        }
        self.list[index].leader = to;
        let id = self.list[index].region.id;
        self.unsynced.retain(|(other, _)| *other != id);
        self.unsynced.push((id, synced_at_ms));
        self.was_read(to, latest);
        true
    }

    /// Changes the members of a key's region.
    pub(super) fn change_members(&mut self, key: &[u8]) {
        let index = self.index_of(key);
        self.list[index].region.members_version += 1;
    }

    /// A store is down for a while.
    pub(super) fn stop(&mut self, store: usize, until_ms: u64) {
        let store = &mut self.stores[store];
        store.down_until_ms = store.down_until_ms.max(until_ms);
    }

    /// All stores are up.
    pub(super) fn start_all(&mut self) {
        self.stores.iter_mut().for_each(|store| store.down_until_ms = 0);
    }

    /// How many stores there are.
    pub(super) fn stores(&self) -> usize {
        self.stores.len()
    }

    /// How many regions there are.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }
}

/// Why a store does not serve a request. None of them has an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Refusal {
    Down,
    NotLeader,
    RegionNotFound,
    EpochNotMatch,
    KeyNotInRegion,
    ServerIsBusy,
    StaleCommand,
    MaxTimestampNotSynced,
}

impl Refusal {
    /// What a store says for no reason that the simulation knows.
    pub(super) const AT_RANDOM: [Self; 6] = [
        Self::NotLeader,
        Self::RegionNotFound,
        Self::EpochNotMatch,
        Self::KeyNotInRegion,
        Self::ServerIsBusy,
        Self::StaleCommand,
    ];

    /// Its name among the counts.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Down => "store-down",
            Self::NotLeader => "not-leader",
            Self::RegionNotFound => "region-not-found",
            Self::EpochNotMatch => "epoch-not-match",
            Self::KeyNotInRegion => "key-not-in-region",
            Self::ServerIsBusy => "server-is-busy",
            Self::StaleCommand => "stale-command",
            Self::MaxTimestampNotSynced => "max-timestamp-not-synced",
        }
    }

    /// What the client makes of it.
    pub(super) fn failure(self) -> Failure {
        match self {
            Self::Down => Failure::Unreachable(self.name().to_owned()),
            _ => Failure::Region(self.name().to_owned()),
        }
    }
}
