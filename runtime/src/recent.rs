//! The records of flows that ended lately, with what is not stored: the calls of committed flows, read-only flows.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tandem_model::ids::FlowId;
use tandem_model::outcome::FlowRecord;

/// Records that are kept.
const RECENT_MAX: usize = 4_096;

/// The latest records.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    records: HashMap<FlowId, Arc<FlowRecord>>,
    order: VecDeque<FlowId>,
}

impl Recent {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a record, forgetting the oldest if there are too many.
    pub(crate) fn add(&self, record: Arc<FlowRecord>) {
        let mut inner = self.lock();
        let flow = record.flow;
        if inner.records.insert(flow, record).is_none() {
            inner.order.push_back(flow);
        }
        if inner.order.len() > RECENT_MAX
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.records.remove(&oldest);
        }
    }

    /// The record of a flow.
    pub(crate) fn get(&self, flow: FlowId) -> Option<Arc<FlowRecord>> {
        self.lock().records.get(&flow).cloned()
    }

    /// All of them, the latest first.
    pub(crate) fn all(&self) -> Vec<Arc<FlowRecord>> {
        let inner = self.lock();
        inner.order.iter().rev().filter_map(|flow| inner.records.get(flow).cloned()).collect()
    }
}
