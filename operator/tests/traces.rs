//! Traces: what a collector gets when one is configured.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(dead_code, unused_imports, reason = "the support module is shared by several tests")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tandem_operator::process::telemetry;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

mod scenarios {
    pub(crate) mod support;
}

use scenarios::support::{Harness, objects};

/// Longest wait for anything: the exporter sends what it has every few seconds.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
struct Span {
    name: String,
    id: Vec<u8>,
    parent: Vec<u8>,
    attributes: Vec<String>,
}

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        let spans = scopes.flat_map(|scope| scope.spans).map(|span| Span {
            name: span.name,
            id: span.span_id,
            parent: span.parent_span_id,
            attributes: span.attributes.into_iter().map(|attribute| attribute.key).collect(),
        });
        self.0.lock().unwrap().extend(spans);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_a_span_for_each_reconcile_and_each_write_in_it() {
    let collector = Collector::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let _guard = telemetry::init("off", Some(&endpoint)).unwrap();
    let harness = Harness::new();
    for object in objects::shop() {
        harness.apply(&object);
    }
    let until = Instant::now() + PATIENCE;
    let (write, parent) = loop {
        let spans = collector.0.lock().unwrap().clone();
        let write = spans.iter().find(|span| span.name == "apply StatefulSet default").cloned();
        let parent = write.as_ref().and_then(|write| spans.iter().find(|span| span.id == write.parent)).cloned();
        if let (Some(write), Some(parent)) = (write, parent) {
            break (write, parent);
        }
        assert!(Instant::now() < until, "only {spans:#?} came");
        tokio::time::sleep(LOOK_EVERY).await;
    };
    assert_eq!(parent.name, "reconcile FunctionRuntime");
    assert!(parent.parent.is_empty(), "it is a trace of its own");
    for attribute in ["kind", "namespace", "name", "generation"] {
        assert!(parent.attributes.iter().any(|known| known == attribute), "{attribute} is not in {parent:?}");
    }
    assert!(!write.attributes.iter().any(|attribute| attribute == "error"), "{write:?}");
}
