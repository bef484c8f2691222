//! `tandem flows`: what became of requests.

mod tree;

use http::{Method, StatusCode};
use tandem_runtime::admin::view;

use crate::Exit;
use crate::client::{self, Admin, Error, segment};
use crate::output::{Format, Palette, duration, print, print_json, table};

/// Look at flows: the tree of calls of one, a list, or cancel one.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show how a flow ended, and its tree of calls.
    Get {
        /// The flow id, from the header `tandem-flow`.
        id: String,
        /// Wait up to this long (5s) for it to end.
        #[arg(long, value_name = "TIME")]
        wait: Option<String>,
        #[command(flatten)]
        client: client::Options,
    },
    /// List flows that run and flows that ended, latest first.
    List {
        /// Only these outcomes, separated by commas: `REJECTED,FAILED`.
        #[arg(long)]
        outcome: Option<String>,
        /// Only flows that began at this function.
        #[arg(long)]
        function: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        #[command(flatten)]
        client: client::Options,
    },
    /// Cancel a flow that runs. Nothing of it is applied.
    Cancel {
        /// The flow id.
        id: String,
        #[command(flatten)]
        client: client::Options,
    },
}

/// Runs the command.
pub(crate) async fn run(arguments: &Arguments) -> Result<Exit, Error> {
    match &arguments.command {
        Command::Get { id, wait, client } => {
            let wait = wait.as_ref().map(|wait| format!("?wait={}", segment(wait))).unwrap_or_default();
            one(client, Method::GET, &format!("/flows/{}{wait}", segment(id))).await
        }
        Command::Cancel { id, client } => one(client, Method::DELETE, &format!("/flows/{}", segment(id))).await,
        Command::List { outcome, function, limit, client } => {
            let mut path = format!("/flows?limit={limit}");
            for (name, value) in [("outcome", outcome), ("function", function)] {
                if let Some(value) = value {
                    path.push_str(&format!("&{name}={}", segment(value)));
                }
            }
            list(client, &path).await
        }
    }
}

async fn one(options: &client::Options, method: Method, path: &str) -> Result<Exit, Error> {
    let answer = Admin::new(options).send(method, path, &[], hyper::body::Bytes::new()).await?;
    let running = answer.status == StatusCode::ACCEPTED;
    if !answer.status.is_success() {
        return answer.refused(options.output);
    }
    match options.output {
        Format::Json if running => print_json(&answer.json::<view::Running>()?),
        Format::Json => print_json(&answer.json::<view::Flow>()?),
        Format::Text if running => print(&running_text(&answer.json()?)),
        Format::Text => print(&tree::text(&answer.json()?, Palette::of_stdout())),
    }
    Ok(Exit::Ok)
}

fn running_text(flow: &view::Running) -> String {
    let turn = if flow.attempt == 0 { "waits for its turn".to_owned() } else { format!("attempt {}", flow.attempt) };
    format!("RUNNING  {} {}     {} so far, {turn}", flow.instance, flow.handler, duration(flow.age_ms))
}

async fn list(options: &client::Options, path: &str) -> Result<Exit, Error> {
    let answer = Admin::new(options).get(path).await?;
    if !answer.status.is_success() {
        return answer.refused(options.output);
    }
    match options.output {
        Format::Json => print_json(&answer.json::<view::Flows>()?),
        Format::Text => print(&list_text(&answer.json()?)),
    }
    Ok(Exit::Ok)
}

fn list_text(flows: &view::Flows) -> String {
    if flows.running.is_empty() && flows.flows.is_empty() {
        return "no flows".to_owned();
    }
    let running = flows.running.iter().map(|flow| {
        let target = format!("{} {}", flow.instance, flow.handler);
        vec![flow.flow.to_string(), flow.state.clone(), target, duration(flow.age_ms), String::new(), String::new()]
    });
    let ended = flows.flows.iter().map(|flow| {
        let target = format!("{} {}", flow.instance, flow.handler);
        let reason = flow.reason.clone().unwrap_or_default();
        let (outcome, time) = (flow.outcome.to_string(), flow.accepted_at.clone());
        vec![flow.flow.to_string(), outcome, target, duration(flow.duration_ms), reason, time]
    });
    table(&["FLOW", "OUTCOME", "HANDLER", "TOOK", "REASON", "ACCEPTED"], &running.chain(ended).collect::<Vec<_>>())
}
