//! The tree of calls of one attempt of a flow: what each call wrote, who may run when, and what is left at the end.
//!
//! Each call has an overlay (a savepoint) on top of its caller's. Success merges it into the caller's, a rejection
//! discards it. Parallel calls of one flow are isolated from each other as nested transactions are (Moss, "Nested
//! Transactions", 1981): an instance belongs to the call that runs on it until that call ends, then to its caller, so
//! that a sibling waits for it; what it wrote is then below the sibling. A ring of such waits ends the attempt, and the
//! next one runs calls one after the other.
//!
//! **Invariant:** a call reads what its callers and their finished calls wrote, never what an unfinished sibling wrote.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use bytes::Bytes;

use crate::ids::{HandlerName, Instance};
use crate::limits::Limits;
use crate::mechanism::{Mechanism, works};

pub use overlay::{Effects, Emission, OutgoingMessage, Overlay};

mod overlay;

/// One call of a tree. The entry is call 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(usize);

impl CallId {
    /// The entry's call.
    pub const ENTRY: Self = Self(0);

    /// The position in the order in which calls began.
    pub fn index(self) -> usize {
        self.0
    }

    /// The call at a position.
    pub fn from_index(index: usize) -> Self {
        Self(index)
    }
}

/// A call that must not be made, or wrote more than it may. Ends the attempt; running it again would not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// The instance is already running further up.
    #[error("{0} is called while it is running: {1}")]
    Cycle(Instance, String),
    /// Too many calls below one another.
    #[error("more than {0} calls deep")]
    Depth(usize),
    /// Too many calls in the flow.
    #[error("more than {0} calls in one flow")]
    Calls(usize),
    /// Too many calls at the same time from one handler.
    #[error("more than {0} calls at the same time from one handler")]
    FanOut(usize),
    /// Too many rows written.
    #[error("more than {0} writes in one flow")]
    Writes(usize),
    /// Too many bytes written.
    #[error("more than {0} bytes written in one flow")]
    WriteBytes(usize),
}

impl LimitError {
    /// Stable name, for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Cycle(..) => "call-cycle",
            Self::Depth(_) => "call-depth",
            Self::Calls(_) => "too-many-calls",
            Self::FanOut(_) => "fan-out",
            Self::Writes(_) => "too-many-writes",
            Self::WriteBytes(_) => "write-bytes",
        }
    }
}

/// Whether a call may run on its instance now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It holds the instance.
    Now,
    /// Another call of the flow holds it; ask again when that one has ended.
    Wait,
    /// Waiting would never end. The attempt must be given up and run again with [`Tree::sequential`].
    Deadlock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Running,
    Done,
    Discarded,
}

#[derive(Debug)]
struct Call {
    parent: Option<CallId>,
    instance: Instance,
    handler: HandlerName,
    depth: usize,
    open_children: usize,
    stage: Stage,
    overlay: Overlay,
}

/// The calls of one attempt.
#[derive(Debug)]
pub struct Tree {
    limits: Limits,
    sequential: bool,
    calls: Vec<Call>,
    /// Which call an instance belongs to. Calls that ended have passed it on to their caller.
    holders: HashMap<Instance, CallId>,
}

impl Tree {
    /// A tree with the entry call running.
    pub fn new(limits: Limits, instance: Instance, handler: HandlerName) -> Self {
        let holders = HashMap::from([(instance.clone(), CallId::ENTRY)]);
        let entry = Call {
            parent: None,
            instance,
            handler,
            depth: 1,
            open_children: 0,
            stage: Stage::Running,
            overlay: Overlay::default(),
        };
        Self { limits, sequential: false, calls: vec![entry], holders }
    }

    /// The same, running calls strictly one after the other, so that no ring of waits can form.
    #[must_use]
    pub fn sequential(mut self) -> Self {
        self.sequential = true;
        self
    }

