//! What is in a store, taken apart into the words of the model.

use std::collections::BTreeMap;

use bytes::Bytes;
use tandem_model::ids::{FlowId, Timestamp};
use tandem_model::outcome::FlowRecord;
use tandem_store::keys::{self, RowKey};
use tandem_store::rows::{self, Message};

use super::State;
use crate::program::{ORDER, OUT};

/// All rows of one moment.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Values and entries.
    pub state: State,
    /// Request records.
    pub records: BTreeMap<FlowId, FlowRecord>,
    /// Flows in the order of their commits: those that note it.
    pub order: Vec<FlowId>,
    /// What was emitted, in the order of the egress.
    pub out: Vec<(FlowId, i64)>,
    /// Messages that have not ended, timers included.
    pub waiting: Vec<Message>,
    /// Messages that were set aside.
    pub set_aside: Vec<Message>,
}

impl Observed {
    /// Takes all rows of a store apart. Says which one makes no sense.
    ///
    /// Commits are in the order of their numbers, which is so as long as one process at a time writes.
    pub fn of(stored: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<Self, String> {
        Self::of_versioned(stored.into_iter().map(|(key, value)| (Timestamp::ZERO, key, value)))
    }

    /// The same for rows that come with the timestamp of their commit, whoever wrote them.
    pub fn of_versioned(stored: impl IntoIterator<Item = (Timestamp, Bytes, Bytes)>) -> Result<Self, String> {
        let mut observed = Self::default();
        let (mut order, mut out) = (Vec::new(), Vec::new());
        for (at, key, value) in stored {
            let broken = |error: &dyn std::fmt::Display| format!("row {key:?} makes no sense: {error}");
            match keys::parse(&key).map_err(|error| broken(&error))? {
                RowKey::StateValue { instance, .. } => {
                    observed
                        .state
                        .insert((instance.to_string(), None), number(&value).map_err(|error| broken(&error))?);
                }
                RowKey::StateEntry { instance, entry, .. } => {
                    let entry = String::from_utf8_lossy(&entry).into_owned();
                    let value = number(&value).map_err(|error| broken(&error))?;
                    observed.state.insert((instance.to_string(), Some(entry)), value);
                }
                RowKey::Request { flow } => {
                    let record = rows::decode_record(&value).map_err(|error| broken(&error))?;
                    observed.records.insert(flow, record);
                }
                RowKey::Inbox { .. } | RowKey::Timer { .. } => {
                    observed.waiting.push(rows::decode_message(&value).map_err(|error| broken(&error))?);
                }
                RowKey::DeadLetter { .. } => {
                    observed.set_aside.push(rows::decode_message(&value).map_err(|error| broken(&error))?);
                }
                RowKey::Egress { egress, sequence, .. } => {
                    let row = rows::decode_egress(&value).map_err(|error| broken(&error))?;
                    match egress.as_str() {
                        ORDER => order.push((at, sequence, row.flow)),
                        OUT => {
                            out.push((at, sequence, row.flow, number(&row.payload).map_err(|error| broken(&error))?));
                        }
                        _ => {}
                    }
                }
                RowKey::Lane { .. } | RowKey::Meta { .. } => {}
            }
        }
        order.sort_unstable();
        out.sort_unstable();
        observed.order = order.into_iter().map(|(_, _, flow)| flow).collect();
        observed.out = out.into_iter().map(|(_, _, flow, number)| (flow, number)).collect();
        Ok(observed)
    }
}

fn number(bytes: &Bytes) -> Result<i64, serde_json::Error> {
    serde_json::from_slice(bytes)
}
