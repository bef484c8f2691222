//! Logs and traces of a process: set up once in `main`, and the W3C trace context that ties flows to their callers.
//!
//! Logs go to standard error: text on a terminal, JSON elsewhere; `TANDEM_LOG` filters them (`info`,
//! `tandem_runtime=debug,warn`). Traces are exported only when `OTEL_EXPORTER_OTLP_ENDPOINT` is set.

use std::fmt;
use std::io::{self, IsTerminal};

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tandem_model::request::Request;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Filters the log.
pub const LOG_VARIABLE: &str = "TANDEM_LOG";
/// Switches the export of traces on.
pub const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `TANDEM_LOG` makes no sense.
    #[error("{LOG_VARIABLE} is not a log filter")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The exporter cannot be built: a bad endpoint.
    #[error("traces cannot be exported to {ENDPOINT_VARIABLE}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// It was set up before.
    #[error("logging was set up twice")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Keeps the exporter alive; sends what is left when it is dropped.
#[derive(Debug, Default)]
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

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// A line for people.
    Text,
    /// A line for machines.
    Json,
}

/// What a process says about its telemetry. The variables count more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup<'a> {
    /// How it is called in traces.
    pub service: &'static str,
    /// What is logged, where `TANDEM_LOG` is not set.
    pub filter: &'a str,
    /// How.
    pub format: Format,
    /// Where traces are sent, where `OTEL_EXPORTER_OTLP_ENDPOINT` is not set.
    pub traces: Option<&'a str>,
}

/// Sets up logs and, if asked for, traces. `filter` counts where `TANDEM_LOG` is not set. Needs a running tokio runtime.
pub fn init(service: &'static str, filter: &str) -> Result<Guard, Error> {
    init_with(Setup { service, filter, ..Setup::default() })
}

/// The same, with more to choose.
pub fn init_with(setup: Setup<'_>) -> Result<Guard, Error> {
    let filter = std::env::var(LOG_VARIABLE).unwrap_or_else(|_| setup.filter.to_owned());
    let is_text = match setup.format {
        Format::Auto => io::stderr().is_terminal(),
        Format::Text => true,
        Format::Json => false,
    };
    let log = if is_text {
        tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false).boxed()
    } else {
        tracing_subscriber::fmt::layer().with_writer(io::stderr).json().flatten_event(true).boxed()
    };
    let provider = provider(setup.service, setup.traces)?;
    let spans = provider.as_ref().map(|provider| provider.tracer(setup.service));
    let spans = spans.map(|tracer| tracing_opentelemetry::layer().with_tracer(tracer));
    let filter = EnvFilter::try_new(filter)?;
    tracing_subscriber::registry().with(spans).with(log.with_filter(filter)).try_init()?;
    Ok(Guard { provider })
}

/// Says what is wrong with a log filter.
pub fn check_filter(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter).map(drop).map_err(|error| error.to_string())
}

fn provider(service: &'static str, endpoint: Option<&str>) -> Result<Option<SdkTracerProvider>, Error> {
    let variable = std::env::var(ENDPOINT_VARIABLE).ok().filter(|endpoint| !endpoint.is_empty());
    let Some(endpoint) = variable.or_else(|| endpoint.map(str::to_owned)) else {
        return Ok(None);
    };
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
    let resource = Resource::builder().with_service_name(service).build();
    Ok(Some(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build()))
}

/// The root span of a flow, as a child of the span that the client named in its traceparent.
pub fn flow_span(request: &Request) -> Span {
    let span = tracing::info_span!(
        "flow",
        flow = %request.flow,
        function = %request.instance.function,
        handler = %request.handler,
        request_id = %request.id,
    );
    if let Some(parent) = request.traceparent.as_deref().and_then(Traceparent::parse)
        && !span.is_disabled()
    {
        // Fails only if no exporter is there, and then nobody looks at the parent.
        let _ = span.set_parent(parent.context());
    }
    span
}

/// The traceparent to hand on to user code: that of the current span if it is exported, else the client's.
pub fn outgoing(span: &Span, request: &Request) -> Option<String> {
    if span.is_disabled() {
        return request.traceparent.clone();
    }
    let context = span.context();
    let current = context.span().span_context().clone();
    if current.is_valid() {
        return Some(Traceparent::from(&current).to_string());
    }
    request.traceparent.clone()
}

/// A W3C `traceparent` of version 00.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent {
    trace: TraceId,
    span: SpanId,
    flags: u8,
}

impl Traceparent {
    /// Parses `00-<32 hex>-<16 hex>-<2 hex>`. Of later versions the known part is read, as the standard asks.
    pub fn parse(text: &str) -> Option<Self> {
        let lower_hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let mut fields = text.trim().split('-');
        let (version, trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let known = version == "00";
        if !lower_hex(version, 2) || version == "ff" || (known && fields.next().is_some()) {
            return None;
        }
        if !lower_hex(trace, 32) || !lower_hex(span, 16) || !lower_hex(flags, 2) {
            return None;
        }
        let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
        let flags = u8::from_str_radix(flags, 16).ok()?;
        (trace != TraceId::INVALID && span != SpanId::INVALID).then_some(Self { trace, span, flags })
    }

    fn context(self) -> Context {
        let flags = TraceFlags::new(self.flags);
        let remote = SpanContext::new(self.trace, self.span, flags, true, TraceState::default());
        Context::new().with_remote_span_context(remote)
    }
}

impl From<&SpanContext> for Traceparent {
    fn from(context: &SpanContext) -> Self {
        Self { trace: context.trace_id(), span: context.span_id(), flags: context.trace_flags().to_u8() }
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparent_is_parsed_strictly_and_round_trips() {
        let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(Traceparent::parse(valid).unwrap().to_string(), valid);
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-has";
        assert_eq!(Traceparent::parse(later).unwrap().to_string(), valid);
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert_eq!(Traceparent::parse(bad), None, "{bad}");
        }
    }
}
