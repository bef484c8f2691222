//! The other runtimes on the same store: which there are, who owns what, and the streams to them.
//!
//! | module | concept |
//! | --- | --- |
//! | `link` | one stream to one of them, and what is under way on it |
//! | `serve` | what another one asks of this one |
//! | `wire` | from frames to our own types and back |
//!
//! **Invariant:** nothing here decides anything. A request whose stream ends is run here, with the same request id; a
//! message whose hint is lost is found in the store.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tandem_model::ids::{FlowId, Instance};
use tandem_model::request::Request;
use tandem_model::slot::{Slot, SlotCount};
use tandem_proto::peer::v1alpha1 as wire_types;
use tandem_store::keys::{self, RowKey};
use tandem_store::rows;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::dial::{PeerDial, Tcp};
use crate::members::{self, Map, MemberId};
use crate::metrics::{Forwarding, Metrics};
use crate::partition::ReleasedMessage;

use link::Link;
pub(crate) use link::{Answer, Claim, Claimed, Claiming, Forwarded, Lookup, Taken};
pub use serve::{Calls, accept};

pub(crate) mod link;
pub(crate) mod serve;
mod wire;

/// How long a runtime that stops passes requests on, unless told otherwise.
const LINGER: Duration = Duration::from_secs(1);
/// Messages in one hint.
const HINTED_MAX: usize = 128;
/// Bytes of messages in one hint. One message may exceed it by itself.
const HINTED_BYTES_MAX: usize = 1 << 20;

/// How a runtime shares its store with others.
pub struct PeerOptions {
    /// What the others call it. It owns the same again after a restart if it keeps its name; two must not have one name.
    /// Without one, it gets one that no other has.
    pub name: Option<String>,
    /// Where the others reach it, as a URL. Empty if they do not.
    pub address: String,
    /// Where they connect. Without one, whoever carries the streams hands them to [`accept`].
    pub listener: Option<TcpListener>,
    /// How streams to the others are opened.
    pub dial: Arc<dyn PeerDial>,
    /// How often it gives a sign of life.
    pub beat: Duration,
    /// After how long without one the others count as gone.
    pub dead_after: Duration,
    /// How long it goes on passing requests to the others when it stops, until whoever spreads load has noticed.
    pub linger: Duration,
}

impl PeerOptions {
    /// Reached over the network, with everything else as usual. `address` is what the others connect to.
    pub fn new(listener: TcpListener, address: String) -> Self {
        let (beat, dead_after) = (members::BEAT, members::MEMBER_DEAD_AFTER);
        Self { name: None, address, listener: Some(listener), dial: Arc::new(Tcp), beat, dead_after, linger: LINGER }
    }

    /// Not reached by the others: it does itself whatever it is asked, and they see that it is there. For a runtime that
    /// may have to share its store with others, and need not work together with them.
    pub fn unreachable() -> Self {
        let (beat, dead_after) = (members::BEAT, members::MEMBER_DEAD_AFTER);
        let (address, dial) = (String::new(), Arc::new(Tcp));
        Self { name: None, address, listener: None, dial, beat, dead_after, linger: LINGER }
    }
}

/// The other runtimes, as this one knows them.
pub(crate) struct Peers {
    me: AtomicU64,
    dial: Option<Arc<dyn PeerDial>>,
    metrics: Arc<Metrics>,
    map: watch::Sender<Arc<Map>>,
    links: Mutex<BTreeMap<MemberId, Kept>>,
    poked: Notify,
    stop: CancellationToken,
}

/// A link, and what ends it.
struct Kept {
    link: Arc<Link>,
    stop: CancellationToken,
}

impl Peers {
    /// Nobody else is on the store.
    pub(crate) fn alone(slots: SlotCount, metrics: Arc<Metrics>) -> Arc<Self> {
        Self::with(MemberId(0), slots, None, metrics)
    }

