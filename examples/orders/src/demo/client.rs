//! An HTTP client that does not let go: it asks again, with the same request id, until it has an outcome.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::answer::Reply;

/// How long a client goes on asking before it gives up.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long it waits for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// How long it waits before it asks again.
const PAUSE: Duration = Duration::from_millis(20);

/// Where a runtime listens at present. It changes when the runtime is started again.
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct Addresses {
    /// For requests.
    pub(crate) http: String,
    /// For those who look after it.
    pub(crate) admin: String,
}

/// A client with connections that it keeps. It takes all runtimes in turn, also for the next attempt after one that failed.
pub(crate) struct Client {
    http: HyperClient<HttpConnector, Full<Bytes>>,
    addresses: watch::Receiver<Vec<Addresses>>,
    turn: AtomicUsize,
    retried: AtomicUsize,
    repeated: AtomicUsize,
    last_problem: Mutex<Option<String>>,
}

impl Client {
    /// A client of the runtimes whose addresses are announced there.
    pub(crate) fn new(addresses: watch::Receiver<Vec<Addresses>>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = HyperClient::builder(TokioExecutor::new()).build(connector);
        let [turn, retried, repeated] = [0; 3].map(AtomicUsize::new);
        Self { http, addresses, turn, retried, repeated, last_problem: Mutex::default() }
    }

    /// How many requests had to be sent again, because no answer came.
    pub(crate) fn retried(&self) -> usize {
        self.retried.load(Ordering::Relaxed)
    }

