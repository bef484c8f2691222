//! Delivers messages: each one that a commit released becomes a flow of its own, exactly once.
//!
//! A message is a row of the inbox, or of the timers until it is due. The flow that it starts deletes the row in the
//! transaction of its effects, so a message that is delivered twice, by whomever, has its effect once. What is in
//! memory here is only a hint of what is in the store: on start, when slots are taken over, now and then, and whenever
//! there was too much to keep, it is read from there.
//!
//! Messages from one instance to another go one after the other, in the order they were committed. Where other runtimes
//! deliver as well, the flow of a message validates that none comes before it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tandem_model::limits::DEADLINE_MS_MAX;
use tandem_model::request::{Origin, Request};
use tandem_model::slot::Slot;
use tandem_store::keys::{Layout, RowKey};
use tandem_store::rows::{self, Message};
use tandem_store::{Error, KeyRange, Snapshot, Store, keys};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tracing::warn;

use crate::engine::Engine;
use crate::flow::Left;
use crate::members::Map;
use crate::metrics::Metrics;
use crate::partition::ReleasedMessage;
use crate::peers::{Peers, slot_of};
use crate::tasks::{self, TaskKind};

use inner::{Inner, Lane};

mod inner;

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
/// How often the store is searched for messages that nobody told of, where others commit as well.
const SEARCH_INTERVAL: Duration = Duration::from_mins(1);
/// How soon after a stream of hints broke it is searched, so that several that break at once cost one search.
const SEARCH_SOON: Duration = Duration::from_millis(200);
/// Rows read at once while scanning.
const SCAN_PAGE: usize = 1_000;
/// Slots that are asked at once whether anything waits in them: a store answers many such questions with one message.
const SLOTS_AT_ONCE: usize = 128;

/// Knows what has to be delivered.
pub(crate) struct Courier {
    layout: Layout,
    metrics: Arc<Metrics>,
    peers: Arc<Peers>,
    inner: Mutex<Inner>,
    work: Notify,
}

/// What became of a message.
enum Delivered {
    /// It is not there any more.
    Gone,
    /// Another one comes first.
    TooEarly,
    /// The engine stopped first.
    Stopped,
}

