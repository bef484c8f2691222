//! The floor of latency: HTTP in, a call over gRPC to a worker that does nothing, a bare transaction, the answer.
//!
//! Of everything else that makes a runtime there is nothing here.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, State};
use axum::routing::post;
use axum::serve::ListenerExt;
use http::{HeaderMap, StatusCode};
use tandem_store::embedded::{EmbeddedStore, Options};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

use crate::http::IDEMPOTENCY_KEY;
use crate::rows::Rows;
use crate::serve::{Counted, Ready, questions, say, until_abandoned};
use crate::system::{bare, bare_tikv};
use crate::workload::{Cell, Change, Operation, Workload};
use empty::empty_service_client::EmptyServiceClient;
use empty::empty_service_server::{EmptyService, EmptyServiceServer};

#[allow(missing_docs, unreachable_pub, clippy::pedantic, clippy::use_self, reason = "generated")]
mod empty {
    tonic::include_proto!("tandem.bench");
}

/// The worker that does nothing.
struct Nothing;

#[tonic::async_trait]
impl EmptyService for Nothing {
    async fn call(&self, request: Request<empty::CallRequest>) -> Result<Response<empty::CallResponse>, Status> {
        Ok(Response::new(empty::CallResponse { payload: request.into_inner().payload }))
    }
}

/// Serves the empty function.
pub(crate) async fn serve_nothing() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(&Ready { address: listener.local_addr()?.to_string() })?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder().add_service(EmptyServiceServer::new(Nothing));
    Ok(server.serve_with_incoming_shutdown(incoming, until_abandoned()).await?)
}

/// What a transaction goes to.
enum Stored {
    Embedded(EmbeddedStore, Rows),
    Tikv(bare_tikv::Client),
}

struct Front {
    worker: EmptyServiceClient<Channel>,
    /// Absent if only the call is measured.
    store: Option<Stored>,
}

/// Serves HTTP; with data or a store, each request is a bare transaction as well.
pub(crate) async fn serve(
    data: Option<&Path>,
    store: Option<&str>,
    worker: &str,
    workload: Workload,
) -> anyhow::Result<()> {
    let channel = Channel::from_shared(format!("http://{worker}"))?.tcp_nodelay(true).connect().await?;
    let rows = Rows::new(workload)?;
    let mut statistics = None;
    let store = match (data, store) {
        (Some(data), _) => {
            let store = EmbeddedStore::open(data, Options::default())?;
            statistics = Some(store.clone());
            Some(Stored::Embedded(store, rows))
        }
        (None, Some(address)) => Some(Stored::Tikv(bare_tikv::Target::new(address, &rows).connect().await?)),
        (None, None) => None,
    };
    let front = Arc::new(Front { worker: EmptyServiceClient::new(channel), store });
    let router = Router::new().route("/counter/{key}", post(add)).with_state(front);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let listener = listener.tap_io(|stream| {
        // Without it answers are late, nothing worse.
        let _ = stream.set_nodelay(true);
    });
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    say(&Ready { address })?;
    let mut questions = questions();
    while questions.recv().await.is_some() {
        let syncs = statistics.as_ref().map(|store| store.statistics().syncs);
        say(&Counted { syncs, ..Counted::default() })?;
    }
    server.abort();
    Ok(())
}

async fn add(
    State(front): State<Arc<Front>>,
    UrlPath(key): UrlPath<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Bytes, (StatusCode, String)> {
    let answer = answer(&front, &key, &headers, body).await;
    answer.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")))
}

async fn answer(front: &Front, key: &str, headers: &HeaderMap, body: Bytes) -> anyhow::Result<Bytes> {
    let mut worker = front.worker.clone();
    let called = worker.call(empty::CallRequest { payload: body }).await?.into_inner();
    let Some(store) = &front.store else { return Ok(called.payload) };
    let row = key.trim_start_matches('k').parse()?;
    let id = headers.get(IDEMPOTENCY_KEY).context("a request without an id")?.to_str()?;
    let change = Change { cell: Cell { family: 0, row }, by: serde_json::from_slice(&called.payload)? };
    let operation = Operation { changes: vec![change], ..Operation::default() };
    match store {
        Stored::Embedded(store, rows) => bare::run(store, rows, id, &operation).await?,
        Stored::Tikv(client) => client.request(id, &operation).await?,
    };
    Ok(called.payload)
}
