//! Row values. A format: the first byte is its version, what follows is postcard.
//!
//! **Invariant:** a version, once released, can be decoded for ever; a change of a stored type is a new version.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tandem_model::ids::{FlowId, HandlerName, Instance, Payload};
use tandem_model::outcome::FlowRecord;

use crate::Error;

/// The only version there is.
const VERSION: u8 = 1;

/// A row of the inbox or of the timers: a send that was committed and has not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The instance that sent it; absent if an entry of the runtime did.
    pub from: Option<Instance>,
    /// The flow that sent it.
    pub flow: FlowId,
    /// Which of that flow's sends it is, from 0.
    pub index: u32,
    /// Whom it is for.
    pub to: Instance,
    /// The handler that takes it.
    pub handler: HandlerName,
    /// The body.
    pub payload: Payload,
    /// Wall time of the commit that released it, in milliseconds since 1970.
    pub sent_unix_ms: u64,
    /// When it may run. Absent for a message that may run at once.
    pub due_unix_ms: Option<u64>,
}

/// A row of the egress table: a record that was released and may not have been delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressRow {
    /// The flow that emitted it.
    pub flow: FlowId,
    /// The record.
    pub payload: Bytes,
    /// Wall time of the commit that released it, in milliseconds since 1970.
    pub emitted_unix_ms: u64,
}

/// The bytes of a request record.
pub fn encode_record(record: &FlowRecord) -> Bytes {
    encode(record)
}

/// A request record from its bytes. [`Error::Damaged`] says what is wrong with it.
pub fn decode_record(bytes: &[u8]) -> Result<FlowRecord, Error> {
    decode("request record", bytes)
}

/// The bytes of a message.
pub fn encode_message(message: &Message) -> Bytes {
    encode(message)
}

/// A message from its bytes. [`Error::Damaged`] says what is wrong with it.
pub fn decode_message(bytes: &[u8]) -> Result<Message, Error> {
    decode("message", bytes)
}

/// The bytes of an egress record.
pub fn encode_egress(row: &EgressRow) -> Bytes {
    encode(row)
}

/// An egress record from its bytes. [`Error::Damaged`] says what is wrong with it.
pub fn decode_egress(bytes: &[u8]) -> Result<EgressRow, Error> {
    decode("egress record", bytes)
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    let bytes = postcard::to_extend(value, vec![VERSION]);
    bytes.expect("a vector grows, and our types have no sequence of unknown length").into()
}

fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Error> {
    let damaged = |problem: String| {
        // Enough to recognise the row, not enough to spill a payload into a log.
        const SHOWN_BYTES: usize = 16;
        let shown = crate::keys::hex(&bytes[..bytes.len().min(SHOWN_BYTES)]);
        Error::Damaged(format!("{what} of {} bytes that begins with {shown:?}: {problem}", bytes.len()))
    };
    match bytes.split_first() {
        None => Err(damaged("it is empty".to_owned())),
        Some((&VERSION, body)) => match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(damaged(format!("{} bytes follow its end", rest.len()))),
            Err(error) => Err(damaged(error.to_string())),
        },
        Some((version, _)) => Err(damaged(format!("version {version} is not known, only {VERSION} is"))),
    }
}

#[cfg(test)]
mod tests;
