//! A small client of the admin port: by its URL, or in the pods of a cluster.

use std::time::Duration;

use futures_util::future::join_all;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use tandem_runtime::problem::{OUTCOME, PROBLEM_JSON};

use crate::Exit;
use crate::cluster::{self, Cluster, forward::Forward};
use crate::output::{Format, print_error, print_json, printable};
use crate::program::Program;

/// Where `tandem dev` has its admin port.
const LOCAL_ADMIN: &str = "http://127.0.0.1:8081";
/// Says where another one is.
const ADMIN_VARIABLE: &str = "TANDEM_ADMIN";
/// Longer than the longest deadline that a flow may have.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How to reach the admin port, and how to print what it says.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// The admin port of a runtime. Without it TANDEM_ADMIN, or http://127.0.0.1:8081 where `tandem dev` listens.
    #[arg(long, value_name = "URL", conflicts_with_all = ["cluster", "namespace", "context", "kubeconfig"])]
    pub(crate) admin: Option<String>,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) cluster: cluster::Options,
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// The admin port at this URL.
    Url(String),
    /// The pods of a runtime in a cluster.
    Cluster,
}

impl Options {
    /// What is said most precisely counts: an address, then a cluster, then the name of the program, then a variable.
    fn target(&self, program: Program, variable: Option<String>) -> Target {
        match (&self.admin, program) {
            (Some(url), _) => Target::Url(url.clone()),
            (None, _) if self.cluster.is_given() => Target::Cluster,
            (None, Program::Plugin | Program::PluginCompletion) => Target::Cluster,
            (None, Program::Tandem) => {
                Target::Url(variable.filter(|url| !url.is_empty()).unwrap_or_else(|| LOCAL_ADMIN.to_owned()))
            }
        }
    }
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
    /// The cluster does not lead there.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// What the user gave cannot be sent.
    #[error("{0}")]
    Usage(String),
}

/// Those who answer: one admin port, or the pods of a runtime.
pub(crate) struct Admin(Way);

enum Way {
    Url { base: String, client: Client<HttpConnector, Full<Bytes>> },
    Pods { cluster: Cluster, pods: Vec<String> },
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Who answers.
    base: String,
    /// What to type behind a command to ask the same one again.
    again: String,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Admin {
    /// A client for what `options` name. A URL is not asked yet; a cluster is asked for its pods.
    pub(crate) async fn connect(options: &Options) -> Result<Self, Error> {
        let base = match options.target(Program::current(), std::env::var(ADMIN_VARIABLE).ok()) {
            Target::Url(url) => url.trim_end_matches('/').to_owned(),
            Target::Cluster => {
                let cluster = Cluster::connect(&options.cluster).await?;
                let runtime = cluster.runtime().await?;
                let pods = cluster.ready_pods(&runtime).await?;
                return Ok(Self(Way::Pods { cluster, pods }));
            }
        };
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        Ok(Self(Way::Url { base, client: Client::builder(TokioExecutor::new()).build(connector) }))
    }

    /// Asks for `path`.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, Error> {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// Asks everybody who may know. Whoever does not answer is named.
    pub(crate) async fn get_all(&self, path: &str) -> Result<(Vec<Answer>, Vec<Error>), Error> {
        let Way::Pods { cluster, pods } = &self.0 else { return Ok((vec![self.get(path).await?], Vec::new())) };
        let asked = pods.iter().map(|pod| async move {
            let request = request(Method::GET, path, &[], Bytes::new()).map_err(|_| Error::Url(path.to_owned()))?;
            ask_pod(cluster, Forward::open(cluster, pod).await?, pod, request).await
        });
        let (mut answers, mut errors) = (Vec::new(), Vec::new());
        for answer in join_all(asked).await {
            match answer {
                Ok(answer) => answers.push(answer),
                Err(error) => errors.push(error),
            }
        }
        match errors.pop() {
            Some(error) if answers.is_empty() => Err(error),
            Some(error) => Ok((answers, errors.into_iter().chain([error]).collect())),
            None => Ok((answers, errors)),
        }
    }

    /// Sends a request with a JSON body.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: Bytes,
    ) -> Result<Answer, Error> {
        match &self.0 {
            Way::Url { base, client } => {
                let request = request(method, &format!("{base}{path}"), headers, body);
                ask_url(base, client, request.map_err(|_| Error::Url(base.clone()))?).await
            }
            Way::Pods { cluster, pods } => {
                let request = request(method, path, headers, body).map_err(|_| Error::Url(path.to_owned()))?;
                let (pod, way) = open_any(cluster, pods).await?;
                ask_pod(cluster, way, pod, request).await
            }
        }
    }
}

