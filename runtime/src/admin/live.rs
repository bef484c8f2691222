//! `GET /outcomes`: every outcome as it becomes durable, as server-sent events. For watching: it may skip some.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use tandem_model::outcome::FlowRecord;
use tandem_store::Store;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Admin, view};
use crate::ingress::{events, stopping};

/// Answers `GET /outcomes`.
pub async fn outcomes<S: Store>(State(admin): State<Arc<Admin<S>>>, http: http::Request<Body>) -> Response {
    let watcher = Watcher { outcomes: admin.runtime.outcomes(), shutdown: stopping(http.extensions()) };
    events::response(Body::from_stream(stream::unfold(watcher, |mut watcher| async move {
        let chunk = watcher.next().await?;
        Some((Ok::<_, Infallible>(chunk), watcher))
    })))
}

struct Watcher {
    outcomes: broadcast::Receiver<Arc<FlowRecord>>,
    shutdown: CancellationToken,
}

impl Watcher {
    async fn next(&mut self) -> Option<Bytes> {
        let next = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return None,
            next = timeout(events::HEARTBEAT, self.outcomes.recv()) => next,
        };
        match next {
            Ok(Ok(record)) => Some(outcome(&record).into()),
            Ok(Err(RecvError::Lagged(skipped))) => Some(format!("event: skipped\ndata: {skipped}\n\n").into()),
            Ok(Err(RecvError::Closed)) => None,
            Err(_) => Some(Bytes::from_static(events::HEARTBEAT_TEXT.as_bytes())),
        }
    }
}

fn outcome(record: &FlowRecord) -> String {
    let mut event = String::from("event: outcome\n");
    events::push_data(&mut event, &serde_json::to_string(&view::Flow::from(record)).unwrap_or_default());
    event.push('\n');
    event
}

#[cfg(test)]
mod tests {
    use tandem_model::outcome::Outcome;

    use super::*;
    use crate::metrics::testdata;

    #[tokio::test]
    async fn watcher_that_is_too_slow_is_told_how_many_it_missed() {
        let (sender, outcomes) = broadcast::channel(2);
        let mut watcher = Watcher { outcomes, shutdown: CancellationToken::new() };
        for _ in 0..5 {
            sender.send(Arc::new(testdata::record(Outcome::Committed))).unwrap();
        }
        assert_eq!(watcher.next().await.unwrap(), "event: skipped\ndata: 3\n\n");
        assert!(watcher.next().await.unwrap().starts_with(b"event: outcome\ndata: {\"flow\":"));
        watcher.shutdown.cancel();
        assert_eq!(watcher.next().await, None);
    }
}
