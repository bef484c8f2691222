//! The work queue: each key at most once, never twice at a time, later if it failed.
//!
//! **Invariant:** a key that is added while it is being worked on is worked on again afterwards: no change is lost.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::key::Key;

/// First pause after a failure.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// Longest pause after failures.
const BACKOFF_MAX: Duration = Duration::from_mins(5);
/// After so many failures the pause grows no more; it is at its maximum before.
const DOUBLINGS_MAX: u32 = 10;

/// What became of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing more to do until something changes.
    Done,
    /// To be looked at again after that time.
    After(Duration),
    /// To be tried again, after a pause that grows.
    Failed,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Key>,
    /// What is in `ready`.
    waiting: HashSet<Key>,
    running: HashSet<Key>,
    /// Added while running.
    again: HashSet<Key>,
    delayed: BTreeMap<(Instant, u64), Key>,
    due: HashMap<Key, (Instant, u64)>,
    failures: HashMap<Key, u32>,
    sequence: u64,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What panicked held no half-changed state: every change below is a few infallible inserts.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be worked on as soon as possible.
    pub fn add(&self, key: Key) {
        self.lock().add(key);
        self.changed.notify_waiters();
    }

    /// To be worked on after `delay`, or earlier if it was promised earlier.
    pub fn add_after(&self, key: Key, delay: Duration) {
        self.lock().add_at(key, Instant::now() + delay);
        self.changed.notify_waiters();
    }

    /// The next key; it belongs to the caller until [`Queue::done`].
    pub async fn next(&self) -> Key {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let wake_at = {
                let mut state = self.lock();
                state.promote(Instant::now());
                if let Some(key) = state.take() {
                    return key;
                }
                state.delayed.keys().next().map(|(at, _)| *at)
            };
            match wake_at {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// Gives a key back.
    pub fn done(&self, key: Key, outcome: Outcome) {
        let mut state = self.lock();
        state.running.remove(&key);
        if outcome != Outcome::Failed {
            state.failures.remove(&key);
        }
        let at = match outcome {
            Outcome::Done => None,
            Outcome::After(delay) => Some(Instant::now() + delay),
            Outcome::Failed => {
                let failures = state.failures.entry(key.clone()).or_default();
                *failures = failures.saturating_add(1);
                Some(Instant::now() + backoff(*failures))
            }
        };
        // After a failure something that changed must not shorten the pause: the server may be overloaded.
        let again = state.again.remove(&key);
        match at {
            Some(at) if outcome == Outcome::Failed => state.add_at(key, at),
            _ if again => state.add(key),
            Some(at) => state.add_at(key, at),
            None => {}
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// How many keys wait to be worked on now.
    pub fn depth(&self) -> usize {
        self.lock().ready.len()
    }

    /// Whether nothing waits, runs, or is due within `within`.
    pub fn is_quiet(&self, within: Duration) -> bool {
        let state = self.lock();
        let until = Instant::now() + within;
        let due = state.delayed.keys().next().is_some_and(|(at, _)| *at <= until);
        state.ready.is_empty() && state.running.is_empty() && !due
    }
}

impl State {
    fn add(&mut self, key: Key) {
        if self.running.contains(&key) {
            self.again.insert(key);
            return;
        }
        if let Some(at) = self.due.remove(&key) {
            self.delayed.remove(&at);
        }
        if self.waiting.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: Key, at: Instant) {
        if self.waiting.contains(&key) || self.due.get(&key).is_some_and(|(due, _)| *due <= at) {
            return;
        }
        if let Some(old) = self.due.remove(&key) {
            self.delayed.remove(&old);
        }
        self.sequence += 1;
        let slot = (at, self.sequence);
        self.due.insert(key.clone(), slot);
        self.delayed.insert(slot, key);
    }

    fn promote(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.due.remove(&key);
            self.add(key);
        }
    }

    fn take(&mut self) -> Option<Key> {
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }
}

/// The pause after that many failures in a row, a little different each time.
fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(DOUBLINGS_MAX);
    let pause = (BACKOFF_MIN * 2_u32.pow(doublings)).min(BACKOFF_MAX);
    pause.mul_f64(rand::rng().random_range(0.8..1.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::Graph(name.into())
    }

    async fn soon(queue: &Queue) -> Option<Key> {
        tokio::time::timeout(Duration::from_millis(1), queue.next()).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_runs_alone() {
        let queue = Queue::default();
        queue.add(key("a"));
        queue.add(key("a"));
        assert_eq!(soon(&queue).await, Some(key("a")));
        assert_eq!(soon(&queue).await, None);
        queue.add(key("a"));
        assert_eq!(soon(&queue).await, None, "it runs already");
        queue.done(key("a"), Outcome::Done);
        assert_eq!(soon(&queue).await, Some(key("a")), "what came while it ran is not lost");
        queue.done(key("a"), Outcome::Done);
        assert!(queue.is_quiet(Duration::from_hours(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_promise_counts() {
        let queue = Queue::default();
        queue.add_after(key("a"), Duration::from_secs(9));
        queue.add_after(key("a"), Duration::from_secs(3));
        queue.add_after(key("a"), Duration::from_secs(6));
        let start = Instant::now();
        assert_eq!(queue.next().await, key("a"));
        assert_eq!(start.elapsed().as_secs(), 3);
        queue.done(key("a"), Outcome::After(Duration::from_mins(1)));
        queue.add(key("a"));
        assert_eq!(soon(&queue).await, Some(key("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_each_time() {
        let queue = Queue::default();
        queue.add(key("a"));
        let mut pauses = Vec::new();
        for _ in 0..4 {
            let taken = queue.next().await;
            queue.add(key("a"));
            queue.done(taken, Outcome::Failed);
            let start = Instant::now();
            let taken = queue.next().await;
            pauses.push(start.elapsed());
            queue.done(taken, Outcome::Failed);
        }
        assert!(pauses.windows(2).all(|pair| pair[0] < pair[1]), "{pauses:?}");
        assert!(backoff(u32::MAX) <= BACKOFF_MAX.mul_f64(1.2));
    }
}
