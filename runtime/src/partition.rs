//! Turns flows that ran at the same time into one order, and commits them together.
//!
//! A flow reads through a [`View`]: a durable snapshot of the store, and on top of it the *sealed* rows, which flows
//! before it wrote and which are on their way to disk. When its code is done it is sealed: if nothing it read was
//! changed by a flow sealed since its view was opened, it gets the next version, its rows become visible to later
//! views, and it joins the open commit group. While one group is being committed the next one fills, so that one sync
//! carries as many flows as arrived during the last one, and a hot key runs as fast as its user code. On a store where a
//! commit is dear, a group also waits a little for flows under way ([`gather`]).
//!
//! This is optimistic concurrency control with backward validation (Kung and Robinson, 1981) in memory, in front of
//! the store, which validates the same again: another process may have written (C9). If the store finds a conflict,
//! the group and all that was sealed on top of it is run again.
//!
//! **Invariant:** nobody is told of a flow before its group is durable. **Invariant:** groups commit in the order of
//! their versions, one at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tandem_model::flow::{Emission, OutgoingMessage};
use tandem_model::ids::{EgressName, Timestamp};
use tandem_model::mechanism::{Mechanism, works};
use tandem_model::outcome::FlowRecord;
use tandem_model::slot::Slot;
use tandem_store::keys::Layout;
use tandem_store::rows::{self, EgressRow, Message};
use tandem_store::{Snapshot, Store};
use tokio::sync::{Mutex as AsyncMutex, Notify, oneshot};

use crate::runtime::EgressRecord;

pub(crate) use lanes::{SeenLane, Sharing};
pub(crate) use reads::{ReadSet, Seen, Source, successor};
pub(crate) use sealed::SealedRows;
pub(crate) use view::{ScanRequest, View};

use lanes::{Lanes, Used};
use numbers::Emitting;

mod commit;
mod gather;
mod lanes;
pub(crate) mod numbers;
mod reads;
mod sealed;
mod view;

/// Flows in one commit group. More wait for the next one.
pub(crate) const GROUP_FLOWS_MAX: usize = 1_024;
/// Bytes in one commit group, keys included. A single flow may exceed it by itself.
pub(crate) const GROUP_BYTES_MAX: usize = 8 << 20;
/// Versions of sealed rows are reserved in the store in blocks of this many, so that they grow across restarts
/// whatever the clock says.
const VERSION_BLOCK: u64 = 1 << 32;
/// Name of the row that says which are reserved.
const VERSIONS: &str = "versions";
/// Name of the row that says in how many slots the data is laid out.
const SLOTS: &str = "slots";
/// Attempts to reserve a block of versions at start.
const RESERVE_ATTEMPTS_MAX: u32 = 10;

/// What a finished flow asks to have committed.
#[derive(Debug)]
pub(crate) struct Sealing {
    /// What it read, as far as its isolation has it validated.
    pub(crate) reads: ReadSet,
    /// Rows it sets and deletes, besides its record.
    pub(crate) writes: Vec<(Bytes, Option<Bytes>)>,
    /// Messages to release.
    pub(crate) messages: Vec<OutgoingMessage>,
    /// Egress records to release.
    pub(crate) emissions: Vec<Emission>,
    /// How it ends.
    pub(crate) record: Arc<FlowRecord>,
    /// Commit it in a group of its own: it has met conflicts and should not drag others along.
    pub(crate) solo: bool,
    /// Who numbers its messages, as far as that is not this process already.
    pub(crate) lanes: Vec<SeenLane>,
}

/// A message that was committed and now has to be delivered.
#[derive(Clone, Debug)]
pub(crate) struct ReleasedMessage {
    /// Its row in the inbox or among the timers.
    pub(crate) row: Bytes,
    /// What it says.
    pub(crate) message: Message,
}

/// Who is told of what a durable group released.
pub(crate) trait Releases: Send + Sync + 'static {
    /// Messages, in commit order. Must not block.
    fn messages(&self, messages: Vec<ReleasedMessage>);
    /// An egress has a new record.
    fn egress(&self, egress: &EgressName, record: EgressRecord);
    /// A group of so many flows was durable after so long.
    fn group_committed(&self, flows: usize, took: Duration);
    /// The store refused a group.
    fn store_failed(&self, error: &tandem_store::Error);
}

/// What became of a sealed flow.
#[derive(Debug)]
pub(crate) enum Sealed {
    /// Durable.
    Durable,
    /// Nothing of it was applied: run it again. `own` if what it read or wrote itself was in the way: these rows, as far
    /// as the store says.
    Again { own: bool, rows: Vec<Bytes> },
    /// Nothing of it was applied, and the store cannot take it now.
    Refused(String),
}

