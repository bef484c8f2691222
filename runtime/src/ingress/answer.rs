//! Answers: how an ended, accepted or running flow looks as an HTTP response.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use tandem_model::ids::{FlowId, Payload};
use tandem_model::outcome::Outcome;
use tandem_model::request::Request;

use super::headers::{PREFERENCE_APPLIED, REPEATED, REQUEST};
use crate::admin::view;
use crate::problem::{FLOW, OUTCOME, Problem};
use crate::runtime::{Ended, RunningFlow};

/// Seconds after which a client may ask again for a flow that still runs.
const POLL_SECONDS: u64 = 1;
const JSON: &str = "application/json";

/// The answer to a request that has ended.
pub fn ended(ended: &Ended) -> Response {
    let record = &ended.record;
    let mut response = match record.outcome {
        Outcome::Committed => result(record.result.as_ref()),
        Outcome::Rejected
        | Outcome::Failed
        | Outcome::Conflict
        | Outcome::TimedOut
        | Outcome::Cancelled
        | Outcome::Poisoned
        | Outcome::Invalid => Problem::ended(record).into_response(),
    };
    set(&mut response, OUTCOME, record.outcome.as_str());
    set(&mut response, FLOW, &record.flow.to_string());
    set(&mut response, REQUEST, record.request.as_str());
    if ended.repeated {
        set(&mut response, REPEATED, "true");
    }
    response
}

/// What the handler returned, with its own media type. A handler that returns nothing gives `null`.
fn result(payload: Option<&Payload>) -> Response {
    let (content_type, bytes) = match payload {
        Some(payload) if payload.content_type.is_empty() => (JSON, payload.bytes.clone()),
        Some(payload) => (payload.content_type.as_str(), payload.bytes.clone()),
        None => (JSON, "null".into()),
    };
    let mut response = Response::new(Body::from(bytes));
    set(&mut response, CONTENT_TYPE, content_type);
    response
}

/// The answer to a request that was accepted and that nobody waits for.
pub fn accepted(request: &Request, preference: bool) -> Response {
    let body = serde_json::json!({ "flow": request.flow, "status": format!("/flows/{}", request.flow) });
    let mut response = json(StatusCode::ACCEPTED, &body);
    set(&mut response, LOCATION, &format!("/flows/{}", request.flow));
    set(&mut response, FLOW, &request.flow.to_string());
    set(&mut response, REQUEST, request.id.as_str());
    if preference {
        set(&mut response, PREFERENCE_APPLIED, "respond-async");
    }
    response
}

/// The answer to a request whose outcome is not known: the runtime stopped first, or its store refused to write one.
pub fn stopped(flow: FlowId) -> Response {
    let detail = "no outcome could be stored: the runtime is stopping, or its store takes no writes (the log says why); \
                  repeat the request with the same id, which is always safe";
    Problem::unavailable(detail).with_flow(flow).into_response()
}

/// The answer to a question about a flow that still runs.
pub fn running(flow: &RunningFlow) -> Response {
    let mut response = json(StatusCode::ACCEPTED, &view::Running::from(flow));
    set(&mut response, FLOW, &flow.flow.to_string());
    set(&mut response, RETRY_AFTER, &POLL_SECONDS.to_string());
    response
}

/// The answer to a question about a flow that has ended: its record.
pub fn record(record: &tandem_model::outcome::FlowRecord) -> Response {
    let mut response = json(StatusCode::OK, &view::Flow::from(record));
    set(&mut response, OUTCOME, record.outcome.as_str());
    set(&mut response, FLOW, &record.flow.to_string());
    response
}

/// Any value as JSON.
pub fn json(status: StatusCode, value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            *response.status_mut() = status;
            set(&mut response, CONTENT_TYPE, JSON);
            response
        }
        Err(error) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Problem::new(status, "Internal error", "damaged", error.to_string()).into_response()
        }
    }
}

/// Sets a header; a value that cannot be one (a line break in a media type, say) is left out.
fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::metrics::testdata;

    fn answer(outcome: Outcome, result: Option<Payload>, repeated: bool) -> Response {
        let mut record = testdata::record(outcome);
        record.result = result;
        ended(&Ended { record: Arc::new(record), repeated })
    }

    #[tokio::test]
    async fn committed_gives_the_result_as_it_is() {
        let payload = Payload { content_type: "text/plain".into(), bytes: "hi".into() };
        let response = answer(Outcome::Committed, Some(payload), false);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/plain");
        assert_eq!(response.headers()["tandem-outcome"], "COMMITTED");
        assert_eq!(response.headers()["tandem-request"], "r-1");
        assert!(!response.headers().contains_key("tandem-repeated"));
        assert_eq!(axum::body::to_bytes(response.into_body(), 100).await.unwrap(), "hi");
        let nothing = answer(Outcome::Committed, None, true);
        assert_eq!((nothing.status().as_u16(), &nothing.headers()["tandem-repeated"]), (200, &"true".parse().unwrap()));
        assert_eq!(axum::body::to_bytes(nothing.into_body(), 100).await.unwrap(), "null");
    }

    #[test]
    fn other_outcomes_are_problems_with_the_same_headers() {
        let response = answer(Outcome::Rejected, None, true);
        assert_eq!(response.status(), 409);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers()["tandem-outcome"], "REJECTED");
        assert!(response.headers().contains_key("tandem-flow"));
        assert_eq!(response.headers()["tandem-repeated"], "true");
    }

    #[test]
    fn result_with_an_impossible_media_type_is_still_answered() {
        let payload = Payload { content_type: "a\r\nset-cookie: b".into(), bytes: "hi".into() };
        let response = answer(Outcome::Committed, Some(payload), false);
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("content-type"));
    }
}
