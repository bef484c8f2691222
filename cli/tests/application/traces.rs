//! Traces: what a collector gets when one is configured.

use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

use crate::bank::bank;
use crate::http::Request;
use crate::process::{Dev, LOOK_EVERY, PATIENCE};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Keeps name, trace id, span id and parent of every span.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<[String; 4]>>>);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        let spans = scopes.flat_map(|scope| scope.spans);
        let spans = spans.map(|span| [span.name, hex(&span.trace_id), hex(&span.span_id), hex(&span.parent_span_id)]);
        self.0.lock().unwrap().extend(spans);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        format!("http://{address}")
    }

    /// Spans of the client's trace, once there are so many.
    async fn spans(&self, count: usize) -> Vec<[String; 4]> {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut spans = self.0.lock().unwrap().clone();
            spans.retain(|[_, trace, ..]| trace == TRACE);
            if spans.len() >= count {
                return spans;
            }
            assert!(Instant::now() < until, "only {spans:?} came");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_a_span_for_the_flow_and_one_for_each_call_under_that_of_the_client() {
    let collector = Collector::default();
    let endpoint = format!("OTEL_EXPORTER_OTLP_ENDPOINT={}", collector.serve().await);
    let directory = bank();
    let dev = Dev::start_behind("env", &[&endpoint], directory.path());
    crate::bank::open_accounts(&dev, 2);
    let transfer = Request::new("POST", "/accounts/a-0/transfers").json(r#"{"to": ["a-1"], "amount": 1}"#);
    let transfer = transfer.header("traceparent", &format!("00-{TRACE}-00f067aa0ba902b7-01"));
    let answer = transfer.settle(&dev.http);
    assert!(answer.committed(), "{}", answer.text());

    let spans = collector.spans(3).await;
    let named = |name: &str| spans.iter().filter(|[span, ..]| span == name).collect::<Vec<_>>();
    let (flows, calls) = (named("flow"), named("call"));
    assert_eq!((flows.len(), calls.len()), (1, 2), "{spans:?}");
    assert_eq!(flows[0][3], "00f067aa0ba902b7", "the flow is a child of the client's span");
    let entry = calls.iter().find(|[.., parent]| *parent == flows[0][2]).expect("the entry is a child of the flow");
    assert!(calls.iter().any(|[.., parent]| *parent == entry[2]), "the call is a child of the entry: {spans:?}");
}