/// A flow that could not be sealed: the rows that changed since its view, none if its view itself became void.
#[derive(Debug)]
pub(crate) struct Stale {
    pub(crate) rows: Vec<Bytes>,
}

/// All slots that this process runs flows for.
pub(crate) struct Partition<S: Store> {
    store: S,
    layout: Layout,
    sharing: Sharing,
    /// No other process on this store has the same, at any time; later ones have greater ones.
    incarnation: u64,
    releases: Arc<dyn Releases>,
    work: Notify,
    /// Whoever takes numbers for egress records, or passes them on.
    numbering: AsyncMutex<Emitting>,
    emitted: Notify,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The next version to hand out.
    next_version: u64,
    /// All versions up to here are durable.
    durable_version: u64,
    /// Grows when sealed flows were thrown away: views opened before are void.
    epoch: u64,
    sealed: SealedRows,
    /// How many open views rest on each durable version.
    views: BTreeMap<u64, usize>,
    /// Open views of flows that may still be sealed, those that are sealed and not answered included.
    live_views: usize,
    queue: VecDeque<Group>,
    /// Commit timestamps of the latest groups, by their last version.
    committed: VecDeque<(u64, Timestamp)>,
    lanes: Lanes,
    stopped: Option<String>,
}

#[derive(Debug, Default)]
struct Group {
    solo: bool,
    bytes: usize,
    last_version: u64,
    flows: Vec<SealedFlow>,
    /// In the order of their keys, as everything that goes to the store: the same flows make the same commit.
    writes: BTreeMap<Bytes, Option<Bytes>>,
    lanes: Used,
}

#[derive(Debug)]
struct SealedFlow {
    record_row: Bytes,
    reads: ReadSet,
    base: Timestamp,
    written: Vec<Bytes>,
    messages: Vec<ReleasedMessage>,
    egresses: Vec<(EgressName, EgressRecord)>,
    /// As long as its egress records are on their way.
    _emitting: Option<Emitting>,
    done: oneshot::Sender<Sealed>,
}

impl<S: Store> Partition<S> {
    /// A partition over `store`, with its versions behind all that any process before it used.
    ///
    /// Run [`Partition::run_committer`] beside it.
    pub(crate) async fn open(
        store: S,
        layout: Layout,
        releases: Arc<dyn Releases>,
        sharing: Sharing,
    ) -> Result<Arc<Self>, tandem_store::Error> {
        check_slots(&store, layout).await?;
        let first = reserve_versions(&store).await?;
        let incarnation = first / VERSION_BLOCK;
        let inner = Inner {
            next_version: first + 1,
            durable_version: first,
            epoch: 0,
            sealed: SealedRows::default(),
            views: BTreeMap::new(),
            live_views: 0,
            queue: VecDeque::new(),
            committed: VecDeque::new(),
            lanes: Lanes::new(layout, sharing, incarnation),
            stopped: None,
        };
        let (work, inner) = (Notify::new(), Mutex::new(inner));
        let (numbering, emitted) = (AsyncMutex::default(), Notify::new());
        Ok(Arc::new(Self { store, layout, sharing, incarnation, releases, work, numbering, emitted, inner }))
    }

    /// Names this process among all that ever worked on the store.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Whether others may write to the store.
    pub(crate) fn is_shared(&self) -> bool {
        self.sharing == Sharing::Shared
    }

    /// The slots that these messages are sent from and that this process does not number for.
    pub(crate) fn unheld_lanes(&self, messages: &[OutgoingMessage]) -> Vec<Slot> {
        if messages.is_empty() || !self.is_shared() {
            return Vec::new();
        }
        let inner = self.lock();
        let needed = inner.lanes.needed(messages);
        needed.into_iter().filter(|(from, count)| !inner.lanes.is_held(*from, *count)).map(|(from, _)| from).collect()
    }

