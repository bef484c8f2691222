//! The command line of `tandem-runtime`. What it says counts more than the file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tandem_crds::codes;
use tandem_crds::problem::{Location, Problem};

use crate::configuration::{Configuration, LogFormat};
use crate::store::url;

/// What the command ends with, for `--help`.
const EXIT_CODES: &str = "\
Ends with
  0    told to end (SIGTERM, or Ctrl-C), and drained; or --check found nothing
  1    failed: a port is taken, the store cannot be opened or has stopped, or not everything was purged
  2    the flags, the configuration or the resources are wrong
  3    not purged, because runtimes are alive
  130  Ctrl-C a second time: did not wait for flows that ran";

/// Runs flows on a store, for the functions and routes of some resources.
#[derive(Clone, Debug, Default, clap::Parser)]
#[command(name = "tandem-runtime", version, after_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
pub struct Flags {
    /// Something else than to serve.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The configuration: YAML, see --print-schema. Paths in it are relative to its directory.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where state lives: `tikv://HOST:PORT[,HOST:PORT][/PREFIX]`, or a directory for the embedded store.
    #[arg(long, value_name = "STORE")]
    pub store: Option<String>,
    /// Where requests come in.
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<String>,
    /// Health, metrics, flows, state. Whoever reaches it can read and run everything.
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<String>,
    /// Where the other runtimes reach this one.
    #[arg(long, value_name = "ADDRESS")]
    pub peer: Option<String>,
    /// The address that the other runtimes are told.
    #[arg(long, value_name = "HOST:PORT", env = "TANDEM_ADVERTISE")]
    pub advertise: Option<String>,
    /// The name of this runtime among the others.
    #[arg(long, value_name = "NAME", env = "TANDEM_MEMBER")]
    pub member: Option<String>,
    /// Files of resources, and directories of them. May be given several times.
    #[arg(long, value_name = "PATH")]
    pub resources: Vec<String>,
    /// How long flows that run may take to end once the process is told to stop.
    #[arg(long, value_name = "DURATION")]
    pub drain_grace: Option<String>,
    /// How the log is written.
    #[arg(long, value_name = "FORMAT", value_enum, ignore_case = true)]
    pub log_format: Option<LogFormat>,
    /// What is logged: info, or tandem_runtime=debug,warn.
    #[arg(long, value_name = "FILTER")]
    pub log_filter: Option<String>,
    /// Write the addresses to this file, as JSON, once requests are taken.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Only check the configuration and the resources.
    #[arg(long)]
    pub check: bool,
    /// Only print the JSON Schema of the configuration.
    #[arg(long)]
    pub print_schema: bool,
}

/// What it does instead of serving.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Removes all state for ever: everything that this installation has in its store. Refuses while runtimes are alive.
    Purge(PurgeFlags),
}

/// Which state is removed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
#[group(required = true, multiple = true)]
pub struct PurgeFlags {
    /// The configuration of the runtimes: YAML. Only `store` counts.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where state lives: `tikv://HOST:PORT[,HOST:PORT][/PREFIX]`, or a directory for the embedded store.
    #[arg(long, value_name = "STORE")]
    pub store: Option<String>,
}

impl Flags {
    /// Puts what is said here in the place of what the file says. Gives the flags by the fields that they override.
    pub(crate) fn apply(
        &self,
        to: &mut Configuration,
        problems: &mut Vec<Problem>,
    ) -> BTreeMap<&'static str, &'static str> {
        let mut overridden = BTreeMap::new();
        if let Some(store) = &self.store {
            overridden.insert("store", "--store");
            match url::parse(store) {
                Ok(store) => to.store = store,
                Err(error) => {
                    let place = Location { file: "--store".to_owned(), line: 0, column: 0 };
                    let problem = Problem::new(&codes::OUT_OF_BOUNDS, "", error).field("store").help("");
                    problems.push(problem.at(Some(place)));
                }
            }
        }
        let texts = [
            ("listen.http", "--http", &self.http, &mut to.listen.http),
            ("listen.admin", "--admin", &self.admin, &mut to.listen.admin),
            ("drainGrace", "--drain-grace", &self.drain_grace, &mut to.drain_grace.0),
            ("telemetry.logFilter", "--log-filter", &self.log_filter, &mut to.telemetry.log_filter),
        ];
        for (field, flag, value, target) in texts {
            if let Some(value) = value {
                target.clone_from(value);
                overridden.insert(field, flag);
            }
        }
        let optional = [
            ("listen.peer", "--peer", &self.peer, &mut to.listen.peer),
            ("peers.advertise", "--advertise", &self.advertise, &mut to.peers.advertise),
            ("peers.member", "--member", &self.member, &mut to.peers.member),
        ];
        for (field, flag, value, target) in optional {
            if value.is_some() {
                target.clone_from(value);
                overridden.insert(field, flag);
            }
        }
        if !self.resources.is_empty() {
            to.topology.resources = Some(self.resources.clone());
            overridden.insert("topology.resources", "--resources");
        }
        to.telemetry.log_format = self.log_format.unwrap_or(to.telemetry.log_format);
        overridden
    }
}
