//! A runtime that was started with a bundle that is not right: it waits for a better one, and says so on its admin port.
//!
//! To end, and be started again and again, would help nobody: another bundle comes by the same file, or by a push, and until
//! then somebody may ask what is wrong with this one.
//!
//! **Invariant:** nothing of the store is touched before there is a topology, which says in how many slots its data is laid out.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use tandem_crds::bundle::{self, Bundle};
use tandem_model::topology::Topology;
use tandem_runtime::ingress::server;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::apply::{summary, tell};
use crate::process::{Error, chain};
use crate::push::{self, PATH, Pushed};
use crate::serving::Port;
use crate::topology::{self, Compiled, Source};
use crate::watch::Watch;

/// Bundles that wait to be looked at.
const WAITING_MAX: usize = 1;
/// How long who asks at this moment may hold up the start.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Who waits for a bundle.
pub struct Waiting<'a> {
    /// Where the file is.
    pub source: &'a Source,
    /// The topology of the last run.
    pub previous: Option<&'a Topology>,
    /// The name of this runtime.
    pub member: String,
}

#[derive(Clone)]
struct Room {
    problem: Arc<ArcSwap<String>>,
    member: Arc<str>,
    pushes: mpsc::Sender<Pushed>,
}

impl Waiting<'_> {
    /// Answers on the admin port until a bundle is right.
    pub async fn for_better(
        &self,
        refused: topology::Error,
        admin: &Port,
        watch: &mut Watch,
    ) -> Result<Compiled, Error> {
        const SO: &str = "nothing is served; waiting for another bundle";
        tell(&refused, SO);
        let (pushes, mut queue) = mpsc::channel(WAITING_MAX);
        let problem = Arc::new(ArcSwap::from_pointee(summary(&refused)));
        let room = Room { problem: Arc::clone(&problem), member: self.member.as_str().into(), pushes };
        let listener = admin.share().map_err(|source| Error::Share { address: admin.address(), source })?;
        let stop = CancellationToken::new();
        let _stopped = stop.clone().drop_guard();
        let served = tokio::spawn(server::serve(listener, router(room), stop.clone()));
        let compiled = loop {
            let (compiled, answer) = tokio::select! {
                () = watch.changed() => (self.source.compile(self.previous), None),
                Some(Pushed { bundle, answer }) = queue.recv() => {
                    (self.source.compile_bundle(&bundle, self.previous), Some(answer))
                }
            };
            match compiled {
                Ok(compiled) => {
                    answer_with(answer, Ok(()));
                    break compiled;
                }
                Err(refused) => {
                    tell(&refused, SO);
                    problem.store(Arc::new(summary(&refused)));
                    answer_with(answer, Err(refused));
                }
            }
        };
        info!(revision = compiled.bundle.as_ref().map(|bundle| &bundle.revision), "a bundle is right; starting");
        stop.cancel();
        // Whoever still asks then is answered by what comes now.
        let _ = tokio::time::timeout(CLOSE_WITHIN, served).await;
        Ok(compiled)
    }
}

/// Whoever asked may have given up.
fn answer_with(answer: Option<oneshot::Sender<Result<(), topology::Error>>>, result: Result<(), topology::Error>) {
    if let Some(answer) = answer {
        let _ = answer.send(result);
    }
}

fn router(room: Room) -> Router {
    let bytes_max = usize::try_from(bundle::BYTES_MAX).unwrap_or(usize::MAX);
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(not_ready))
        .route(PATH, get(report).put(take))
        .fallback(not_ready)
        .layer(DefaultBodyLimit::max(bytes_max))
        .with_state(room)
}

async fn not_ready(State(room): State<Room>) -> Response {
    let text = format!("no topology is served: {}\n", room.problem.load());
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn report(State(room): State<Room>) -> Response {
    push::nothing_yet(&room.member, &room.problem.load())
}

async fn take(State(room): State<Room>, body: Bytes) -> Response {
    let bundle = match Bundle::read(&body) {
        Ok(bundle) => bundle,
        Err(error) => return push::refused(StatusCode::BAD_REQUEST, &chain(&error), &[]),
    };
    let (answer, answered) = oneshot::channel();
    let ended = "the runtime is starting, or shutting down";
    if room.pushes.send(Pushed { bundle, answer }).await.is_err() {
        return push::refused(StatusCode::SERVICE_UNAVAILABLE, ended, &[]);
    }
    match answered.await {
        Ok(Ok(())) => push::nothing_yet(&room.member, "starting with the bundle that was pushed"),
        Ok(Err(error)) => push::unprocessable(&error),
        Err(_) => push::refused(StatusCode::SERVICE_UNAVAILABLE, ended, &[]),
    }
}
