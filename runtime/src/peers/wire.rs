//! From our own types to frames and back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tandem_model::ids::{FlowId, Instance, InvalidName, Payload, Timestamp};
use tandem_model::outcome::FlowRecord;
use tandem_model::request::Request;
use tandem_model::slot::SlotCount;
use tandem_proto::peer::v1alpha1 as wire;
use tandem_store::rows;

use crate::runtime::{NotAccepted, RunningFlow};

/// A frame of a caller.
pub(super) fn call(frame: wire::caller_frame::Frame) -> wire::CallerFrame {
    wire::CallerFrame { frame: Some(frame) }
}

/// A frame of an owner.
pub(super) fn answer(frame: wire::owner_frame::Frame) -> wire::OwnerFrame {
    wire::OwnerFrame { frame: Some(frame) }
}

/// A request as it travels.
pub(super) fn execute(call_id: u64, request: &Request) -> wire::Execute {
    wire::Execute {
        call_id,
        function: request.instance.function.to_string(),
        key: request.instance.key.to_string(),
        handler: request.handler.to_string(),
        payload: request.payload.bytes.clone(),
        content_type: request.payload.content_type.clone(),
        request_id: request.id.to_string(),
        digest: Bytes::copy_from_slice(&request.digest),
        deadline_ms: u64::try_from(request.deadline.as_millis()).unwrap_or(u64::MAX),
        as_of: request.as_of.map(|at| at.0),
        traceparent: request.traceparent.clone().unwrap_or_default(),
    }
}

/// The request that came in a frame.
pub(super) fn request(slots: SlotCount, execute: wire::Execute) -> Result<Request, String> {
    let name = |error: InvalidName| error.to_string();
    let instance = Instance::parse(&execute.function, &execute.key).map_err(name)?;
    let (id, handler) = (execute.request_id.parse().map_err(name)?, execute.handler.parse().map_err(name)?);
    let payload = Payload { content_type: execute.content_type, bytes: execute.payload };
    let deadline = Duration::from_millis(execute.deadline_ms);
    let mut request = Request::new(slots, id, instance, handler, payload, deadline);
    if request.digest[..] != execute.digest[..] {
        return Err("the digest does not fit to the request".to_owned());
    }
    request.as_of = execute.as_of.map(Timestamp);
    request.traceparent = Some(execute.traceparent).filter(|parent| !parent.is_empty());
    Ok(request)
}

/// Why a request was not taken.
pub(super) fn refused(call_id: u64, refusal: &NotAccepted) -> wire::Refused {
    let reason = match refusal {
        NotAccepted::Mismatch { .. } => wire::refused::Reason::Mismatch,
        NotAccepted::Busy { .. } => wire::refused::Reason::Busy,
        NotAccepted::Unavailable(_) => wire::refused::Reason::Unavailable,
        NotAccepted::Invalid(_) => wire::refused::Reason::Invalid,
    };
    wire::Refused { call_id, reason: reason.into(), detail: refusal.to_string() }
}

/// A flow id that came in a frame.
pub(super) fn flow(bytes: &[u8]) -> Option<FlowId> {
    bytes.try_into().ok().map(FlowId::from_bytes)
}

/// A record that came in a frame.
pub(super) fn record(bytes: &[u8]) -> Option<Arc<FlowRecord>> {
    rows::decode_record(bytes).ok().map(Arc::new)
}

/// A flow in flight as it travels.
pub(super) fn running(flow: &RunningFlow) -> wire::Running {
    wire::Running {
        function: flow.instance.function.to_string(),
        key: flow.instance.key.to_string(),
        handler: flow.handler.to_string(),
        attempt: flow.attempt,
        age_ms: u64::try_from(flow.age.as_millis()).unwrap_or(u64::MAX),
    }
}

/// The flow in flight that came in a frame.
pub(super) fn running_flow(flow: FlowId, running: &wire::Running) -> Option<RunningFlow> {
    let instance = Instance::parse(&running.function, &running.key).ok()?;
    let (handler, age) = (running.handler.parse().ok()?, Duration::from_millis(running.age_ms));
    Some(RunningFlow { flow, instance, handler, attempt: running.attempt, age })
}
