//! Whose turn it is on an instance: the waiting line between flows.
//!
//! The entry instance of a flow is always taken in turn: flows on one instance run one after the other, in the order
//! they came. Instances further down are taken in turn only while they are *contended*: flows that ran on them at the
//! same time have lately cost one of them its attempt. A flow that runs again takes everything that its last attempt
//! touched in key order before it starts.
//!
//! Where flows of several runtimes fight over an instance, those of others line up here as well. What one of ours has
//! sealed is seen by the next one of ours at once, and by those of others only when it is durable; so these get their
//! turn only when everything that was sealed in turn before has come to its end.
//!
//! **Invariant:** a turn decides speed, never correctness. Whoever would wait in a ring does not wait, and whoever has
//! waited for [`TURN_WAIT_MAX`] goes on without; validation when sealing is the judge. **Invariant:** nobody keeps a turn for longer than
//! [`TURN_HELD_MAX`] while others wait, but on its own entry.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tandem_model::ids::Instance;
use tandem_model::mechanism::{Mechanism, works};
use tokio::sync::{SetOnce, oneshot};
use tokio::time::{Instant, timeout};

use crate::host::Begun;
use crate::peers::Claimed;

/// Longest wait for the turn on an instance further down a flow. A slow function must not stop others for longer.
pub(crate) const TURN_WAIT_MAX: Duration = Duration::from_millis(250);
/// Longest wait for the turn on an instance that several runtimes fight over: one after the other commits.
pub(crate) const SHARED_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long a flow may keep a turn that is not on its entry. Then the next one has it: a slow function, a runtime that is
/// lost and a message that says a turn is over and gets lost cost no more than that.
pub(crate) const TURN_HELD_MAX: Duration = Duration::from_secs(1);
/// Commits that have to fail between runtimes within [`CONTENDED_FOR`] before an instance is taken in turn by all.
const SHARED_AFTER: u32 = 2;
/// How long flows may join those of their runtime that have a turn at another one.
const JOINED_FOR: Duration = Duration::from_millis(50);
/// How often a flow begins again because it came upon something else that is taken in turn.
const BEGUN_AGAIN_MAX: u32 = 3;
/// How long an instance counts as contended after the last attempt it cost.
pub(crate) const CONTENDED_FOR: Duration = Duration::from_secs(2);
/// Contended instances that are remembered; beyond it the memory starts anew.
const CONTENDED_MAX: usize = 16_384;

/// One flow, as far as turns are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ticket(pub(crate) u64);

/// All lines. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turns(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    lines: HashMap<Instance, Line>,
    /// What each waiting flow waits for.
    waits: HashMap<Ticket, HashSet<Instance>>,
    contended: HashMap<Instance, Instant>,
    shared: HashMap<Instance, Shared>,
    /// Turns at other runtimes that flows of this one have.
    elsewhere: HashMap<Instance, (Weak<Claimed>, Instant)>,
}

/// What is known of an instance that cost a commit because of another runtime.
#[derive(Clone, Copy, Debug)]
struct Shared {
    commits: u32,
    until: Instant,
}

#[derive(Debug, Default)]
struct Line {
    /// Nobody, while those who had the turn are on their way to the store and the next one is of another runtime.
    holder: Option<Holder>,
    /// Flows that had the turn, and whose commits have not come to their end.
    unsettled: usize,
    waiting: VecDeque<Waiting>,
    /// What the last in the line says of itself, if it is there with its entry.
    last: Option<Ahead>,
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    ticket: Ticket,
    since: Instant,
    /// It is there with its entry, and stays as long as it runs.
    stays: bool,
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    granted: oneshot::Sender<()>,
    kind: Kind,
}

/// For whom a turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A flow of this runtime that has its entry there.
    Entry,
    /// Another flow of this runtime.
    Own,
    /// A flow of another runtime.
    Foreign,
}

/// How a flow of another runtime came to its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taking {
    /// Nobody was there.
    AtOnce,
    /// After others.
    Waited,
    /// It did not.
    Late,
}

/// Told once by a flow when its code begins to run on its entry, for the one behind it in the line.
pub(crate) type Ahead = Arc<SetOnce<Begun>>;

