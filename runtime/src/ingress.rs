//! The HTTP way in: routes of the topology, `/flows/` and `/egress/`.
//!
//! | module | concept |
//! | --- | --- |
//! | [`routes`] | which route takes a method and path |
//! | [`entry`] | from an HTTP request to a flow's request: key, id, payload |
//! | [`headers`] | the headers that are read |
//! | [`answer`] | from an outcome to an HTTP response |
//! | [`flows`] | ask for, wait for and cancel a flow |
//! | [`events`] | what an egress released, as server-sent events |
//! | [`server`] | connections, their bounds, and stopping |
//!
//! **Invariant:** a client that goes away cancels nothing, and no input makes anything here panic.

pub mod answer;
pub mod entry;
pub mod events;
pub mod flows;
pub mod headers;
pub mod routes;
pub mod server;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::{Query, RawPathParams, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use http::request::Parts;
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tandem_model::outcome::Outcome;
use tandem_model::request::Request;
use tandem_model::topology::Reply;
use tandem_store::Store;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::routes::{Found, RouteTable};
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::runtime::Runtime;

/// A body must have arrived this long after its header.
const BODY_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// What the handlers of the ingress share.
pub struct Ingress<S: Store> {
    runtime: Runtime<S>,
    metrics: Arc<Metrics>,
    table: ArcSwap<RouteTable>,
}

/// When a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// With the outcome.
    ForOutcome,
    /// With 202, after at most this long.
    AtMost {
        /// Zero: at once.
        time: Duration,
        /// The client asked for it, so it is told that it was heard.
        preferred: bool,
    },
}

/// The ingress of a runtime. Serve it with [`server::serve`].
pub fn router<S: Store>(runtime: Runtime<S>, metrics: Arc<Metrics>) -> Router {
    let table = ArcSwap::from_pointee(RouteTable::build(runtime.topology()));
    let ingress = Arc::new(Ingress { runtime, metrics, table });
    Router::new()
        .route("/flows/{id}", any(on_flow::<S>))
        .route("/egress/{name}", any(on_egress::<S>))
        .fallback(on_route::<S>)
        .with_state(ingress)
}

impl<S: Store> Ingress<S> {
    /// The route table of the current topology; built again when that has been replaced.
    fn table(&self) -> Arc<RouteTable> {
        let topology = self.runtime.topology();
        let table = self.table.load_full();
        if Arc::ptr_eq(&table.topology, &topology) {
            return table;
        }
        let table = Arc::new(RouteTable::build(topology));
        self.table.store(table.clone());
        table
    }

    async fn route(&self, http: http::Request<Body>) -> Result<Response, Problem> {
        let table = self.table();
        let (parts, body) = http.into_parts();
        let (entry, variables) = match table.find(parts.method.as_str(), parts.uri.path())? {
            Found::Route(entry, variables) => (entry, variables),
            Found::OtherMethods(methods) => {
                let methods: Vec<&str> = methods.iter().map(String::as_str).collect();
                return Err(Problem::method_not_allowed(parts.method.as_str(), &methods));
            }
            Found::Nothing => return Err(no_route(&parts)),
        };
        let body = read_body(&parts, body, table.topology.limits.payload_bytes_max).await?;
        let request = entry::request(&table.topology, &entry, &variables, &parts, body)?;
        let waiting = waiting(entry.route.reply, &parts);
        Ok(submit(&self.runtime, request, waiting).await)
    }
}

/// Runs a request, and answers it as `waiting` says.
pub async fn submit<S: Store>(runtime: &Runtime<S>, request: Request, waiting: Waiting) -> Response {
    let accepted = match runtime.submit(request.clone()).await {
        Ok(accepted) => accepted,
        Err(refusal) => {
            let mut problem = Problem::not_accepted(&refusal);
            problem.instance.get_or_insert_with(|| Box::new(request.instance.clone()));
            return problem.into_response();
        }
    };
    let flow = accepted.flow;
    let ended = match waiting {
        Waiting::ForOutcome => accepted.outcome.await,
        Waiting::AtMost { time, preferred } => match timeout(time, accepted.outcome).await {
            Ok(ended) => ended,
            Err(_) => return answer::accepted(&request, preferred),
        },
    };
    ended.map_or_else(|_| answer::stopped(flow), |ended| answer::ended(&ended))
}

/// The reply mode of the route, unless the client prefers otherwise.
pub fn waiting(reply: Reply, parts: &Parts) -> Waiting {
    let preferences = headers::preferences(&parts.headers);
    match reply {
        Reply::Wait if !preferences.respond_async => Waiting::ForOutcome,
        Reply::Wait | Reply::Accept => {
            Waiting::AtMost { time: preferences.wait.unwrap_or_default(), preferred: preferences.respond_async }
        }
    }
}

