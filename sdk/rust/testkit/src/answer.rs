//! How a request of a test ended.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use tandem_model::outcome::{Cause, FlowRecord, Outcome};

use crate::Error;

/// How a request ended. All of it is durable in the store of the kit.
#[derive(Clone, Debug)]
pub struct Answer {
    /// How it ended.
    pub outcome: Outcome,
    /// Why it did not commit; `None` if it did.
    pub cause: Option<Cause>,
    /// The whole record: flow id, attempts, calls.
    pub record: Arc<FlowRecord>,
    /// The answer came from the record of an earlier request with the same id.
    pub repeated: bool,
}

impl Answer {
    pub(crate) fn new(record: Arc<FlowRecord>, repeated: bool) -> Self {
        Self { outcome: record.outcome, cause: record.cause.clone(), record, repeated }
    }

    /// What the handler returned. An error that says why, if the request did not commit.
    pub fn result<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let Some(payload) = self.record.result.as_ref().filter(|_| self.outcome == Outcome::Committed) else {
            let Cause { reason, detail, .. } = self.cause.clone().unwrap_or_else(|| Cause::new("", ""));
            return Err(Error::NotCommitted { outcome: self.outcome, reason, detail });
        };
        let what = || format!("the result of {} {}", self.record.instance, self.record.handler);
        serde_json::from_slice(&payload.bytes).map_err(|source| Error::Json { what: what(), source })
    }

    /// The reason why it did not commit; empty if it did.
    pub fn reason(&self) -> &str {
        self.cause.as_ref().map_or("", |cause| &cause.reason)
    }
}
