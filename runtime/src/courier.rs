//! Delivers messages: each one that a commit released becomes a flow of its own, exactly once.
//!
//! A message is a row of the inbox, or of the timers until it is due. The flow that it starts deletes the row in the
//! transaction of its effects, so a message that is delivered twice, by whomever, has its effect once. What is in
//! memory here is only a hint of what is in the store: on start, and whenever there was too much to keep, it is read
//! from there. Messages from one instance to another go one after the other, in the order they were committed.

use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tandem_model::ids::Instance;
use tandem_model::limits::DEADLINE_MS_MAX;
use tandem_model::mechanism::{Mechanism, works};
use tandem_model::request::{Origin, Request};
use tandem_model::slot::Slot;
use tandem_store::keys::{Layout, RowKey};
use tandem_store::rows::{self, Message};
use tandem_store::{Error, KeyRange, Snapshot, Store, keys};
use tokio::sync::{Notify, Semaphore};
use tracing::warn;

use crate::engine::Engine;
use crate::flow::Left;
use crate::metrics::Metrics;
use crate::partition::ReleasedMessage;
use crate::tasks::{self, TaskKind};

/// How the request ids of messages begin. No client may use such an id: the message would be taken for a repetition.
pub(crate) const MESSAGE_ID_PREFIX: &str = "message:";
/// Messages kept in memory. More stay in the store until there is room.
const MESSAGES_MAX: usize = 65_536;
/// Due times kept in memory. More stay in the store until there is room.
const TIMERS_MAX: usize = 262_144;
/// Flows of messages at one time.
const DELIVERIES_MAX: usize = 512;
/// Deliveries of one message that others were in the way of, or that took too long, before it is set aside.
const DELIVERY_ATTEMPTS_MAX: u32 = 20;
/// First wait before a message is delivered again.
const DELIVERY_BACKOFF: Duration = Duration::from_millis(50);
/// Longest such wait.
const DELIVERY_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Longest time between two looks at the clock and the store.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Rows read at once while scanning.
const SCAN_PAGE: usize = 1_000;

/// From whom to whom. Messages of one lane go one after the other.
type Lane = (Option<Instance>, Instance);

/// Knows what has to be delivered.
pub(crate) struct Courier {
    layout: Layout,
    metrics: Arc<Metrics>,
    inner: Mutex<Inner>,
    work: Notify,
}

struct Inner {
    lanes: HashMap<Lane, VecDeque<Bytes>>,
    /// Lanes with something to do and nobody on it.
    ready: VecDeque<Lane>,
    /// Messages in lanes, the ones under way included.
    known: HashMap<Bytes, Arc<Message>>,
    /// Something in the inbox is not in memory: everything new is left to the store until it has been read.
    behind: bool,
    /// What is released while the inbox is being read: it comes after what is read.
    arrivals: Option<Vec<ReleasedMessage>>,
    timers: BinaryHeap<std::cmp::Reverse<(u64, Bytes)>>,
    timers_known: HashSet<Bytes>,
    /// The same for timers.
    timers_behind: bool,
}

