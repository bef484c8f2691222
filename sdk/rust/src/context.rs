//! What a handler is given: who it is, its state, and the ways to others.

use std::fmt;
use std::time::Instant;

use serde::Serialize;
use tandem_proto::function::v1alpha1 as proto;

use crate::invocation::{Invocation, Shared, encode};
use crate::state::State;

/// The context of one run of one handler: the instance's key, its state `S`, and what leaves with the commit.
///
/// All it is told (writes, sends, emits) leaves together with the result, if the handler returns `Ok`.
pub struct Ctx<S = ()> {
    /// The state of this instance.
    pub state: S,
    invocation: Shared,
}

impl<S: State> Ctx<S> {
    /// The context of an invocation. For generated code.
    #[doc(hidden)]
    pub fn of(invocation: &Shared) -> Self {
        Self { state: S::attach(invocation), invocation: invocation.clone() }
    }
}

impl<S> Ctx<S> {
    /// The key of this instance.
    pub fn key(&self) -> &str {
        &self.invocation.request().key
    }

    /// 1 for the first run of this request; more if it met a conflict or a failure. Earlier runs left nothing behind.
    pub fn attempt(&self) -> u32 {
        self.invocation.request().attempt
    }

    /// Id of the flow that this is part of, as `GET /flows/{id}` knows it.
    pub fn flow_id(&self) -> &str {
        &self.invocation.request().flow_id
    }

    /// When the flow has to be done. It is stopped then, and nothing of it remains.
    pub fn deadline(&self) -> Instant {
        self.invocation.deadline()
    }

    /// Whether this run may only read.
    pub fn is_read_only(&self) -> bool {
        self.invocation.request().read_only
    }

    /// W3C traceparent of the request, if it is traced.
    pub fn traceparent(&self) -> Option<&str> {
        Some(self.invocation.request().traceparent.as_str()).filter(|traceparent| !traceparent.is_empty())
    }

    /// Hands a record to an egress, as JSON, released only if the flow commits. One that cannot be written as JSON
    /// makes the invocation fail.
    pub fn emit(&self, egress: impl Into<String>, record: impl Serialize) {
        let egress = egress.into();
        match encode(&record, || format!("the record for egress {egress}")) {
            Ok(payload) => self.invocation.release(proto::effect::Effect::Emit(proto::Emit { egress, payload })),
            Err(error) => self.invocation.break_with(error),
        }
    }

    pub(crate) fn invocation(&self) -> &Invocation {
        &self.invocation
    }
}

impl<S> fmt::Debug for Ctx<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.invocation.place())
    }
}
