//! Who else runs on this store: a row for each runtime in the store itself, so that nothing else is needed to find them.
//!
//! Each member writes its row at each beat, with a counter that grows, and reads the rows of the others. A member whose
//! counter has stood still for too long, on the clock of the one who looks, counts as gone. Nobody's wall clock matters.
//! What follows is a [`Map`] of owners, which is a hint: a runtime that is taken for dead and is not still commits
//! nothing that the store does not allow.
//!
//! **Invariant:** an id is never used twice, since it is a block of versions that the runtime reserved.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tandem_model::slot::SlotCount;
use tandem_store::{Commit, CommitResult, Error, Read, Snapshot, Store, keys};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::partition::numbers;
use crate::peers::Peers;

pub use map::{Map, PARTITIONS, partition_of, place};
pub use signs::live;

mod map;
mod signs;

/// How often a member gives a sign of life.
pub const BEAT: Duration = Duration::from_secs(1);
/// A member that gave none for so long is not live.
pub const MEMBER_DEAD_AFTER: Duration = Duration::from_secs(5);
/// The row of a member that gave no sign of life for so many times that long is removed.
const REMOVED_AFTER: u32 = 12;
/// How long a runtime that has just been started may wait for its workers before it owns something.
const COLD_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest wait for the store in one beat.
const STORE_TIME_MAX: Duration = Duration::from_secs(5);
/// Version of the rows and of all formats that members have to agree on.
pub const FORMAT: u8 = 2;
/// Names of the rows begin with it.
const PREFIX: &str = "member/";
/// More members than anybody has.
const MEMBERS_MAX: usize = 10_000;

/// Names one run of one runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberId(pub u64);

impl std::fmt::Display for MemberId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One runtime, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Names this run of it.
    pub id: MemberId,
    /// Stays the same when it is started again; decides what it owns.
    pub name: String,
    /// Where the others reach it. Empty if nobody can reach it: then it owns nothing in the eyes of the others, and
    /// everything in its own.
    pub address: String,
    /// Version of the program.
    pub version: String,
    /// It takes nothing new, because it stops or has only begun.
    pub draining: bool,
    /// Grows with each beat.
    pub beat: u64,
}

impl Member {
    /// Whether the others can pass anything on to it.
    pub(crate) fn is_reachable(&self) -> bool {
        !self.address.is_empty()
    }
}

/// How a member behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) beat: Duration,
    pub(crate) dead_after: Duration,
    pub(crate) linger: Duration,
    pub(crate) slots: SlotCount,
}

/// Whether a runtime that has just been started can run flows.
pub(crate) type Warm = Box<dyn Fn() -> bool + Send + Sync>;

/// The membership of this runtime.
pub(crate) struct Membership<S: Store> {
    store: S,
    settings: Settings,
    peers: Arc<Peers>,
    warm: Warm,
    state: Mutex<State>,
}

struct State {
    me: Member,
    /// Until when it waits to be warm before it owns anything.
    cold_until: Option<Instant>,
    /// It has left: no more beats.
    gone: bool,
    others: BTreeMap<MemberId, Seen>,
    /// When the rows were read last.
    looked: Instant,
    revision: u64,
}

struct Seen {
    row: (Bytes, Bytes),
    /// Unless this version cannot read it.
    member: Option<Arc<Member>>,
    /// When the row was seen to change last.
    changed: Instant,
    warned: bool,
}

impl<S: Store> Membership<S> {
    /// Becomes a member, which owns nothing before it is warm. Fails if a live member has formats that this version does
    /// not know.
    pub(crate) async fn join(
        store: S,
        settings: Settings,
        mut me: Member,
        peers: Arc<Peers>,
        warm: Warm,
    ) -> Result<Arc<Self>, Error> {
        let looked = Instant::now();
        me.draining = !warm();
        let cold_until = me.draining.then_some(looked + COLD_TIME_MAX);
        let state = State { me, cold_until, gone: false, others: BTreeMap::new(), looked, revision: 0 };
        let membership = Self { store, settings, peers, warm, state: Mutex::new(state) };
        membership.refuse_strangers().await?;
        let mut state = membership.state.lock().await;
        membership.write(&mut state).await?;
        membership.look(&mut state).await?;
        drop(state);
        Ok(Arc::new(membership))
    }

