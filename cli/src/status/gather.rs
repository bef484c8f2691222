//! Asks the API server for objects, and the pods of the runtime how they are.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use http::header::{HOST, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::cluster::forward::Forward;
use crate::cluster::{Cluster, Error, Objects, Pod, runtime_pods};

/// Where a pod tells what it serves.
const PATH: &str = "/v1alpha1/topology";
/// How long a pod may take to answer. Others do not wait for it.
const POD_TIMEOUT: Duration = Duration::from_secs(5);
/// Pods that are asked at the same time.
const ASKED_MAX: usize = 16;

/// Everything that was found out.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathered {
    /// Where.
    pub(super) namespace: String,
    /// What there is.
    pub(super) objects: Objects,
    /// The pods of each runtime, by its name.
    pub(super) pods: BTreeMap<String, Vec<Asked>>,
}

/// A pod of a runtime, and what it says about itself. Nothing if it does not run.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) pod: Pod,
    pub(super) answer: Option<Result<Report, String>>,
}

/// What a pod says about itself: the answer of `GET /v1alpha1/topology`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Report {
    /// The revision of the topology that it serves.
    pub(super) revision: String,
    /// Its name among the runtimes.
    pub(super) member: String,
    pub(super) store: Store,
    pub(super) functions: Vec<Function>,
}

/// Whether a pod reaches its store.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Store {
    pub(super) ready: bool,
    pub(super) problem: Option<String>,
}

/// What a pod knows of a function.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) revisions: Vec<Revision>,
}

/// What a pod knows of one revision.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Revision {
    /// Empty where nobody tells revisions apart.
    #[serde(rename = "revision")]
    pub(super) name: String,
    pub(super) workers_ready: u64,
    pub(super) problem: Option<Problem>,
    pub(super) invocations: u64,
    pub(super) failures: u64,
}

/// Why a worker is not connected.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Problem {
    pub(super) reason: String,
    pub(super) message: String,
}

/// Finds out everything about a namespace.
pub(super) async fn gather(cluster: &Cluster) -> Result<Gathered, Error> {
    let objects = cluster.objects().await?;
    let mut pods = BTreeMap::new();
    for runtime in &objects.runtimes {
        let name = runtime["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let found = cluster.pods(&runtime_pods(&name)).await?;
        let asked = futures_util::stream::iter(found).map(|pod| ask(cluster, pod)).buffered(ASKED_MAX);
        pods.insert(name, asked.collect::<Vec<_>>().await);
    }
    Ok(Gathered { namespace: cluster.namespace.clone(), objects, pods })
}

async fn ask(cluster: &Cluster, pod: Pod) -> Asked {
    if !pod.is_running {
        return Asked { pod, answer: None };
    }
    let answer = tokio::time::timeout(POD_TIMEOUT, report(cluster, &pod.name)).await;
    let late = || Err(format!("no answer within {} s", POD_TIMEOUT.as_secs()));
    Asked { answer: Some(answer.unwrap_or_else(|_| late())), pod }
}

async fn report(cluster: &Cluster, pod: &str) -> Result<Report, String> {
    let why = |error: Error| match error {
        Error::Pod { why, .. } => why,
        error => error.to_string(),
    };
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.uri_mut() = http::Uri::from_static(PATH);
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    let mut way = Forward::open(cluster, pod).await.map_err(why)?;
    let (parts, body) = way.send(request, POD_TIMEOUT).await.map_err(why)?;
    if parts.status != StatusCode::OK {
        return Err(format!("it answers with status {}", parts.status));
    }
    serde_json::from_slice(&body).map_err(|error| format!("its answer makes no sense: {error}"))
}

/// A text of an object; empty if there is none.
pub(super) fn field<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
