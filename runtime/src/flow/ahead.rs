//! Runs the code of a flow that waits for its turn on the states that the one before it will leave.
//!
//! Flows on one instance take turns, and each needs a round trip to user code. So a flow whose predecessor in the line
//! has begun to run is sent along behind it: the worker runs one after the other, each on the states that the one before
//! left. When the flow has its turn, its view says what the states are. If they are those that its code began with, that
//! run counts, as if it had been made now: a handler sees nothing but its payload, its states and the answers it gets,
//! and answers are given only from then on. Otherwise the run is dropped, as an attempt that conflicted is, and another
//! one is made.
//!
//! **Invariant:** before the comparison nothing of the run has been looked at but the states it began with.

use std::time::Duration;

use bytes::Bytes;
use tandem_model::ids::StateName;
use tandem_model::mechanism::{Mechanism, works};
use tandem_model::topology::Isolation;
use tandem_store::Store;
use tokio::time::timeout;

use super::Flow;
use super::call::{declared, invocation};
use crate::host::{Begun, Draw, Event, Lease, Session};
use crate::metrics::RanAhead;
use crate::turns::{Held, Place};

/// Longest wait, once a flow has its turn, to hear what its run ahead began with.
const BEGIN_TIME_MAX: Duration = Duration::from_millis(20);

/// Only the first attempt of a flow can run ahead.
const FIRST_ATTEMPT: u32 = 1;

/// A run that began before the turn of its flow.
pub(super) struct RunAhead {
    pub(super) lease: Lease,
    pub(super) session: Session,
}

impl<S: Store> Flow<S> {
    /// Waits for the turn on the entry, and lets the code run ahead as soon as that of the flow before it has begun.
    pub(super) async fn wait_for_entry(&self, held: &Held, place: Place) -> Option<RunAhead> {
        let before = place.before();
        let turn = held.wait(place);
        tokio::pin!(turn);
        let Some(before) = before else {
            turn.await;
            return None;
        };
        tokio::select! {
            biased;
            () = &mut turn => None,
            begun = before.wait() => {
                let ahead = self.run_ahead(held, begun).await;
                turn.await;
                ahead
            }
        }
    }

    async fn run_ahead(&self, held: &Held, begun: &Begun) -> Option<RunAhead> {
        if !self.is_isolation_known {
            return None;
        }
        let request = &self.request;
        let declared = declared(&self.engine, &self.topology, &request.instance.function, &request.handler);
        if declared.isolation == Isolation::ReadOnly {
            return None;
        }
        let draw = Draw::of(&request.flow, FIRST_ATTEMPT);
        let lease = self.engine.host.lease_behind(begun, &request.instance.function, draw)?;
        let deadline = self.accepted + request.deadline;
        let invocation = invocation(request, deadline, &request.instance, &request.handler, request.payload.clone());
        let session = lease.invoke_behind(invocation, begun).await?;
        self.engine.metrics.invocation(&request.instance.function);
        if let Some(begun) = session.begun() {
            held.begun(begun);
        }
        Some(RunAhead { lease, session })
    }
}

impl RunAhead {
    /// The run, if it began with these states.
    pub(super) async fn begun_with(mut self, states: &[(StateName, Option<Bytes>)]) -> Result<Self, RanAhead> {
        // The flow before has ended, so the worker has begun, or will do so in a moment.
        let Ok(Event::Began(mut began)) = timeout(BEGIN_TIME_MAX, self.session.next()).await else {
            return Err(RanAhead::Declined);
        };
        began.sort_unstable();
        let same = began.len() == states.len()
            && began.iter().zip(states).all(|(began, (name, value))| began.0 == name.as_str() && began.1 == *value);
        if same || !works(Mechanism::AheadCompared) { Ok(self) } else { Err(RanAhead::Dropped) }
    }
}
