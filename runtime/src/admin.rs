//! The port for people and tools: health, metrics, flows, state. Not for clients of the application.
//!
//! Loopback unless told otherwise: whoever reaches it can read all state and run every handler. What changes something
//! refuses requests of web pages (those that carry an `Origin`).

pub mod live;
pub mod state;
pub mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use http::header::{CONTENT_TYPE, ORIGIN};
use http::{HeaderValue, Request, StatusCode};
use serde::Deserialize;
use tandem_model::ids::{Instance, InvalidName};
use tandem_model::outcome::Outcome;
use tandem_model::topology::Reply;
use tandem_store::Store;

use crate::ingress::{self, answer, entry, flows, headers};
use crate::metrics::{self, Metrics};
use crate::problem::Problem;
use crate::runtime::{FlowFilter, Runtime};

/// Flows listed when no limit is given.
const FLOWS_DEFAULT: usize = 20;
/// Flows listed at most.
const FLOWS_MAX: usize = 1_000;

/// What the handlers of the admin port share.
pub struct Admin<S: Store> {
    runtime: Runtime<S>,
    metrics: Arc<Metrics>,
}

type Shared<S> = State<Arc<Admin<S>>>;

/// The admin port of a runtime. Serve it with [`ingress::server::serve`].
pub fn router<S: Store>(runtime: Runtime<S>, metrics: Arc<Metrics>) -> Router {
    let admin = Arc::new(Admin { runtime, metrics });
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready::<S>))
        .route("/metrics", get(metrics_text::<S>))
        .route("/topology", get(topology::<S>))
        .route("/members", get(members::<S>))
        .route("/flows", get(list_flows::<S>))
        .route("/flows/{id}", any(on_flow::<S>))
        .route("/invoke/{function}/{key}/{handler}", post(invoke::<S>))
        .route("/state/{function}", get(state::list::<S>))
        .route("/state/{function}/{key}", get(state::get::<S>))
        .route("/outcomes", get(live::outcomes::<S>))
        .fallback(|| async { Problem::not_found("no-route", "the admin port has no such page") })
        .method_not_allowed_fallback(|http: Request<Body>| async move {
            Problem::method_not_allowed(http.method().as_str(), &["GET"])
        })
        .layer(axum::middleware::from_fn(refuse_web_pages))
        .with_state(admin)
}

/// A page in a browser on this machine could otherwise run handlers behind its user's back.
async fn refuse_web_pages(http: Request<Body>, next: axum::middleware::Next) -> Response {
    if http.method().is_safe() || !http.headers().contains_key(ORIGIN) {
        return next.run(http).await;
    }
    let detail = "requests of web pages may not change anything here";
    Problem::new(StatusCode::FORBIDDEN, "Forbidden", "cross-origin", detail).into_response()
}

async fn ready<S: Store>(State(admin): Shared<S>) -> Response {
    if admin.runtime.is_ready() {
        return "ok\n".into_response();
    }
    Problem::unavailable("the store does not answer, or the runtime is shutting down").into_response()
}

async fn metrics_text<S: Store>(State(admin): Shared<S>) -> Response {
    let mut response = admin.metrics.text().into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    response
}

async fn topology<S: Store>(State(admin): Shared<S>) -> Response {
    answer::json(StatusCode::OK, &*admin.runtime.topology())
}

async fn members<S: Store>(State(admin): Shared<S>) -> Response {
    answer::json(StatusCode::OK, &view::Members::from(&*admin.runtime.map()))
}

/// The query of `GET /flows`.
#[derive(Debug, Default, Deserialize)]
struct FlowsQuery {
    /// One or more, separated by commas.
    outcome: Option<String>,
    function: Option<String>,
    limit: Option<usize>,
}

