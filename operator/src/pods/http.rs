//! Pods by HTTP, on their admin port.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::names::ADMIN_PORT;
use crate::pods::{Answer, Link, LinkError, Report};

/// How long a pod may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How much of a refusal is told on.
const REFUSAL_CHARACTERS_MAX: usize = 300;
/// Where a pod has its topology.
const PATH: &str = "/v1alpha1/topology";

/// See the module.
pub struct HttpLink {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Default for HttpLink {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        Self { client: Client::builder(TokioExecutor::new()).build(connector) }
    }
}

impl HttpLink {
    async fn call(&self, method: Method, address: &str, body: Bytes) -> Result<(StatusCode, Bytes), LinkError> {
        let unreachable = |error: &dyn std::fmt::Display| LinkError::Unreachable(error.to_string());
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{host}:{ADMIN_PORT}{PATH}"))
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| unreachable(&error))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| unreachable(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok((status, body.map_err(|error| unreachable(&error))?.to_bytes()))
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(LinkError::Unreachable("no answer in time".to_owned())),
        }
    }
}

impl Link for HttpLink {
    fn push<'a>(&'a self, address: &'a str, bundle: Bytes) -> Answer<'a, ()> {
        Box::pin(async move {
            let (status, body) = self.call(Method::PUT, address, bundle).await?;
            if status.is_success() {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&body);
            Err(LinkError::Refused(format!(
                "{status} {}",
                text.chars().take(REFUSAL_CHARACTERS_MAX).collect::<String>()
            )))
        })
    }

    fn report<'a>(&'a self, address: &'a str) -> Answer<'a, Report> {
        Box::pin(async move {
            let (status, body) = self.call(Method::GET, address, Bytes::new()).await?;
            if !status.is_success() {
                return Err(LinkError::Unreachable(format!("it answers {status}")));
            }
            serde_json::from_slice(&body).map_err(|error| LinkError::Unreachable(error.to_string()))
        })
    }
}
