//! The turns that a flow takes before it runs again: here, and at the owners of what runtimes keep fighting over.
//!
//! One runtime sees in memory who touches an instance. Several see only that their commits fail, and each that runs
//! again may be overtaken again, until the flow has no attempts left. So what keeps failing between runtimes is taken in
//! turn at its owner: in the order of instances, with nothing held meanwhile, and given back only when the commit is
//! durable. The next one then opens its view, and sees it.
//!
//! A turn at another runtime is for a group of flows of this one: those that come to it while it is there share it, one
//! behind the other on what is sealed, so that one commit carries many of them (the idea is that of cohort locks: Dice,
//! Marathe and Shavit, 2012).
//!
//! **Invariant:** as for all turns, this decides speed and never correctness. Whoever does not get its turn in time, or
//! cannot ask for it, runs without.

use bytes::Bytes;
use tandem_model::flow::Tree;
use tandem_model::ids::Instance;
use tandem_store::Store;
use tandem_store::keys::{self, RowKey};
use tokio::time::{Instant, timeout_at};

use super::{Conflict, Flow, Memory};
use crate::metrics::Asked;
use crate::peers::Claiming;
use crate::turns::{Held, SHARED_WAIT_MAX};

impl<S: Store> Flow<S> {
    /// Takes note of who got in whose way.
    pub(super) fn note(&self, conflict: &Conflict, memory: &mut Memory) {
        let (turns, now) = (&self.engine.turns, Instant::now());
        for instance in &conflict.blame {
            turns.mark_contended(instance, now);
        }
        if self.engine.partition.is_shared() {
            for instance in &conflict.between {
                turns.mark_between(instance, now);
            }
        }
        self.engine.metrics.conflict(&self.request.instance.function);
        if conflict.collateral {
            memory.again += 1;
        } else {
            memory.conflicts += 1;
        }
        memory.solo |= conflict.solo;
        memory.sequential |= conflict.sequential;
    }

    /// Takes the turns for another attempt: on everything that the last one touched if there was a conflict, in key
    /// order, else on the entry, unless it is still held.
    pub(super) async fn take_again(&self, held: &Held, memory: &Memory, deadline: Instant) {
        let entry = std::slice::from_ref(&self.request.instance);
        let is_fought_over = memory.conflicts + memory.again > 0;
        let footprint = memory.tree.as_ref().filter(|_| is_fought_over).map(Tree::footprint);
        let instances = footprint.as_deref().unwrap_or(entry);
        let now = Instant::now();
        if instances.iter().any(|instance| self.engine.turns.is_shared(instance, now)) {
            // Whoever held something while it waits elsewhere could be waited for there.
            held.give_back();
        }
        let taking = async {
            for instance in instances {
                self.take(held, instance).await;
            }
        };
        // The attempt that follows finds out by itself that it is too late.
        let _ = timeout_at(deadline, self.unless_cancelled(taking)).await;
    }

    async fn take(&self, held: &Held, instance: &Instance) {
        let (engine, slot) = (&self.engine, self.engine.layout.slots().slot_of(&instance.key));
        if !engine.turns.is_shared(instance, Instant::now()) {
            return held.try_take(instance).await;
        }
        held.asked(instance);
        held.take_shared(instance).await;
        if !engine.peers.is_elsewhere(slot) || held.join(instance) {
            return;
        }
        let what = match engine.peers.claim(slot, instance, SHARED_WAIT_MAX) {
            None => Asked::Unreachable,
            Some(claim) => match claim.answered(SHARED_WAIT_MAX).await {
                Claiming::Granted { claimed, waited } => {
                    held.keep(instance, claimed);
                    if waited {
                        engine.turns.mark_shared(instance, Instant::now());
                    }
                    Asked::Granted
                }
                Claiming::Late => Asked::Late,
                Claiming::Lost => Asked::Unreachable,
            },
        };
        engine.metrics.turn_asked(what);
    }
}

/// Whose states rows are part of.
pub(super) fn instances(rows: &[Bytes]) -> Vec<Instance> {
    rows.iter().filter_map(|row| instance_of(row)).collect()
}

fn instance_of(row: &[u8]) -> Option<Instance> {
    match keys::parse(row).ok()? {
        RowKey::StateValue { instance, .. } | RowKey::StateEntry { instance, .. } => Some(instance),
        RowKey::Request { .. }
        | RowKey::Inbox { .. }
        | RowKey::Timer { .. }
        | RowKey::Egress { .. }
        | RowKey::DeadLetter { .. }
        | RowKey::Lane { .. }
        | RowKey::Meta { .. } => None,
    }
}
