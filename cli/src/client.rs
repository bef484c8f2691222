//! A small client of the admin port.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use tandem_runtime::problem::{OUTCOME, PROBLEM_JSON};

use crate::Exit;
use crate::output::{Format, print_error, print_json, printable};

/// Longer than the longest deadline that a flow may have.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How to reach the admin port, and how to print what it says.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The admin port of the runtime.
    #[arg(long, env = "TANDEM_ADMIN", default_value = "http://127.0.0.1:8081", value_name = "URL")]
    pub(crate) admin: String,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// Why there is no answer. All of these end the command with status 2.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The URL makes no sense.
    #[error("{0:?} is not the URL of an admin port; it looks like http://127.0.0.1:8081")]
    Url(String),
    /// Nobody answers.
    #[error(
        "failed to reach the admin port at {url}: {why}; is the runtime there? (--admin or TANDEM_ADMIN says where)"
    )]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What the network said.
        why: String,
    },
    /// Somebody answers, but not a runtime.
    #[error("what answers at {url} is not an admin port of Tandem: {why}")]
    Nonsense {
        /// Where it was looked for.
        url: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// What the user gave cannot be sent.
    #[error("{0}")]
    Usage(String),
}

/// A connection to one admin port.
pub(crate) struct Admin {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What came back.
pub(crate) struct Answer {
    base: String,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Admin {
    /// A client for the port at `base`, which is not asked yet.
    pub(crate) fn new(options: &Options) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let base = options.admin.trim_end_matches('/').to_owned();
        Self { base, client: Client::builder(TokioExecutor::new()).build(connector) }
    }

    /// Asks for `path`.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, Error> {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// Sends a request with a JSON body.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: Bytes,
    ) -> Result<Answer, Error> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body)).map_err(|_| Error::Url(self.base.clone()))?;
        let unreachable = |why: String| Error::Unreachable { url: self.base.clone(), why };
        let asked = async {
            let response = self.client.request(request).await.map_err(|error| unreachable(root_cause(&error)))?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| unreachable(error.to_string()))?.to_bytes();
            Ok(Answer { base: self.base.clone(), status: parts.status, headers: parts.headers, body })
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
        answer.unwrap_or_else(|_| Err(unreachable(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))))
    }
}

impl Answer {
    /// The value of a header, or nothing.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    }

    /// The body as `T`.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let nonsense = |why: String| Error::Nonsense { url: self.base.clone(), why };
        serde_json::from_slice(&self.body).map_err(|error| nonsense(format!("status {}, {error}", self.status)))
    }

    /// Whether it is one of our errors.
    pub(crate) fn is_problem(&self) -> bool {
        self.header("content-type").is_some_and(|content_type| content_type == PROBLEM_JSON)
    }

    /// Prints an error of the runtime, and gives the exit status for it: 1 if the question was understood and the
    /// answer is no, 2 if it was wrong.
    pub(crate) fn refused(&self, format: Format) -> Result<Exit, Error> {
        if !self.is_problem() {
            let why = format!("it answers with status {}", self.status);
            return Err(Error::Nonsense { url: self.base.clone(), why });
        }
        let problem: serde_json::Value = self.json()?;
        match format {
            Format::Json => print_json(&problem),
            Format::Text => print_error(&problem_text(&problem)),
        }
        let malformed = self.status == StatusCode::BAD_REQUEST && self.headers.get(OUTCOME).is_none();
        Ok(if malformed { Exit::Usage } else { Exit::Negative })
    }
}

/// One problem on one line: `REJECTED  out-of-stock by inventory/sku-7: sku-7: 2 wanted, 1 left`.
fn problem_text(problem: &serde_json::Value) -> String {
    let text = |name: &str| problem[name].as_str();
    let title = text("outcome").or_else(|| text("title")).unwrap_or("error");
    let mut line = format!("{title}  {}", text("reason").unwrap_or("unknown"));
    if let (Some(function), Some(key)) = (text("function"), text("key")) {
        line.push_str(&format!(" by {function}/{key}"));
    }
    if let Some(detail) = text("detail").filter(|detail| !detail.is_empty()) {
        line.push_str(": ");
        line.push_str(detail);
    }
    let mut line = printable(&line);
    if let Some(flow) = text("flow") {
        line.push_str(&format!("\nflow {flow}; see `tandem flows get {flow}`"));
    }
    line
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Encodes `text` as one segment of a path, or as a value of a query.
pub(crate) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_key_fits_in_a_path() {
        assert_eq!(segment("{o-1}/ä b"), "%7Bo-1%7D%2F%C3%A4%20b");
        assert_eq!(segment("sku-7_a.b~c"), "sku-7_a.b~c");
    }

    #[test]
    fn problem_is_one_line_and_a_hint() {
        let problem = serde_json::json!({
            "title": "Rejected", "status": 409, "outcome": "REJECTED", "reason": "out-of-stock",
            "detail": "sku-7: 2 wanted,\n1 left", "function": "inventory", "key": "sku-7", "flow": "f1",
        });
        let expected = "REJECTED  out-of-stock by inventory/sku-7: sku-7: 2 wanted,\u{fffd}1 left\n\
                        flow f1; see `tandem flows get f1`";
        assert_eq!(problem_text(&problem), expected);
        assert_eq!(problem_text(&serde_json::json!({"title": "Busy", "reason": "busy"})), "Busy  busy");
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_the_address() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let options = Options { admin: format!("http://{free}/"), output: Format::Text };
        let Err(error) = Admin::new(&options).get("/flows").await else { panic!("somebody answered") };
        assert!(error.to_string().contains(&format!("http://{free}")), "{error}");
    }
}
