//! Errors as clients see them: `application/problem+json` (RFC 9457), with one status for each outcome and refusal.
//!
//! This is the only place that decides on a status code, so that the ingress, the admin port and the documentation
//! cannot disagree.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use tandem_model::ids::{FlowId, Instance};
use tandem_model::outcome::{FlowRecord, Outcome};

use crate::runtime::{Invalid, NotAccepted};

/// Media type of every error.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// Carries the outcome of an accepted request.
pub const OUTCOME: HeaderName = HeaderName::from_static("tandem-outcome");
/// Carries the flow id of an accepted request.
pub const FLOW: HeaderName = HeaderName::from_static("tandem-flow");
/// Where a problem's `type` points to, relative to wherever the documentation is published.
const DOCUMENTATION: &str = "/docs/reference/problems#";
/// Seconds after which a client that was told "busy" may try again.
const BUSY_RETRY_SECONDS: u64 = 1;
/// Seconds after which a client that was told "unavailable" may try again.
const UNAVAILABLE_RETRY_SECONDS: u64 = 2;

/// One error, on its way to a client.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// A few words for people, the same for every occurrence.
    pub title: &'static str,
    /// What happened this time, for people.
    pub detail: String,
    /// How the request ended, if it has ended.
    pub outcome: Option<Outcome>,
    /// Stable, for programs.
    pub reason: String,
    /// Who said no, if an instance did.
    pub instance: Option<Box<Instance>>,
    /// The flow, if the request was accepted.
    pub flow: Option<FlowId>,
    /// Headers that the status asks for.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// The JSON of a problem, in the order in which people read it.
#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    reason: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flow: Option<FlowId>,
}

impl Problem {
    /// A problem that is about no flow in particular.
    pub fn new(status: StatusCode, title: &'static str, reason: &str, detail: impl Into<String>) -> Self {
        Self {
            status,
            title,
            detail: detail.into(),
            outcome: None,
            reason: reason.to_owned(),
            instance: None,
            flow: None,
            headers: Vec::new(),
        }
    }

    /// The request makes no sense: its outcome is INVALID, nothing ran, and nothing is stored.
    pub fn invalid(reason: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Invalid", reason, detail).with_outcome(Outcome::Invalid)
    }

    /// A question that makes no sense. It is no request, so it has no outcome.
    pub fn malformed(reason: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Invalid", reason, detail)
    }

    /// There is no such thing.
    pub fn not_found(reason: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found", reason, detail)
    }

    /// The path is known, the method is not.
    pub fn method_not_allowed(method: &str, allowed: &[&str]) -> Self {
        let allowed = allowed.join(", ");
        let detail = format!("{method} is not allowed here; allowed: {allowed}");
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(status, "Method not allowed", "method-not-allowed", detail).with_header(ALLOW, &allowed)
    }