    /// Knows the others and reaches none of them.
    #[cfg(test)]
    pub(crate) fn unconnected(me: MemberId, slots: SlotCount, metrics: Arc<Metrics>) -> Arc<Self> {
        Self::with(me, slots, None, metrics)
    }

    /// Knows nobody yet, not even itself.
    pub(crate) fn new(slots: SlotCount, dial: Arc<dyn PeerDial>, metrics: Arc<Metrics>) -> Arc<Self> {
        Self::with(MemberId(0), slots, Some(dial), metrics)
    }

    /// Says who this one is.
    pub(crate) fn introduce(&self, me: MemberId) {
        self.me.store(me.0, Ordering::Relaxed);
    }

    fn me(&self) -> MemberId {
        MemberId(self.me.load(Ordering::Relaxed))
    }

    fn with(me: MemberId, slots: SlotCount, dial: Option<Arc<dyn PeerDial>>, metrics: Arc<Metrics>) -> Arc<Self> {
        let map = watch::Sender::new(Arc::new(Map::alone(slots)));
        let (links, poked, stop) = (Mutex::default(), Notify::new(), CancellationToken::new());
        let me = AtomicU64::new(me.0);
        Arc::new(Self { me, dial, metrics, map, links, poked, stop })
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<MemberId, Kept>> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who owns what now.
    pub(crate) fn map(&self) -> Arc<Map> {
        self.map.borrow().clone()
    }

    /// Told of each change of it.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Map>> {
        self.map.subscribe()
    }

    /// Replaces the map, and connects to whoever is new in it. Whether anything has changed.
    pub(crate) fn set_map(&self, map: Map) -> bool {
        if self.map.borrow().is_like(&map) {
            return false;
        }
        self.metrics.members(map.members.len(), map.owned_by(map.me));
        if let Some(dial) = &self.dial {
            let mut links = self.links();
            let is_there = |id: MemberId| map.members.iter().any(|member| member.id == id);
            links.retain(|id, kept| {
                is_there(*id) || {
                    kept.stop.cancel();
                    false
                }
            });
            for member in map.members.iter().filter(|member| member.id != self.me() && member.is_reachable()) {
                links.entry(member.id).or_insert_with(|| {
                    let (link, stop) = (Link::new(member.id), self.stop.child_token());
                    link::start(Arc::clone(&link), self.me(), Arc::clone(member), Arc::clone(dial), stop.clone());
                    Kept { link, stop }
                });
            }
        }
        self.map.send_replace(Arc::new(map));
        true
    }

    /// Returns when another one says that it has changed.
    pub(crate) async fn poked(&self) {
        self.poked.notified().await;
    }

    /// Another one says that it has changed.
    pub(crate) fn poke_here(&self) {
        self.poked.notify_one();
    }

    /// How many streams to others are open.
    pub(crate) fn connected(&self) -> usize {
        self.links().values().filter(|kept| kept.link.is_open()).count()
    }

    /// Whether others may work on the store.
    pub(crate) fn are_there(&self) -> bool {
        self.dial.is_some()
    }

    /// Tells the others that this one has changed.
    pub(crate) fn poke(&self) {
        for kept in self.links().values() {
            kept.link.changed();
        }
    }

    /// Passes a client's request on to the owner of its slot. `None` if this one is to run it.
    pub(crate) fn forward(&self, request: &Request) -> Option<Forwarded> {
        let owner = self.map.borrow().elsewhere(request.flow.slot())?;
        let link = self.links().get(&owner).map(|kept| Arc::clone(&kept.link));
        let forwarded = link.and_then(|link| link.execute(request));
        if forwarded.is_none() {
            self.metrics.forwarded(Forwarding::Unreachable);
        }
        forwarded
    }

