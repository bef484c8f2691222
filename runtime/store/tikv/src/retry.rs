//! Waits and limits: how long something may take, and how long to wait before it is tried again.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::cluster::{Failure, ReadFailure};

const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// How long calls and whole operations may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// One request to a store or to PD.
    pub call: Duration,
    /// A commit, a read, with everything that is repeated in it.
    pub operation: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { call: Duration::from_secs(3), operation: Duration::from_secs(10) }
    }
}

/// Limits everything that belongs to one operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    call: Duration,
}

impl Deadline {
    /// The end of an operation that begins now.
    pub(crate) fn of(timeouts: Timeouts) -> Self {
        Self { at: Instant::now() + timeouts.operation, call: timeouts.call }
    }

    /// The same limit for a call, and another end.
    pub(crate) fn after(self, time: Duration) -> Self {
        Self { at: Instant::now() + time, call: self.call }
    }

    /// Whichever comes first.
    pub(crate) fn but_at_most(self, time: Duration) -> Self {
        Self { at: self.at.min(Instant::now() + time), call: self.call }
    }

    pub(crate) fn is_over(self) -> bool {
        Instant::now() >= self.at
    }

    fn of_call(self) -> Instant {
        self.at.min(Instant::now() + self.call)
    }

    /// A request that changes something: without an answer in time, nobody knows.
    pub(crate) async fn call<T>(self, call: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let late = |_| Err(Failure::Lost("no answer in time".to_owned()));
        timeout_at(self.of_call(), call).await.unwrap_or_else(late)
    }

    /// A request that changes nothing. A long one may take all the time there is.
    pub(crate) async fn read<T>(self, read: impl Future<Output = Result<T, ReadFailure>>) -> Result<T, ReadFailure> {
        let late = |_| Err(ReadFailure::Unreachable("no answer in time".to_owned()));
        timeout_at(self.at, read).await.unwrap_or_else(late)
    }

    /// Asks until there is an answer or the time is over. Only for what may be asked twice.
    pub(crate) async fn repeat<T, F>(self, mut call: impl FnMut() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut backoff = Backoff::new();
        loop {
            let failure = match self.call(call()).await {
                Ok(answer) => return Ok(answer),
                Err(failure @ Failure::Refused(_)) => return Err(failure),
                Err(failure) => failure,
            };
            if !backoff.wait(self).await {
                return Err(failure);
            }
        }
    }
}

/// Waits longer each time, up to a bound.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self::up_to(LONGEST_WAIT)
    }

    pub(crate) fn up_to(longest: Duration) -> Self {
        Self { next: FIRST_WAIT, longest }
    }

    /// Waits, unless the deadline comes before the end of the wait: then it gives `false` at once.
    pub(crate) async fn wait(&mut self, deadline: Deadline) -> bool {
        let wait = self.next;
        self.next = (wait * 2).min(self.longest);
        if Instant::now() + wait >= deadline.at {
            return false;
        }
        sleep(wait).await;
        true
    }
}