impl FlowsQuery {
    fn filter(&self) -> Result<FlowFilter, Problem> {
        let malformed = |error: String| Problem::malformed("malformed-query", error);
        let outcomes = self.outcome.as_deref().unwrap_or_default().split(',').filter(|text| !text.is_empty());
        let outcomes = outcomes.map(|text| text.trim().parse::<Outcome>().map_err(malformed));
        let function = self.function.as_deref().map(str::parse).transpose();
        Ok(FlowFilter {
            outcomes: outcomes.collect::<Result<_, _>>()?,
            function: function.map_err(|error: InvalidName| malformed(error.to_string()))?,
            limit: self.limit.unwrap_or(FLOWS_DEFAULT).min(FLOWS_MAX),
        })
    }
}

async fn list_flows<S: Store>(
    State(admin): Shared<S>,
    query: Result<Query<FlowsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| ingress::malformed_query(&error.body_text()))?;
    let filter = query.filter()?;
    let (running, ended) = admin.runtime.flows(&filter).await.map_err(|error| Problem::store(&error))?;
    // A flow that runs has no outcome yet, so a filter on outcomes leaves it out.
    let running = if filter.outcomes.is_empty() { running } else { Vec::new() };
    let running = running.iter().map(view::Running::from).collect();
    let flows = ended.iter().map(|record| view::Flow::from(&**record)).collect();
    Ok(answer::json(StatusCode::OK, &view::Flows { running, flows }))
}

async fn on_flow<S: Store>(
    State(admin): Shared<S>,
    Path(id): Path<String>,
    query: Result<Query<flows::Parameters>, axum::extract::rejection::QueryRejection>,
    http: Request<Body>,
) -> Response {
    match query {
        Ok(Query(parameters)) => flows::handle(&admin.runtime, http.method(), &id, &parameters, http.headers()).await,
        Err(error) => ingress::malformed_query(&error.body_text()).into_response(),
    }
}

/// Runs any handler on any instance, as a route would, with a JSON body.
async fn invoke<S: Store>(
    State(admin): Shared<S>,
    Path((function, key, handler)): Path<(String, String, String)>,
    http: Request<Body>,
) -> Result<Response, Problem> {
    let name = |error: InvalidName| Problem::invalid("malformed-name", error.to_string());
    let instance = Instance::parse(&function, &key).map_err(name)?;
    let handler = handler.parse().map_err(name)?;
    let topology = admin.runtime.topology();
    let (parts, body) = http.into_parts();
    let body = ingress::read_body(&parts, body, topology.limits.payload_bytes_max).await?;
    let payload = entry::json_payload(&parts, body)?;
    let id = entry::request_id_or_new(headers::idempotency_key(&parts.headers)?)?;
    let deadline = entry::deadline(&parts, Duration::from_millis(topology.limits.deadline_ms))?;
    let mut request = tandem_model::request::Request::new(topology.slots, id, instance, handler, payload, deadline);
    request.as_of = headers::as_of(&parts.headers)?;
    request.traceparent = headers::traceparent(&parts.headers);
    let waiting = ingress::waiting(Reply::Wait, &parts);
    Ok(ingress::submit(&admin.runtime, request, waiting).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(outcome: Option<&str>, function: Option<&str>, limit: Option<usize>) -> Result<FlowFilter, Problem> {
        FlowsQuery { outcome: outcome.map(Into::into), function: function.map(Into::into), limit }.filter()
    }

    #[test]
    fn flows_are_filtered_by_closed_words() {
        let found = filter(Some("rejected,TIMED_OUT"), Some("order"), None).unwrap();
        assert_eq!(found.outcomes, [Outcome::Rejected, Outcome::TimedOut]);
        assert_eq!((found.function.unwrap().as_str(), found.limit), ("order", FLOWS_DEFAULT));
        assert_eq!(filter(None, None, Some(usize::MAX)).unwrap().limit, FLOWS_MAX);
        assert!(filter(Some("maybe"), None, None).unwrap_err().detail.contains("COMMITTED"));
        assert!(filter(None, Some("Order"), None).is_err());
    }
}
