//! HTTP as clients speak it, to a runtime that may be gone at any moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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

/// Where the runtimes are, or were last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// `http://127.0.0.1:4711` of each. They are asked in turn.
    pub(crate) http: Vec<String>,
    /// The number of the last one among all runtimes that were started.
    pub(crate) life: u64,
}

/// A way to the runtimes. Clones share connections.
#[derive(Clone)]
pub(crate) struct Web {
    client: Client<HttpConnector, Full<Bytes>>,
    place: watch::Receiver<Place>,
    /// Whose turn it is.
    turn: Arc<AtomicUsize>,
    patience: Duration,
    pub(crate) journal: Arc<Journal>,
}

impl Web {
    /// A way to the runtimes that are announced there.
    pub(crate) fn new(place: watch::Receiver<Place>, journal: Arc<Journal>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            place,
            turn: Arc::default(),
            patience: ANSWER_WITHIN,
            journal,
        }
    }

    /// The same, by clients that wait no longer for one answer, and then ask another runtime.
    pub(crate) fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Sends something. The answer, and which runtime gave it; nothing if the connection is lost, or nobody answers.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: Bytes,
    ) -> Option<(Raw, u64)> {
        let Place { http, life } = self.place.borrow().clone();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let http = http.get(turn % http.len().max(1))?;
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
        let answered = timeout(self.patience, exchange).await.ok().flatten();
        let Some((parts, bytes)) = answered else {
            self.journal.count("connection-lost");
            return None;
        };
        self.journal.count(&format!("http-{}", parts.status.as_u16()));
        Some((Raw::new(&parts, bytes), life))
    }

    /// Runs a plan of a history: nothing if it has to be sent again.
    pub(crate) async fn plan(&self, path: &str, id: &str, payload: Bytes) -> Option<Answer> {
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
