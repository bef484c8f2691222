//! Names and ids. A value of one of these types has been checked: it is safe as a row key, a label and a log field.
//!
//! **Invariant:** nothing after this module holds an unchecked `String` as a name.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::slot::Slot;

/// Why a string is not a name or an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} {problem}")]
pub struct InvalidName {
    /// What it was meant to be: "function name".
    pub what: &'static str,
    /// The refused text, shortened.
    pub value: String,
    /// What is wrong and what is allowed.
    pub problem: String,
}

impl InvalidName {
    fn new(what: &'static str, value: &str, problem: impl Into<String>) -> Self {
        let value = value.chars().take(80).collect();
        Self { what, value, problem: problem.into() }
    }
}

/// Lower-case DNS label: what Kubernetes allows as an object name that is also a label value.
fn check_dns_label(what: &'static str, value: &str) -> Result<(), InvalidName> {
    let max = limits::NAME_BYTES_MAX;
    if value.is_empty() || value.len() > max {
        return Err(InvalidName::new(what, value, format!("must have 1 to {max} characters")));
    }
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !value.chars().all(inner) || value.starts_with('-') || value.ends_with('-') {
        let rule = "must consist of a-z, 0-9 and '-', and start and end with a letter or digit";
        return Err(InvalidName::new(what, value, rule));
    }
    Ok(())
}

/// An identifier as programming languages have it: handlers and states.
fn check_identifier(what: &'static str, value: &str) -> Result<(), InvalidName> {
    let max = limits::NAME_BYTES_MAX;
    let starts = value.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !starts || value.len() > max || !value.chars().all(inner) {
        let rule = format!("must start with a letter and have up to {max} of a-z, A-Z, 0-9, '_' and '-'");
        return Err(InvalidName::new(what, value, rule));
    }
    Ok(())
}