    /// The store below.
    pub(crate) fn store(&self) -> &S {
        &self.store
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a flow its place in the order, if everything it read is still as it saw it.
    ///
    /// The receiver resolves once it is durable, or must be run again. Dropping it changes nothing.
    pub(crate) fn seal(&self, view: &View<S>, sealing: Sealing) -> Result<oneshot::Receiver<Sealed>, Stale> {
        let record = rows::encode_record(&sealing.record);
        let (done, receiver) = oneshot::channel();
        let mut inner = self.lock();
        if let Some(why) = &inner.stopped {
            // Answered through the receiver, so that callers have one place to handle it.
            let _ = done.send(Sealed::Refused(why.clone()));
            return Ok(receiver);
        }
        if view.epoch() != inner.epoch && works(Mechanism::EpochCompared) {
            return Err(Stale { rows: Vec::new() });
        }
        let stale = sealing.reads.changed(&inner.sealed);
        if !stale.is_empty() {
            return Err(Stale { rows: stale });
        }
        if !inner.can_number(&sealing) {
            return Err(Stale { rows: Vec::new() });
        }
        let emits = self.is_shared() && !sealing.emissions.is_empty();
        inner.add(self.layout, view.base().timestamp(), sealing, record, done);
        drop(inner);
        self.work.notify_one();
        if emits {
            self.emitted.notify_one();
        }
        Ok(receiver)
    }

    /// Flows that are sealed and not yet durable.
    pub(crate) fn sealed_flows(&self) -> usize {
        self.lock().queue.iter().map(|group| group.flows.len()).sum()
    }
}

impl Inner {
    /// Whether there are numbers for its messages.
    fn can_number(&self, sealing: &Sealing) -> bool {
        let is_seen = |from| sealing.lanes.iter().any(|lane| lane.from == from);
        let needed = self.lanes.needed(&sealing.messages);
        let has_lanes = needed.into_iter().all(|(from, count)| self.lanes.is_held(from, count) || is_seen(from));
        has_lanes && self.lanes.can_emit(sealing.emissions.len())
    }

    /// Takes over the numbering of the slots that messages are sent from, as far as another process has it.
    fn take_lanes(&mut self, sealing: &mut Sealing) -> BTreeSet<Slot> {
        let needed = self.lanes.needed(&sealing.messages);
        for (from, count) in &needed {
            let seen = sealing.lanes.iter().find(|lane| lane.from == *from);
            if let Some(lane) = seen.filter(|_| !self.lanes.is_held(*from, *count)) {
                let taking = self.lanes.take(lane, self.next_version);
                sealing.reads.add(taking.row.clone(), taking.seen);
                sealing.writes.push((taking.row, Some(taking.value)));
            }
        }
        needed.into_keys().collect()
    }

    fn add(
        &mut self,
        layout: Layout,
        base: Timestamp,
        mut sealing: Sealing,
        record: Bytes,
        done: oneshot::Sender<Sealed>,
    ) {
        let lanes = self.take_lanes(&mut sealing);
        let version = self.next_version;
        let released = release(layout, version, &sealing, &mut self.lanes);
        self.next_version += 1 + released.rows.len() as u64;
        let last_version = self.next_version - 1;
        let emits = !sealing.emissions.is_empty();
        let block = self.lanes.block.as_ref().filter(|_| emits).map(|block| block.value.clone());
        let record_row = layout.request(sealing.record.flow);
        let mut writes = sealing.writes;
        if works(Mechanism::RecordWritten) {
            writes.push((record_row.clone(), Some(record)));
        }
        if works(Mechanism::MessagesWritten) {
            writes.extend(released.rows);
        }
        let bytes = writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum();
        let written = writes.iter().map(|(key, _)| key.clone()).collect();
        for (key, value) in &writes {
            self.sealed.insert(key.clone(), version, value.clone());
        }
        let flow = SealedFlow {
            record_row,
            reads: sealing.reads,
            base,
            written,
            messages: released.messages,
            _emitting: self.lanes.block.as_ref().filter(|_| emits).map(|block| block.emitting.clone()),
            egresses: released.egresses,
            done,
        };
        let group = self.group_for(sealing.solo, bytes);
        group.bytes += bytes;
        group.last_version = last_version;
        group.writes.extend(writes);
        group.lanes.slots.extend(lanes);
        group.lanes.block = block.or_else(|| group.lanes.block.take());
        group.flows.push(flow);
    }

    fn group_for(&mut self, solo: bool, bytes: usize) -> &mut Group {
        let has_room = self.queue.back().is_some_and(|group| {
            !group.solo && !solo && group.flows.len() < GROUP_FLOWS_MAX && group.bytes + bytes <= GROUP_BYTES_MAX
        });
        if !has_room {
            self.queue.push_back(Group { solo, ..Group::default() });
        }
        self.queue.back_mut().expect("a group was just added if there was none")
    }

