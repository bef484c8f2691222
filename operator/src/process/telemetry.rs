//! Logs to standard error, as JSON; and traces, where `OTEL_EXPORTER_OTLP_ENDPOINT` says to whom.
//!
//! A trace is one reconcile, with a span for each call to the API server. What libraries do in between is not exported.

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Switches the export of traces on.
pub const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// How this program is called in traces.
const SERVICE: &str = "tandem-operator";
/// What is logged if the filter makes no sense.
const FILTER_USUAL: &str = "info";

/// Why telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The exporter cannot be built: a bad endpoint.
    #[error("traces cannot be exported to {ENDPOINT_VARIABLE}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// It was set up before.
    #[error("logging was set up twice")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Keeps the exporter alive.
#[derive(Debug)]
pub struct Guard {
    provider: Option<SdkTracerProvider>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take() {
            // The process ends: there is nobody left to tell that the last spans were lost.
            let _ = provider.shutdown();
        }
    }
}

/// Where traces go, as the environment says.
pub fn endpoint() -> Option<String> {
    std::env::var(ENDPOINT_VARIABLE).ok().filter(|endpoint| !endpoint.is_empty())
}

/// Sets up logs, and traces to `endpoint`. Needs a running tokio runtime.
pub fn init(filter: &str, endpoint: Option<&str>) -> Result<Guard, Error> {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new(FILTER_USUAL));
    let log = tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr).with_filter(filter);
    let provider = endpoint.map(provider).transpose()?;
    let spans = provider.as_ref().map(|provider| {
        let own = Targets::new().with_target("tandem_operator", Level::INFO);
        tracing_opentelemetry::layer().with_tracer(provider.tracer(SERVICE)).with_filter(own)
    });
    tracing_subscriber::registry().with(spans).with(log).try_init()?;
    Ok(Guard { provider })
}

fn provider(endpoint: &str) -> Result<SdkTracerProvider, Error> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
    let resource = Resource::builder().with_service_name(SERVICE).build();
    Ok(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
}