fn request(
    method: Method,
    uri: &str,
    headers: &[(&str, String)],
    body: Bytes,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    if !body.is_empty() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    request.body(Full::new(body))
}

async fn ask_url(
    base: &str,
    client: &Client<HttpConnector, Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Error> {
    let unreachable = |why: String| Error::Unreachable { url: base.to_owned(), why };
    let asked = async {
        let response = client.request(request).await.map_err(|error| unreachable(root_cause(&error)))?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| unreachable(error.to_string()))?.to_bytes();
        let (base, again) = (base.to_owned(), String::new());
        Ok(Answer { base, again, status: parts.status, headers: parts.headers, body })
    };
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
    answer.unwrap_or_else(|_| Err(unreachable(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))))
}

/// A way to the first pod that there is one to. Nothing has been sent then, so that it is safe to try the next one.
async fn open_any<'a>(cluster: &Cluster, pods: &'a [String]) -> Result<(&'a str, Forward), Error> {
    let mut last = None;
    for pod in pods {
        match Forward::open(cluster, pod).await {
            Ok(way) => return Ok((pod, way)),
            Err(error @ (cluster::Error::Pod { .. } | cluster::Error::Refused { .. })) => last = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    let runtime = || cluster::Error::NoRuntime { namespace: cluster.namespace.clone() };
    Err(last.unwrap_or_else(runtime).into())
}

async fn ask_pod(
    cluster: &Cluster,
    mut way: Forward,
    pod: &str,
    mut request: Request<Full<Bytes>>,
) -> Result<Answer, Error> {
    // Nobody looks for it, but HTTP/1.1 wants one.
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    let (parts, body) = way.send(request, ANSWER_TIMEOUT).await?;
    let (base, again) = (format!("pod {pod}"), cluster.again.clone());
    Ok(Answer { base, again, status: parts.status, headers: parts.headers, body })
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

    /// The command that tells about a flow.
    pub(crate) fn flow_command(&self, flow: &str) -> String {
        flow_command(flow, &self.again)
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
            Format::Text => print_error(&problem_text(&problem, &self.again)),
        }
        let malformed = self.status == StatusCode::BAD_REQUEST && self.headers.get(OUTCOME).is_none();
        Ok(if malformed { Exit::Usage } else { Exit::Negative })
    }
}

/// One problem on one line: `REJECTED  out-of-stock by inventory/sku-7: sku-7: 2 wanted, 1 left`.
fn problem_text(problem: &serde_json::Value, again: &str) -> String {
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
        line.push_str(&format!("\nflow {flow}; see `{}`", flow_command(flow, again)));
    }
    line
}

fn flow_command(flow: &str, again: &str) -> String {
    format!("{} flows get {flow}{again}", Program::current().name())
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
        assert_eq!(problem_text(&problem, ""), expected);
        assert!(problem_text(&problem, " -n shop").ends_with("`tandem flows get f1 -n shop`"));
        assert_eq!(problem_text(&serde_json::json!({"title": "Busy", "reason": "busy"}), ""), "Busy  busy");
    }

    #[test]
    fn local_is_local_until_a_cluster_is_named() {
        let target = |options: &Options, program| options.target(program, Some("http://variable".to_owned()));
        let none = Options::default();
        assert_eq!(none.target(Program::Tandem, None), Target::Url(LOCAL_ADMIN.to_owned()));
        assert_eq!(target(&none, Program::Tandem), Target::Url("http://variable".to_owned()));
        assert_eq!(target(&none, Program::Plugin), Target::Cluster);
        let cluster = cluster::Options { context: Some("c".to_owned()), ..cluster::Options::default() };
        let named = Options { cluster, ..Options::default() };
        assert_eq!(target(&named, Program::Tandem), Target::Cluster);
        let url = Options { admin: Some("http://there".to_owned()), ..Options::default() };
        assert_eq!(target(&url, Program::Plugin), Target::Url("http://there".to_owned()));
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_the_address() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let options = Options { admin: Some(format!("http://{free}/")), ..Options::default() };
        let admin = Admin::connect(&options).await.unwrap();
        let Err(error) = admin.get("/flows").await else { panic!("somebody answered") };
        assert!(error.to_string().contains(&format!("http://{free}")), "{error}");
    }
}