    /// The runtime or its store cannot be reached now. Safe to repeat.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", "unavailable", detail)
            .with_header(RETRY_AFTER, &UNAVAILABLE_RETRY_SECONDS.to_string())
    }

    /// A body or result that is larger than a limit.
    pub fn payload_too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "Payload too large", "payload-too-large", detail)
            .with_outcome(Outcome::Invalid)
    }

    /// Why a request was not taken.
    pub fn not_accepted(refusal: &NotAccepted) -> Self {
        let detail = refusal.to_string();
        match refusal {
            NotAccepted::Mismatch { .. } => {
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                Self::new(status, "Request id used before", "request-id-reused", detail)
            }
            NotAccepted::Busy { .. } => Self::new(StatusCode::TOO_MANY_REQUESTS, "Busy", "busy", detail)
                .with_header(RETRY_AFTER, &BUSY_RETRY_SECONDS.to_string()),
            NotAccepted::Unavailable(_) => Self::unavailable(detail),
            NotAccepted::Invalid(invalid) => match invalid {
                Invalid::UnknownFunction(_) => {
                    Self::not_found("unknown-function", detail).with_outcome(Outcome::Invalid)
                }
                Invalid::UnknownHandler { .. } => {
                    Self::not_found("unknown-handler", detail).with_outcome(Outcome::Invalid)
                }
                Invalid::PayloadTooLarge { .. } => Self::payload_too_large(detail),
                Invalid::ReservedId => Self::invalid("reserved-request-id", detail),
                Invalid::AsOfNeedsReadOnly => Self::invalid("as-of-needs-read-only", detail),
                Invalid::HistoryNotKept(_) => Self::invalid("history-not-kept", detail),
            },
        }
    }

    /// A request that ended with another outcome than COMMITTED.
    pub fn ended(record: &FlowRecord) -> Self {
        let (reason, detail, instance) = match &record.cause {
            Some(cause) => (cause.reason.clone(), cause.detail.clone(), cause.instance.clone().map(Box::new)),
            None => (slug(record.outcome), String::new(), None),
        };
        let status = status_of(record.outcome, &reason);
        let mut problem = Self::new(status, title_of(record.outcome), &reason, detail);
        problem.outcome = Some(record.outcome);
        problem.instance = instance;
        problem.flow = Some(record.flow);
        problem
    }

    /// The store could not answer a question (not a request: those have an outcome).
    pub fn store(error: &tandem_store::Error) -> Self {
        match error {
            tandem_store::Error::HistoryNotKept { .. } => Self::invalid("history-not-kept", error.to_string()),
            tandem_store::Error::Unavailable(_)
            | tandem_store::Error::Full(_)
            | tandem_store::Error::InUse(_)
            | tandem_store::Error::NewerFormat { .. }
            | tandem_store::Error::OtherLayout { .. }
            | tandem_store::Error::Refused(_)
            | tandem_store::Error::OtherVersion { .. }
            | tandem_store::Error::Stopped(_) => Self::unavailable(error.to_string()),
            tandem_store::Error::Damaged(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal error", "damaged", error.to_string())
            }
        }
    }

    /// The same problem with an outcome.
    #[must_use]
    pub fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = Some(outcome);
        self
    }

    /// The same problem about an accepted flow.
    #[must_use]
    pub fn with_flow(mut self, flow: FlowId) -> Self {
        self.flow = Some(flow);
        self
    }

    /// The same problem with another header. A value that cannot be a header is left out.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// The JSON text.
    pub fn json(&self) -> Vec<u8> {
        let document = Document {
            r#type: format!("{DOCUMENTATION}{}", self.anchor()),
            title: self.title,
            status: self.status.as_u16(),
            outcome: self.outcome,
            reason: &self.reason,
            detail: &self.detail,
            function: self.instance.as_ref().map(|instance| instance.function.as_str()),
            key: self.instance.as_ref().map(|instance| instance.key.as_str()),
            flow: self.flow,
        };
        serde_json::to_vec(&document).unwrap_or_default()
    }

    /// A reason that user code chose is documented with its outcome; all others have an entry of their own.
    fn anchor(&self) -> String {
        let documented = REASONS.iter().any(|(reason, ..)| *reason == self.reason);
        match self.outcome {
            Some(outcome) if !documented => slug(outcome),
            _ => self.reason.clone(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.json()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.extend(self.headers);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(outcome) = self.outcome {
            headers.insert(OUTCOME, HeaderValue::from_static(outcome.as_str()));
        }
        if let Some(flow) = self.flow
            && let Ok(value) = HeaderValue::from_str(&flow.to_string())
        {
            headers.insert(FLOW, value);
        }
        response
    }
}

/// The status of an outcome. The reason matters only for INVALID, whose causes HTTP tells apart.
pub fn status_of(outcome: Outcome, reason: &str) -> StatusCode {
    match outcome {
        Outcome::Committed => StatusCode::OK,
        Outcome::Rejected | Outcome::Conflict | Outcome::Cancelled => StatusCode::CONFLICT,
        Outcome::Failed | Outcome::Poisoned => StatusCode::INTERNAL_SERVER_ERROR,
        Outcome::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        Outcome::Invalid => match reason {
            "unknown-function" | "unknown-handler" => StatusCode::NOT_FOUND,
            "payload-too-large" => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        },
    }
}

fn title_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Committed => "Committed",
        Outcome::Rejected => "Rejected",
        Outcome::Failed => "Failed",
        Outcome::Conflict => "Conflict",
        Outcome::TimedOut => "Timed out",
        Outcome::Cancelled => "Cancelled",
        Outcome::Poisoned => "Poisoned",
        Outcome::Invalid => "Invalid",
    }
}

fn slug(outcome: Outcome) -> String {
    outcome.as_str().to_ascii_lowercase().replace('_', "-")
}

