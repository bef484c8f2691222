//! `tandem flows`: what became of requests.

mod tree;

use std::cmp::Reverse;
use std::collections::BTreeSet;

use http::{Method, StatusCode};
use tandem_runtime::admin::view;

use crate::Exit;
use crate::client::{self, Admin, Answer, Error, segment};
use crate::output::{Format, Palette, duration, print, print_error, print_json, table};

/// Look at flows: the tree of calls of one, a list, or cancel one.
///
/// In a cluster, all pods of the runtime are asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tandem flows get 08frnf8bw64vredn08atfjj7\n  tandem flows list --outcome \
                        REJECTED,FAILED\n  kubectl tandem flows list -n shop")]
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

impl Arguments {
    /// How the runtime is reached.
    pub(crate) fn client_mut(&mut self) -> &mut client::Options {
        match &mut self.command {
            Command::Get { client, .. } | Command::List { client, .. } | Command::Cancel { client, .. } => client,
        }
    }
}

/// Runs the command.
pub(crate) async fn run(arguments: &Arguments) -> Result<Exit, Error> {
    match &arguments.command {
        Command::Get { id, wait, client } => {
            let wait = wait.as_ref().map(|wait| format!("?wait={}", segment(wait))).unwrap_or_default();
            get(client, &format!("/flows/{}{wait}", segment(id))).await
        }
        Command::Cancel { id, client } => cancel(client, &format!("/flows/{}", segment(id))).await,
        Command::List { outcome, function, limit, client } => {
            let mut path = format!("/flows?limit={limit}");
            for (name, value) in [("outcome", outcome), ("function", function)] {
                if let Some(value) = value {
                    path.push_str(&format!("&{name}={}", segment(value)));
                }
            }
            list(client, &path, *limit).await
        }
    }
}

async fn get(options: &client::Options, path: &str) -> Result<Exit, Error> {
    let (answers, _) = Admin::connect(options).await?.get_all(path).await?;
    let richest = answers.into_iter().max_by_key(worth);
    richest.map_or(Ok(Exit::Negative), |answer| show(&answer, options))
}

/// What a flow has called is known only to the runtime that ran it: the longest answer of several is the best one.
fn worth(answer: &Answer) -> (bool, bool, usize) {
    let is_ended = answer.status == StatusCode::OK;
    let calls = answer.json::<view::Flow>().map_or(0, |flow| flow.calls.len());
    (answer.status.is_success(), is_ended, calls)
}

async fn cancel(options: &client::Options, path: &str) -> Result<Exit, Error> {
    let admin = Admin::connect(options).await?;
    show(&admin.send(Method::DELETE, path, &[], hyper::body::Bytes::new()).await?, options)
}

fn show(answer: &Answer, options: &client::Options) -> Result<Exit, Error> {
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

async fn list(options: &client::Options, path: &str, limit: usize) -> Result<Exit, Error> {
    let (answers, errors) = Admin::connect(options).await?.get_all(path).await?;
    let mut lists = Vec::with_capacity(answers.len());
    for answer in &answers {
        if !answer.status.is_success() {
            return answer.refused(options.output);
        }
        lists.push(answer.json::<view::Flows>()?);
    }
    for error in &errors {
        print_error(&format!("warning: {error}; flows that run there are missing"));
    }
    let flows = merged(lists, limit);
    match options.output {
        Format::Json => print_json(&flows),
        Format::Text => print(&list_text(&flows)),
    }
    Ok(Exit::Ok)
}

/// What several runtimes know: each the flows that it runs, and all of them those that ended.
fn merged(lists: Vec<view::Flows>, limit: usize) -> view::Flows {
    let mut all = view::Flows { running: Vec::new(), flows: Vec::new() };
    for list in lists {
        all.running.extend(list.running);
        all.flows.extend(list.flows);
    }
    // Of a flow that several know, the record with the calls stays.
    all.flows.sort_by(|one, other| {
        let key =
            |flow: &view::Flow| (Reverse(flow.accepted_at.clone()), flow.flow.to_string(), Reverse(flow.calls.len()));
        key(one).cmp(&key(other))
    });
    all.flows.dedup_by(|later, earlier| later.flow == earlier.flow);
    all.flows.truncate(limit);
    let ended: BTreeSet<String> = all.flows.iter().map(|flow| flow.flow.to_string()).collect();
    all.running.retain(|flow| !ended.contains(&flow.flow.to_string()));
    all
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

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(id: u32, accepted_at: &str, calls: usize) -> serde_json::Value {
        let call =
            serde_json::json!({"depth": 0, "instance": "a/b", "handler": "c", "durationMs": 1.0, "status": "done"});
        serde_json::json!({
            "flow": format!("{id:024}"), "request": "r", "instance": "a/b", "handler": "c", "outcome": "COMMITTED",
            "attempts": 1, "acceptedAt": accepted_at, "durationMs": 1.0, "calls": vec![call; calls],
        })
    }

    fn list(flows: &[serde_json::Value]) -> view::Flows {
        serde_json::from_value(serde_json::json!({"running": [], "flows": flows})).unwrap()
    }

    #[test]
    fn flows_that_several_runtimes_know_are_listed_once_with_what_is_known_most() {
        let one = list(&[flow(2, "2026-01-01T00:00:02Z", 0), flow(1, "2026-01-01T00:00:01Z", 3)]);
        let other = list(&[flow(3, "2026-01-01T00:00:03Z", 1), flow(2, "2026-01-01T00:00:02Z", 2)]);
        let all = merged(vec![one, other], 3);
        let shown: Vec<_> = all.flows.iter().map(|flow| (flow.accepted_at.as_str(), flow.calls.len())).collect();
        assert_eq!(shown, [("2026-01-01T00:00:03Z", 1), ("2026-01-01T00:00:02Z", 2), ("2026-01-01T00:00:01Z", 3)]);
        assert_eq!(merged(vec![all], 1).flows.len(), 1);
    }
}