    /// Adds a call from `parent`, not yet running: ask [`Tree::turn`].
    pub fn call(&mut self, parent: CallId, instance: Instance, handler: HandlerName) -> Result<CallId, LimitError> {
        if self.calls.len() > self.limits.calls_max {
            return Err(LimitError::Calls(self.limits.calls_max));
        }
        let depth = self.calls[parent.0].depth + 1;
        if depth > self.limits.call_depth_max {
            return Err(LimitError::Depth(self.limits.call_depth_max));
        }
        if self.calls[parent.0].open_children >= self.limits.fan_out_max {
            return Err(LimitError::FanOut(self.limits.fan_out_max));
        }
        if self.path(parent).any(|call| self.calls[call.0].instance == instance) {
            let path = self.path_text(parent, &instance);
            return Err(LimitError::Cycle(instance, path));
        }
        let id = CallId(self.calls.len());
        self.calls[parent.0].open_children += 1;
        self.calls.push(Call {
            parent: Some(parent),
            instance,
            handler,
            depth,
            open_children: 0,
            stage: Stage::Waiting,
            overlay: Overlay::default(),
        });
        Ok(id)
    }

    /// Takes the turn of `call` on its instance, if it can be had. Ask again after any call of the tree has ended.
    pub fn turn(&mut self, call: CallId) -> Turn {
        if self.calls[call.0].stage != Stage::Waiting {
            return Turn::Now;
        }
        if self.sequential && self.somebody_runs_beside(call) {
            return Turn::Wait;
        }
        let instance = self.calls[call.0].instance.clone();
        match self.holders.get(&instance).copied() {
            Some(holder) if !self.is_ancestor(holder, call) && works(Mechanism::InstanceOwnership) => {
                if self.waits_for(holder, call) { Turn::Deadlock } else { Turn::Wait }
            }
            Some(_) | None => {
                self.holders.insert(instance, call);
                self.calls[call.0].stage = Stage::Running;
                Turn::Now
            }
        }
    }

    /// Ends a call that returned: its effects become its caller's, and so do the instances it held.
    ///
    /// Calls of it that still run (spawns, and calls nobody waits for) become calls of its caller. If it was discarded
    /// in the meantime nothing happens.
    pub fn finish(&mut self, call: CallId, effects: Effects) -> Result<(), LimitError> {
        if self.is_discarded(call) {
            return Ok(());
        }
        let mut overlay = std::mem::take(&mut self.calls[call.0].overlay);
        overlay.apply(effects);
        self.calls[call.0].stage = Stage::Done;
        let heir = self.calls[call.0].parent.unwrap_or(CallId::ENTRY);
        self.adopt_open_children(call, heir);
        for holder in self.holders.values_mut().filter(|holder| **holder == call) {
            *holder = heir;
        }
        if call == heir {
            self.calls[heir.0].overlay = overlay;
        } else {
            self.calls[heir.0].open_children -= 1;
            self.calls[heir.0].overlay.merge(overlay);
        }
        self.check_size(heir)
    }

    /// Ends a call that said no: everything that it and its calls did is gone, and its running calls with it.
    pub fn discard(&mut self, call: CallId) {
        if self.is_discarded(call) {
            return;
        }
        if !works(Mechanism::RejectionDiscards) {
            let _ = self.finish(call, Effects::default());
            return;
        }
        let doomed: Vec<CallId> = (0..self.calls.len()).map(CallId).filter(|id| self.is_ancestor(call, *id)).collect();
        for id in &doomed {
            self.calls[id.0].stage = Stage::Discarded;
            self.calls[id.0].overlay = Overlay::default();
        }
        // The caller keeps the instances: the "no" rests on what was read there, and the caller may have written there
        // before. A sibling that got in between would not see that, and its own writes would be lost.
        let heir = self.calls[call.0].parent.unwrap_or(CallId::ENTRY);
        for holder in self.holders.values_mut().filter(|holder| doomed.contains(*holder)) {
            *holder = heir;
        }
        if call != heir {
            self.calls[heir.0].open_children -= 1;
        }
    }

    /// Whether the call, or one above it, was discarded.
    pub fn is_discarded(&self, call: CallId) -> bool {
        self.calls[call.0].stage == Stage::Discarded
    }

    /// What the call sees of the flow's own writes on `row`: `None` if nobody above it wrote there.
    pub fn lookup(&self, call: CallId, row: &Bytes) -> Option<Option<Bytes>> {
        self.path(call).find_map(|id| self.calls[id.0].overlay.rows.get(row).cloned())
    }

