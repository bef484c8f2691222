//! Pods of runtimes: each has an address of loopback, takes every topology, and has shaken hands with every worker.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Where pods answer the operator.
const ADMIN_PORT: u16 = 9090;
const PATH: &str = "/v1alpha1/topology";
const BODY_BYTES_MAX: usize = 32 << 20;

/// All pods of one stand-in.
pub(crate) struct Pods {
    addresses: tokio::sync::Mutex<HashMap<(String, String), String>>,
    pushes: Arc<AtomicU64>,
    end: CancellationToken,
}

struct Pod {
    name: String,
    report: Mutex<Bytes>,
    pushes: Arc<AtomicU64>,
}

/// What a pod has to know of a bundle.
#[derive(Deserialize)]
struct Told {
    revision: String,
    workers: BTreeMap<String, Vec<Worker>>,
}

#[derive(Deserialize)]
struct Worker {
    revision: String,
}

impl Pods {
    pub(crate) fn new(end: CancellationToken) -> Self {
        Self { addresses: tokio::sync::Mutex::default(), pushes: Arc::default(), end }
    }

    pub(crate) fn pushes(&self) -> u64 {
        self.pushes.load(Ordering::Relaxed)
    }

    /// The address of a pod; it answers from now on.
    pub(crate) async fn address(&self, namespace: &str, name: &str) -> std::io::Result<String> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut addresses = self.addresses.lock().await;
        if let Some(address) = addresses.get(&key) {
            return Ok(address.clone());
        }
        let listener = TcpListener::bind((fresh_address(), ADMIN_PORT)).await?;
        let address = listener.local_addr()?.ip().to_string();
        let pod = Arc::new(Pod { name: name.to_owned(), report: Mutex::default(), pushes: Arc::clone(&self.pushes) });
        pod.tell(&Told { revision: String::new(), workers: BTreeMap::new() });
        let answers = Router::new().route(PATH, get(report).put(push));
        let router = answers.layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).with_state(pod);
        let end = self.end.clone();
        tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(end.cancelled_owned()).await });
        addresses.insert(key, address.clone());
        Ok(address)
    }
}

/// An address of loopback that no other pod has: all of 127.0.0.0/8 is this machine.
fn fresh_address() -> Ipv4Addr {
    const TAKEN: u32 = 127 << 24;
    const PODS_BITS: u32 = 9;
    const PLACES_BITS: u32 = 24;
    static NEXT: AtomicU32 = AtomicU32::new(1);
    // Each process has 512 addresses. 127.0.0.x is left alone.
    let place = (std::process::id() << PODS_BITS) + NEXT.fetch_add(1, Ordering::Relaxed) + (1 << 16);
    Ipv4Addr::from(TAKEN | (place & ((1 << PLACES_BITS) - 1)))
}

impl Pod {
    fn tell(&self, told: &Told) {
        let functions = told.workers.iter().map(|(name, workers)| {
            let revisions = workers.iter().map(|worker| json!({"revision": worker.revision, "workersReady": 1}));
            json!({"name": name, "revisions": revisions.collect::<Vec<_>>()})
        });
        let report = json!({
            "revision": told.revision, "member": self.name, "store": {"ready": true},
            "functions": functions.collect::<Vec<_>>(),
        });
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = report.to_string().into();
    }
}

async fn report(State(pod): State<Arc<Pod>>) -> impl IntoResponse {
    let report = pod.report.lock().unwrap_or_else(PoisonError::into_inner).clone();
    ([(CONTENT_TYPE, "application/json")], report)
}

async fn push(State(pod): State<Arc<Pod>>, body: Bytes) -> (StatusCode, String) {
    let mut json = Vec::new();
    if GzDecoder::new(&*body).read_to_end(&mut json).is_err() {
        return (StatusCode::UNPROCESSABLE_ENTITY, "no gzip".to_owned());
    }
    match serde_json::from_slice::<Told>(&json) {
        Ok(told) => {
            pod.tell(&told);
            pod.pushes.fetch_add(1, Ordering::Relaxed);
            (StatusCode::OK, json!({"revision": told.revision}).to_string())
        }
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
    }
}
