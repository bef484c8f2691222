//! `tandem verify`: tries to break the contract on a store of one's own.
//!
//! The program that does it, `tandem-verify`, is a separate one: it brings what only tests need, which has no place in a
//! released command.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;
use tokio::process::Command;

use crate::Exit;

/// The program that does it.
const PROGRAM: &str = "tandem-verify";

/// Run random programs and histories on a store, and judge every outcome and every stored row.
///
/// Runtimes and workers of its own are started, on a prefix of its own below the one that is named, and what was written
/// there is removed again. Nothing else on the cluster is touched.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ends with 0 if all promises were kept, 1 if not (data and logs are kept), 2 if it could not be tried."
)]
pub(crate) struct Arguments {
    /// The TiKV cluster: tikv://HOST:PORT[,HOST:PORT][/PREFIX]. The embedded store, and simulations, without.
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// How long.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Kill and freeze its runtimes and workers. Stores and PD are never touched.
    #[arg(long)]
    kill: bool,
    /// What is sent follows from it; a new one by default.
    #[arg(long)]
    seed: Option<u64>,
    /// How to print the report.
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    output: Form,
}

/// A form of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Json,
}

/// Runs it to its end.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(store) = &arguments.store {
        crate::dev::cluster(store).map_err(|error| anyhow::anyhow!("--store {store}: {error}"))?;
    }
    let tandem = std::env::current_exe().context("failed to find this program")?;
    let beside = tandem.with_file_name(PROGRAM);
    let program = if beside.exists() { beside } else { PathBuf::from(PROGRAM) };
    let mut command = Command::new(&program);
    command.args(words(arguments)).arg("--tandem").arg(&tandem);
    let ended = command.status().await;
    let ended = ended.with_context(|| {
        format!("failed to start {}; it is built by: cargo build --release -p tandem-verify", program.display())
    })?;
    Ok(match ended.code() {
        Some(0) => Exit::Ok,
        Some(1) => Exit::Negative,
        _ => Exit::Usage,
    }
    .into())
}

/// What the program is told.
fn words(arguments: &Arguments) -> Vec<String> {
    let mut words = vec!["soak".to_owned(), "--minutes".to_owned(), arguments.minutes.to_string()];
    if let Some(store) = &arguments.store {
        words.extend(["--store".to_owned(), store.clone()]);
    }
    if !arguments.kill {
        words.push("--calm".to_owned());
    }
    if let Some(seed) = arguments.seed {
        words.extend(["--seed".to_owned(), seed.to_string()]);
    }
    if arguments.output == Form::Json {
        words.extend(["--output".to_owned(), "json".to_owned()]);
    }
    words
}
