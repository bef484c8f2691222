//! The ingress of a stage, and a client for it.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tandem_runtime::ingress;
use tandem_runtime::runtime::Runtime;
use tandem_store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::script::Step;

/// Serves until it is dropped.
pub(crate) struct Web {
    address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    _stop: DropGuard,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// The header `tandem-outcome`.
    pub(crate) outcome: String,
    pub(crate) repeated: bool,
    pub(crate) body: String,
}

impl Web {
    pub(crate) async fn start<S: Store>(runtime: &Runtime<S>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let router = ingress::router(runtime.clone(), runtime.metrics().clone());
        tokio::spawn(ingress::server::serve(listener, router, stop.clone()));
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { address, client, _stop: stop.drop_guard() }
    }

    /// `POST /{handler}/{key}` with a request id.
    pub(crate) async fn post(&self, handler: &str, key: &str, id: &str, steps: &[Step]) -> Reply {
        let request = http::Request::post(format!("http://{}/{handler}/{key}", self.address))
            .header("content-type", "application/json")
            .header("idempotency-key", id)
            .body(Full::new(Bytes::from(serde_json::to_vec(steps).unwrap())))
            .unwrap();
        let response = self.client.request(request).await.unwrap();
        let header = |name: &str| response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let (outcome, repeated) = (header("tandem-outcome"), !header("tandem-repeated").is_empty());
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Reply { status, outcome, repeated, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    /// The first record of an egress behind a number, with its own, however long it takes.
    pub(crate) async fn first_behind(&self, egress: &str, after: u64) -> (u64, String) {
        let request = http::Request::get(format!("http://{}/egress/{egress}", self.address))
            .header("last-event-id", after.to_string())
            .body(Full::default())
            .unwrap();
        let mut body = self.client.request(request).await.unwrap().into_body();
        let mut text = String::new();
        while !text.contains("\n\n") || text.starts_with(':') {
            text = text.split_once("\n\n").map_or_else(|| text.clone(), |(_, rest)| rest.to_owned());
            let frame = body.frame().await.expect("it follows").unwrap();
            text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.to_owned()
        };
        (field("id: ").parse().unwrap(), field("data: "))
    }
}