    /// What came in the place of an answer, the last time.
    pub(crate) fn last_problem(&self) -> Option<String> {
        self.last_problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many answers came from the record of an earlier request with the same id.
    pub(crate) fn repeated(&self) -> usize {
        self.repeated.load(Ordering::Relaxed)
    }

    /// Whose turn it is.
    fn next(&self) -> anyhow::Result<Addresses> {
        let (addresses, turn) = (self.addresses.borrow(), self.turn.fetch_add(1, Ordering::Relaxed));
        let next = turn.checked_rem(addresses.len()).and_then(|index| addresses.get(index));
        next.cloned().context("there is no runtime")
    }

    /// Sends a request until it is answered for good.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        id: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<Reply> {
        let body = Bytes::from(serde_json::to_vec(body)?);
        let began = Instant::now();
        let mut again = false;
        loop {
            let base = self.next()?.http;
            let request = Request::builder()
                .method(method.clone())
                .uri(format!("{base}{path}"))
                .header(CONTENT_TYPE, "application/json")
                .header("idempotency-key", id)
                .body(Full::new(body.clone()))?;
            let problem = match self.exchange(request).await {
                Ok((parts, body)) if is_final(parts.status) => {
                    self.retried.fetch_add(usize::from(again), Ordering::Relaxed);
                    let repeated = parts.headers.contains_key("tandem-repeated");
                    self.repeated.fetch_add(usize::from(repeated), Ordering::Relaxed);
                    let flow = parts.headers.get("tandem-flow").and_then(|value| value.to_str().ok());
                    let flow = flow.unwrap_or_default().to_owned();
                    return Ok(Reply { status: parts.status, flow, body });
                }
                Ok((parts, _)) => format!("status {}", parts.status),
                Err(error) => format!("{error:#}"),
            };
            if began.elapsed() > PATIENCE {
                anyhow::bail!("{method} {path} got no outcome within {PATIENCE:?}: {problem}");
            }
            again = true;
            *self.last_problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Reads JSON from the admin port.
    pub(crate) async fn admin<T: DeserializeOwned>(&self, path_and_query: &str) -> anyhow::Result<T> {
        let base = self.next()?.admin;
        let request = Request::get(format!("{base}{path_and_query}")).body(Full::default())?;
        let (parts, body) = self.exchange(request).await?;
        anyhow::ensure!(parts.status.is_success(), "GET {path_and_query}: {}: {}", parts.status, text(&body));
        serde_json::from_slice(&body).with_context(|| format!("GET {path_and_query}: {}", text(&body)))
    }

    /// Reads all records that an egress holds now.
    pub(crate) async fn egress<T: DeserializeOwned>(&self, name: &str) -> anyhow::Result<Vec<T>> {
        let base = self.next()?.http;
        let request = Request::get(format!("{base}/egress/{name}?follow=false")).body(Full::default())?;
        // Where a runtime was killed, it is waited for the records that it may still have been about to release.
        let (parts, body) = self.exchange_within(PATIENCE, request).await?;
        anyhow::ensure!(parts.status.is_success(), "egress {name}: {}: {}", parts.status, text(&body));
        let body = text(&body);
        let records = body.lines().filter_map(|line| line.strip_prefix("data: "));
        records
            .map(|record| serde_json::from_str(record).with_context(|| format!("record {record} of {name}")))
            .collect()
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> anyhow::Result<(http::response::Parts, Bytes)> {
        self.exchange_within(ANSWER_WITHIN, request).await
    }

    async fn exchange_within(
        &self,
        longest: Duration,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<(http::response::Parts, Bytes)> {
        let asked = format!("{} {}", request.method(), request.uri());
        let exchange = async {
            let (parts, body) = self.http.request(request).await?.into_parts();
            Ok((parts, body.collect().await?.to_bytes()))
        };
        let answer = tokio::time::timeout(longest, exchange).await;
        answer.with_context(|| format!("no answer to {asked} within {longest:?}"))?
    }
}

/// Whether asking again would change nothing. 202 says that the flow still runs, 503 and 429 that it was not accepted.
fn is_final(status: StatusCode) -> bool {
    let not_yet = [StatusCode::ACCEPTED, StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
    !not_yet.contains(&status)
}

fn text(body: &Bytes) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(body)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each connection with one of these texts, the first with the first; gives what it was sent.
    async fn serve(listener: TcpListener, answers: Vec<&'static str>) -> Vec<String> {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"{}") {
                assert!(stream.read_buf(&mut request).await.unwrap() > 0, "the request has a body of two bytes");
            }
            requests.push(String::from_utf8(request).unwrap());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        requests
    }

    #[tokio::test]
    async fn a_lost_answer_is_asked_for_again_with_the_same_id() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = format!("http://{}", listener.local_addr().unwrap());
        let nothing = "";
        let cut = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of";
        let busy = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let done = "HTTP/1.1 200 OK\r\ntandem-flow: f-1\r\ntandem-repeated: true\r\ncontent-length: 2\r\n\r\n{}";
        let server = tokio::spawn(serve(listener, vec![nothing, cut, busy, done]));
        let (_announce, addresses) = watch::channel(vec![Addresses { http, admin: String::new() }]);
        let client = Client::new(addresses);
        let reply = client.send(Method::POST, "/orders/o-1", "place-o-1", &serde_json::json!({})).await.unwrap();
        assert_eq!((reply.status, reply.flow.as_str()), (StatusCode::OK, "f-1"));
        assert_eq!((client.retried(), client.repeated()), (1, 1));
        assert!(client.last_problem().is_some_and(|problem| problem.contains("503")), "{:?}", client.last_problem());
        for request in server.await.unwrap() {
            assert!(
                request.starts_with("POST /orders/o-1 ") && request.contains("idempotency-key: place-o-1"),
                "{request}"
            );
        }
    }

    #[test]
    fn only_what_has_no_outcome_yet_is_asked_again() {
        for status in [StatusCode::ACCEPTED, StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS] {
            assert!(!is_final(status), "{status}");
        }
        for status in
            [StatusCode::OK, StatusCode::CONFLICT, StatusCode::UNPROCESSABLE_ENTITY, StatusCode::GATEWAY_TIMEOUT]
        {
            assert!(is_final(status), "{status}");
        }
    }
}
