//! `tandem-tikv`: brings a cluster for tests up, and takes it down.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tandem_e2e_tikv::background::{self, Options, Status};
use tandem_e2e_tikv::binaries::{Binaries, builder};
use tandem_e2e_tikv::slots;

const AFTER_HELP: &str = "The stores are test stores: they speak TiKV's protocol and keep data through kill -9, but they are \
not TiKV and have no Raft.\n\nExit codes: 0 as asked; 1 not so (it failed, or nothing runs); 2 wrong arguments.";

/// PD and test stores on this machine.
#[derive(Debug, Parser)]
#[command(name = "tandem-tikv", version, about, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts a cluster in the background, with the data it had.
    Up(Up),
    /// Ends it. Data stays.
    Down(Down),
    /// Says what runs.
    Status(Show),
    /// Only builds PD and the store, or says where they are.
    Build,
}

#[derive(Debug, clap::Args)]
struct Up {
    /// How many stores a new cluster has.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    stores: u8,
    /// Port of PD in a new cluster; another one if it is taken.
    #[arg(long, default_value_t = 2379)]
    port: u16,
    /// Prefix of the keys whose slots are spread over the stores of a new cluster.
    #[arg(long, default_value = "tandem/")]
    prefix: String,
    /// Number of slots behind the prefix.
    #[arg(long, default_value_t = slots::SLOTS)]
    slots: u16,
    /// Number of regions that the slots are cut into.
    #[arg(long, default_value_t = slots::REGIONS)]
    regions: u16,
    /// Raw keys in hexadecimal, separated by commas, at which to cut instead.
    #[arg(long, value_delimiter = ',', value_parser = key)]
    splits: Vec<Key>,
    /// TLS with certificates on both sides, made into the directory.
    #[arg(long)]
    tls: bool,
    #[command(flatten)]
    show: Show,
}

#[derive(Debug, clap::Args)]
struct Down {
    /// Also removes the directory with all data.
    #[arg(long)]
    wipe: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
struct Place {
    /// Where data, logs and the state of the cluster are.
    #[arg(long, default_value = ".tandem/tikv")]
    directory: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

#[derive(Clone, Debug)]
struct Key(Vec<u8>);

fn key(text: &str) -> Result<Key, &'static str> {
    slots::unhex(text).map(Key).ok_or("not hexadecimal")
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Up(up) => bring_up(&up).await,
        Command::Down(down) => take_down(&down).await,
        Command::Status(show) => tell(&show),
        Command::Build => build(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

type Done = Result<bool, tandem_e2e_tikv::Error>;

async fn bring_up(up: &Up) -> Done {
    let options = Options {
        directory: up.show.place.directory.clone(),
        stores: up.stores.into(),
        splits: match &up.splits[..] {
            [] => slots::cuts(&slots::rows_behind(up.prefix.as_bytes()), up.slots, up.regions),
            given => given.iter().map(|key| key.0.clone()).collect(),
        },
        tls: up.tls,
        port: up.port,
    };
    let status = background::up(&options, &builder()).await?;
    show(&status, up.show.output);
    if matches!(up.show.output, Format::Text) {
        print(&next(&status, &up.show.place.directory));
    }
    Ok(true)
}

async fn take_down(down: &Down) -> Done {
    let directory = &down.place.directory;
    let ended = background::down(directory).await?;
    if down.wipe {
        background::wipe(directory)?;
    }
    let kept = if down.wipe { "data is removed" } else { "data is kept" };
    print(&if ended { format!("down; {kept}") } else { format!("nothing ran in {}; {kept}", directory.display()) });
    Ok(true)
}

fn tell(wanted: &Show) -> Done {
    let Some(status) = background::status(&wanted.place.directory)? else {
        complain(&format!("there is no cluster in {}; `tandem-tikv up` starts one", wanted.place.directory.display()));
        return Ok(false);
    };
    show(&status, wanted.output);
    Ok(status.is_up())
}

fn build() -> Done {
    let built = Binaries::built_by(&builder())?;
    print(&format!("{}\n{}", built.pd.display(), built.store.display()));
    Ok(true)
}

fn show(status: &Status, format: Format) {
    let text = match format {
        Format::Json => serde_json::to_string_pretty(status).unwrap_or_else(|error| error.to_string()),
        Format::Text => {
            let lines = status.processes.iter().map(|process| {
                let state = process.process.map_or_else(|| "down".to_owned(), |id| format!("process {id}"));
                let control = process.control.as_ref().map_or_else(String::new, |at| format!("  control http://{at}"));
                format!("{:<9} {:<16} {state}{control}", process.name, process.address)
            });
            lines.collect::<Vec<_>>().join("\n")
        }
    };
    print(&text);
}

fn next(status: &Status, directory: &Path) -> String {
    let endpoints = status.pd_endpoints.join(",");
    let tls = status.tls.as_ref().map_or(String::new(), |tls| {
        let directory = tls.ca.parent().unwrap_or_else(|| Path::new("")).display();
        format!("  certificates are in {directory}\n")
    });
    format!(
        "PD and test stores are up (not TiKV: no Raft, one copy of each region); data and logs are in {}\n{tls}\nnext:\n  \
         tandem dev --store tikv://{endpoints}\n  TANDEM_PD_ENDPOINTS={endpoints} make test\n  make tikv-down",
        directory.display()
    )
}

fn print(text: &str) {
    // Nobody is left to be told.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn complain(error: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "error: {error}");
}
