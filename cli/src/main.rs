//! `tandem`: declare, check and run functions that commit together, and look into a runtime.

mod check;
mod client;
mod cluster;
mod completion;
mod dev;
mod flows;
mod invoke;
mod logs;
mod new;
mod output;
mod program;
mod state;
mod status;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::program::Program;

/// Requests make many small allocations on one thread and free them on another, which is what this one is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Functions that commit together.
#[derive(Debug, Parser)]
#[command(name = "tandem", version, about, propagate_version = true)]
struct Arguments {
    #[command(flatten)]
    cluster: cluster::Options,
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
    Status(status::Arguments),
    Logs(logs::Arguments),
    Verify(verify::Arguments),
    Completion(completion::Arguments),
}

/// Commands that have nothing to do with a cluster.
const LOCAL_COMMANDS: [&str; 4] = ["new", "dev", "verify", "completion"];

impl Command {
    /// Which cluster it asks; nothing if it works on this machine whatever is said.
    fn cluster_mut(&mut self) -> Option<&mut cluster::Options> {
        match self {
            Self::New(_) | Self::Dev(_) | Self::Verify(_) | Self::Completion(_) => None,
            Self::Check(arguments) => Some(&mut arguments.cluster),
            Self::Invoke(arguments) => Some(&mut arguments.client.cluster),
            Self::Flows(arguments) => Some(&mut arguments.client_mut().cluster),
            Self::State(arguments) => Some(&mut arguments.client_mut().cluster),
            Self::Status(arguments) => Some(&mut arguments.cluster),
            Self::Logs(arguments) => Some(&mut arguments.cluster),
        }
    }
}

impl Arguments {
    /// The command, with the options that stand in front of it.
    fn into_command(mut self) -> Result<Command, (Exit, String)> {
        match self.command.cluster_mut() {
            Some(cluster) => cluster.or(&self.cluster),
            None if self.cluster.is_given() => {
                let local = LOCAL_COMMANDS.join(", ");
                return Err((Exit::Usage, format!("{local} work on this machine and take no options for a cluster")));
            }
            None => {}
        }
        Ok(self.command)
    }
}

/// The command line, in the words of whoever called.
fn command_line(program: Program) -> clap::Command {
    let command = Arguments::command();
    match program {
        Program::Tandem => command,
        Program::Plugin | Program::PluginCompletion => {
            let command = command.bin_name(program.name()).display_name(program.name());
            LOCAL_COMMANDS.iter().fold(command, |command, local| command.mut_subcommand(local, |one| one.hide(true)))
        }
    }
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
    if Program::current() == Program::PluginCompletion {
        let words: Vec<String> = std::env::args().skip(1).collect();
        completion::answer_kubectl(command_line(Program::Plugin), &words);
        return Exit::Ok.into();
    }
    let matches = command_line(Program::current()).get_matches();
    let parsed = Arguments::from_arg_matches(&matches).map_err(|error| (Exit::Usage, error.to_string()));
    let ended = match parsed.and_then(Arguments::into_command) {
        Ok(command) => run(command).await,
        Err(error) => Err(error),
    };
    ended.unwrap_or_else(|(exit, error)| {
        output::print_error(&format!("error: {error}"));
        exit.into()
    })
}

/// Runs a command. An error comes with the status to end with, as text on one line.
async fn run(command: Command) -> Result<ExitCode, (Exit, String)> {
    let on_files = |result: anyhow::Result<ExitCode>| result.map_err(|error| (Exit::Usage, format!("{error:#}")));
    let asked = |result: Result<Exit, client::Error>| {
        result.map(ExitCode::from).map_err(|error| (Exit::Usage, error.to_string()))
    };
    match command {
        Command::New(arguments) => on_files(new::run(&arguments)),
        Command::Check(arguments) => on_files(check::run(&arguments).await),
        Command::Dev(arguments) => {
            let ended = Box::pin(dev::run(&arguments)).await;
            ended.map(|()| Exit::Ok.into()).map_err(|error| (Exit::Negative, chain(&error)))
        }
        Command::Invoke(arguments) => asked(invoke::run(&arguments).await),
        Command::Flows(arguments) => asked(flows::run(&arguments).await),
        Command::State(arguments) => asked(state::run(&arguments).await),
        Command::Status(arguments) => asked(Box::pin(status::run(&arguments)).await.map_err(client::Error::from)),
        Command::Logs(arguments) => asked(Box::pin(logs::run(&arguments)).await),
        Command::Verify(arguments) => on_files(verify::run(&arguments).await),
        Command::Completion(arguments) => {
            completion::run(&arguments, &mut command_line(Program::Tandem));
            Ok(Exit::Ok.into())
        }
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
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        for program in [Program::Tandem, Program::Plugin] {
            command_line(program).debug_assert();
        }
    }

    #[test]
    fn help_speaks_with_the_name_that_was_typed() {
        let help = |program, words: &[&str]| {
            let line = [program_file(program)].into_iter().chain(words.iter().copied()).chain(["--help"]);
            command_line(program).try_get_matches_from(line).unwrap_err().to_string()
        };
        assert!(help(Program::Tandem, &[]).contains("Usage: tandem ["));
        let plugin = help(Program::Plugin, &[]);
        assert!(plugin.contains("Usage: kubectl tandem ["), "{plugin}");
        assert!(plugin.contains("  status") && !plugin.contains("  dev"), "{plugin}");
        assert!(help(Program::Plugin, &["flows", "get"]).contains("Usage: kubectl tandem flows get ["));
        for command in ["status", "logs", "check", "invoke", "flows", "state"] {
            let help = help(Program::Plugin, &[command]);
            assert!(help.contains("--namespace") || help.contains("Commands:"), "{help}");
            assert!(help.contains("Example"), "{help}");
        }
    }

    fn program_file(program: Program) -> &'static str {
        match program {
            Program::Tandem => "tandem",
            Program::Plugin | Program::PluginCompletion => "/usr/local/bin/kubectl-tandem",
        }
    }

    #[test]
    fn options_for_the_cluster_stand_where_the_user_likes() {
        for line in ["tandem -n shop status order", "tandem status order -n shop", "tandem status -n shop order"] {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            let mut command = arguments.into_command().unwrap();
            assert_eq!(command.cluster_mut().unwrap().namespace.as_deref(), Some("shop"), "{line}");
        }
        let arguments = Arguments::try_parse_from(["tandem", "-n", "shop", "dev"]).unwrap();
        assert_eq!(arguments.into_command().unwrap_err().0, Exit::Usage);
        for line in ["tandem dev -n shop", "tandem flows list --admin http://a -n shop"] {
            assert!(Arguments::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
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
            "tandem --context c flows get 000000000000000000000000 -n shop --kubeconfig k.yaml",
            "tandem invoke order o-1 place --cluster",
            "tandem status -o json",
            "tandem logs fnrt/orders -f --since 10m --tail 5 -n shop",
            "tandem check shop/ more.yaml -n shop",
            "tandem verify --store tikv://127.0.0.1:2379/shop --minutes 3 --kill --seed 7 -o json",
        ] {
            Arguments::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        assert!(Arguments::try_parse_from(["tandem", "state", "get", "order"]).is_err());
    }
}
