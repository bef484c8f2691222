//! `/flows/{id}`: ask for a flow, wait for it, cancel it. The ingress and the admin port share it.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use tandem_model::ids::FlowId;
use tandem_model::outcome::Outcome;
use tandem_store::Store;

use super::{answer, headers};
use crate::problem::Problem;
use crate::runtime::{Cancelled, FlowState, Runtime};

/// Longest time one question may wait.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// The query of `GET /flows/{id}`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Parameters {
    /// `5s`: wait this long for the flow to end.
    pub wait: Option<String>,
}

/// Answers any method on `/flows/{id}`.
pub async fn handle<S: Store>(
    runtime: &Runtime<S>,
    method: &Method,
    id: &str,
    parameters: &Parameters,
    request_headers: &HeaderMap,
) -> Response {
    let answer = match *method {
        Method::GET | Method::HEAD => get(runtime, id, parameters, request_headers).await,
        Method::DELETE => cancel(runtime, id).await,
        _ => Err(Problem::method_not_allowed(method.as_str(), &["GET", "HEAD", "DELETE"])),
    };
    answer.unwrap_or_else(Problem::into_response)
}

async fn get<S: Store>(
    runtime: &Runtime<S>,
    id: &str,
    parameters: &Parameters,
    request_headers: &HeaderMap,
) -> Result<Response, Problem> {
    let flow = parse(id)?;
    let wait = wait(parameters, request_headers)?;
    let state = if wait.is_zero() { runtime.flow(flow).await } else { runtime.wait(flow, wait).await };
    match state.map_err(|error| Problem::store(&error))? {
        FlowState::Unknown => Err(unknown(flow)),
        FlowState::Running(running) => Ok(answer::running(&running)),
        FlowState::Ended(record) => Ok(answer::record(&record)),
    }
}

async fn cancel<S: Store>(runtime: &Runtime<S>, id: &str) -> Result<Response, Problem> {
    let flow = parse(id)?;
    match runtime.cancel(flow).await.map_err(|error| Problem::store(&error))? {
        Cancelled::Unknown => Err(unknown(flow)),
        Cancelled::Done(record) => Ok(answer::record(&record)),
        // Cancelling twice is no error: the client may not have seen the first answer.
        Cancelled::TooLate(record) if record.outcome == Outcome::Cancelled => Ok(answer::record(&record)),
        Cancelled::TooLate(record) => {
            let detail = format!("flow {flow} had ended as {} before it could be cancelled", record.outcome);
            let problem = Problem::new(StatusCode::CONFLICT, "Too late", "too-late", detail);
            Err(problem.with_outcome(record.outcome).with_flow(flow))
        }
    }
}

/// A flow id from a path.
pub fn parse(id: &str) -> Result<FlowId, Problem> {
    id.parse()
        .map_err(|error: tandem_model::ids::InvalidName| Problem::malformed("malformed-flow-id", error.to_string()))
}

fn unknown(flow: FlowId) -> Problem {
    Problem::not_found("unknown-flow", format!("flow {flow} was never accepted here, or its record has expired"))
}

/// `?wait=5s`, else `Prefer: wait=5`, else not at all.
fn wait(parameters: &Parameters, request_headers: &HeaderMap) -> Result<Duration, Problem> {
    let Some(text) = &parameters.wait else {
        return Ok(headers::preferences(request_headers).wait.unwrap_or_default().min(WAIT_MAX));
    };
    let wait = headers::duration(text).ok_or_else(|| {
        Problem::malformed("malformed-query", format!("wait={text:?} must be a time, like 500ms, 5s or 1m"))
    })?;
    Ok(wait.min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_is_read_from_query_or_preference_and_capped() {
        let wait_of = |query: Option<&str>, prefer: Option<&'static str>| {
            let mut request_headers = HeaderMap::new();
            if let Some(prefer) = prefer {
                request_headers.insert("prefer", http::HeaderValue::from_static(prefer));
            }
            wait(&Parameters { wait: query.map(str::to_owned) }, &request_headers)
        };
        assert_eq!(wait_of(None, None).unwrap(), Duration::ZERO);
        assert_eq!(wait_of(Some("5s"), Some("wait=7")).unwrap(), Duration::from_secs(5));
        assert_eq!(wait_of(None, Some("wait=7")).unwrap(), Duration::from_secs(7));
        assert_eq!(wait_of(Some("999m"), None).unwrap(), WAIT_MAX);
        assert_eq!(wait_of(Some("soon"), None).unwrap_err().reason, "malformed-query");
    }

    #[test]
    fn malformed_id_is_a_bad_request() {
        let problem = parse("nonsense").unwrap_err();
        assert_eq!((problem.status.as_u16(), problem.reason.as_str()), (400, "malformed-flow-id"));
    }
}
