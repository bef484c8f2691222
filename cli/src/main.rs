//! `tandem`: declare, check and run functions that commit together, and look into a runtime.

mod check;
mod client;
mod dev;
mod flows;
mod invoke;
mod new;
mod output;
mod state;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Requests make many small allocations on one thread and free them on another, which is what this one is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Functions that commit together.
#[derive(Debug, Parser)]
#[command(name = "tandem", version, about, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(new::Arguments),
    Check(check::Arguments),
    Dev(dev::Arguments),
    Invoke(invoke::Arguments),
    Flows(flows::Arguments),
    State(state::Arguments),
    Verify(verify::Arguments),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// As asked.
    Ok,
    /// The answer is no: not found, not committed, not started.
    Negative,
    /// The question was wrong, or nobody could be asked.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Negative => 1,
            Exit::Usage => 2,
        })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(exit) => exit,
        Err((exit, error)) => {
            output::print_error(&format!("error: {error}"));
            exit.into()
        }
    }
}

/// Runs a command. An error comes with the status to end with, as text on one line.
async fn run(command: Command) -> Result<ExitCode, (Exit, String)> {
    let on_files = |result: anyhow::Result<ExitCode>| result.map_err(|error| (Exit::Usage, format!("{error:#}")));
    let asked = |result: Result<Exit, client::Error>| {
        result.map(ExitCode::from).map_err(|error| (Exit::Usage, error.to_string()))
    };
    match command {
        Command::New(arguments) => on_files(new::run(&arguments)),
        Command::Check(arguments) => on_files(check::run(&arguments)),
        Command::Dev(arguments) => {
            let ended = Box::pin(dev::run(&arguments)).await;
            ended.map(|()| Exit::Ok.into()).map_err(|error| (Exit::Negative, chain(&error)))
        }
        Command::Invoke(arguments) => asked(invoke::run(&arguments).await),
        Command::Flows(arguments) => asked(flows::run(&arguments).await),
        Command::State(arguments) => asked(state::run(&arguments).await),
        Command::Verify(arguments) => on_files(verify::run(&arguments).await),
    }
}

/// An error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn commands_are_understood() {
        for line in [
            "tandem dev shop --http 127.0.0.1:0 --admin 127.0.0.1:0 --data /tmp/x --keep-going --ready-file r.json",
            "tandem invoke order o-1 place --data @order.json --id 5f1c --async -o json",
            "tandem flows get 000000000000000000000000 --wait 5s",
            "tandem flows list --outcome REJECTED --function order --limit 5 --admin http://127.0.0.1:1",
            "tandem flows cancel 000000000000000000000000",
            "tandem state get order o-1 --as-of 2026-01-01T00:00:00Z",
            "tandem state list order",
            "tandem verify --store tikv://127.0.0.1:2379/shop --minutes 3 --kill --seed 7 -o json",
        ] {
            Arguments::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        assert!(Arguments::try_parse_from(["tandem", "state", "get", "order"]).is_err());
    }
}
