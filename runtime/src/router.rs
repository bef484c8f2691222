//! Where a request runs: at the owner of its slot, or here.
//!
//! The owner runs it fastest: its flows on an instance take turns in memory, and rows that are on their way to disk are
//! seen at once. Whoever else runs it is as right, since the store judges. So whenever the owner cannot be reached, does
//! not take the request, or is lost before it has answered, the request runs here, with the same request id: if it has
//! run at the owner after all, its record is the answer.
//!
//! **Invariant:** a request that came from another runtime is never passed on.

use std::time::Duration;

use tandem_model::mechanism::{Mechanism, works};
use tandem_model::request::Request;
use tandem_model::topology::Isolation;
use tandem_store::Store;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use crate::metrics::Forwarding;
use crate::peers::{Forwarded, Taken};
use crate::runtime::{Accepted, Ended, NotAccepted, Runtime, mismatch};
use crate::tasks::{self, TaskKind};

/// Longest wait to hear that the owner took a request.
const TAKEN_TIME_MAX: Duration = Duration::from_secs(1);
/// How long after a request's deadline its outcome is still waited for at the owner.
const OUTCOME_GRACE: Duration = Duration::from_secs(1);
/// What a request that was lost after its deadline has to find its record, or to get one.
const LAST_TIME: Duration = Duration::from_millis(100);

impl<S: Store> Runtime<S> {
    /// Takes a client's request, here or at the owner of its slot.
    pub(crate) async fn route(&self, request: Request) -> Result<Accepted, NotAccepted> {
        let engine = &self.engine;
        let is_over = !engine.is_ready() && !works(Mechanism::DrainRoute);
        if !engine.partition.is_shared() || engine.store_stopped.is_cancelled() || is_over {
            return self.accept(request).await;
        }
        let isolation = engine.check(&engine.topology.load(), &request)?;
        if isolation == Some(Isolation::ReadOnly) && engine.is_ready() {
            return self.accept(request).await;
        }
        match engine.peers.forward(&request) {
            Some(forwarded) => self.forwarded(request, forwarded).await,
            None => self.accept(request).await,
        }
    }

    async fn forwarded(&self, request: Request, mut forwarded: Forwarded) -> Result<Accepted, NotAccepted> {
        let (metrics, began) = (&self.engine.metrics, Instant::now());
        let what = match timeout(TAKEN_TIME_MAX.min(request.deadline), &mut forwarded.taken).await {
            Ok(Ok(Taken::Yes)) => return Ok(self.awaited(request, forwarded, began)),
            Ok(Ok(Taken::Mismatch)) => {
                metrics.forwarded(Forwarding::Answered);
                return Err(mismatch(&request));
            }
            Ok(Ok(Taken::Busy)) => {
                metrics.forwarded(Forwarding::Answered);
                let max = self.topology().limits.flows_in_flight_max;
                return Err(NotAccepted::Busy { in_flight: max, max });
            }
            Ok(Ok(Taken::No(why))) => {
                debug!(why, "the owner did not take a request");
                Forwarding::Refused
            }
            Ok(Err(_)) => Forwarding::Lost,
            Err(_) => {
                forwarded.suspect();
                Forwarding::Lost
            }
        };
        metrics.forwarded(what);
        let deadline = request.deadline.saturating_sub(began.elapsed()).max(LAST_TIME);
        self.accept(Request { deadline, ..request }).await
    }

    /// Waits for the outcome in a task that no client can drop.
    fn awaited(&self, request: Request, forwarded: Forwarded, began: Instant) -> Accepted {
        let (sender, outcome) = oneshot::channel();
        let (flow, runtime, token) = (request.flow, self.clone(), self.engine.forwards.token());
        tasks::spawn(TaskKind::Peer, async move {
            let _token = token;
            if let Some(ended) = runtime.outcome(request, forwarded, began).await {
                // Whoever stopped waiting asks for the flow.
                let _ = sender.send(ended);
            }
        });
        Accepted { flow, outcome }
    }

    async fn outcome(&self, request: Request, mut forwarded: Forwarded, began: Instant) -> Option<Ended> {
        let until = began + request.deadline + OUTCOME_GRACE;
        if let Ok(Ok(ended)) = timeout_at(until, &mut forwarded.ended).await {
            self.engine.metrics.forwarded(Forwarding::Answered);
            return Some(ended);
        }
        self.engine.metrics.forwarded(Forwarding::Lost);
        drop(forwarded);
        let deadline = request.deadline.saturating_sub(began.elapsed()).max(LAST_TIME);
        // It was taken, so it is run here even if nothing new is taken any more.
        let accepted = self.begin(Request { deadline, ..request }).await.ok()?;
        accepted.outcome.await.ok()
    }

    /// Takes a request of another runtime.
    pub(crate) async fn submit_here(&self, request: Request) -> Result<Accepted, NotAccepted> {
        let accepted = self.accept(request).await;
        if let Err(refused) = &accepted {
            self.engine.metrics.refused(refused.into());
        }
        accepted
    }
}