/// Reasons that the ingress and the outcomes give: reason, status, and what to do. The documentation is made from it.
pub const REASONS: &[(&str, u16, &str)] = &[
    (
        "rejected",
        409,
        "A function said no; the reason is its own. Nothing was applied. Repeating the request id gives the same answer; decide and use a new id.",
    ),
    (
        "failed",
        500,
        "A function's code broke or broke a limit. Nothing was applied. Mend the code; then send a new request id.",
    ),
    (
        "conflict",
        409,
        "Other flows kept changing what this one read until its attempts were used up. Nothing was applied. Send it again with a new id.",
    ),
    (
        "timed-out",
        504,
        "The deadline passed first. Nothing was applied. Send it again with a new id, perhaps with a longer deadline on the route.",
    ),
    ("cancelled", 409, "Somebody cancelled the flow in time. Nothing was applied."),
    ("poisoned", 500, "A message failed for good and was set aside, so that others go on. Nothing was applied."),
    ("invalid", 400, "The request makes no sense. Nothing ran and nothing is stored; mend the request."),
    ("deadline", 504, "The deadline passed first; the detail names the call that was running."),
    (
        "function-failed",
        500,
        "The function's code panicked, threw, or could not read its payload or state; the detail says what.",
    ),
    ("handler-timeout", 500, "One invocation took longer than its handler may."),
    ("worker-lost", 500, "The worker that ran the code went away, each time the flow was run."),
    (
        "call-cycle",
        500,
        "A call addressed an instance that is already on the call path. Hand over what it needs instead.",
    ),
    ("call-depth", 500, "More calls on one path than the runtime's limits allow."),
    ("too-many-calls", 500, "More calls in one flow than the limits allow."),
    ("fan-out", 500, "More calls of one handler at the same time than the limits allow."),
    ("too-many-writes", 500, "More rows written by one flow than the limits allow."),
    ("write-bytes", 500, "More bytes written by one flow than the limits allow."),
    ("value-too-large", 500, "A state value or map entry is larger than the limits allow."),
    (
        "states-too-large",
        500,
        "The value states of an instance do not fit into one message any more. Keep what grows in a map.",
    ),
    ("caller-not-allowed", 500, "The callee's resource does not list the caller."),
    ("read-only", 500, "A handler with isolation ReadOnly wrote, sent or emitted."),
    ("unknown-state", 500, "The code used a state that its function does not declare."),
    ("state-kind", 500, "The code used a value state as a map, or the other way round."),
    ("state-type", 500, "A value does not have the type that the resource declares."),
    ("entry-key", 500, "The key of a map entry is empty or too long."),
    ("invalid-key", 500, "A call or send addressed a key that is not allowed."),
    ("invalid-rejection", 500, "A rejection's reason is not 1 to 63 of a-z, 0-9 and '-'."),
    ("send-delay", 500, "A send was to be delayed for longer than a year."),
    ("undeliverable", 500, "A message is addressed to something that is not there any more."),
    ("malformed-json", 400, "The body is not JSON; the detail names line and column."),
    ("malformed-header", 400, "A header that Tandem reads cannot be understood; the detail names it."),
    ("malformed-path", 400, "The path has a bad percent-encoding or is not UTF-8."),
    ("malformed-query", 400, "A query parameter cannot be understood; the detail names it."),
    ("malformed-flow-id", 400, "The text is not a flow id."),
    ("malformed-name", 400, "A function, handler or key in the path is not allowed as such; the detail says what is."),
    (
        "key-expression",
        400,
        "The route's key expression has no valid result on this request; the detail names the expression and what is missing.",
    ),
    ("idempotency-expression", 400, "The same for the route's idempotency key expression."),
    ("reserved-request-id", 400, "The request id begins with `message:`, as only the ids of messages do."),
    ("as-of-needs-read-only", 400, "`Tandem-As-Of` was sent to a handler that may write."),
    ("history-not-kept", 400, "The store does not keep that past."),
    ("no-route", 404, "No route has this path."),
    ("unknown-function", 404, "There is no such function. Addressed by a function's code, it is a failure (500)."),
    (
        "unknown-handler",
        404,
        "The function has no such handler; the detail lists those it has. Addressed by a function's code, it is a failure (500).",
    ),
    ("unknown-flow", 404, "Never accepted here, or its record has expired."),
    ("unknown-egress", 404, "There is no such egress. Emitted to by a function's code, it is a failure (500)."),
    ("method-not-allowed", 405, "The path is known with other methods; `Allow` lists them."),
    ("body-too-slow", 408, "The body did not arrive in time. Nothing ran; repeat it with the same id."),
    ("too-late", 409, "The flow had ended before it could be cancelled; the outcome is in the answer."),
    ("payload-too-large", 413, "The body is larger than the runtime allows; the detail has both numbers."),
    ("unsupported-media-type", 415, "The route takes JSON and the body is declared as something else."),
    ("request-id-reused", 422, "The same request id came before with another body or handler. Choose another id."),
    (
        "busy",
        429,
        "Too many flows are in flight. The request was not accepted; repeat it with the same id after `Retry-After`.",
    ),
    (
        "unavailable",
        503,
        "The store cannot be reached or the runtime is shutting down. Repeat with the same id after `Retry-After`: that is always safe.",
    ),
    ("cross-origin", 403, "A web page tried to change something through the admin port."),
    ("damaged", 500, "Stored data makes no sense. Needs a person; the log has more."),
];

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use tandem_model::outcome::Cause;

    use super::*;
    use crate::metrics::testdata::record;

    #[test]
    fn a_rejection_reads_like_the_business() {
        let mut record = record(Outcome::Rejected);
        let sku = Instance::parse("inventory", "sku-7").unwrap();
        record.cause = Some(Cause::new("out-of-stock", "sku-7: 2 wanted, 1 left").at(&sku));
        let problem = Problem::ended(&record);
        let json: serde_json::Value = serde_json::from_slice(&problem.json()).unwrap();
        let expected = serde_json::json!({
            "type": "/docs/reference/problems#rejected", "title": "Rejected", "status": 409, "outcome": "REJECTED",
            "reason": "out-of-stock", "detail": "sku-7: 2 wanted, 1 left", "function": "inventory", "key": "sku-7",
            "flow": record.flow.to_string(),
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn every_outcome_has_its_status() {
        let statuses = Outcome::ALL.map(|outcome| status_of(outcome, "x").as_u16());
        assert_eq!(statuses, [200, 409, 500, 409, 504, 409, 500, 400]);
        assert_eq!(status_of(Outcome::Invalid, "unknown-handler").as_u16(), 404);
        assert_eq!(status_of(Outcome::Invalid, "payload-too-large").as_u16(), 413);
    }

    #[test]
    fn every_refusal_has_its_status() {
        let check = |refusal: NotAccepted, status: u16, reason: &str, retry: bool| {
            let problem = Problem::not_accepted(&refusal);
            assert_eq!((problem.status.as_u16(), problem.reason.as_str()), (status, reason));
            assert_eq!(problem.headers.iter().any(|(name, _)| name == RETRY_AFTER), retry, "{reason}");
        };
        let instance = Instance::parse("order", "o-1").unwrap();
        check(NotAccepted::Mismatch { request: "r".into(), instance }, 422, "request-id-reused", false);
        check(NotAccepted::Busy { in_flight: 2, max: 1 }, 429, "busy", true);
        check(NotAccepted::Unavailable("no".into()), 503, "unavailable", true);
        check(NotAccepted::Invalid(Invalid::UnknownFunction("x".into())), 404, "unknown-function", false);
        check(NotAccepted::Invalid(Invalid::PayloadTooLarge { bytes: 2, max: 1 }), 413, "payload-too-large", false);
        check(NotAccepted::Invalid(Invalid::ReservedId), 400, "reserved-request-id", false);
        check(NotAccepted::Invalid(Invalid::AsOfNeedsReadOnly), 400, "as-of-needs-read-only", false);
    }

    #[test]
    fn headers_repeat_what_the_body_says() {
        let record = record(Outcome::TimedOut);
        let response = Problem::ended(&record).into_response();
        assert_eq!(response.status(), 504);
        assert_eq!(response.headers()["content-type"], PROBLEM_JSON);
        assert_eq!(response.headers()["tandem-outcome"], "TIMED_OUT");
        assert_eq!(response.headers()["tandem-flow"], record.flow.to_string());
    }

    #[test]
    fn documented_reasons_are_unique() {
        let mut reasons: Vec<&str> = REASONS.iter().map(|(reason, ..)| *reason).collect();
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons.len(), REASONS.len());
    }

    /// The page that `type` links to is made from the table above.
    #[test]
    fn documentation_lists_every_reason() {
        let mut page = String::from(
            "# Problems\n\nEvery error is `application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)). \
             `reason` is for programs, `detail` for people.\nA reason that a function chose itself is documented by that \
             function; `type` then links to its outcome.\n\n",
        );
        for (reason, status, text) in REASONS {
            writeln!(page, "## {reason}\n\nStatus {status}. {text}\n").unwrap();
        }
        crate::metrics::testdata::check_page("problems.md", page.trim_end());
    }
}
