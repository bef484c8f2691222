//! `tandem-verify`: tries to break the contract, for as long as it is told to.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tandem_verify::{commits, pods, world};

mod fault_runs;
mod histories;
mod processes;
mod seeds;
mod soak;

/// It could not be tried.
const NOT_TRIED: u8 = 2;

/// Tries to break the contract in every way that one machine allows.
#[derive(Debug, Parser)]
#[command(name = "tandem-verify", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs whole runtimes in simulated worlds, one for each seed, and judges what happened in them.
    Simulate(seeds::Arguments),
    /// Runs committers on simulated TiKV clusters, one for each seed, and judges what happened.
    Commits(seeds::Arguments),
    /// Runs one to three runtimes on simulated TiKV clusters, one world for each seed, and judges what happened.
    Pods(seeds::Arguments),
    /// Checks list-append histories of real runtimes for anomalies.
    Histories(histories::Arguments),
    /// Runs random programs, or histories, against real processes that are killed, and judges what happened.
    Processes(processes::Arguments),
    /// Kills, freezes and cuts off real runtimes, stores and PD at chosen moments, and judges what happened.
    Faults(fault_runs::Arguments),
    /// Simulates, and runs programs and histories against processes, in turn, each time with new seeds, and reports.
    Soak(soak::Arguments),
    /// What runs and histories start as their workers.
    #[command(hide = true)]
    Worker(processes::WorkerArguments),
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let done = match command {
        Command::Simulate(arguments) => seeds::run::<world::Report>(&arguments),
        Command::Commits(arguments) => seeds::run::<commits::Report>(&arguments),
        Command::Pods(arguments) => seeds::run::<pods::Report>(&arguments),
        Command::Histories(arguments) => histories::run(&arguments),
        Command::Processes(arguments) => processes::run(&arguments),
        Command::Faults(arguments) => fault_runs::run(&arguments),
        Command::Soak(arguments) => soak::run(&arguments),
        Command::Worker(arguments) => processes::work(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(NOT_TRIED)
        }
    }
}