    /// Versions up to here are in every base that is open or will be opened.
    fn floor(&self) -> u64 {
        let oldest = self.views.keys().next().copied();
        oldest.map_or(self.durable_version, |oldest| oldest.min(self.durable_version))
    }
}

struct Released {
    rows: Vec<(Bytes, Option<Bytes>)>,
    messages: Vec<ReleasedMessage>,
    egresses: Vec<(EgressName, EgressRecord)>,
}

/// The rows of what a flow sends and emits. Sequences follow the flow's version, so they grow in commit order; where
/// others may commit as well, messages are numbered by the slot that they are sent from, and egress records from a block
/// that is known to all.
fn release(layout: Layout, version: u64, sealing: &Sealing, lanes: &mut Lanes) -> Released {
    let record = &sealing.record;
    let ended_unix_ms = record.accepted_unix_ms + record.duration_us / 1_000;
    let mut released = Released { rows: Vec::new(), messages: Vec::new(), egresses: Vec::new() };
    let mut sequence = version;
    for (index, outgoing) in (0_u32..).zip(&sealing.messages) {
        sequence += 1;
        let due_unix_ms = (outgoing.delay_ms > 0).then_some(ended_unix_ms + outgoing.delay_ms);
        let from = layout.slots().slot_of(&outgoing.from.key);
        let number = lanes.next(from).unwrap_or(sequence);
        let row = match due_unix_ms {
            Some(due) => layout.timer(&outgoing.to, due, from, number),
            None => layout.inbox(&outgoing.to, from, number),
        };
        let message = Message {
            from: Some(outgoing.from.clone()),
            flow: record.flow,
            index,
            to: outgoing.to.clone(),
            handler: outgoing.handler.clone(),
            payload: outgoing.payload.clone(),
            sent_unix_ms: ended_unix_ms,
            due_unix_ms,
        };
        released.rows.push((row.clone(), Some(rows::encode_message(&message))));
        released.messages.push(ReleasedMessage { row, message });
    }
    for emission in &sealing.emissions {
        sequence += 1;
        let number = lanes.block.as_mut().and_then(numbers::Block::next).unwrap_or(sequence);
        let row = layout.egress(&record.instance, &emission.egress, number);
        let value = EgressRow { flow: record.flow, payload: emission.payload.clone(), emitted_unix_ms: ended_unix_ms };
        released.rows.push((row, Some(rows::encode_egress(&value))));
        let released_record = EgressRecord { sequence: number, flow: record.flow, payload: emission.payload.clone() };
        released.egresses.push((emission.egress.clone(), released_record));
    }
    released
}

/// The row that says in how many slots the data of a store is laid out: two bytes, big endian.
pub fn slots_key() -> Bytes {
    tandem_store::keys::meta(SLOTS)
}

/// Holds the number of slots against the one that the store's data was laid out with; notes it in an empty store.
async fn check_slots<S: Store>(store: &S, layout: Layout) -> Result<(), tandem_store::Error> {
    let key = slots_key();
    let slots = Bytes::copy_from_slice(&layout.slots().get().to_be_bytes());
    for _ in 0..RESERVE_ATTEMPTS_MAX {
        let snapshot = store.snapshot().await?;
        match snapshot.get(&key).await? {
            Some(found) if found == slots => return Ok(()),
            Some(found) => {
                let found = found.as_ref().try_into().map_or(0, u16::from_be_bytes);
                return Err(tandem_store::Error::OtherLayout { found, asked: layout.slots().get() });
            }
            None => {}
        }
        let commit = tandem_store::Commit {
            primary: key.clone(),
            reads: vec![tandem_store::Read { key: key.clone(), seen_at: snapshot.timestamp(), value: None }],
            ranges: Vec::new(),
            writes: vec![(key.clone(), Some(slots.clone()))],
        };
        // Whatever came of it, the next round reads what is there.
        store.commit(commit).await?;
    }
    Err(tandem_store::Error::Unavailable("could not note the number of slots".to_owned()))
}

/// Takes a block of versions that no process before used, and returns the number before its first.
async fn reserve_versions<S: Store>(store: &S) -> Result<u64, tandem_store::Error> {
    let key = tandem_store::keys::meta(VERSIONS);
    for _ in 0..RESERVE_ATTEMPTS_MAX {
        let snapshot = store.snapshot().await?;
        let found = snapshot.get(&key).await?;
        let used = match &found {
            Some(bytes) if works(Mechanism::VersionsReserved) => numbers::decode(bytes)?,
            Some(_) | None => 0,
        };
        let limit = used + VERSION_BLOCK;
        let commit = tandem_store::Commit {
            primary: key.clone(),
            reads: vec![tandem_store::Read { key: key.clone(), seen_at: snapshot.timestamp(), value: found }],
            ranges: Vec::new(),
            writes: vec![(key.clone(), Some(Bytes::copy_from_slice(&limit.to_be_bytes())))],
        };
        // Anything but a clear success takes the next block: skipping one costs nothing.
        if let tandem_store::CommitResult::Committed(_) = store.commit(commit).await? {
            return Ok(used);
        }
    }
    Err(tandem_store::Error::Unavailable("could not reserve versions: others keep writing meta/versions".to_owned()))
}

#[cfg(test)]
mod tests;