/// Turns that a flow holds; dropping it gives them back.
#[derive(Debug)]
pub(crate) struct Held {
    turns: Turns,
    ticket: Ticket,
    entry: OnceLock<Instance>,
    instances: Mutex<Vec<Instance>>,
    /// Turns that have been passed on before the commit has come to its end.
    sealed: Mutex<Vec<Instance>>,
    /// Turns at other runtimes.
    elsewhere: Mutex<Vec<(Instance, Arc<Claimed>)>>,
    /// What it has asked for, whether it got it or not.
    asked: Mutex<Vec<Instance>>,
    begun_again: AtomicU32,
    ahead: Ahead,
}

/// A place in the line of an instance. Dropped before its turn it is given up; dropped just after, the turn is passed on.
#[derive(Debug)]
pub(crate) struct Place {
    turns: Turns,
    ticket: Ticket,
    instance: Instance,
    granted: Option<oneshot::Receiver<()>>,
    /// The one before it in the line.
    before: Option<Ahead>,
}

enum Request {
    Granted,
    Wait(oneshot::Receiver<()>, Option<Ahead>),
    Ring,
}

impl Turns {
    /// An empty set of turns for a flow.
    pub(crate) fn held(&self, ticket: Ticket) -> Held {
        Held {
            turns: self.clone(),
            ticket,
            entry: OnceLock::new(),
            instances: Mutex::default(),
            sealed: Mutex::default(),
            elsewhere: Mutex::default(),
            asked: Mutex::default(),
            begun_again: AtomicU32::new(0),
            ahead: Ahead::default(),
        }
    }

    /// Notes that flows which ran on this instance at the same time got in each other's way.
    pub(crate) fn mark_contended(&self, instance: &Instance, now: Instant) {
        let mut inner = self.lock();
        if inner.contended.len() >= CONTENDED_MAX {
            inner.contended.clear();
        }
        inner.contended.insert(instance.clone(), now + CONTENDED_FOR);
    }

    /// Whether the instance has to be taken in turn by flows that come upon it on their way.
    pub(crate) fn is_contended(&self, instance: &Instance, now: Instant) -> bool {
        let mut inner = self.lock();
        if inner.contended.is_empty() {
            return false;
        }
        match inner.contended.get(instance) {
            Some(until) if *until > now => true,
            Some(_) => {
                inner.contended.remove(instance);
                false
            }
            None => false,
        }
    }

    /// Notes that a commit failed because another runtime had changed this instance.
    pub(crate) fn mark_between(&self, instance: &Instance, now: Instant) {
        self.lock().mark_shared(instance, now, 1);
    }

    /// Notes that flows of several runtimes line up for this instance.
    pub(crate) fn mark_shared(&self, instance: &Instance, now: Instant) {
        self.lock().mark_shared(instance, now, SHARED_AFTER);
    }

    /// Whether flows of all runtimes have to take the instance in turn.
    pub(crate) fn is_shared(&self, instance: &Instance, now: Instant) -> bool {
        let inner = self.lock();
        let shared = inner.shared.get(instance).filter(|shared| shared.until > now);
        shared.is_some_and(|shared| shared.commits >= SHARED_AFTER) && works(Mechanism::AgreedTurns)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, ticket: Ticket, instance: &Instance) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(line) = inner.lines.get_mut(instance) else { return };
        if line.is_held_by(ticket) {
            line.holder = None;
            inner.grant_next(instance);
        }
    }

    /// Passes a turn on, but not to other runtimes.
    fn seal(&self, ticket: Ticket, instance: &Instance) {
        let mut inner = self.lock();
        let line = inner.lines.entry(instance.clone()).or_default();
        line.unsettled += 1;
        if line.is_held_by(ticket) {
            line.holder = None;
        }
        inner.grant_next(instance);
    }

    /// A commit of one who passed its turn on has come to its end.
    fn settle(&self, instance: &Instance) {
        let mut inner = self.lock();
        let Some(line) = inner.lines.get_mut(instance) else { return };
        line.unsettled = line.unsettled.saturating_sub(1);
        inner.grant_next(instance);
    }

    /// Takes the turn from one who has had it for too long.
    fn take_back(&self, instance: &Instance, now: Instant) {
        let mut inner = self.lock();
        let Some(line) = inner.lines.get_mut(instance) else { return };
        if line.holder.is_some_and(|holder| !holder.stays && now >= holder.since + TURN_HELD_MAX) {
            line.holder = None;
            inner.grant_next(instance);
        }
    }
}

