//! What the courier has in memory: messages in lanes, due times, and the slots that it has yet to read.
//!
//! **Invariant:** a lane that has messages is either ready once or has one delivery under way.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tandem_model::ids::Instance;
use tandem_model::mechanism::{Mechanism, works};
use tandem_model::slot::Slot;
use tandem_store::keys::{self, RowKey};
use tandem_store::rows::Message;
use tokio::time::Instant;

use super::{MESSAGES_MAX, TIMERS_MAX};
use crate::partition::ReleasedMessage;
use crate::peers::slot_of;

/// Lanes whose last delivery is remembered; beyond it the memory starts anew.
const FLOORS_MAX: usize = 16_384;
/// How long a delayed message is left to the owner of its slot, if this runtime knows of it as well.
const OWNER_FIRST_MS: u64 = 1_000;

/// From which slot to whom. Messages of one lane go one after the other; delayed ones have lanes of their own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lane {
    pub(super) from: Slot,
    pub(super) to: Instance,
    pub(super) is_delayed: bool,
}

/// All that is known.
#[derive(Debug, Default)]
pub(super) struct Inner {
    /// Slots that this runtime looks after.
    pub(super) own: BTreeSet<Slot>,
    /// When the store is searched for messages that nobody told of.
    pub(super) search_at: Option<Instant>,
    /// Rows in their order, which is that of their keys.
    lanes: HashMap<Lane, BTreeSet<Bytes>>,
    /// Lanes with something to do and nobody on it.
    ready: VecDeque<Lane>,
    /// Messages in lanes, the ones under way included.
    known: HashMap<Bytes, Arc<Message>>,
    under_way: HashSet<Bytes>,
    /// Sequence of the last message of a lane that was delivered here: nothing comes before it any more.
    floors: HashMap<Lane, u64>,
    /// Slots of which something in the inbox is not in memory: what is new there is left to the store until they have
    /// been read.
    behind: BTreeSet<Slot>,
    /// Slots that are being read.
    reading: BTreeSet<Slot>,
    /// What arrives for them meanwhile: it comes after what is read.
    arrivals: Vec<ReleasedMessage>,
    timers: BinaryHeap<Reverse<(u64, Bytes)>>,
    timers_known: HashSet<Bytes>,
    /// The same for timers.
    timers_behind: BTreeSet<Slot>,
}

impl Inner {
    pub(super) fn messages(&self) -> usize {
        self.known.len()
    }

    pub(super) fn timers(&self) -> usize {
        self.timers.len()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.under_way.len()
    }

    pub(super) fn message(&self, row: &Bytes) -> Option<Arc<Message>> {
        self.known.get(row).cloned()
    }

    pub(super) fn floor(&self, lane: &Lane) -> Option<u64> {
        self.floors.get(lane).copied()
    }

    pub(super) fn next_lane(&mut self) -> Option<Lane> {
        self.ready.pop_front()
    }

    /// The first message of a lane, under way from now on.
    pub(super) fn begin(&mut self, lane: &Lane) -> Option<(Bytes, Arc<Message>)> {
        let rows = self.lanes.get(lane)?;
        let row = if works(Mechanism::LaneOrder) { rows.first() } else { rows.last() }.cloned()?;
        let message = self.known.get(&row).cloned()?;
        self.under_way.insert(row.clone());
        Some((row, message))
    }

    /// A delivery is over.
    pub(super) fn end(&mut self, lane: &Lane, row: &Bytes, is_gone: bool) {
        self.under_way.remove(row);
        if !is_gone {
            return;
        }
        self.forget(lane, row);
        if let Ok(RowKey::Inbox { sequence, .. }) = keys::parse(row) {
            if self.floors.len() >= FLOORS_MAX {
                self.floors.clear();
            }
            let floor = self.floors.entry(lane.clone()).or_default();
            *floor = sequence.max(*floor);
        }
    }

    /// Somebody may take a lane again, if it has more.
    pub(super) fn go_on(&mut self, lane: Lane) {
        if self.lanes.contains_key(&lane) {
            self.ready.push_back(lane);
        }
    }

    /// These slots are to be read, again or for the first time.
    pub(super) fn read_again(&mut self, slots: Vec<Slot>) {
        self.behind.extend(&slots);
        self.timers_behind.extend(slots);
    }

