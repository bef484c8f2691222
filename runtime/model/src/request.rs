//! What an entry turns into: the target, the payload, and how it may run.

use std::time::Duration;

use bytes::Bytes;

use crate::ids::{FlowId, HandlerName, Instance, Payload, RequestId, Timestamp};
use crate::outcome::Digest;
use crate::slot::SlotCount;

/// One request, accepted by an entry and not yet run.
#[derive(Clone, Debug)]
pub struct Request {
    /// The flow it starts; derived from `instance` and `id`.
    pub flow: FlowId,
    /// What the client calls it.
    pub id: RequestId,
    /// The entry instance.
    pub instance: Instance,
    /// The entry handler.
    pub handler: HandlerName,
    /// The body.
    pub payload: Payload,
    /// Digest of handler and body.
    pub digest: Digest,
    /// How long it may take, from acceptance to durable.
    pub deadline: Duration,
    /// Read at this past time instead of now. Only for handlers that are read-only.
    pub as_of: Option<Timestamp>,
    /// W3C traceparent of the client, if it sent one.
    pub traceparent: Option<String>,
    /// Where it came from.
    pub origin: Origin,
}

/// Where a request came from, and what its commit has to consume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client waits for the answer, or will ask for it.
    Client,
    /// A send of another flow. Its row is deleted in the same transaction as the effects.
    Message {
        /// The row of the inbox or of the timers.
        row: Bytes,
    },
}

impl Request {
    /// A client's request. `deadline` is capped at [`crate::limits::DEADLINE_MS_MAX`].
    pub fn new(
        slots: SlotCount,
        id: RequestId,
        instance: Instance,
        handler: HandlerName,
        payload: Payload,
        deadline: Duration,
    ) -> Self {
        let flow = FlowId::derive(slots.slot_of(&instance.key), &instance, &id);
        let digest = digest(&handler, &payload);
        let deadline = deadline.min(Duration::from_millis(crate::limits::DEADLINE_MS_MAX));
        let (as_of, traceparent, origin) = (None, None, Origin::Client);
        Self { flow, id, instance, handler, payload, digest, deadline, as_of, traceparent, origin }
    }
}

/// Digest of what must be equal when a request id is repeated: the handler and the body's bytes.
pub fn digest(handler: &HandlerName, payload: &Payload) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(handler.as_str().as_bytes());
    hasher.update(&[0]);
    hasher.update(&payload.bytes);
    let mut digest = Digest::default();
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    digest
}
