//! What `GET /flows/{id}` says of the calls of a flow.

use tandem_model::flow::{CallId, Tree};
use tandem_model::limits::TRACE_CALLS_MAX;
use tandem_model::outcome::{CallStatus, CallTrace, Outcome};
use tokio::time::Instant;

/// Times and ends of the calls of one attempt, in the order they began.
#[derive(Debug, Default)]
pub(super) struct Traces {
    calls: Vec<Traced>,
}

#[derive(Debug)]
struct Traced {
    started: Instant,
    duration_us: Option<u64>,
    status: CallStatus,
}

impl Traces {
    /// A call began.
    pub(super) fn began(&mut self, call: CallId) {
        if call.index() == self.calls.len() && self.calls.len() < TRACE_CALLS_MAX {
            let started = Instant::now();
            self.calls.push(Traced { started, duration_us: None, status: CallStatus::Stopped });
        }
    }

    /// A call ended.
    pub(super) fn ended(&mut self, call: CallId, status: CallStatus) {
        if let Some(traced) = self.calls.get_mut(call.index()) {
            traced.duration_us = Some(micros(traced.started));
            traced.status = status;
        }
    }

    /// For the record. Calls of a rejected caller that did their work count as undone.
    pub(super) fn of(&self, tree: &Tree) -> Vec<CallTrace> {
        let traces = (0..).zip(&self.calls).map(|(index, traced)| {
            let call = CallId::from_index(index);
            let (instance, handler, depth) = tree.target(call);
            let undone = traced.status == CallStatus::Done && tree.is_discarded(call);
            CallTrace {
                depth: u16::try_from(depth.saturating_sub(1)).unwrap_or(u16::MAX),
                instance: instance.clone(),
                handler: handler.clone(),
                duration_us: traced.duration_us.unwrap_or_else(|| micros(traced.started)),
                status: if undone { CallStatus::Undone } else { traced.status.clone() },
            }
        });
        traces.collect()
    }
}

/// In a flow that did not commit, nothing that was done stays done.
pub(super) fn undone(mut calls: Vec<CallTrace>, outcome: Outcome) -> Vec<CallTrace> {
    if outcome != Outcome::Committed {
        for call in calls.iter_mut().filter(|call| call.status == CallStatus::Done) {
            call.status = CallStatus::Undone;
        }
    }
    calls
}

fn micros(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX)
}