    /// Hints the owners at messages that were committed. Gives back those that nobody else could be told of.
    pub(crate) fn hint(&self, messages: Vec<ReleasedMessage>) -> Vec<ReleasedMessage> {
        if self.dial.is_none() {
            return messages;
        }
        let map = self.map();
        let (mut own, mut of_others) = (Vec::new(), BTreeMap::<MemberId, Vec<ReleasedMessage>>::new());
        for released in messages {
            match slot_of(&released.row).and_then(|slot| map.elsewhere(slot)) {
                Some(owner) => of_others.entry(owner).or_default().push(released),
                None => own.push(released),
            }
        }
        for (owner, messages) in of_others {
            let link = self.links().get(&owner).map(|kept| Arc::clone(&kept.link));
            for chunk in chunks(messages) {
                let is_told = link.as_ref().is_some_and(|link| link.deliver(&chunk));
                self.metrics.hinted(is_told, chunk.len());
                if !is_told {
                    own.extend(chunk);
                }
            }
        }
        own
    }

    /// Whether another runtime owns a slot.
    pub(crate) fn is_elsewhere(&self, slot: Slot) -> bool {
        self.map.borrow().elsewhere(slot).is_some()
    }

    /// Asks the owner of a slot for the turn on an instance in it. `None` if it cannot be asked.
    pub(crate) fn claim(&self, slot: Slot, instance: &Instance, wait_max: Duration) -> Option<Claim> {
        let owner = self.map.borrow().elsewhere(slot)?;
        let link = self.links().get(&owner).map(|kept| Arc::clone(&kept.link));
        link.and_then(|link| link.claim(instance, wait_max))
    }

    /// Asks all others for a flow, and takes the first that knows it.
    pub(crate) async fn find(&self, flow: FlowId, lookup: Lookup) -> Option<Answer> {
        let links: Vec<Arc<Link>> = self.links().values().map(|kept| Arc::clone(&kept.link)).collect();
        let asked = links.into_iter().filter_map(|link| link.look(flow, lookup));
        let mut answers: futures_util::stream::FuturesUnordered<_> = asked.collect();
        while let Some(answer) = futures_util::StreamExt::next(&mut answers).await {
            if answer.is_some() {
                return answer;
            }
        }
        None
    }

    /// Whether another one is there that takes requests.
    pub(crate) fn has_others(&self) -> bool {
        let map = self.map.borrow();
        map.members.iter().any(|member| member.id != map.me && !member.draining && member.is_reachable())
    }

    /// Ends all streams.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }
}

/// The slot that a row is in.
pub(crate) fn slot_of(row: &Bytes) -> Option<Slot> {
    match keys::parse(row).ok()? {
        RowKey::Inbox { slot, .. } | RowKey::Timer { slot, .. } => Some(slot),
        RowKey::StateValue { .. }
        | RowKey::StateEntry { .. }
        | RowKey::Request { .. }
        | RowKey::Egress { .. }
        | RowKey::DeadLetter { .. }
        | RowKey::Lane { .. }
        | RowKey::Meta { .. } => None,
    }
}

/// Parts that fit into one frame each.
fn chunks(messages: Vec<ReleasedMessage>) -> Vec<Vec<ReleasedMessage>> {
    let mut chunks: Vec<Vec<ReleasedMessage>> = Vec::new();
    let mut bytes = 0;
    for released in messages {
        bytes += released.row.len() + released.message.payload.bytes.len();
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < HINTED_MAX && bytes <= HINTED_BYTES_MAX => chunk.push(released),
            Some(_) | None => {
                bytes = released.row.len() + released.message.payload.bytes.len();
                chunks.push(vec![released]);
            }
        }
    }
    chunks
}

/// Messages out of a hint. What is none is left out: it is only a hint.
fn hinted(deliver: wire_types::Deliver) -> Vec<ReleasedMessage> {
    let messages = deliver.messages.into_iter().filter_map(|message| {
        slot_of(&message.row)?;
        let decoded = rows::decode_message(&message.value).ok()?;
        Some(ReleasedMessage { row: message.row, message: decoded })
    });
    messages.collect()
}
