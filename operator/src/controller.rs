//! The loop: takes a key, reconciles it, gives it back.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tandem_crds::resources::Kind;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument, debug, error, info_span, warn};

use crate::context::Context;
use crate::key::{Key, ObjectKey};
use crate::kubeapi::Error;
use crate::metrics::{ErrorLabel, KindLabel};
use crate::queue::Outcome;
use crate::{egresses, functions, graph, pods, routes, runtimes};

/// Reconciles at one time. Most of their time they wait for the API server.
pub const CONCURRENCY: usize = 32;

/// Works until `shutdown`. A reconcile that runs then is finished first.
pub async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let mut workers = JoinSet::new();
    for _ in 0..CONCURRENCY {
        let (context, shutdown) = (Arc::clone(&context), shutdown.clone());
        workers.spawn(async move {
            loop {
                let key = tokio::select! {
                    biased;
                    () = shutdown.cancelled() => break,
                    key = context.queue.next() => key,
                };
                work(&context, key).await;
            }
        });
    }
    while workers.join_next().await.is_some() {}
}

/// Reconciles one key, and gives it back.
pub async fn work(context: &Context, key: Key) {
    let start = Instant::now();
    let name = if let Key::Object(object) = &key { &*object.name } else { "" };
    let title = format!("reconcile {}", key.label());
    let span = info_span!(
        "reconcile",
        otel.name = title,
        otel.status_code = Empty,
        kind = key.label(),
        namespace = %key.namespace(),
        name,
        generation = generation(context, &key),
    );
    let failed_span = span.clone();
    let result = AssertUnwindSafe(reconcile(context, &key).instrument(span)).catch_unwind().await;
    let kind = key.label();
    context.metrics.reconciles.get_or_create(&KindLabel { kind }).inc();
    context.metrics.duration.get_or_create(&KindLabel { kind }).observe(start.elapsed().as_secs_f64());
    context.metrics.queue_depth.set(i64::try_from(context.queue.depth()).unwrap_or(i64::MAX));
    let outcome = match result {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(failed)) => {
            context.metrics.errors.get_or_create(&ErrorLabel { kind, reason: (&failed).into() }).inc();
            failed_span.record("otel.status_code", "ERROR");
            report(&key, &failed);
            Outcome::Failed
        }
        Err(_) => {
            // The panic was printed where it happened. One bad object must not take the operator with it.
            context.metrics.errors.get_or_create(&ErrorLabel { kind, reason: "Panic" }).inc();
            error!(%key, "reconcile panicked");
            Outcome::Failed
        }
    };
    context.queue.done(key, outcome);
}

/// Which generation of a resource is reconciled.
fn generation(context: &Context, key: &Key) -> Option<i64> {
    let Key::Object(ObjectKey { kind, namespace, name }) = key else { return None };
    let world = &context.world;
    match kind {
        Kind::Runtime => world.runtimes.get(namespace, name)?.metadata().generation,
        Kind::Function => world.functions.get(namespace, name)?.metadata().generation,
        Kind::Route => world.routes.get(namespace, name)?.metadata().generation,
        Kind::Egress => world.egresses.get(namespace, name)?.metadata().generation,
    }
}

fn report(key: &Key, error: &Error) {
    match error {
        Error::Transient { .. } | Error::Timeout { .. } | Error::Gone { .. } => {
            debug!(%key, error = error.message(), "to be tried again");
        }
        Error::Forbidden { .. } | Error::Rejected { .. } | Error::Taken { .. } => {
            warn!(%key, error = error.message(), "refused");
        }
    }
}

async fn reconcile(context: &Context, key: &Key) -> Result<Outcome, Error> {
    match key {
        Key::Graph(namespace) => graph::reconcile::reconcile(context, namespace).await,
        Key::Pods(namespace) => Ok(pods::reconcile(context, namespace).await),
        Key::Object(object) => reconcile_object(context, object).await,
    }
}

async fn reconcile_object(context: &Context, key: &ObjectKey) -> Result<Outcome, Error> {
    match key.kind {
        Kind::Runtime => runtimes::reconcile(context, key).await,
        Kind::Function => functions::reconcile(context, key).await,
        Kind::Route => routes::reconcile(context, key).await,
        Kind::Egress => egresses::reconcile(context, key).await,
    }
}
