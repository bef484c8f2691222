//! `tandem`: declare, check and run functions that commit together.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod check;
mod new;

/// Functions that commit together.
#[derive(Debug, Parser)]
#[command(name = "tandem", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Arguments),
    New(new::Arguments),
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Check(arguments) => check::run(&arguments),
        Command::New(arguments) => new::run(&arguments),
    }
}