    /// What the call sees of the flow's own writes in a range of rows.
    pub fn lookup_range(&self, call: CallId, range: (Bound<Bytes>, Bound<Bytes>)) -> BTreeMap<Bytes, Option<Bytes>> {
        let mut rows = BTreeMap::new();
        for id in self.path(call) {
            for (row, value) in self.calls[id.0].overlay.rows.range(range.clone()) {
                rows.entry(row.clone()).or_insert_with(|| value.clone());
            }
        }
        rows
    }

    /// All effects of the flow, once the entry and everything it started has ended.
    pub fn take_effects(&mut self) -> Overlay {
        std::mem::take(&mut self.calls[CallId::ENTRY.0].overlay)
    }

    /// Whom a call addresses: instance, handler and depth (1 for the entry).
    pub fn target(&self, call: CallId) -> (&Instance, &HandlerName, usize) {
        let call = &self.calls[call.0];
        (&call.instance, &call.handler, call.depth)
    }

    /// Who made a call, or took it over from a caller that returned before it; nobody for the entry.
    pub fn parent(&self, call: CallId) -> Option<CallId> {
        self.calls[call.0].parent
    }

    /// All instances that were called, each once, in order.
    pub fn footprint(&self) -> Vec<Instance> {
        let mut instances: Vec<Instance> = self.calls.iter().map(|call| call.instance.clone()).collect();
        instances.sort();
        instances.dedup();
        instances
    }

    fn adopt_open_children(&mut self, from: CallId, to: CallId) {
        if from == to {
            return;
        }
        let open =
            |call: &&mut Call| call.parent == Some(from) && matches!(call.stage, Stage::Waiting | Stage::Running);
        let mut adopted = 0;
        for child in self.calls.iter_mut().filter(open) {
            child.parent = Some(to);
            adopted += 1;
        }
        self.calls[to.0].open_children += adopted;
    }

    fn check_size(&self, call: CallId) -> Result<(), LimitError> {
        let overlay = &self.calls[call.0].overlay;
        if overlay.writes() > self.limits.writes_max {
            return Err(LimitError::Writes(self.limits.writes_max));
        }
        if overlay.bytes() > self.limits.write_bytes_max {
            return Err(LimitError::WriteBytes(self.limits.write_bytes_max));
        }
        Ok(())
    }

    /// The call and its callers up to the entry.
    fn path(&self, call: CallId) -> impl Iterator<Item = CallId> {
        std::iter::successors(Some(call), |id| self.calls[id.0].parent)
    }

    fn is_ancestor(&self, ancestor: CallId, call: CallId) -> bool {
        self.path(call).any(|id| id == ancestor)
    }

    /// In sequential mode: a call that runs and is not above `call`, or one that came before it and still waits.
    fn somebody_runs_beside(&self, call: CallId) -> bool {
        let others = self.calls.iter().enumerate().map(|(index, other)| (CallId(index), other.stage));
        others.into_iter().any(|(id, stage)| match stage {
            Stage::Running => !self.is_ancestor(id, call),
            Stage::Waiting => id < call && self.calls[id.0].parent == self.calls[call.0].parent,
            Stage::Done | Stage::Discarded => false,
        })
    }

    /// Whether `holder` cannot end before `call` has: something below it waits, directly or through others, for an
    /// instance that `call` or one of its callers holds.
    fn waits_for(&self, holder: CallId, call: CallId) -> bool {
        let mut seen = vec![false; self.calls.len()];
        let mut stack = vec![holder];
        while let Some(blocked) = stack.pop() {
            if std::mem::replace(&mut seen[blocked.0], true) {
                continue;
            }
            for index in (0..self.calls.len()).filter(|index| self.calls[*index].stage == Stage::Waiting) {
                if index == call.0 || !self.is_ancestor(blocked, CallId(index)) {
                    continue;
                }
                let Some(next) = self.holders.get(&self.calls[index].instance).copied() else { continue };
                // A call above both ends only after both, and is waited for by neither.
                if self.is_ancestor(next, CallId(index)) {
                    continue;
                }
                if self.is_ancestor(next, call) {
                    return true;
                }
                stack.push(next);
            }
        }
        false
    }

    fn path_text(&self, call: CallId, again: &Instance) -> String {
        let mut names: Vec<String> = self.path(call).map(|id| self.calls[id.0].instance.to_string()).collect();
        names.reverse();
        names.push(again.to_string());
        names.join(" → ")
    }
}

#[cfg(test)]
mod tests;
