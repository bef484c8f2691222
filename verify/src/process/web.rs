//! HTTP as clients speak it, to a runtime that may be gone at any moment.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tandem_model::outcome::Outcome;
use tokio::sync::watch;
use tokio::time::timeout;

use super::journal::Journal;
use crate::history::workload::Answer;
use crate::jobs::Raw;

/// How long a client waits for one answer at most: longer than any deadline.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Where the runtime is, or was last.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// `http://127.0.0.1:4711`.
    pub(super) http: String,
    /// Its number among all runtimes that were started.
    pub(super) life: u64,
}

/// A way to the runtime. Clones share connections.
#[derive(Clone)]
pub(super) struct Web {
    client: Client<HttpConnector, Full<Bytes>>,
    place: watch::Receiver<Place>,
    pub(super) journal: Arc<Journal>,
}

impl Web {
    /// A way to the runtime that is announced there.
    pub(super) fn new(place: watch::Receiver<Place>, journal: Arc<Journal>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { client: Client::builder(TokioExecutor::new()).build(connector), place, journal }
    }

    /// Sends something. The answer, and which runtime gave it; nothing if the connection is lost, or nobody answers.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: Bytes,
    ) -> Option<(Raw, u64)> {
        let Place { http, life } = self.place.borrow().clone();
        let mut request = Request::builder().method(method).uri(format!("{http}{path}"));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = match request.header("content-type", "application/json").body(Full::new(body)) {
            Ok(request) => request,
            Err(error) => {
                self.journal.alarm(format!("a request to {http}{path} cannot be made: {error}"));
                return None;
            }
        };
        let exchange = async {
            let (parts, body) = self.client.request(request).await.ok()?.into_parts();
            Some((parts, body.collect().await.ok()?.to_bytes()))
        };
        let answered = timeout(ANSWER_WITHIN, exchange).await.ok().flatten();
        let Some((parts, bytes)) = answered else {
            self.journal.count("connection-lost");
            return None;
        };
        self.journal.count(&format!("http-{}", parts.status.as_u16()));
        Some((Raw::new(&parts, bytes), life))
    }

    /// Runs a plan of a history: nothing if it has to be sent again.
    pub(super) async fn plan(&self, path: &str, id: &str, payload: Bytes) -> Option<Answer> {
        let calm = self.journal.calm();
        let headers = [("idempotency-key", id.to_owned())];
        let raw = self.call(Method::POST, path, &headers, payload).await.map(|(raw, _)| raw);
        let ended = raw.as_ref().and_then(|raw| raw.outcome);
        self.journal.operation(calm, matches!(ended, Some(Outcome::Committed | Outcome::Rejected)));
        let raw = raw?;
        if raw.repeated {
            self.journal.count("repeated");
        }
        match (raw.status, ended) {
            (StatusCode::OK, Some(Outcome::Committed)) => Some(Answer::Committed(raw.bytes.to_vec())),
            (_, Some(Outcome::Committed | Outcome::Invalid)) => {
                self.journal.alarm(format!("{id} got a strange answer: {}", raw.text()));
                None
            }
            (_, Some(outcome)) => {
                self.journal.count(outcome.as_str());
                Some(Answer::Aborted)
            }
            (StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS, None) => None,
            (_, None) => {
                self.journal.alarm(format!("{id} got a strange answer: {}", raw.text()));
                None
            }
        }
    }
}
