//! The webhook on the wire: TLS, and the `AdmissionReview` of the API server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::Listener;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tandem_crds::resources::Kind;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::certificate::Keys;
use super::review::{Change, Spec, Verdict, review};
use crate::context::Context;
use crate::graph::reconcile::present;

/// Where it is asked.
pub const PATH: &str = "/validate";
/// A handshake takes no longer.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// Connections that are shaken hands with and wait to be served.
const CONNECTIONS_WAITING_MAX: usize = 64;

/// Serves until `shutdown`. Until there is a certificate, connections are dropped.
pub async fn serve(
    listener: TcpListener,
    keys: watch::Receiver<Option<Keys>>,
    context: Arc<Context>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new().route(PATH, post(validate)).with_state(context);
    let listener = Encrypted::over(listener, keys, shutdown.clone())?;
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

/// Connections after their handshakes, none of which holds up another.
struct Encrypted {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl Encrypted {
    fn over(
        mut listener: TcpListener,
        keys: watch::Receiver<Option<Keys>>,
        shutdown: CancellationToken,
    ) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (shaken, ready) = mpsc::channel(CONNECTIONS_WAITING_MAX);
        tokio::spawn(shutdown.run_until_cancelled_owned(async move {
            loop {
                let (stream, from) = Listener::accept(&mut listener).await;
                let (keys, shaken) = (keys.borrow().clone(), shaken.clone());
                let Some(keys) = keys else { continue };
                tokio::spawn(async move {
                    match timeout(HANDSHAKE_TIME_MAX, TlsAcceptor::from(keys).accept(stream)).await {
                        // Whoever served them has ended.
                        Ok(Ok(stream)) => drop(shaken.send((stream, from)).await),
                        Ok(Err(error)) => debug!(%error, "no handshake"),
                        Err(_) => debug!("no handshake in time"),
                    }
                });
            }
        }));
        Ok(Self { address, ready })
    }
}

impl Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.address)
    }
}

/// What counts of an `AdmissionReview` (`admission.k8s.io/v1`).
#[derive(Debug, Deserialize)]
struct Review {
    request: Request,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    kind: GroupKind,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    object: Option<Value>,
    #[serde(default)]
    old_object: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct GroupKind {
    kind: String,
}

async fn validate(State(context): State<Arc<Context>>, Json(review): Json<Review>) -> Response {
    let request = review.request;
    // What cannot be read is none of the webhook's business: the schema of the API server decides about it.
    let verdict = change(&request).map(|change| verdict(&context, &request.namespace, &change)).unwrap_or_default();
    let answer = answer(&request.uid, verdict);
    (StatusCode::OK, Json(answer)).into_response()
}

fn verdict(context: &Context, namespace: &str, change: &Change) -> Verdict {
    let serving = context.world.graph(namespace).map(|graph| graph.accepted).unwrap_or_default();
    let (_, present) = present(&context.world, namespace);
    review(&present, &serving, change)
}

fn change(request: &Request) -> Option<Change> {
    let kind = Kind::from_name(&request.kind.kind)?;
    let spec = |object: &Option<Value>| -> Result<Option<Spec>, serde_json::Error> {
        let Some(spec) = object.as_ref().and_then(|object| object.get("spec")) else { return Ok(None) };
        Ok(Some(match kind {
            Kind::Runtime => Spec::Runtime(Arc::new(Deserialize::deserialize(spec)?)),
            Kind::Function => Spec::Function(Arc::new(Deserialize::deserialize(spec)?)),
            Kind::Route => Spec::Route(Arc::new(Deserialize::deserialize(spec)?)),
            Kind::Egress => Spec::Egress(Arc::new(Deserialize::deserialize(spec)?)),
        }))
    };
    let (before, after) = (spec(&request.old_object).ok()?, spec(&request.object).ok()?);
    Some(Change { name: request.name.as_str().into(), before, after, dry_run: request.dry_run })
}

fn answer(uid: &str, verdict: Verdict) -> Value {
    let mut response = json!({"uid": uid, "allowed": verdict.refusal.is_none()});
    if let Some(refusal) = verdict.refusal {
        response["status"] =
            json!({"code": StatusCode::UNPROCESSABLE_ENTITY.as_u16(), "reason": "Invalid", "message": refusal});
    }
    if !verdict.warnings.is_empty() {
        response["warnings"] = json!(verdict.warnings);
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}
