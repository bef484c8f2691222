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

    /// For the record: each call followed by those it made. Calls of a rejected caller that did their work count as
    /// undone.
    pub(super) fn of(&self, tree: &Tree) -> Vec<CallTrace> {
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); self.calls.len()];
        for index in 1..self.calls.len() {
            let parent = tree.parent(CallId::from_index(index)).map_or(0, CallId::index);
            if let Some(siblings) = children.get_mut(parent) {
                siblings.push(index);
            }
        }
        let mut traces = Vec::with_capacity(self.calls.len());
        let mut stack: Vec<(usize, u16)> = if self.calls.is_empty() { Vec::new() } else { vec![(0, 0)] };
        while let Some((index, depth)) = stack.pop() {
            traces.push(self.trace(tree, index, depth));
            stack.extend(children[index].iter().rev().map(|child| (*child, depth.saturating_add(1))));
        }
        traces
    }

    fn trace(&self, tree: &Tree, index: usize, depth: u16) -> CallTrace {
        let (call, traced) = (CallId::from_index(index), &self.calls[index]);
        let (instance, handler, _) = tree.target(call);
        let undone = traced.status == CallStatus::Done && tree.is_discarded(call);
        CallTrace {
            depth,
            instance: instance.clone(),
            handler: handler.clone(),
            duration_us: traced.duration_us.unwrap_or_else(|| micros(traced.started)),
            status: if undone { CallStatus::Undone } else { traced.status.clone() },
        }
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
