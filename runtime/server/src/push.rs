//! What an operator says to a runtime, and hears from it, on the admin port: the bundle that counts now, and how the
//! workers of its functions do.
//!
//! A push only makes things faster: the same bundle comes by the file that is watched.
//!
//! **Invariant:** one task applies bundles, whichever way they come, so that they cannot overtake each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use serde::Serialize;
use tandem_crds::bundle::{self, Bundle};
use tandem_crds::problem::Problem;
use tandem_model::ids::FunctionName;
use tandem_runtime::runtime::{RevisionReport, Runtime};
use tandem_store::Store;
use tokio::sync::{mpsc, oneshot};

use crate::process::chain;
use crate::topology::Error;

/// Where it is said and heard.
pub const PATH: &str = "/v1alpha1/topology";
/// Bundles that wait to be applied.
const WAITING_MAX: usize = 1;

/// A bundle that came by the network.
pub struct Pushed {
    /// What it says.
    pub bundle: Bundle,
    /// Whether it counts now. Who asked may be gone.
    pub answer: oneshot::Sender<Result<(), Error>>,
}

/// The bundle that counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// Names its contents.
    pub revision: String,
    /// Its place in the order of bundles.
    pub sequence: u64,
}

/// The report of a runtime that serves nothing yet, and why.
pub(crate) fn nothing_yet(member: &str, problem: &str) -> Response {
    let store = StoreReport { ready: true, problem: None };
    let (member, problem) = (member.to_owned(), Some(problem.to_owned()));
    Json(Report { applied: Applied::default(), member, problem, store, functions: Vec::new() }).into_response()
}

/// The network's side.
#[derive(Clone)]
pub struct Desk {
    applied: Arc<ArcSwap<Applied>>,
    /// Why the last one that came does not count.
    problem: Arc<ArcSwapOption<String>>,
    pushes: mpsc::Sender<Pushed>,
    member: String,
}

/// What is heard.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    #[serde(flatten)]
    applied: Applied,
    member: String,
    /// Why the last bundle that came does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    store: StoreReport,
    functions: Vec<FunctionReport>,
}

#[derive(Debug, Serialize)]
struct StoreReport {
    /// Whether it answers, so that requests are taken.
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct FunctionReport {
    name: FunctionName,
    revisions: Vec<RevisionReport>,
}

impl Desk {
    /// A desk, and the pushes that come over it.
    pub fn new(member: String) -> (Self, mpsc::Receiver<Pushed>) {
        let (pushes, queue) = mpsc::channel(WAITING_MAX);
        (Self { applied: Arc::default(), problem: Arc::default(), pushes, member }, queue)
    }

    /// From now on this one counts.
    pub fn set_applied(&self, applied: Applied) {
        self.applied.store(Arc::new(applied));
    }

    /// Why the last one that came does not count, if it does not.
    pub fn set_problem(&self, problem: Option<String>) {
        self.problem.store(problem.map(Arc::new));
    }

    /// What counts now.
    pub fn applied(&self) -> Arc<Applied> {
        self.applied.load_full()
    }

    /// The pages of the admin port for it.
    pub fn router<S: Store>(&self, runtime: Runtime<S>) -> Router {
        let bytes_max = usize::try_from(bundle::BYTES_MAX).unwrap_or(usize::MAX);
        Router::new()
            .route(PATH, get(report::<S>).put(push::<S>))
            .layer(DefaultBodyLimit::max(bytes_max))
            .with_state((self.clone(), runtime))
    }

    fn report<S: Store>(&self, runtime: &Runtime<S>) -> Report {
        let functions: BTreeMap<_, _> = runtime.workers();
        let functions = functions.into_iter().map(|(name, revisions)| FunctionReport { name, revisions }).collect();
        let applied = Applied::clone(&self.applied());
        let ready = runtime.is_ready();
        let problem = (!ready).then_some("the store does not answer, or the runtime is shutting down");
        let store = StoreReport { ready, problem };
        let refused = self.problem.load().as_deref().cloned();
        Report { applied, member: self.member.clone(), problem: refused, store, functions }
    }
}

type Shared<S> = State<(Desk, Runtime<S>)>;

async fn report<S: Store>(State((desk, runtime)): Shared<S>) -> Response {
    Json(desk.report(&runtime)).into_response()
}

async fn push<S: Store>(State((desk, runtime)): Shared<S>, body: Bytes) -> Response {
    let bundle = match Bundle::read(&body) {
        Ok(bundle) => bundle,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &chain(&error), &[]),
    };
    let (answer, answered) = oneshot::channel();
    let ended = "the runtime is shutting down";
    if desk.pushes.send(Pushed { bundle, answer }).await.is_err() {
        return refused(StatusCode::SERVICE_UNAVAILABLE, ended, &[]);
    }
    match answered.await {
        Ok(Ok(())) => Json(desk.report(&runtime)).into_response(),
        Ok(Err(error)) => unprocessable(&error),
        Err(_) => refused(StatusCode::SERVICE_UNAVAILABLE, ended, &[]),
    }
}

/// Why a bundle is refused.
pub(crate) fn unprocessable(error: &Error) -> Response {
    let problems = if let Error::Problems(problems) = error { problems.as_slice() } else { &[] };
    refused(StatusCode::UNPROCESSABLE_ENTITY, &chain(error), problems)
}

pub(crate) fn refused(status: StatusCode, error: &str, problems: &[Problem]) -> Response {
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    (status, Json(serde_json::json!({ "error": error, "problems": problems }))).into_response()
}
