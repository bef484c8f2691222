//! What one call did and has not yet been committed.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ids::{EgressName, HandlerName, Instance, Payload};
use crate::mechanism::{Mechanism, works};

/// What a handler returned besides its value: writes, sends, emits, in the order they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Rows set (`Some`) or deleted (`None`).
    pub writes: Vec<(Bytes, Option<Bytes>)>,
    /// Messages to release with the commit.
    pub messages: Vec<OutgoingMessage>,
    /// Egress records to release with the commit.
    pub emissions: Vec<Emission>,
}

/// A send, before it is released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingMessage {
    /// Who sends.
    pub from: Instance,
    /// To whom.
    pub to: Instance,
    /// Which handler.
    pub handler: HandlerName,
    /// The body.
    pub payload: Payload,
    /// How long to wait, in milliseconds; 0 means not at all.
    pub delay_ms: u64,
}

/// An emit, before it is released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emission {
    /// To which egress.
    pub egress: EgressName,
    /// The record.
    pub payload: Bytes,
}

/// The effects of a call and of all its finished calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    /// Rows set or deleted.
    pub rows: BTreeMap<Bytes, Option<Bytes>>,
    /// Messages, in order.
    pub messages: Vec<OutgoingMessage>,
    /// Egress records, in order.
    pub emissions: Vec<Emission>,
}

impl Overlay {
    /// Adds what a handler did on top.
    pub fn apply(&mut self, effects: Effects) {
        self.rows.extend(effects.writes);
        self.messages.extend(effects.messages);
        self.emissions.extend(effects.emissions);
    }

    /// Adds what a finished call did on top.
    pub fn merge(&mut self, mut above: Self) {
        if !works(Mechanism::OverlayOrder) {
            above.rows.retain(|row, _| !self.rows.contains_key(row));
        }
        self.rows.extend(above.rows);
        self.messages.extend(above.messages);
        self.emissions.extend(above.emissions);
    }

    /// Number of rows that a commit of it writes.
    pub fn writes(&self) -> usize {
        self.rows.len() + self.messages.len() + self.emissions.len()
    }

    /// Bytes that a commit of it writes, keys included.
    pub fn bytes(&self) -> usize {
        let rows = self.rows.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len));
        let messages = self.messages.iter().map(|message| message.payload.bytes.len());
        let emissions = self.emissions.iter().map(|emission| emission.payload.len());
        rows.sum::<usize>() + messages.sum::<usize>() + emissions.sum::<usize>()
    }
}