fn check_text(what: &'static str, value: &str, bytes_max: usize) -> Result<(), InvalidName> {
    if value.is_empty() || value.len() > bytes_max {
        return Err(InvalidName::new(what, value, format!("must have 1 to {bytes_max} bytes")));
    }
    if value.chars().any(char::is_control) {
        return Err(InvalidName::new(what, value, "must not contain control characters"));
    }
    Ok(())
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The checked text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(value: &str) -> Result<Self, InvalidName> {
                let check: fn(&'static str, &str) -> Result<(), InvalidName> = $check;
                check($what, value).map(|()| Self(value.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(value: String) -> Result<Self, InvalidName> {
                value.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_type!(
    /// Name of a `Function` resource: a DNS label of up to [`limits::NAME_BYTES_MAX`] characters.
    FunctionName, "function name", check_dns_label
);
text_type!(
    /// Name of a `FunctionRoute` resource.
    RouteName, "route name", check_dns_label
);
text_type!(
    /// Name of a `FunctionEgress` resource.
    EgressName, "egress name", check_dns_label
);
text_type!(
    /// Name of a handler of a function: an identifier.
    HandlerName, "handler name", check_identifier
);
text_type!(
    /// Name of a state of a function: an identifier.
    StateName, "state name", check_identifier
);
text_type!(
    /// Key of an instance: any text of 1 to [`limits::KEY_BYTES_MAX`] bytes without control characters.
    Key, "key", |what, value| check_text(what, value, limits::KEY_BYTES_MAX)
);
text_type!(
    /// What a client names a request by, so that it may repeat it: the `Idempotency-Key`, or an id made for it.
    RequestId, "request id", |what, value| check_text(what, value, limits::REQUEST_ID_BYTES_MAX)
);
text_type!(
    /// Reason of a rejection or failure, for programs: 1 to 63 of a-z, 0-9 and '-'.
    Reason, "reason", check_dns_label
);

/// One `(function, key)`: the unit of state and of ordering. Shown as `inventory/sku-7`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instance {
    /// The function.
    pub function: FunctionName,
    /// The key within the function.
    pub key: Key,
}

impl Instance {
    /// The instance `key` of `function`.
    pub fn new(function: FunctionName, key: Key) -> Self {
        Self { function, key }
    }

    /// Parses both parts. Errors name the part that is wrong.
    pub fn parse(function: &str, key: &str) -> Result<Self, InvalidName> {
        Ok(Self { function: function.parse()?, key: key.parse()? })
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.function, self.key)
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A point in the store's history. Greater is later; the high 46 bits are milliseconds since 1970, the low 18 a
/// counter, as TiKV's placement driver hands them out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Bits of the counter below the milliseconds.
    pub const COUNTER_BITS: u32 = 18;
    /// Before everything that was ever written.
    pub const ZERO: Self = Self(0);

    /// The last timestamp that belongs to the given wall time: a read at it sees all that was committed until then.
    pub fn at_unix_ms(unix_ms: u64) -> Self {
        Self((unix_ms << Self::COUNTER_BITS) | ((1 << Self::COUNTER_BITS) - 1))
    }

    /// The wall time in it, in milliseconds since 1970. For people; nothing is decided by it.
    pub fn unix_ms(self) -> u64 {
        self.0 >> Self::COUNTER_BITS
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one flow: 15 bytes, written as 24 characters of lower-case Crockford base 32.
///
/// The first two bytes are the slot of the entry instance, so that the request record can be found from the id alone;
/// the other 13 are a digest of the entry instance and the request id. The same request therefore has the same flow id
/// wherever and however often it arrives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FlowId([u8; FLOW_ID_BYTES]);

const FLOW_ID_BYTES: usize = 15;

const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl FlowId {
    /// Length in bytes.
    pub const BYTES: usize = FLOW_ID_BYTES;
    const CHARS: usize = 24;

    /// The id of the flow that `request` starts on `instance`, which lives in `slot`.
    ///
    /// Two requests with equal ids are one request only if they address the same instance: request ids are scoped to
    /// the entry instance, because the record that makes them unique lies beside that instance's state.
    pub fn derive(slot: Slot, instance: &Instance, request: &RequestId) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("tandem.dev flow id v1");
        for part in [instance.function.as_str(), instance.key.as_str(), request.as_str()] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        let mut bytes = [0; Self::BYTES];
        bytes[..2].copy_from_slice(&slot.get().to_be_bytes());
        bytes[2..].copy_from_slice(&hasher.finalize().as_bytes()[..Self::BYTES - 2]);
        Self(bytes)
    }

    /// The slot whose rows hold the request record.
    pub fn slot(self) -> Slot {
        Slot::new(u16::from_be_bytes([self.0[0], self.0[1]]))
    }

    /// The raw bytes, as in row keys.
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// From raw bytes, as in row keys.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.chunks(5) {
            let value = chunk.iter().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
            for shift in (0..8).rev() {
                let digit = (value >> (shift * 5)) & 31;
                write!(f, "{}", char::from(BASE32[usize::try_from(digit).unwrap_or(0)]))?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for FlowId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let problem =
            || InvalidName::new("flow id", text, "must be 24 characters of 0-9 and a-z without i, l, o and u");
        if text.len() != Self::CHARS {
            return Err(problem());
        }
        let mut bytes = [0; Self::BYTES];
        for (chunk, out) in text.as_bytes().chunks(8).zip(bytes.chunks_mut(5)) {
            let mut value = 0_u64;
            for character in chunk {
                let digit = BASE32.iter().position(|c| *c == character.to_ascii_lowercase()).ok_or_else(problem)?;
                value = (value << 5) | digit as u64;
            }
            out.copy_from_slice(&value.to_be_bytes()[3..]);
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for FlowId {
    type Error = InvalidName;
    fn try_from(value: String) -> Result<Self, InvalidName> {
        value.parse()
    }
}

impl From<FlowId> for String {
    fn from(id: FlowId) -> Self {
        id.to_string()
    }
}

/// Bytes with their media type: the body of a request, the result of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// Media type, for example `application/json`.
    pub content_type: String,
    /// The bytes. At most [`limits::Limits::payload_bytes_max`].
    pub bytes: Bytes,
}

impl Payload {
    /// A JSON payload from bytes that hold JSON.
    pub fn json(bytes: impl Into<Bytes>) -> Self {
        Self { content_type: "application/json".to_owned(), bytes: bytes.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_id_text_is_a_golden_format_and_round_trips() {
        let instance = Instance::parse("order", "o-1").unwrap();
        let id = FlowId::derive(Slot::new(7), &instance, &"5f1c".parse().unwrap());
        assert_eq!(id.to_string().parse::<FlowId>().unwrap(), id);
        assert_eq!(id.to_string().len(), 24);
        assert_eq!(id.slot(), Slot::new(7));
        assert_eq!(id, FlowId::derive(Slot::new(7), &instance, &"5f1c".parse().unwrap()));
        assert_ne!(id, FlowId::derive(Slot::new(7), &instance, &"5f1d".parse().unwrap()));
    }

    #[test]
    fn names_refuse_what_kubernetes_refuses() {
        for bad in ["", "A", "-a", "a-", "a_b", "a.b", &"a".repeat(64)] {
            assert!(bad.parse::<FunctionName>().is_err(), "{bad:?}");
        }
        assert_eq!("order-2".parse::<FunctionName>().unwrap().as_str(), "order-2");
    }

    #[test]
    fn keys_take_any_text_but_control_characters() {
        assert!("{tenant-1}/ä b".parse::<Key>().is_ok());
        assert!("a\nb".parse::<Key>().is_err());
        assert!("a".repeat(limits::KEY_BYTES_MAX + 1).parse::<Key>().is_err());
    }
}
