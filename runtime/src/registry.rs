//! The flows that are in flight: who waits for them, and how to cancel them.
//!
//! **Invariant:** of two requests with the same id in one process, the second joins the first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tandem_model::ids::FlowId;
use tandem_model::outcome::FlowRecord;
use tandem_model::request::Request;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::runtime::{Ended, RunningFlow};

/// All flows in flight.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    flows: Mutex<HashMap<FlowId, Entry>>,
    left: Notify,
}

#[derive(Debug)]
struct Entry {
    request: Arc<Request>,
    accepted: Instant,
    attempt: Arc<AtomicU32>,
    cancel: CancellationToken,
    /// Whoever began it first; the others repeated it, or ask for it.
    waiting: Vec<(oneshot::Sender<Ended>, bool)>,
}

/// What became of a request that wants to begin.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It is the first: run it.
    First { outcome: oneshot::Receiver<Ended>, cancel: CancellationToken, attempt: Arc<AtomicU32> },
    /// It runs already.
    Joined { outcome: oneshot::Receiver<Ended> },
    /// Another request with its id runs.
    Mismatch,
    /// There are this many.
    Busy(usize),
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<FlowId, Entry>> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a request, or joins the one that runs.
    pub(crate) fn begin(&self, request: &Arc<Request>, max: usize) -> Begun {
        let (sender, outcome) = oneshot::channel();
        let mut flows = self.lock();
        let count = flows.len();
        if let Some(entry) = flows.get_mut(&request.flow) {
            if entry.request.digest != request.digest {
                return Begun::Mismatch;
            }
            entry.waiting.push((sender, true));
            return Begun::Joined { outcome };
        }
        if count >= max {
            return Begun::Busy(count);
        }
        let (attempt, cancel) = (Arc::new(AtomicU32::new(0)), CancellationToken::new());
        let entry = Entry {
            request: Arc::clone(request),
            accepted: Instant::now(),
            attempt: Arc::clone(&attempt),
            cancel: cancel.clone(),
            waiting: vec![(sender, false)],
        };
        flows.insert(request.flow, entry);
        Begun::First { outcome, cancel, attempt }
    }

    /// Takes a flow out and tells everybody who waits how it ended.
    pub(crate) fn end(&self, flow: FlowId, record: &Arc<FlowRecord>, repeated: bool) {
        let entry = self.lock().remove(&flow);
        self.left.notify_waiters();
        for (sender, joined) in entry.into_iter().flat_map(|entry| entry.waiting) {
            // Whoever stopped waiting does not need it.
            let _ = sender.send(Ended { record: Arc::clone(record), repeated: repeated || joined });
        }
    }

    /// Takes a request out that left without an outcome; whoever waits learns that there is none. Nothing happens if
    /// it has ended: whoever was told of that may have sent the same request again, and that one is not ours.
    pub(crate) fn leave(&self, request: &Arc<Request>) {
        let mut flows = self.lock();
        if flows.get(&request.flow).is_some_and(|entry| Arc::ptr_eq(&entry.request, request)) {
            flows.remove(&request.flow);
        }
        drop(flows);
        self.left.notify_waiters();
    }

    /// Waits for a flow in flight.
    pub(crate) fn join(&self, flow: FlowId) -> Option<oneshot::Receiver<Ended>> {
        let (sender, outcome) = oneshot::channel();
        let mut flows = self.lock();
        let entry = flows.get_mut(&flow)?;
        // Those who gave up waiting are cleared here, so that polling does not pile them up.
        entry.waiting.retain(|(waiting, _)| !waiting.is_closed());
        entry.waiting.push((sender, true));
        Some(outcome)
    }

    /// Asks a flow in flight to stop, and waits for it.
    pub(crate) fn cancel(&self, flow: FlowId) -> Option<oneshot::Receiver<Ended>> {
        let cancel = self.lock().get(&flow).map(|entry| entry.cancel.clone())?;
        let outcome = self.join(flow)?;
        cancel.cancel();
        Some(outcome)
    }

    /// A flow in flight.
    pub(crate) fn get(&self, flow: FlowId) -> Option<RunningFlow> {
        self.lock().get(&flow).map(Entry::running)
    }

    /// All flows in flight, the oldest first.
    pub(crate) fn all(&self) -> Vec<RunningFlow> {
        let mut running: Vec<RunningFlow> = self.lock().values().map(Entry::running).collect();
        running.sort_by_key(|flow| std::cmp::Reverse(flow.age));
        running
    }

    /// Returns once no flow is in flight.
    pub(crate) async fn until_empty(&self) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if self.lock().is_empty() {
                return;
            }
            left.await;
        }
    }
}

impl Entry {
    fn running(&self) -> RunningFlow {
        RunningFlow {
            flow: self.request.flow,
            instance: self.request.instance.clone(),
            handler: self.request.handler.clone(),
            attempt: self.attempt.load(Ordering::Relaxed),
            age: self.accepted.elapsed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tandem_model::ids::{Instance, Payload};
    use tandem_model::outcome::Outcome;
    use tandem_model::slot::SlotCount;

    use super::*;
    use crate::metrics::testdata::record;

    fn request() -> Arc<Request> {
        let (id, handler) = ("r-1".parse().unwrap(), "run".parse().unwrap());
        let instance = Instance::parse("f", "k").unwrap();
        let deadline = Duration::from_secs(1);
        Arc::new(Request::new(SlotCount::DEFAULT, id, instance, handler, Payload::json("1"), deadline))
    }

    #[test]
    fn a_request_that_was_answered_does_not_take_its_repetition_with_it() {
        let (registry, first, second) = (Registry::default(), request(), request());
        assert!(matches!(registry.begin(&first, 10), Begun::First { .. }));
        registry.end(first.flow, &Arc::new(record(Outcome::Committed)), false);
        let Begun::First { mut outcome, .. } = registry.begin(&second, 10) else { panic!("it is not the first") };
        registry.leave(&first);
        assert!(registry.get(second.flow).is_some());
        assert_eq!(outcome.try_recv().unwrap_err(), oneshot::error::TryRecvError::Empty);
        registry.leave(&second);
        assert_eq!(outcome.try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
    }
}
