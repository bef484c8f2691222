//! Whose turn it is on an instance: the waiting line between flows.
//!
//! The entry instance of a flow is always taken in turn: flows on one instance run one after the other, in the order
//! they came. Instances further down are taken in turn only while they are *contended*: flows that ran on them at the
//! same time have lately cost one of them its attempt. A flow that runs again takes everything that its last attempt
//! touched in key order before it starts.
//!
//! **Invariant:** a turn decides speed, never correctness. Whoever would wait in a ring does not wait, and whoever has
//! waited for [`TURN_WAIT_MAX`] goes on without; validation when sealing is the judge.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tandem_model::ids::Instance;
use tokio::sync::{SetOnce, oneshot};
use tokio::time::Instant;

use crate::host::Begun;

/// Longest wait for the turn on an instance further down a flow. A slow function must not stop others for longer.
pub(crate) const TURN_WAIT_MAX: Duration = Duration::from_millis(250);
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
}

#[derive(Debug)]
struct Line {
    holder: Ticket,
    waiting: VecDeque<(Ticket, oneshot::Sender<()>)>,
    /// What the last in the line says of itself, if it is there with its entry.
    last: Option<Ahead>,
}

/// Told once by a flow when its code begins to run on its entry, for the one behind it in the line.
pub(crate) type Ahead = Arc<SetOnce<Begun>>;

/// Turns that a flow holds; dropping it gives them back.
#[derive(Debug)]
pub(crate) struct Held {
    turns: Turns,
    ticket: Ticket,
    instances: Mutex<Vec<Instance>>,
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
        Held { turns: self.clone(), ticket, instances: Mutex::default(), ahead: Ahead::default() }
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

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, ticket: Ticket, instance: &Instance) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(line) = inner.lines.get_mut(instance) else { return };
        if line.holder != ticket {
            return;
        }
        while let Some((next, granted)) = line.waiting.pop_front() {
            forget_wait(&mut inner.waits, next, instance);
            // Whoever stopped waiting is passed over.
            if granted.send(()).is_ok() {
                line.holder = next;
                return;
            }
        }
        inner.lines.remove(instance);
    }
}

impl Held {
    /// Joins the line of an instance at once. Nothing to wait for if it is free, and then held from here on.
    pub(crate) fn line_up(&self, instance: &Instance) -> Option<Place> {
        match self.request(instance, Some(&self.ahead)) {
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
        if let Some(granted) = &mut place.granted
            && granted.await.is_ok()
        {
            place.granted = None;
            self.add(&place.instance);
        }
    }

    /// Waits for the turn on an instance, unless that would close a ring, and no longer than [`TURN_WAIT_MAX`].
    pub(crate) async fn try_take(&self, instance: &Instance) {
        if let Request::Wait(granted, _) = self.request(instance, None) {
            // Without the turn it goes on all the same; validation decides.
            let _ = tokio::time::timeout(TURN_WAIT_MAX, self.wait(self.place(instance, granted, None))).await;
        }
    }

    fn place(&self, instance: &Instance, granted: oneshot::Receiver<()>, before: Option<Ahead>) -> Place {
        let (turns, ticket, instance) = (self.turns.clone(), self.ticket, instance.clone());
        Place { turns, ticket, instance, granted: Some(granted), before }
    }

    /// For its entry a flow says what it will tell the next in the line; elsewhere it avoids rings of waits.
    fn request(&self, instance: &Instance, entry: Option<&Ahead>) -> Request {
        if self.holds(instance) {
            return Request::Granted;
        }
        let request = self.turns.lock().request(self.ticket, instance, entry);
        if matches!(request, Request::Granted) {
            self.add(instance);
        }
        request
    }

    fn holds(&self, instance: &Instance) -> bool {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner).contains(instance)
    }

    fn add(&self, instance: &Instance) {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner).push(instance.clone());
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
        let instances = std::mem::take(&mut *self.instances.lock().unwrap_or_else(PoisonError::into_inner));
        for instance in &instances {
            self.turns.give_back(self.ticket, instance);
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
            line.waiting.retain(|(waiting, _)| *waiting != self.ticket);
        }
    }
}

impl Inner {
    fn request(&mut self, ticket: Ticket, instance: &Instance, entry: Option<&Ahead>) -> Request {
        let Some(line) = self.lines.get(instance) else {
            let line = Line { holder: ticket, waiting: VecDeque::new(), last: entry.cloned() };
            self.lines.insert(instance.clone(), line);
            return Request::Granted;
        };
        if line.holder == ticket {
            return Request::Granted;
        }
        if entry.is_none() && self.closes_ring(ticket, line) {
            return Request::Ring;
        }
        let (granted, receiver) = oneshot::channel();
        self.waits.entry(ticket).or_default().insert(instance.clone());
        let before = self.lines.get_mut(instance).and_then(|line| {
            line.waiting.push_back((ticket, granted));
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

impl Line {
    fn members(&self) -> impl Iterator<Item = Ticket> {
        std::iter::once(self.holder).chain(self.waiting.iter().map(|(ticket, _)| *ticket))
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
}