impl Held {
    /// Joins the line of an instance at once. Nothing to wait for if it is free, and then held from here on.
    pub(crate) fn line_up(&self, instance: &Instance) -> Option<Place> {
        // A flow has one entry.
        let _ = self.entry.set(instance.clone());
        match self.request(instance, Some(&self.ahead), Kind::Entry) {
            Request::Wait(granted, before) => Some(self.place(instance, granted, before)),
            Request::Granted | Request::Ring => None,
        }
    }

    /// Tells the next in the line of the entry that the code of this one has begun to run. Only the first time counts.
    pub(crate) fn begun(&self, begun: Begun) {
        // Whoever follows a run that is not the last of its flow has its guess wrong, and finds out.
        let _ = self.ahead.set(begun);
    }

    /// Waits for the turn, however long. Dropping the future leaves the line.
    pub(crate) async fn wait(&self, mut place: Place) {
        let Some(granted) = &mut place.granted else { return };
        loop {
            match timeout(TURN_HELD_MAX, &mut *granted).await {
                Ok(Ok(())) => break,
                Ok(Err(_)) => return,
                Err(_) => self.turns.take_back(&place.instance, Instant::now()),
            }
        }
        place.granted = None;
        self.add(&place.instance);
    }

    /// Waits for the turn on an instance, unless that would close a ring, and no longer than [`TURN_WAIT_MAX`].
    pub(crate) async fn try_take(&self, instance: &Instance) {
        self.take_within(instance, Kind::Own, TURN_WAIT_MAX).await;
    }

    /// The same for an instance that several runtimes fight over, no longer than [`SHARED_WAIT_MAX`].
    pub(crate) async fn take_shared(&self, instance: &Instance) {
        self.take_within(instance, Kind::Own, SHARED_WAIT_MAX).await;
    }

    /// Waits for the turn on an instance for a flow of another runtime.
    pub(crate) async fn take_for_another(&self, instance: &Instance, wait_max: Duration) -> Taking {
        self.take_within(instance, Kind::Foreign, wait_max).await
    }

    async fn take_within(&self, instance: &Instance, kind: Kind, wait_max: Duration) -> Taking {
        match self.request(instance, None, kind) {
            Request::Granted => Taking::AtOnce,
            Request::Ring => Taking::Late,
            // Without the turn it goes on all the same; validation decides.
            Request::Wait(granted, _) => {
                let waited = timeout(wait_max, self.wait(self.place(instance, granted, None))).await;
                if waited.is_ok() { Taking::Waited } else { Taking::Late }
            }
        }
    }

    /// Keeps a turn at another runtime. Others may join for a while.
    pub(crate) fn keep(&self, instance: &Instance, claimed: Claimed) {
        let claimed = Arc::new(claimed);
        let until = Instant::now() + JOINED_FOR;
        self.turns.lock().elsewhere.insert(instance.clone(), (Arc::downgrade(&claimed), until));
        lock(&self.elsewhere).push((instance.clone(), claimed));
    }

    /// Shares the turn at another runtime with those of this one who have it, if there are any.
    pub(crate) fn join(&self, instance: &Instance) -> bool {
        let now = Instant::now();
        let there = self.turns.lock().elsewhere.get(instance).filter(|(_, until)| now < *until).cloned();
        let Some(claimed) = there.and_then(|(claimed, _)| claimed.upgrade()) else { return false };
        lock(&self.elsewhere).push((instance.clone(), claimed));
        true
    }

    /// Notes that it has asked for a turn that is agreed on between runtimes.
    pub(crate) fn asked(&self, instance: &Instance) {
        lock(&self.asked).push(instance.clone());
    }

    /// Whether it has, since it gave all turns back.
    pub(crate) fn has_asked(&self, instance: &Instance) -> bool {
        lock(&self.asked).contains(instance)
    }

