//! `tandem invoke`: runs one handler on one instance.

use std::io::Read;
use std::path::Path;

use http::{Method, StatusCode};
use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::Exit;
use crate::client::{self, Admin, Answer, Error, segment};
use crate::output::{Format, print, print_error, print_json};

/// Run a handler of an instance, and print what it returns.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tandem invoke order o-1 place --data @order.json --id 5f1c\n  kubectl tandem invoke \
                        order o-1 get -n shop"
)]
pub(crate) struct Arguments {
    /// The function.
    function: String,
    /// The key of the instance.
    key: String,
    /// The handler.
    handler: String,
    /// The payload: JSON, @FILE, or - for standard input. `null` if absent.
    #[arg(short, long, value_name = "JSON|@FILE|-")]
    data: Option<String>,
    /// The request id. The same id again gives the stored answer instead of running twice.
    #[arg(long)]
    id: Option<String>,
    /// Do not wait: print the flow id and come back.
    #[arg(long = "async")]
    asynchronous: bool,
    /// Wait at most this long (5s), then print the flow id.
    #[arg(long, value_name = "TIME")]
    wait: Option<String>,
    /// The deadline of the flow (500ms, 5s); only ever shorter than the runtime's own.
    #[arg(long, value_name = "TIME")]
    deadline: Option<String>,
    /// Read the state as of this past time (RFC 3339). Only for handlers that are read-only.
    #[arg(long, value_name = "TIME")]
    as_of: Option<String>,
    #[command(flatten)]
    pub(crate) client: client::Options,
}

/// Runs the command.
pub(crate) async fn run(arguments: &Arguments) -> Result<Exit, Error> {
    let body = payload(arguments.data.as_deref())?;
    let headers = headers(arguments)?;
    let path =
        format!("/invoke/{}/{}/{}", segment(&arguments.function), segment(&arguments.key), segment(&arguments.handler));
    let answer = Admin::connect(&arguments.client).await?.send(Method::POST, &path, &headers, body).await?;
    match arguments.client.output {
        Format::Json => report(&answer),
        Format::Text => show(&answer),
    }
}

fn headers(arguments: &Arguments) -> Result<Vec<(&'static str, String)>, Error> {
    let mut headers = Vec::new();
    if let Some(id) = &arguments.id {
        let quoted = id.replace('\\', "\\\\").replace('"', "\\\"");
        headers.push(("idempotency-key", format!("\"{quoted}\"")));
    }
    if let Some(deadline) = &arguments.deadline {
        headers.push(("tandem-deadline", deadline.clone()));
    }
    if let Some(as_of) = &arguments.as_of {
        headers.push(("tandem-as-of", as_of.clone()));
    }
    if let Some(wait) = &arguments.wait {
        let time = tandem_runtime::ingress::headers::duration(wait);
        let time = time.ok_or_else(|| Error::Usage(format!("--wait {wait:?} must be a time, like 5s or 1m")))?;
        headers.push(("prefer", format!("respond-async, wait={}", time.as_secs())));
    } else if arguments.asynchronous {
        headers.push(("prefer", "respond-async".to_owned()));
    }
    Ok(headers)
}

fn payload(data: Option<&str>) -> Result<Bytes, Error> {
    let failed = |what: &str, error: std::io::Error| Error::Usage(format!("failed to read {what}: {error}"));
    let bytes = match data {
        None => Vec::new(),
        Some("-") => {
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes).map_err(|error| failed("standard input", error))?;
            bytes
        }
        Some(text) => match text.strip_prefix('@') {
            Some(file) => std::fs::read(Path::new(file)).map_err(|error| failed(file, error))?,
            None => text.as_bytes().to_vec(),
        },
    };
    Ok(bytes.into())
}

/// The result on standard output, so that it can be piped; everything else on standard error.
fn show(answer: &Answer) -> Result<Exit, Error> {
    let flow = answer.header("tandem-flow").unwrap_or_default();
    if answer.status == StatusCode::ACCEPTED && !answer.is_problem() {
        print(&flow);
        print_error(&format!("accepted; see `{}`", answer.flow_command(&flow)));
        return Ok(Exit::Ok);
    }
    let Some(outcome) = answer.header("tandem-outcome").filter(|_| answer.status == StatusCode::OK) else {
        return answer.refused(Format::Text);
    };
    print(&String::from_utf8_lossy(&answer.body));
    let repeated = if answer.header("tandem-repeated").is_some() { ", answered from the record" } else { "" };
    print_error(&format!("{outcome}  flow {flow}{repeated}"));
    Ok(Exit::Ok)
}

/// All of the answer as one JSON object.
fn report(answer: &Answer) -> Result<Exit, Error> {
    if answer.is_problem() {
        return answer.refused(Format::Json);
    }
    let body: Value = tandem_runtime::admin::view::json(&answer.body);
    let accepted = answer.status == StatusCode::ACCEPTED;
    print_json(&json!({
        "outcome": answer.header("tandem-outcome"),
        "flow": answer.header("tandem-flow"),
        "request": answer.header("tandem-request"),
        "repeated": answer.header("tandem-repeated").is_some(),
        "result": if accepted { Value::Null } else { body },
    }));
    Ok(if answer.status.is_success() { Exit::Ok } else { Exit::Negative })
}
