//! `tandem state`: what instances have stored.

use std::fmt::Write as _;

use serde_json::Value;
use tandem_runtime::admin::view;

use crate::Exit;
use crate::client::{self, Admin, Error, segment};
use crate::output::{Format, print, print_error, print_json, printable};

/// Keys asked for at once.
const PAGE_KEYS: usize = 1_000;

/// Look at stored state: one instance, or the keys of a function.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tandem state get order o-1\n  kubectl tandem state list order -n shop")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show the state of one instance.
    Get {
        /// The function.
        function: String,
        /// The key.
        key: String,
        /// As of this past time (RFC 3339), if the store keeps it.
        #[arg(long, value_name = "TIME")]
        as_of: Option<String>,
        #[command(flatten)]
        client: client::Options,
    },
    /// List the keys of a function that have state.
    List {
        /// The function.
        function: String,
        /// At most this many keys.
        #[arg(long, default_value_t = PAGE_KEYS)]
        limit: usize,
        /// Begin behind this key.
        #[arg(long, value_name = "KEY")]
        after: Option<String>,
        #[command(flatten)]
        client: client::Options,
    },
}

impl Arguments {
    /// How the runtime is reached.
    pub(crate) fn client_mut(&mut self) -> &mut client::Options {
        match &mut self.command {
            Command::Get { client, .. } | Command::List { client, .. } => client,
        }
    }
}

/// Runs the command.
pub(crate) async fn run(arguments: &Arguments) -> Result<Exit, Error> {
    match &arguments.command {
        Command::Get { function, key, as_of, client } => {
            let as_of = as_of.as_ref().map(|time| format!("?asOf={}", segment(time))).unwrap_or_default();
            get(client, &format!("/state/{}/{}{as_of}", segment(function), segment(key))).await
        }
        Command::List { function, limit, after, client } => list(client, function, after.clone(), *limit).await,
    }
}

async fn get(options: &client::Options, path: &str) -> Result<Exit, Error> {
    let answer = Admin::connect(options).await?.get(path).await?;
    if !answer.status.is_success() {
        return answer.refused(options.output);
    }
    let state: view::State = answer.json()?;
    let found = !state.values.is_empty() || !state.entries.is_empty();
    match options.output {
        Format::Json => print_json(&answer.json::<Value>()?),
        Format::Text if found => print(&state_text(&state)),
        Format::Text => print_error(&format!("{}/{} has no state", state.function, printable(&state.key))),
    }
    Ok(if found { Exit::Ok } else { Exit::Negative })
}

async fn list(
    options: &client::Options,
    function: &str,
    mut after: Option<String>,
    limit: usize,
) -> Result<Exit, Error> {
    let admin = Admin::connect(options).await?;
    let mut keys: Vec<String> = Vec::new();
    loop {
        let page = (limit - keys.len()).min(PAGE_KEYS);
        let mut path = format!("/state/{}?limit={page}", segment(function));
        if let Some(after) = &after {
            let _ = write!(path, "&after={}", segment(after));
        }
        let answer = admin.get(&path).await?;
        if !answer.status.is_success() {
            return answer.refused(options.output);
        }
        let page: view::Instances = answer.json()?;
        keys.extend(page.keys.unwrap_or_default());
        after = page.next;
        if after.is_none() || keys.len() >= limit {
            break;
        }
    }
    match options.output {
        Format::Json => print_json(&serde_json::json!({ "keys": keys, "next": after })),
        Format::Text => {
            if keys.is_empty() {
                print_error(&format!("function {function} has no state"));
            } else {
                print(&keys.iter().map(|key| printable(key) + "\n").collect::<String>());
            }
            if let Some(after) = after {
                print_error(&format!("there may be more: --after {after:?}, or a greater --limit"));
            }
        }
    }
    Ok(Exit::Ok)
}

fn state_text(state: &view::State) -> String {
    let mut text = format!("{}/{}     as of {}\n", state.function, printable(&state.key), state.time);
    let width = state.values.keys().map(|name| name.chars().count()).max().unwrap_or(0);
    for (name, value) in &state.values {
        let _ = writeln!(text, "{name:<width$}   {value}");
    }
    for (name, entries) in &state.entries {
        let entries = entries.as_object().into_iter().flatten();
        let entries: Vec<(String, &Value)> = entries.map(|(key, value)| (printable(key), value)).collect();
        let width = entries.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
        let _ = writeln!(text, "{name}");
        for (key, value) in entries {
            let _ = writeln!(text, "   {key:<width$}   {value}");
        }
    }
    if state.more {
        text.push_str("... and more entries\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_values_then_entries() {
        let state: view::State = serde_json::from_value(serde_json::json!({
            "function": "order", "key": "o-1", "timestamp": 7, "time": "2026-01-01T00:00:00.000Z",
            "values": {"status": "Placed", "total": 4200}, "entries": {"lines": {"sku-7": {"n": 1}, "a": 2}},
            "more": true,
        }))
        .unwrap();
        let expected = "\
order/o-1     as of 2026-01-01T00:00:00.000Z
status   \"Placed\"
total    4200
lines
   a       2
   sku-7   {\"n\":1}
... and more entries
";
        assert_eq!(state_text(&state), expected);
    }
}