    /// Takes out the messages of some slots, as far as they are not under way.
    pub(super) fn take_idle(&mut self, of: impl Fn(Slot) -> bool) -> Vec<ReleasedMessage> {
        let is_idle = |row: &&Bytes| slot_of(row).is_some_and(&of) && !self.under_way.contains(*row);
        let mut rows: Vec<Bytes> = self.known.keys().filter(is_idle).cloned().collect();
        rows.sort_unstable();
        let mut taken = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(message) = self.known.get(&row).cloned() else { continue };
            if let Some(lane) = lane_of(&row, &message) {
                self.forget(&lane, &row);
            }
            taken.push(ReleasedMessage { row, message: Message::clone(&message) });
        }
        let lanes = &self.lanes;
        self.ready.retain(|lane| lanes.contains_key(lane));
        taken
    }

    /// The slots to read now, if there is room for what they hold.
    pub(super) fn begin_reading(&mut self) -> Vec<Slot> {
        if self.known.len() >= MESSAGES_MAX / 2 {
            return Vec::new();
        }
        self.reading = std::mem::take(&mut self.behind);
        self.reading.iter().copied().collect()
    }

    /// So many of the slots were read whole.
    pub(super) fn end_reading(&mut self, whole: usize, slots: &[Slot]) {
        self.reading.clear();
        self.behind.extend(slots.iter().skip(whole));
        for released in std::mem::take(&mut self.arrivals) {
            if let Some(slot) = slot_of(&released.row) {
                self.arrived(slot, released);
            }
        }
    }

    /// The same for timers.
    pub(super) fn begin_reading_timers(&mut self) -> Vec<Slot> {
        if self.timers.len() >= TIMERS_MAX / 2 {
            return Vec::new();
        }
        std::mem::take(&mut self.timers_behind).into_iter().collect()
    }

    pub(super) fn end_reading_timers(&mut self, whole: usize, slots: &[Slot]) {
        self.timers_behind.extend(slots.iter().skip(whole));
    }

    pub(super) fn arrived(&mut self, slot: Slot, released: ReleasedMessage) {
        if self.behind.contains(&slot) {
            return;
        }
        if !self.reading.contains(&slot) {
            self.add(released.row, Arc::new(released.message));
        } else if self.arrivals.len() < MESSAGES_MAX {
            self.arrivals.push(released);
        } else {
            self.behind.insert(slot);
        }
    }

    pub(super) fn add(&mut self, row: Bytes, message: Arc<Message>) {
        if self.known.len() < MESSAGES_MAX {
            self.add_stored(row, message);
        } else if let Some(slot) = slot_of(&row) {
            self.behind.insert(slot);
        }
    }

    pub(super) fn add_if_room(&mut self, row: Bytes, message: Arc<Message>) -> bool {
        let has_room = self.known.len() < MESSAGES_MAX;
        if has_room {
            self.add_stored(row, message);
        }
        has_room
    }

    pub(super) fn add_stored(&mut self, row: Bytes, message: Arc<Message>) {
        let Some(lane) = lane_of(&row, &message).filter(|_| !self.known.contains_key(&row)) else { return };
        self.known.insert(row.clone(), message);
        let rows = self.lanes.entry(lane.clone()).or_default();
        rows.insert(row);
        if rows.len() == 1 {
            self.ready.push_back(lane);
        }
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.timers.peek().map(|Reverse((due, _))| *due)
    }

    /// The timer that is due next. One that another runtime owns is first left to that one for a while.
    pub(super) fn take_timer(&mut self) -> Option<Bytes> {
        let Reverse((due, row)) = self.timers.pop()?;
        if let Ok(RowKey::Timer { slot, due_unix_ms, .. }) = keys::parse(&row)
            && due == due_unix_ms
            && !self.own.contains(&slot)
        {
            self.timers.push(Reverse((due + OWNER_FIRST_MS, row)));
            return None;
        }
        self.timers_known.remove(&row);
        Some(row)
    }

    pub(super) fn timer_is_behind(&mut self, row: &Bytes) {
        self.timers_behind.extend(slot_of(row));
    }

    pub(super) fn add_timer(&mut self, slot: Slot, due_unix_ms: u64, row: Bytes) {
        if !self.add_timer_if_room(due_unix_ms, row) {
            self.timers_behind.insert(slot);
        }
    }

    pub(super) fn add_timer_if_room(&mut self, due_unix_ms: u64, row: Bytes) -> bool {
        if self.known.contains_key(&row) || self.timers_known.contains(&row) {
            return true;
        }
        let has_room = self.timers.len() < TIMERS_MAX;
        if has_room {
            self.timers_known.insert(row.clone());
            self.timers.push(Reverse((due_unix_ms, row)));
        }
        has_room
    }

    fn forget(&mut self, lane: &Lane, row: &Bytes) {
        self.known.remove(row);
        if let Some(rows) = self.lanes.get_mut(lane) {
            rows.remove(row);
            if rows.is_empty() {
                self.lanes.remove(lane);
            }
        }
    }
}

/// The lane of a message.
fn lane_of(row: &Bytes, message: &Message) -> Option<Lane> {
    let (from, is_delayed) = match keys::parse(row).ok()? {
        RowKey::Inbox { from, .. } => (from, false),
        RowKey::Timer { from, .. } => (from, true),
        RowKey::StateValue { .. }
        | RowKey::StateEntry { .. }
        | RowKey::Request { .. }
        | RowKey::Egress { .. }
        | RowKey::DeadLetter { .. }
        | RowKey::Lane { .. }
        | RowKey::Meta { .. } => return None,
    };
    Some(Lane { from, to: message.to.clone(), is_delayed })
}
