//! The queue of what one invocation says: bounded, and next to nothing while it is empty.
//!
//! Most invocations say one thing: that they finished. A general channel would set aside room for dozens of events for
//! each of them.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::{EVENTS_QUEUED_MAX, Event};

#[derive(Debug, Default)]
struct Queue(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<Event>,
    waiting: Option<Waker>,
    no_sender: bool,
    no_receiver: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where events go in.
#[derive(Debug)]
pub(super) struct Sender(Arc<Queue>);

/// Where they come out.
#[derive(Debug)]
pub(super) struct Receiver(Arc<Queue>);

/// There are [`EVENTS_QUEUED_MAX`] events in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// An empty queue.
pub(super) fn queue() -> (Sender, Receiver) {
    let queue = Arc::new(Queue::default());
    (Sender(Arc::clone(&queue)), Receiver(queue))
}

impl Sender {
    /// Adds an event. If nobody takes events any more it is dropped.
    pub(super) fn send(&self, event: Event) -> Result<(), Full> {
        let mut inner = self.0.lock();
        if inner.no_receiver {
            return Ok(());
        }
        if inner.events.len() >= EVENTS_QUEUED_MAX {
            return Err(Full);
        }
        inner.events.push_back(event);
        let waiting = inner.waiting.take();
        drop(inner);
        waiting.into_iter().for_each(Waker::wake);
        Ok(())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.no_sender = true;
        let waiting = inner.waiting.take();
        drop(inner);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Receiver {
    /// The next event; `None` once there is none and will be none. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Event> {
        poll_fn(|context| {
            let mut inner = self.0.lock();
            if let Some(event) = inner.events.pop_front() {
                return Poll::Ready(Some(event));
            }
            if inner.no_sender {
                return Poll::Ready(None);
            }
            if !inner.waiting.as_ref().is_some_and(|waiting| waiting.will_wake(context.waker())) {
                inner.waiting = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.no_receiver = true;
        let left = std::mem::take(&mut inner.events);
        drop(inner);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn lost(event: Option<Event>) -> String {
        match event {
            Some(Event::Lost(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn events_come_in_order_and_then_none() {
        let (sender, mut receiver) = queue();
        assert!(receiver.next().now_or_never().is_none());
        sender.send(Event::Lost("a".to_owned())).unwrap();
        sender.send(Event::Lost("b".to_owned())).unwrap();
        drop(sender);
        assert_eq!((lost(receiver.next().await), lost(receiver.next().await)), ("a".to_owned(), "b".to_owned()));
        assert!(receiver.next().await.is_none());
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let (sender, mut receiver) = queue();
        let waits = tokio::spawn(async move { lost(receiver.next().await) });
        tokio::task::yield_now().await;
        sender.send(Event::Lost("a".to_owned())).unwrap();
        assert_eq!(waits.await.unwrap(), "a");
        let (sender, mut receiver) = queue();
        let waits = tokio::spawn(async move { receiver.next().await.is_none() });
        tokio::task::yield_now().await;
        drop(sender);
        assert!(waits.await.unwrap());
    }

    #[test]
    fn it_is_bounded() {
        let (sender, receiver) = queue();
        for _ in 0..EVENTS_QUEUED_MAX {
            sender.send(Event::Flooded).unwrap();
        }
        assert_eq!(sender.send(Event::Flooded), Err(Full));
        drop(receiver);
        assert_eq!(sender.send(Event::Flooded), Ok(()));
    }
}