impl Courier {
    /// A courier that has yet to look into the store.
    pub(crate) fn new(layout: Layout, metrics: Arc<Metrics>) -> Arc<Self> {
        let inner = Inner {
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            known: HashMap::new(),
            behind: true,
            arrivals: None,
            timers: BinaryHeap::new(),
            timers_known: HashSet::new(),
            timers_behind: true,
        };
        Arc::new(Self { layout, metrics, inner: Mutex::new(inner), work: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit released messages. Does not block.
    pub(crate) fn released(&self, messages: Vec<ReleasedMessage>) {
        let mut inner = self.lock();
        for released in messages {
            match released.message.due_unix_ms {
                Some(due) => inner.add_timer(due, released.row),
                None => inner.arrived(released),
            }
        }
        drop(inner);
        self.work.notify_one();
    }

    /// The row that keeps a message which will never be delivered.
    pub(crate) fn dead_letter(&self, row: &Bytes, request: &Request) -> Option<(Bytes, Bytes)> {
        let message = self.lock().known.get(row).cloned()?;
        let sequence = match keys::parse(row).ok()? {
            RowKey::Inbox { sequence, .. } | RowKey::Timer { sequence, .. } => sequence,
            RowKey::StateValue { .. }
            | RowKey::StateEntry { .. }
            | RowKey::Request { .. }
            | RowKey::Egress { .. }
            | RowKey::DeadLetter { .. }
            | RowKey::Meta { .. } => return None,
        };
        Some((self.layout.dead_letter(&request.instance, sequence), rows::encode_message(&message)))
    }

    /// Delivers until the engine stops.
    pub(crate) async fn run<S: Store>(self: Arc<Self>, engine: Arc<Engine<S>>) {
        let places = Arc::new(Semaphore::new(DELIVERIES_MAX));
        loop {
            if let Err(error) = self.catch_up(&engine).await {
                warn!(%error, "failed to read waiting messages");
            }
            let wait = self.take_due(&engine).await;
            while let Some(lane) = self.next_lane() {
                let place = tokio::select! {
                    biased;
                    () = engine.stop.cancelled() => return,
                    place = Arc::clone(&places).acquire_owned() => place,
                };
                // The semaphore is never closed.
                let Ok(place) = place else { return };
                let (courier, engine) = (Arc::clone(&self), Arc::clone(&engine));
                tasks::spawn(TaskKind::Courier, async move {
                    courier.deliver_next(&engine, lane).await;
                    drop(place);
                });
            }
            self.report();
            tokio::select! {
                biased;
                () = engine.stop.cancelled() => return,
                () = self.work.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn report(&self) {
        let inner = self.lock();
        self.metrics.messages_waiting(inner.known.len());
        self.metrics.timers_waiting(inner.timers.len());
    }

    fn next_lane(&self) -> Option<Lane> {
        self.lock().ready.pop_front()
    }

    /// Delivers the first message of a lane, and makes the lane ready again if it has more.
    async fn deliver_next<S: Store>(&self, engine: &Arc<Engine<S>>, lane: Lane) {
        let first = {
            let inner = self.lock();
            let row = inner.lanes.get(&lane).and_then(|rows| rows.front()).cloned();
            row.and_then(|row| inner.known.get(&row).map(|message| (row.clone(), Arc::clone(message))))
        };
        if let Some((row, message)) = first
            && self.deliver(engine, &row, &message).await
        {
            self.lock().forget(&lane, &row);
        }
        let mut inner = self.lock();
        if inner.lanes.contains_key(&lane) {
            inner.ready.push_back(lane);
        }
        drop(inner);
        self.work.notify_one();
    }

    /// Runs the flow of a message until it has ended. `false` if the engine stopped first.
    async fn deliver<S: Store>(&self, engine: &Arc<Engine<S>>, row: &Bytes, message: &Message) -> bool {
        let mut backoff = DELIVERY_BACKOFF;
        let mut attempts = 0;
        loop {
            if engine.host.has_worker(&message.to.function) || !engine.is_declared(&message.to.function) {
                attempts += 1;
                let Some(request) = self.request(row, message) else { return true };
                match engine.deliver(request, attempts >= DELIVERY_ATTEMPTS_MAX).await {
                    Left::Ended(_) | Left::Repeated(_) | Left::Consumed => return true,
                    Left::Abandoned(why) => warn!(to = %message.to, attempts, why, "message will be delivered again"),
                }
            }
            tokio::select! {
                biased;
                () = engine.stop.cancelled() => return false,
                () = tokio::time::sleep(backoff) => {}
            }
            backoff = (backoff * 2).min(DELIVERY_BACKOFF_MAX);
        }
    }

    fn request(&self, row: &Bytes, message: &Message) -> Option<Request> {
        let id = format!("{MESSAGE_ID_PREFIX}{}:{}", message.flow, message.index).parse().ok()?;
        let deadline = Duration::from_millis(DEADLINE_MS_MAX);
        let (to, handler, payload) = (message.to.clone(), message.handler.clone(), message.payload.clone());
        let mut request = Request::new(self.layout.slots(), id, to, handler, payload, deadline);
        request.origin = Origin::Message { row: row.clone() };
        Some(request)
    }

    /// Moves timers that are due into their lanes. Returns how long to wait for the next one.
    async fn take_due<S: Store>(&self, engine: &Arc<Engine<S>>) -> Duration {
        loop {
            let now = engine.clock.unix_ms();
            let row = {
                let mut inner = self.lock();
                let Some(std::cmp::Reverse((due, row))) = inner.timers.peek().cloned() else { return LOOK_INTERVAL };
                if due > now {
                    return Duration::from_millis(due - now).min(LOOK_INTERVAL);
                }
                if inner.known.len() >= MESSAGES_MAX {
                    return LOOK_INTERVAL;
                }
                inner.timers.pop();
                row
            };
            match read_message(engine, &row).await {
                Ok(Some(message)) => {
                    let mut inner = self.lock();
                    inner.timers_known.remove(&row);
                    inner.add(row, Arc::new(message));
                }
                Ok(None) => drop(self.lock().timers_known.remove(&row)),
                Err(error) => {
                    warn!(%error, "failed to read a message that is due");
                    let mut inner = self.lock();
                    inner.timers_known.remove(&row);
                    inner.timers_behind = true;
                    return DELIVERY_BACKOFF;
                }
            }
        }
    }

    /// Reads from the store what is not in memory, as far as there is room.
    async fn catch_up<S: Store>(&self, engine: &Arc<Engine<S>>) -> Result<(), Error> {
        let (inbox, timers) = {
            let inner = self.lock();
            let inbox = inner.behind && inner.known.len() < MESSAGES_MAX / 2;
            (inbox, inner.timers_behind && inner.timers.len() < TIMERS_MAX / 2)
        };
        if inbox {
            self.lock().begin_reading();
            let complete = self.read_inbox(engine).await;
            self.lock().end_reading(matches!(complete, Ok(true)));
            complete?;
        }
        if timers {
            self.lock().timers_behind = false;
            let complete = self.read_timers(engine).await;
            self.lock().timers_behind |= !matches!(complete, Ok(true));
            complete?;
        }
        Ok(())
    }

    async fn read_inbox<S: Store>(&self, engine: &Arc<Engine<S>>) -> Result<bool, Error> {
        let take = |row: Bytes, value: Bytes| {
            let message = Arc::new(rows::decode_message(&value)?);
            let mut inner = self.lock();
            let has_room = inner.known.len() < MESSAGES_MAX;
            if has_room {
                inner.add_stored(row, message);
            }
            Ok(has_room)
        };
        self.read_all_slots(engine, Layout::inboxes, take).await
    }

    async fn read_timers<S: Store>(&self, engine: &Arc<Engine<S>>) -> Result<bool, Error> {
        let take = |row: Bytes, _| {
            let Ok(RowKey::Timer { due_unix_ms, .. }) = keys::parse(&row) else {
                return Err(Error::Damaged(format!("row {row:?} is not a timer")));
            };
            let mut inner = self.lock();
            let has_room = inner.timers.len() < TIMERS_MAX;
            if has_room {
                inner.add_timer(due_unix_ms, row);
            }
            Ok(has_room)
        };
        self.read_all_slots(engine, Layout::timers, take).await
    }

    /// Gives `take` the rows of a table as long as it has room. `true` if that was all of them.
    async fn read_all_slots<S: Store>(
        &self,
        engine: &Arc<Engine<S>>,
        rows_of: fn(Layout, Slot) -> KeyRange,
        mut take: impl FnMut(Bytes, Bytes) -> Result<bool, Error> + Send,
    ) -> Result<bool, Error> {
        let snapshot = engine.store.snapshot().await?;
        for slot in self.layout.slots().all() {
            if !each_row(&snapshot, rows_of(self.layout, slot), &mut take).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Inner {
    fn begin_reading(&mut self) {
        self.behind = false;
        self.arrivals = Some(Vec::new());
    }

    fn end_reading(&mut self, complete: bool) {
        let arrivals = self.arrivals.take().unwrap_or_default();
        self.behind |= !complete;
        for released in arrivals {
            self.arrived(released);
        }
    }

    fn arrived(&mut self, released: ReleasedMessage) {
        if self.behind {
            return;
        }
        match &mut self.arrivals {
            Some(arrivals) if arrivals.len() < MESSAGES_MAX => arrivals.push(released),
            Some(_) => {
                self.arrivals = None;
                self.behind = true;
            }
            None => self.add(released.row, Arc::new(released.message)),
        }
    }

    fn add(&mut self, row: Bytes, message: Arc<Message>) {
        if self.known.len() >= MESSAGES_MAX {
            self.behind = true;
            return;
        }
        self.add_stored(row, message);
    }

    fn add_stored(&mut self, row: Bytes, message: Arc<Message>) {
        if self.known.contains_key(&row) {
            return;
        }
        let lane = (message.from.clone(), message.to.clone());
        self.known.insert(row.clone(), message);
        let rows = self.lanes.entry(lane.clone()).or_default();
        if works(Mechanism::LaneOrder) {
            rows.push_back(row);
        } else {
            rows.push_front(row);
        }
        if rows.len() == 1 {
            self.ready.push_back(lane);
        }
    }

    fn add_timer(&mut self, due_unix_ms: u64, row: Bytes) {
        if self.known.contains_key(&row) {
            return;
        }
        if self.timers.len() >= TIMERS_MAX {
            self.timers_behind = true;
            return;
        }
        if self.timers_known.insert(row.clone()) {
            self.timers.push(std::cmp::Reverse((due_unix_ms, row)));
        }
    }

    fn forget(&mut self, lane: &Lane, row: &Bytes) {
        self.known.remove(row);
        if let Some(rows) = self.lanes.get_mut(lane) {
            rows.retain(|other| other != row);
            if rows.is_empty() {
                self.lanes.remove(lane);
            }
        }
    }
}

async fn read_message<S: Store>(engine: &Arc<Engine<S>>, row: &Bytes) -> Result<Option<Message>, Error> {
    let found = engine.store.snapshot().await?.get(row).await?;
    found.map(|value| rows::decode_message(&value)).transpose()
}

/// Calls `take` for each row of a range, page by page, as long as it says `true`.
async fn each_row<P: Snapshot>(
    snapshot: &P,
    range: KeyRange,
    take: &mut (impl FnMut(Bytes, Bytes) -> Result<bool, Error> + Send),
) -> Result<bool, Error> {
    let mut range = range;
    loop {
        let page = snapshot.scan(&range, SCAN_PAGE, false).await?;
        let is_last = page.len() < SCAN_PAGE;
        for (row, value) in page {
            range.start = crate::partition::successor(&row);
            if !take(row, value)? {
                return Ok(false);
            }
        }
        if is_last {
            return Ok(true);
        }
    }
}
