//! `/livez`, `/readyz` and `/metrics`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::process::gates::Gates;

/// Serves health until `shutdown`.
pub async fn health(listener: TcpListener, gates: Arc<Gates>, shutdown: CancellationToken) -> std::io::Result<()> {
    let router = Router::new().route("/livez", get(|| async { "ok" })).route("/readyz", get(ready)).with_state(gates);
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

async fn ready(State(gates): State<Arc<Gates>>) -> (StatusCode, String) {
    let missing = gates.missing();
    if missing.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n")
}

/// Serves metrics until `shutdown`. What is counted only when somebody asks is counted then.
pub async fn metrics(
    listener: TcpListener,
    registry: Registry,
    context: Arc<Context>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new().route("/metrics", get(text)).with_state((Arc::new(registry), context));
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

async fn text(
    State((registry, context)): State<(Arc<Registry>, Arc<Context>)>,
) -> ([(&'static str, &'static str); 1], String) {
    context.metrics.count_resources(&context.world);
    let mut text = String::new();
    // Writing to a text cannot fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    ([("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}