/// The whole body, if it is not too large and comes in time.
pub async fn read_body(parts: &Parts, body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    let too_large = |bytes: Option<&str>| {
        let found = bytes.map_or_else(|| "more".to_owned(), |bytes| format!("{bytes} bytes"));
        Problem::payload_too_large(format!("the body has {found}, at most {bytes_max} bytes are allowed"))
            .with_header(header::CONNECTION, "close")
    };
    let declared = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if let Some(declared) = declared
        && declared.parse::<usize>().map_or(true, |length| length > bytes_max)
    {
        return Err(too_large(Some(declared)));
    }
    match timeout(BODY_READ_TIMEOUT, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(None)),
        // The connection broke: nobody is there to read the answer.
        Ok(Err(error)) => Err(Problem::invalid("malformed-header", format!("the body could not be read: {error}"))),
        Err(_) => {
            let detail = format!("the body did not arrive within {} s", BODY_READ_TIMEOUT.as_secs());
            let problem = Problem::new(StatusCode::REQUEST_TIMEOUT, "Body too slow", "body-too-slow", detail);
            Err(problem.with_header(header::CONNECTION, "close").with_outcome(Outcome::Invalid))
        }
    }
}

fn no_route(parts: &Parts) -> Problem {
    let detail = format!("no route takes {} {}", parts.method, parts.uri.path());
    Problem::not_found("no-route", detail)
}

async fn on_route<S: Store>(State(ingress): State<Arc<Ingress<S>>>, http: http::Request<Body>) -> Response {
    let answer = ingress.route(http).await;
    counted(&ingress.metrics, answer)
}

async fn on_flow<S: Store>(
    State(ingress): State<Arc<Ingress<S>>>,
    path: RawPathParams,
    query: Result<Query<flows::Parameters>, axum::extract::rejection::QueryRejection>,
    http: http::Request<Body>,
) -> Response {
    let parameters = match query {
        Ok(Query(parameters)) => parameters,
        Err(error) => return malformed_query(&error.body_text()).into_response(),
    };
    let id = first_segment(&path);
    flows::handle(&ingress.runtime, http.method(), id, &parameters, http.headers()).await
}

async fn on_egress<S: Store>(
    State(ingress): State<Arc<Ingress<S>>>,
    path: RawPathParams,
    query: Result<Query<events::Parameters>, axum::extract::rejection::QueryRejection>,
    http: http::Request<Body>,
) -> Response {
    let parameters = query.map(|Query(parameters)| parameters).map_err(|error| malformed_query(&error.body_text()));
    let answer = parameters.and_then(|parameters| ingress.egress(first_segment(&path), &parameters, &http));
    counted(&ingress.metrics, answer)
}

impl<S: Store> Ingress<S> {
    fn egress(
        &self,
        name: &str,
        parameters: &events::Parameters,
        http: &http::Request<Body>,
    ) -> Result<Response, Problem> {
        if *http.method() != Method::GET {
            return Err(Problem::method_not_allowed(http.method().as_str(), &["GET"]));
        }
        let unknown = || Problem::not_found("unknown-egress", format!("there is no egress {name:?}"));
        let egress = name.parse().map_err(|_| unknown())?;
        if !self.table().topology.egresses.contains_key(&egress) {
            return Err(unknown());
        }
        let after = events::position(parameters, http.headers())?;
        let shutdown = stopping(http.extensions());
        let follow = parameters.follow.unwrap_or(true);
        Ok(events::stream(self.runtime.clone(), egress, after, follow, shutdown))
    }
}

/// Cancelled when the server that took a request stops; never, if it was not [`server::serve`].
pub fn stopping(extensions: &http::Extensions) -> CancellationToken {
    extensions.get::<server::Stopping>().map(|stopping| stopping.0.clone()).unwrap_or_default()
}

/// A query that cannot be understood.
pub fn malformed_query(what: &str) -> Problem {
    Problem::malformed("malformed-query", what)
}

fn first_segment(path: &RawPathParams) -> &str {
    path.iter().next().map_or("", |(_, value)| value)
}

fn counted(metrics: &Metrics, answer: Result<Response, Problem>) -> Response {
    answer.unwrap_or_else(|problem| {
        metrics.bad_request(&problem.reason);
        problem.into_response()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(prefer: Option<&str>) -> Parts {
        let mut http = http::Request::post("/");
        if let Some(prefer) = prefer {
            http = http.header("prefer", prefer);
        }
        http.body(()).unwrap().into_parts().0
    }

    #[test]
    fn client_decides_how_long_it_waits() {
        let at_most = |seconds, preferred| Waiting::AtMost { time: Duration::from_secs(seconds), preferred };
        assert_eq!(waiting(Reply::Wait, &parts(None)), Waiting::ForOutcome);
        assert_eq!(waiting(Reply::Wait, &parts(Some("wait=3"))), Waiting::ForOutcome);
        assert_eq!(waiting(Reply::Wait, &parts(Some("respond-async"))), at_most(0, true));
        assert_eq!(waiting(Reply::Wait, &parts(Some("respond-async, wait=3"))), at_most(3, true));
        assert_eq!(waiting(Reply::Accept, &parts(None)), at_most(0, false));
    }

    #[tokio::test]
    async fn body_over_the_limit_is_refused_declared_or_not() {
        let reason = |parts: Parts, body: &'static str| async move {
            read_body(&parts, Body::from(body), 4).await.map_err(|problem| problem.reason)
        };
        assert_eq!(reason(parts(None), "1234").await.unwrap(), "1234");
        assert_eq!(reason(parts(None), "12345").await.unwrap_err(), "payload-too-large");
        let (declared, ()) = http::Request::post("/").header("content-length", "5").body(()).unwrap().into_parts();
        assert_eq!(reason(declared, "").await.unwrap_err(), "payload-too-large");
    }
}