    /// Beats and looks until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let poked = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.peers.poked() => true,
                () = tokio::time::sleep(self.settings.beat) => false,
            };
            let mut state = self.state.lock().await;
            let is_warm = state.cold_until.is_some_and(|until| Instant::now() >= until || (self.warm)());
            if is_warm {
                (state.cold_until, state.me.draining) = (None, false);
            }
            let round = async {
                if !poked || is_warm {
                    self.write(&mut state).await?;
                }
                self.look(&mut state).await
            };
            match timeout(STORE_TIME_MAX, round).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(%error, "failed to give a sign of life to the other runtimes"),
                Err(_) => warn!("failed to give a sign of life to the other runtimes: the store does not answer"),
            }
        }
    }

    /// How long requests are still passed on when this one stops.
    pub(crate) fn linger(&self) -> Duration {
        self.settings.linger
    }

    /// Tells the others that this one takes nothing new. They take over as soon as they see it.
    pub(crate) async fn drain(&self) {
        let mut state = self.state.lock().await;
        (state.cold_until, state.me.draining) = (None, true);
        self.tell(&mut state).await;
    }

    /// Takes this one's row away.
    pub(crate) async fn leave(&self) {
        let mut state = self.state.lock().await;
        state.gone = true;
        let key = row_key(state.me.id);
        let removed = timeout(STORE_TIME_MAX, self.store.commit(one_write(key, None, Vec::new()))).await;
        if !matches!(removed, Ok(Ok(CommitResult::Committed(_)))) {
            warn!("left without removing its row; the others will");
        }
        drop(state);
        self.peers.poke();
    }

    async fn tell(&self, state: &mut State) {
        let told = async {
            self.write(state).await?;
            self.look(state).await
        };
        match timeout(STORE_TIME_MAX, told).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "failed to tell the other runtimes"),
            Err(_) => warn!("failed to tell the other runtimes: the store does not answer"),
        }
        self.peers.poke();
    }

    /// Writes this one's row. Whoever took it for dead and removed it has it again.
    async fn write(&self, state: &mut State) -> Result<(), Error> {
        if state.gone {
            return Ok(());
        }
        state.me.beat += 1;
        let (key, value) = (row_key(state.me.id), encode(&state.me));
        // Whatever becomes of it, the next beat writes it again.
        self.store.commit(one_write(key, Some(value), Vec::new())).await.map(|_| ())
    }

    /// Reads all rows, and works out who is live and who owns what.
    async fn look(&self, state: &mut State) -> Result<(), Error> {
        let snapshot = self.store.snapshot().await?;
        let rows = snapshot.scan(&keys::metas(PREFIX), MEMBERS_MAX, false).await?;
        let now = Instant::now();
        // Whoever could not look for long has seen nobody, and knows nothing of anybody's death.
        let was_blind = now.duration_since(state.looked) > self.settings.dead_after / 2;
        state.looked = now;
        let mut others = std::mem::take(&mut state.others);
        for (key, value) in rows {
            let Some(id) = id_of(&key).filter(|id| *id != state.me.id) else { continue };
            let seen = match others.remove(&id) {
                Some(seen) if seen.row.1 == value && !was_blind => seen,
                before => {
                    let warned = before.is_some_and(|before| before.warned);
                    Seen { member: decode(&value).map(Arc::new), row: (key, value), changed: now, warned }
                }
            };
            state.others.insert(id, seen);
        }
        self.publish(state, now);
        self.remove_dead(state, &snapshot, now).await;
        self.remove_numbers(state, &snapshot).await
    }

    fn publish(&self, state: &mut State, now: Instant) {
        let mut members: Vec<Arc<Member>> = Vec::new();
        for seen in state.others.values_mut() {
            let is_live = now.duration_since(seen.changed) < self.settings.dead_after;
            match &seen.member {
                Some(member) if is_live && !is_before(member, &state.me) => members.push(Arc::clone(member)),
                None if is_live && !seen.warned => {
                    seen.warned = true;
                    warn!("a runtime with formats of another version works on this store; it is left alone");
                }
                Some(_) | None => {}
            }
        }
        if !state.gone {
            members.push(Arc::new(state.me.clone()));
        }
        members.sort_by_key(|member| member.id);
        // Of two that have one name, the first one was started again.
        let last: BTreeMap<String, MemberId> = members.iter().map(|member| (member.name.clone(), member.id)).collect();
        members.retain(|member| last.get(&member.name) == Some(&member.id));
        let map = Map::of(state.revision + 1, state.me.id, members, self.settings.slots);
        if self.peers.set_map(map) {
            state.revision += 1;
        }
    }

    /// Removes the rows of those who have long been dead, and of this one's earlier runs.
    async fn remove_dead(&self, state: &State, snapshot: &S::Snapshot, now: Instant) {
        for seen in state.others.values() {
            let silent = now.duration_since(seen.changed);
            let is_earlier = seen.member.as_ref().is_some_and(|member| is_before(member, &state.me));
            if silent < self.settings.dead_after * REMOVED_AFTER && !is_earlier {
                continue;
            }
            let (key, value) = seen.row.clone();
            let read = Read { key: key.clone(), seen_at: snapshot.timestamp(), value: Some(value) };
            match self.store.commit(one_write(key, None, vec![read])).await {
                // Somebody else removes it, or it lives after all.
                Ok(CommitResult::Committed(_) | CommitResult::Conflict(_) | CommitResult::Undetermined(_)) => {}
                Err(error) => return warn!(%error, "failed to remove the row of a runtime that is gone"),
            }
        }
    }

    /// Takes the numbers of egress records from those who are gone: others wait for them. One who is not gone after all
    /// finds that its commits conflict, and takes others.
    async fn remove_numbers(&self, state: &State, snapshot: &S::Snapshot) -> Result<(), Error> {
        let map = self.peers.map();
        for (key, value) in numbers::rows(snapshot).await? {
            let holder = numbers::holder_of(&key).map(MemberId);
            let is_there = |holder| holder == state.me.id || map.members.iter().any(|member| member.id == holder);
            if holder.is_some_and(|holder| !is_there(holder)) {
                let read = Read { key: key.clone(), seen_at: snapshot.timestamp(), value: Some(value) };
                // If it was not removed now, the next look finds it again.
                self.store.commit(one_write(key, None, vec![read])).await?;
            }
        }
        Ok(())
    }

    /// Waits to see whether a member with other formats lives, if there is a row of one.
    async fn refuse_strangers(&self) -> Result<(), Error> {
        let strangers = async || -> Result<BTreeMap<Bytes, Bytes>, Error> {
            let rows = self.store.snapshot().await?.scan(&keys::metas(PREFIX), MEMBERS_MAX, false).await?;
            Ok(rows.into_iter().filter(|(_, value)| decode(value).is_none()).collect())
        };
        let began = Instant::now();
        let first = strangers().await?;
        if !first.is_empty() {
            info!("rows of runtimes with other formats are in the store; looking whether those are live");
        }
        while !first.is_empty() && began.elapsed() < self.settings.dead_after {
            tokio::time::sleep(self.settings.beat / 2).await;
            let now = strangers().await?;
            if let Some((_, value)) = now.iter().find(|(key, value)| first.get(*key).is_some_and(|was| was != *value)) {
                let found = u32::from(value.first().copied().unwrap_or_default());
                return Err(Error::OtherVersion { found, known: u32::from(FORMAT) });
            }
        }
        Ok(())
    }
}

/// Whether it is an earlier run of the same runtime.
fn is_before(member: &Member, me: &Member) -> bool {
    member.name == me.name && member.id < me.id
}

fn one_write(key: Bytes, value: Option<Bytes>, reads: Vec<Read>) -> Commit {
    Commit { primary: key.clone(), reads, ranges: Vec::new(), writes: vec![(key, value)] }
}

/// The row of a member.
pub(crate) fn row_key(id: MemberId) -> Bytes {
    keys::meta(&format!("{PREFIX}{:016x}", id.0))
}

fn id_of(key: &[u8]) -> Option<MemberId> {
    let keys::RowKey::Meta { name } = keys::parse(key).ok()? else { return None };
    u64::from_str_radix(name.strip_prefix(PREFIX)?, 16).ok().map(MemberId)
}

fn encode(member: &Member) -> Bytes {
    let bytes = postcard::to_extend(member, vec![FORMAT]);
    bytes.expect("a vector grows, and a member has no sequence of unknown length").into()
}

/// `None` if it is of another version.
fn decode(value: &[u8]) -> Option<Member> {
    let (format, body) = value.split_first()?;
    if *format != FORMAT {
        return None;
    }
    postcard::from_bytes(body).ok()
}

#[cfg(test)]
mod tests;