    /// Whether it may once more begin again to take other turns.
    pub(crate) fn may_begin_again(&self) -> bool {
        self.begun_again.fetch_add(1, Ordering::Relaxed) < BEGUN_AGAIN_MAX
    }

    fn place(&self, instance: &Instance, granted: oneshot::Receiver<()>, before: Option<Ahead>) -> Place {
        let (turns, ticket, instance) = (self.turns.clone(), self.ticket, instance.clone());
        Place { turns, ticket, instance, granted: Some(granted), before }
    }

    /// For its entry a flow says what it will tell the next in the line; elsewhere it avoids rings of waits.
    fn request(&self, instance: &Instance, entry: Option<&Ahead>, kind: Kind) -> Request {
        if self.holds(instance) {
            return Request::Granted;
        }
        let kind = if self.entry.get() == Some(instance) { Kind::Entry } else { kind };
        let request = self.turns.lock().request(self.ticket, instance, entry, kind);
        if matches!(request, Request::Granted) {
            self.add(instance);
        }
        request
    }

    fn holds(&self, instance: &Instance) -> bool {
        lock(&self.instances).contains(instance)
    }

    fn add(&self, instance: &Instance) {
        lock(&self.instances).push(instance.clone());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Held {
    /// Gives all turns back: whoever comes next sees what was sealed before.
    pub(crate) fn give_back(&self) {
        for instance in std::mem::take(&mut *lock(&self.instances)) {
            self.turns.give_back(self.ticket, &instance);
        }
        for instance in std::mem::take(&mut *lock(&self.sealed)) {
            self.turns.settle(&instance);
        }
        lock(&self.asked).clear();
        for (instance, claimed) in std::mem::take(&mut *lock(&self.elsewhere)) {
            // If it was the last one, the turn is over.
            drop(claimed);
            let mut inner = self.turns.lock();
            if inner.elsewhere.get(&instance).is_some_and(|(claimed, _)| claimed.strong_count() == 0) {
                inner.elsewhere.remove(&instance);
            }
        }
    }

    /// Passes all turns on to flows of this runtime: they see what was sealed. Those of others have theirs, and what is
    /// held elsewhere is held, until all is given back.
    pub(crate) fn sealed(&self, is_shared: bool) {
        if !is_shared {
            return self.give_back();
        }
        for instance in std::mem::take(&mut *lock(&self.instances)) {
            self.turns.seal(self.ticket, &instance);
            lock(&self.sealed).push(instance);
        }
    }
}

impl Place {
    /// What the one before in the line says of itself, unless it is there for something else than its entry.
    pub(crate) fn before(&self) -> Option<Ahead> {
        self.before.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(mut granted) = self.granted.take() else { return };
        granted.close();
        if granted.try_recv().is_ok() {
            self.turns.give_back(self.ticket, &self.instance);
            return;
        }
        let mut inner = self.turns.lock();
        let inner = &mut *inner;
        forget_wait(&mut inner.waits, self.ticket, &self.instance);
        if let Some(line) = inner.lines.get_mut(&self.instance) {
            line.waiting.retain(|waiting| waiting.ticket != self.ticket);
        }
        // Those behind it may be let in where it was not.
        inner.grant_next(&self.instance);
    }
}

impl Inner {
    fn mark_shared(&mut self, instance: &Instance, now: Instant, commits: u32) {
        if self.shared.len() >= CONTENDED_MAX {
            self.shared.clear();
        }
        let shared = self.shared.entry(instance.clone()).or_insert(Shared { commits: 0, until: now });
        let before = if shared.until > now { shared.commits } else { 0 };
        *shared = Shared { commits: before.saturating_add(commits), until: now + CONTENDED_FOR };
    }

    /// Gives the turn on an instance that nobody has to the next in the line, if it may have it.
    fn grant_next(&mut self, instance: &Instance) {
        let Some(line) = self.lines.get_mut(instance) else { return };
        while line.holder.is_none()
            && let Some(next) = line.waiting.front()
            && (line.unsettled == 0 || next.kind != Kind::Foreign)
            && let Some(next) = line.waiting.pop_front()
        {
            forget_wait(&mut self.waits, next.ticket, instance);
            // Whoever stopped waiting is passed over.
            if next.granted.send(()).is_ok() {
                line.holder = Some(Holder::new(next.ticket, next.kind));
            }
        }
        if line.holder.is_none() && line.waiting.is_empty() && line.unsettled == 0 {
            self.lines.remove(instance);
        }
    }

    fn request(&mut self, ticket: Ticket, instance: &Instance, entry: Option<&Ahead>, kind: Kind) -> Request {
        let line = self.lines.entry(instance.clone()).or_default();
        if line.is_held_by(ticket) {
            return Request::Granted;
        }
        if line.holder.is_none() && line.waiting.is_empty() && (line.unsettled == 0 || kind != Kind::Foreign) {
            line.holder = Some(Holder::new(ticket, kind));
            line.last = entry.cloned();
            return Request::Granted;
        }
        let Some(line) = self.lines.get(instance) else { return Request::Ring };
        if entry.is_none() && self.closes_ring(ticket, line) {
            return Request::Ring;
        }
        let (granted, receiver) = oneshot::channel();
        self.waits.entry(ticket).or_default().insert(instance.clone());
        let before = self.lines.get_mut(instance).and_then(|line| {
            line.waiting.push_back(Waiting { ticket, granted, kind });
            std::mem::replace(&mut line.last, entry.cloned())
        });
        Request::Wait(receiver, before)
    }

    /// Whether somebody in the line waits, directly or through others, for something that `ticket` holds.
    fn closes_ring(&self, ticket: Ticket, line: &Line) -> bool {
        let mut seen = HashSet::new();
        let mut stack: Vec<Ticket> = line.members().collect();
        while let Some(next) = stack.pop() {
            if next == ticket {
                return true;
            }
            if !seen.insert(next) {
                continue;
            }
            let lines = self.waits.get(&next).into_iter().flatten().filter_map(|instance| self.lines.get(instance));
            stack.extend(lines.flat_map(Line::members));
        }
        false
    }
}

impl Holder {
    fn new(ticket: Ticket, kind: Kind) -> Self {
        Self { ticket, since: Instant::now(), stays: kind == Kind::Entry }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds the lock, short of running out of memory.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    fn is_held_by(&self, ticket: Ticket) -> bool {
        self.holder.is_some_and(|holder| holder.ticket == ticket)
    }

    fn members(&self) -> impl Iterator<Item = Ticket> {
        let holder = self.holder.iter().map(|holder| holder.ticket);
        holder.chain(self.waiting.iter().map(|waiting| waiting.ticket))
    }
}

fn forget_wait(waits: &mut HashMap<Ticket, HashSet<Instance>>, ticket: Ticket, instance: &Instance) {
    if let Some(instances) = waits.get_mut(&ticket) {
        instances.remove(instance);
        if instances.is_empty() {
            waits.remove(&ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(key: &str) -> Instance {
        Instance::parse("f", key).unwrap()
    }

    async fn take(held: &Held, instance: &Instance) {
        if let Some(place) = held.line_up(instance) {
            held.wait(place).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_in_order() {
        let turns = Turns::default();
        let first = turns.held(Ticket(1));
        take(&first, &instance("a")).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let waiters: Vec<_> = (2..5)
            .map(|ticket| {
                let (held, order) = (turns.held(Ticket(ticket)), Arc::clone(&order));
                async move {
                    take(&held, &instance("a")).await;
                    order.lock().unwrap().push(ticket);
                }
            })
            .collect();
        let all = futures_util::future::join_all(waiters);
        tokio::join!(all, async { drop(first) });
        assert_eq!(*order.lock().unwrap(), [2, 3, 4]);
        assert!(turns.lock().lines.is_empty() && turns.lock().waits.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_in_a_ring() {
        let turns = Turns::default();
        let (one, two) = (turns.held(Ticket(1)), turns.held(Ticket(2)));
        take(&one, &instance("a")).await;
        take(&two, &instance("b")).await;
        let started = Instant::now();
        let waits = async {
            one.try_take(&instance("b")).await;
            started.elapsed()
        };
        let rings = async {
            two.try_take(&instance("a")).await;
            let at_once = started.elapsed();
            drop(two);
            at_once
        };
        let (waited, at_once) = tokio::join!(waits, rings);
        assert_eq!((waited, at_once), (Duration::ZERO, Duration::ZERO));
        assert!(one.holds(&instance("b")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_holder_is_overtaken_and_the_line_forgets_who_left() {
        let turns = Turns::default();
        let (slow, next) = (turns.held(Ticket(1)), turns.held(Ticket(2)));
        take(&slow, &instance("a")).await;
        let started = Instant::now();
        next.try_take(&instance("a")).await;
        assert_eq!(started.elapsed(), TURN_WAIT_MAX);
        drop(slow);
        assert!(turns.lock().lines.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn contention_is_forgotten() {
        let turns = Turns::default();
        turns.mark_contended(&instance("a"), Instant::now());
        assert!(turns.is_contended(&instance("a"), Instant::now()));
        tokio::time::advance(CONTENDED_FOR).await;
        assert!(!turns.is_contended(&instance("a"), Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_counts_from_when_it_was_taken() {
        let turns = Turns::default();
        let (first, second, third) = (turns.held(Ticket(1)), turns.held(Ticket(2)), turns.held(Ticket(3)));
        assert!(first.line_up(&instance("a")).is_none());
        let (second_place, third_place) = (second.line_up(&instance("a")), third.line_up(&instance("a")));
        drop(first);
        // The third asks first, and still comes third.
        let mut late = Box::pin(third.wait(third_place.unwrap()));
        assert!(futures_util::poll!(&mut late).is_pending());
        drop(second_place);
        late.await;
        assert!(third.holds(&instance("a")) && !second.holds(&instance("a")));
    }

    // To see it fail: let `Inner::grant_next` look at nobody's kind.
    #[tokio::test(start_paused = true)]
    async fn a_flow_of_another_runtime_has_its_turn_when_all_before_it_is_settled() {
        let turns = Turns::default();
        let [first, second, foreign] = [1, 2, 3].map(|ticket| turns.held(Ticket(ticket)));
        take(&first, &instance("a")).await;
        let behind = second.line_up(&instance("a")).unwrap();
        first.sealed(true);
        // The next one of this runtime has its turn at once.
        second.wait(behind).await;
        let a = instance("a");
        let mut taking = Box::pin(foreign.take_for_another(&a, TURN_HELD_MAX));
        assert!(futures_util::poll!(&mut taking).is_pending());
        second.sealed(true);
        assert!(futures_util::poll!(&mut taking).is_pending());
        drop(second);
        assert!(futures_util::poll!(&mut taking).is_pending());
        drop(first);
        assert_eq!(taking.await, Taking::Waited);
        drop(foreign);
        assert!(turns.lock().lines.is_empty() && turns.lock().waits.is_empty());
    }

    // To see it fail: let `Held::wait` wait without `take_back`.
    #[tokio::test(start_paused = true)]
    async fn a_turn_that_is_not_given_back_is_passed_on() {
        let turns = Turns::default();
        let (lost, entry) = (turns.held(Ticket(1)), turns.held(Ticket(2)));
        assert_eq!(lost.take_for_another(&instance("a"), TURN_HELD_MAX).await, Taking::AtOnce);
        let started = Instant::now();
        take(&entry, &instance("a")).await;
        assert_eq!(started.elapsed(), TURN_HELD_MAX);
        // Whoever is there with its entry stays.
        let next = turns.held(Ticket(3));
        assert_eq!(next.take_for_another(&instance("a"), 3 * TURN_HELD_MAX).await, Taking::Late);
        assert!(entry.holds(&instance("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_is_shared_once_it_has_cost_several_commits_in_a_short_time() {
        let (turns, a) = (Turns::default(), instance("a"));
        let fails = || turns.mark_between(&a, Instant::now());
        let is_shared = || turns.is_shared(&a, Instant::now());
        fails();
        assert!(!is_shared());
        tokio::time::advance(CONTENDED_FOR).await;
        fails();
        assert!(!is_shared());
        fails();
        assert!(is_shared());
        tokio::time::advance(CONTENDED_FOR).await;
        assert!(!is_shared());
    }
}
