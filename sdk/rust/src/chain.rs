//! Invocations of one instance that run one behind the other, each on the states that the one before it leaves.
//!
//! While the runtime waits for the first to be sealed, the next ones have run already: a round trip a chain, not one
//! an invocation. What the states really are is for the runtime to know; it drops what began with others.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{AbortRegistration, Abortable};

use crate::connection::panicked;
use crate::error::Error;
use crate::function::{Handler, Output};
use crate::invocation::Invocation;

/// Most bytes of states that are carried from one invocation to the next.
pub(crate) const CARRIED_BYTES_MAX: usize = 4 << 10;
/// Invocations that have ended, and can still be followed.
const ENDED_MAX: usize = 256;

/// The values of an instance's states, by index of the field.
pub(crate) type States = Vec<Option<Bytes>>;

/// An invocation that is ready to run.
pub(crate) struct Next {
    pub(crate) handler: &'static Handler,
    pub(crate) invocation: Arc<Invocation>,
    pub(crate) abort: AbortRegistration,
    pub(crate) tail: Arc<Tail>,
}

/// Where an invocation is followed by another.
#[derive(Default)]
pub(crate) struct Tail(Mutex<Behind>);

enum Behind {
    /// The invocation runs; this one comes next.
    Runs(Option<Box<Next>>),
    /// It has ended, and left these states, unless they were too large.
    Ended(Option<States>),
}

impl Default for Behind {
    fn default() -> Self {
        Self::Runs(None)
    }
}

/// What is to be done with an invocation that follows another.
pub(crate) enum Follow {
    /// Nothing: it begins when the other one has ended.
    Waits,
    /// Run it now, on these states.
    Begins(Box<Next>, States),
    /// The states are not known: it is to be declined.
    Declined(Box<Next>),
}

impl Tail {
    fn lock(&self) -> MutexGuard<'_, Behind> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `next` behind the invocation.
    pub(crate) fn follow(&self, next: Box<Next>) -> Follow {
        match &mut *self.lock() {
            Behind::Runs(behind @ None) => {
                *behind = Some(next);
                Follow::Waits
            }
            Behind::Ended(Some(states)) => Follow::Begins(next, states.clone()),
            // What comes behind the one that is there already is not known here.
            Behind::Runs(Some(_)) | Behind::Ended(None) => Follow::Declined(next),
        }
    }

    /// Ends the invocation, which leaves these states. Gives what comes behind it, and the states for that.
    fn end(&self, states: Option<States>) -> Option<(Box<Next>, Option<States>)> {
        let mut behind = self.lock();
        let next = match &mut *behind {
            Behind::Runs(next) => next.take().map(|next| (next, states.clone())),
            Behind::Ended(_) => None,
        };
        *behind = Behind::Ended(states);
        next
    }
}

/// Runs an invocation, and what comes behind it.
pub(crate) async fn run(first: Box<Next>) {
    let mut next = Some(first);
    while let Some(current) = next.take() {
        let Next { handler, invocation, abort, tail } = *current;
        let shared = invocation.clone();
        // The state that a panic may leave half changed is this invocation's own, which fails with it.
        let handled = AssertUnwindSafe(async { (handler.run)(shared).await }).catch_unwind();
        let states = match Abortable::new(handled, abort).await {
            Ok(ended) => invocation.finish(ended.unwrap_or_else(|panic| Err::<Output, _>(panicked(&*panic)))),
            // Whoever aborted it has answered for it. A flow that was given up changes nothing.
            Err(_) => invocation.states_before(),
        };
        match tail.end(Some(states).filter(is_carried)) {
            Some((follower, Some(states))) => {
                follower.invocation.begin(states);
                next = Some(follower);
            }
            Some((follower, None)) => decline(follower),
            None => {}
        }
    }
}

/// Ends an invocation whose states are not known, and all that would come behind it: they wait for it, or will ask.
pub(crate) fn decline(first: Box<Next>) {
    let mut next = Some(first);
    while let Some(declined) = next {
        let problem = Error::retryable("the states that the invocation before it left are not known");
        declined.invocation.finish(Err(problem));
        next = declined.tail.end(None).map(|(next, _)| next);
    }
}

fn is_carried(states: &States) -> bool {
    states.iter().flatten().map(Bytes::len).sum::<usize>() <= CARRIED_BYTES_MAX
}

/// The tails of the invocations that run, and of those that ended last.
#[derive(Default)]
pub(crate) struct Tails {
    tails: HashMap<u64, Arc<Tail>>,
    ended: VecDeque<u64>,
}

impl Tails {
    pub(crate) fn begin(&mut self, id: u64) -> Arc<Tail> {
        self.tails.entry(id).or_default().clone()
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Arc<Tail>> {
        self.tails.get(&id)
    }

    /// Notes that an invocation has ended, so that it is forgotten in its turn.
    pub(crate) fn ended(&mut self, id: u64) {
        self.ended.push_back(id);
        if self.ended.len() > ENDED_MAX
            && let Some(oldest) = self.ended.pop_front()
        {
            self.tails.remove(&oldest);
        }
    }
}