impl Courier {
    /// A courier that has yet to look into the store.
    pub(crate) fn new(layout: Layout, metrics: Arc<Metrics>, peers: Arc<Peers>) -> Arc<Self> {
        Arc::new(Self { layout, metrics, peers, inner: Mutex::default(), work: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit of this runtime released messages. Does not block.
    pub(crate) fn released(&self, messages: Vec<ReleasedMessage>) {
        // Those that nobody else could be told of are delivered here: that is always safe.
        self.arrived(self.peers.hint(messages));
    }

    /// Messages to be delivered here.
    pub(crate) fn arrived(&self, messages: Vec<ReleasedMessage>) {
        if messages.is_empty() {
            return;
        }
        let mut inner = self.lock();
        for released in messages {
            let Some(slot) = slot_of(&released.row) else { continue };
            match released.message.due_unix_ms {
                Some(due) => inner.add_timer(slot, due, released.row),
                None => inner.arrived(slot, released),
            }
        }
        drop(inner);
        self.work.notify_one();
    }

    /// Hints may have been lost: the store is searched soon.
    pub(crate) fn look_again(&self) {
        let soon = Instant::now() + SEARCH_SOON;
        let mut inner = self.lock();
        inner.search_at = Some(inner.search_at.map_or(soon, |at| at.min(soon)));
        drop(inner);
        self.work.notify_one();
    }

    /// Flows of messages that run.
    pub(crate) fn in_flight(&self) -> usize {
        self.lock().in_flight()
    }

    /// What may be in a message's lane before it and has to be gone. `None` for delayed ones, which have no order.
    pub(crate) fn before(&self, row: &Bytes) -> Option<KeyRange> {
        let RowKey::Inbox { target, from, sequence, .. } = keys::parse(row).ok()? else { return None };
        let lane = Lane { from, to: target, is_delayed: false };
        let after = self.lock().floor(&lane);
        Some(self.layout.inbox_between(&lane.to, from, after, sequence))
    }

    /// The row that keeps a message which will never be delivered.
    pub(crate) fn dead_letter(&self, row: &Bytes, request: &Request) -> Option<(Bytes, Bytes)> {
        let message = self.lock().message(row)?;
        let (from, sequence) = match keys::parse(row).ok()? {
            RowKey::Inbox { from, sequence, .. } | RowKey::Timer { from, sequence, .. } => (from, sequence),
            RowKey::StateValue { .. }
            | RowKey::StateEntry { .. }
            | RowKey::Request { .. }
            | RowKey::Egress { .. }
            | RowKey::DeadLetter { .. }
            | RowKey::Lane { .. }
            | RowKey::Meta { .. } => return None,
        };
        Some((self.layout.dead_letter(&request.instance, from, sequence), rows::encode_message(&message)))
    }

    /// Delivers until the engine stops.
    pub(crate) async fn run<S: Store>(self: Arc<Self>, engine: Arc<Engine<S>>) {
        let places = Arc::new(Semaphore::new(DELIVERIES_MAX));
        let mut maps = self.peers.watch();
        let mut followed = None;
        loop {
            let map = maps.borrow_and_update().clone();
            if followed.as_ref().is_none_or(|followed| !Arc::ptr_eq(followed, &map)) {
                self.follow_owners(&map);
                followed = Some(map);
            }
            self.search();
            if let Err(error) = self.catch_up(&engine).await {
                warn!(%error, "failed to read waiting messages");
            }
            let wait = self.take_due(&engine).await.min(self.until_search());
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
                // The sender is as old as we are.
                _ = maps.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Reads what waits in slots that this runtime owns from now on, and hands over what waits in those that it does not.
    fn follow_owners(&self, map: &Map) {
        let now: BTreeSet<Slot> = self.layout.slots().all().filter(|slot| map.is_mine(*slot)).collect();
        let mut inner = self.lock();
        let gained: Vec<Slot> = now.difference(&inner.own).copied().collect();
        let has_lost = inner.own.difference(&now).next().is_some();
        inner.own = now;
        inner.read_again(gained);
        let of_others = if has_lost { inner.take_idle(|slot| map.elsewhere(slot).is_some()) } else { Vec::new() };
        drop(inner);
        // Whom nobody takes is ours again.
        self.arrived(self.peers.hint(of_others));
    }

    /// Has the store searched if it is time.
    fn search(&self) {
        let mut inner = self.lock();
        let now = Instant::now();
        if inner.search_at.is_some_and(|at| at <= now) {
            let own: Vec<Slot> = inner.own.iter().copied().collect();
            inner.read_again(own);
            inner.search_at = None;
        }
        if inner.search_at.is_none() && self.peers.are_there() {
            inner.search_at = Some(now + SEARCH_INTERVAL);
        }
    }

    fn until_search(&self) -> Duration {
        self.lock().search_at.map_or(LOOK_INTERVAL, |at| at.saturating_duration_since(Instant::now()))
    }

    fn report(&self) {
        let inner = self.lock();
        self.metrics.messages_waiting(inner.messages());
        self.metrics.timers_waiting(inner.timers());
    }

    fn next_lane(&self) -> Option<Lane> {
        self.lock().next_lane()
    }

    /// Delivers the first message of a lane, and makes the lane ready again if it has more.
    async fn deliver_next<S: Store>(&self, engine: &Arc<Engine<S>>, lane: Lane) {
        let first = self.lock().begin(&lane);
        if let Some((row, message)) = first {
            let delivered = self.deliver(engine, &row, &message).await;
            if matches!(delivered, Delivered::TooEarly) {
                self.make_way(engine, &row).await;
            }
            self.lock().end(&lane, &row, matches!(delivered, Delivered::Gone));
        }
        self.lock().go_on(lane);
        self.work.notify_one();
    }

    /// Runs the flow of a message until it has ended.
    async fn deliver<S: Store>(&self, engine: &Arc<Engine<S>>, row: &Bytes, message: &Message) -> Delivered {
        let mut backoff = DELIVERY_BACKOFF;
        let mut attempts = 0;
        loop {
            if engine.host.has_worker(&message.to.function) || !engine.is_declared(&message.to.function) {
                attempts += 1;
                let Some(request) = self.request(row, message) else { return Delivered::Gone };
                match engine.deliver(request, attempts >= DELIVERY_ATTEMPTS_MAX).await {
                    Left::Ended(_) | Left::Repeated(_) | Left::Consumed => return Delivered::Gone,
                    Left::TooEarly => return Delivered::TooEarly,
                    Left::Abandoned(why) => warn!(to = %message.to, attempts, why, "message will be delivered again"),
                }
            }
            tokio::select! {
                biased;
                () = engine.stop.cancelled() => return Delivered::Stopped,
                () = tokio::time::sleep(backoff) => {}
            }
            backoff = (backoff * 2).min(DELIVERY_BACKOFF_MAX);
        }
    }

    /// Takes in the messages that come before one.
    async fn make_way<S: Store>(&self, engine: &Arc<Engine<S>>, row: &Bytes) {
        match self.read_before(engine, row).await {
            Ok(true) => return,
            // What was in the way is gone by now, or is on its way to the store.
            Ok(false) => {}
            Err(error) => warn!(%error, "failed to read the messages before one"),
        }
        tokio::time::sleep(DELIVERY_BACKOFF).await;
    }

    /// Reads the messages of a lane that come before one, which others have not told of. Whether there are any.
    async fn read_before<S: Store>(&self, engine: &Arc<Engine<S>>, row: &Bytes) -> Result<bool, Error> {
        let Some(range) = self.before(row) else { return Ok(false) };
        let found = engine.store.snapshot().await?.scan(&range, SCAN_PAGE, false).await?;
        let is_some = !found.is_empty();
        for (row, value) in found {
            let message = Arc::new(rows::decode_message(&value)?);
            self.lock().add_stored(row, message);
        }
        Ok(is_some)
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
                let Some(due) = inner.next_due() else { return LOOK_INTERVAL };
                if due > now {
                    return Duration::from_millis(due - now).min(LOOK_INTERVAL);
                }
                if inner.messages() >= MESSAGES_MAX {
                    return LOOK_INTERVAL;
                }
                let Some(row) = inner.take_timer() else { continue };
                row
            };
            match read_message(engine, &row).await {
                Ok(Some(message)) => self.lock().add(row, Arc::new(message)),
                Ok(None) => {}
                Err(error) => {
                    warn!(%error, "failed to read a message that is due");
                    self.lock().timer_is_behind(&row);
                    return DELIVERY_BACKOFF;
                }
            }
        }
    }

    /// Reads from the store what is not in memory, as far as there is room.
    async fn catch_up<S: Store>(&self, engine: &Arc<Engine<S>>) -> Result<(), Error> {
        let (inbox, timers) = {
            let mut inner = self.lock();
            (inner.begin_reading(), inner.begin_reading_timers())
        };
        if inbox.is_empty() && timers.is_empty() {
            return Ok(());
        }
        let occupied = match self.occupied(engine, inbox.iter().chain(&timers).copied().collect()).await {
            Ok(occupied) => occupied,
            Err(error) => {
                let mut inner = self.lock();
                inner.end_reading(0, &inbox);
                inner.end_reading_timers(0, &timers);
                return Err(error);
            }
        };
        let of_occupied =
            |slots: Vec<Slot>| slots.into_iter().filter(|slot| occupied.contains(slot)).collect::<Vec<_>>();
        let (inbox, timers) = (of_occupied(inbox), of_occupied(timers));
        let inbox_read = self.read_inbox(engine, &inbox).await;
        self.lock().end_reading(*inbox_read.as_ref().unwrap_or(&0), &inbox);
        let timers_read = self.read_timers(engine, &timers).await;
        self.lock().end_reading_timers(*timers_read.as_ref().unwrap_or(&0), &timers);
        inbox_read.and(timers_read).map(|_| ())
    }

    /// Of these slots, those in which anything waits. Mostly that is none: so all are asked before any is read.
    async fn occupied<S: Store>(
        &self,
        engine: &Arc<Engine<S>>,
        slots: BTreeSet<Slot>,
    ) -> Result<BTreeSet<Slot>, Error> {
        let snapshot = engine.store.snapshot().await?;
        let ask = |slot| {
            let range = self.layout.waiting(slot);
            let snapshot = &snapshot;
            async move { snapshot.scan(&range, 1, false).await.map(|rows| (!rows.is_empty()).then_some(slot)) }
        };
        let asked = stream::iter(slots).map(ask).buffered(SLOTS_AT_ONCE);
        asked.try_filter_map(|slot| std::future::ready(Ok(slot))).try_collect().await
    }

    /// Reads the inboxes of slots, as long as there is room. Returns how many of them it has read whole.
    async fn read_inbox<S: Store>(&self, engine: &Arc<Engine<S>>, slots: &[Slot]) -> Result<usize, Error> {
        let take = |row: Bytes, value: Bytes| {
            let message = Arc::new(rows::decode_message(&value)?);
            Ok(self.lock().add_if_room(row, message))
        };
        self.read_slots(engine, slots, Layout::inboxes, take).await
    }

    async fn read_timers<S: Store>(&self, engine: &Arc<Engine<S>>, slots: &[Slot]) -> Result<usize, Error> {
        let take = |row: Bytes, _| {
            let Ok(RowKey::Timer { due_unix_ms, .. }) = keys::parse(&row) else {
                return Err(Error::Damaged(format!("row {row:?} is not a timer")));
            };
            Ok(self.lock().add_timer_if_room(due_unix_ms, row))
        };
        self.read_slots(engine, slots, Layout::timers, take).await
    }

    /// Gives `take` the rows of a table, slot by slot, as long as it has room. Returns how many slots it has had whole.
    async fn read_slots<S: Store>(
        &self,
        engine: &Arc<Engine<S>>,
        slots: &[Slot],
        rows_of: fn(Layout, Slot) -> KeyRange,
        mut take: impl FnMut(Bytes, Bytes) -> Result<bool, Error> + Send,
    ) -> Result<usize, Error> {
        if slots.is_empty() {
            return Ok(0);
        }
        let snapshot = engine.store.snapshot().await?;
        for (whole, slot) in slots.iter().enumerate() {
            if !each_row(&snapshot, rows_of(self.layout, *slot), &mut take).await? {
                return Ok(whole);
            }
        }
        Ok(slots.len())
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
