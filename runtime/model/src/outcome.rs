//! The one record every request ends with.

use serde::{Deserialize, Serialize};

use crate::ids::{FlowId, FunctionName, HandlerName, Instance, Key, Payload, RequestId};

/// How a request ended. A closed list; what a user sees in `tandem-outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Outcome {
    /// Everything the flow did is durable.
    Committed,
    /// User code said no and nobody handled it; nothing was applied.
    Rejected,
    /// User code broke, or broke a limit; nothing was applied.
    Failed,
    /// Other flows kept getting in the way until the attempts were used up; nothing was applied.
    Conflict,
    /// The deadline passed before the flow was done; nothing was applied.
    TimedOut,
    /// Somebody cancelled it in time; nothing was applied.
    Cancelled,
    /// A message that failed for good and was set aside, so that others go on; nothing was applied.
    Poisoned,
    /// The request itself makes no sense (unknown handler, bad body); nothing ran.
    Invalid,
}

impl Outcome {
    /// All outcomes, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::Committed,
        Self::Rejected,
        Self::Failed,
        Self::Conflict,
        Self::TimedOut,
        Self::Cancelled,
        Self::Poisoned,
        Self::Invalid,
    ];

    /// As in headers, metrics and documentation: `TIMED_OUT`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "COMMITTED",
            Self::Rejected => "REJECTED",
            Self::Failed => "FAILED",
            Self::Conflict => "CONFLICT",
            Self::TimedOut => "TIMED_OUT",
            Self::Cancelled => "CANCELLED",
            Self::Poisoned => "POISONED",
            Self::Invalid => "INVALID",
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Outcome {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|outcome| outcome.as_str().eq_ignore_ascii_case(text));
        found.ok_or_else(|| format!("{text:?} is not an outcome; they are {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

/// Why a request did not commit, in words for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Stable, for programs: `out-of-stock`, `deadline`, `call-cycle`. Listed in the documentation unless user code chose it.
    pub reason: String,
    /// For people: `sku-7: 2 wanted, 1 left`.
    pub detail: String,
    /// The instance that said no or broke; absent when it was none of them.
    pub instance: Option<Instance>,
}

impl Cause {
    /// A cause of the runtime itself, about no instance in particular.
    pub fn new(reason: &str, detail: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), detail: detail.into(), instance: None }
    }

    /// The same cause, pinned to an instance.
    #[must_use]
    pub fn at(mut self, instance: &Instance) -> Self {
        self.instance = Some(instance.clone());
        self
    }

    /// The function that said no, if one did.
    pub fn function(&self) -> Option<&FunctionName> {
        self.instance.as_ref().map(|instance| &instance.function)
    }

    /// The key of the instance that said no, if one did.
    pub fn key(&self) -> Option<&Key> {
        self.instance.as_ref().map(|instance| &instance.key)
    }
}

/// The request record: what is stored, in the same transaction as the flow's effects, when a request ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRecord {
    /// The flow.
    pub flow: FlowId,
    /// What the client called it.
    pub request: RequestId,
    /// The entry instance.
    pub instance: Instance,
    /// The entry handler.
    pub handler: HandlerName,
    /// Digest of handler and body: a repeated id with another digest is refused.
    pub digest: Digest,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it did not commit. Present for every outcome but COMMITTED.
    pub cause: Option<Cause>,
    /// What the handler returned. Present only for COMMITTED.
    pub result: Option<Payload>,
    /// How many times user code was run.
    pub attempts: u32,
    /// Wall time of acceptance, in milliseconds since 1970.
    pub accepted_unix_ms: u64,
    /// From acceptance to the decision, in microseconds.
    pub duration_us: u64,
    /// The calls of the last attempt, each followed by those it made; at most [`crate::limits::TRACE_CALLS_MAX`].
    pub calls: Vec<CallTrace>,
}

/// Digest of a request's handler and body: the first 16 bytes of a BLAKE3.
pub type Digest = [u8; 16];

/// One call of a flow, for people who ask why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallTrace {
    /// 0 for the entry.
    pub depth: u16,
    /// Whom it addressed.
    pub instance: Instance,
    /// The handler.
    pub handler: HandlerName,
    /// From start to end, in microseconds.
    pub duration_us: u64,
    /// What became of it.
    pub status: CallStatus,
}

/// What became of one call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CallStatus {
    /// It returned, and its effects are part of the commit.
    Done,
    /// It returned, but somebody above rejected or failed, so its effects are gone.
    Undone,
    /// It said no.
    Rejected(String),
    /// It broke.
    Failed(String),
    /// It was still running when the flow ended.
    Stopped,
}
