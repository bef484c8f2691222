//! `tandem dev`: the whole application on this machine: resources, workers, a store, the runtime.
//!
//! The runtime, its ports and its store are those of [`tandem_server`]; what is added here are workers and a terminal.
//!
//! | module | concept |
//! | --- | --- |
//! | [`application`] | what the files say: resources compiled to a topology, and the commands of the workers |
//! | [`workers`] | the processes that run the functions' code |
//! | [`guard`] | sees to it that no worker outlives us, whatever happens to us |
//! | [`console`] | lines for the terminal, from many tasks, that never hold anybody up |
//! | [`serve`] | what is shown of a runtime that serves |
//!
//! **Invariant:** a change of the files either takes effect as a whole, or is refused with its problems and nothing
//! changes. State is kept in both cases.

mod application;
mod console;
mod guard;
mod serve;
mod workers;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tandem_model::topology::Topology;
use tandem_runtime::peers::PeerOptions;
use tandem_runtime::runtime::Options;
use tandem_server::serving::{self, Listeners, Port, Serving};
use tandem_server::signals::Signals;
use tandem_server::store::{self, Location, Opened};
use tandem_server::topology::{self, KEPT_FILE};
use tandem_server::watch::Watch;
use tandem_store::Store;
use tokio::sync::mpsc;

use self::application::Application;
use self::console::Console;
use self::workers::Workers;
use crate::output::{Palette, print_error};

/// Where state is kept, below the application's directory.
const DATA_DIRECTORY: &str = ".tandem";
/// How long running flows may take to end when we stop.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// How long workers may take until they answer, before "ready" is said without them.
const WORKERS_READY_WITHIN: Duration = Duration::from_secs(20);
/// How long the handshake with workers that listen may take, before "ready" is said without it.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// Run the application in DIR on this machine, with live outcomes. Files are watched; state is kept.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The directory with the resources (*.yaml) and the Tandemfile.
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Where state is kept. DIR/.tandem if absent.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A TiKV cluster to keep state in, instead of the embedded store: tikv://HOST:PORT[,HOST:PORT][/PREFIX].
    #[arg(long, value_name = "STORE", value_parser = cluster)]
    store: Option<Location>,
    /// Where requests come in.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Where `tandem flows` and its like ask. Whoever reaches it can read and run everything.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    admin: SocketAddr,
    /// Do not end because of problems in the resources, or because a worker keeps failing: wait until they are mended.
    #[arg(long)]
    keep_going: bool,
    /// Do not print outcomes as they happen.
    #[arg(long)]
    quiet: bool,
    /// Write the addresses to this file, as JSON, once requests are taken.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// A TiKV cluster; the directory of the embedded store is what `--data` is for.
pub(crate) fn cluster(text: &str) -> Result<Location, String> {
    match store::url::location(text)? {
        Location::Embedded(_) => {
            Err(format!("it has to begin with {}; a directory is named by --data", store::url::TIKV))
        }
        location @ Location::Tikv(_) => Ok(location),
    }
}

/// Why the application cannot run. Each is one line, and ends the command with status 1.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The directory is not there.
    #[error("{0} is not a directory")]
    NoDirectory(PathBuf),
    /// Something on disk cannot be used.
    #[error("failed to {doing} {path}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The resources have problems, which have been printed.
    #[error("{0}, nothing applied")]
    Resources(String),
    /// The resources cannot be read.
    #[error("failed to read the resources")]
    Read(#[from] tandem_crds::load::Error),
    /// The dev file is wrong.
    #[error("{0}")]
    DevFile(String),
    /// A port cannot be had, or the store refuses to begin.
    #[error(transparent)]
    Serving(#[from] serving::Error),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The store failed while it ran.
    #[error("the store has stopped, and what was written last is unknown; the log says why. Start again: it recovers")]
    StoreStopped,
    /// Requests to end cannot be heard.
    #[error("failed to listen for signals")]
    Signals(#[source] io::Error),
    /// Logging cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] tandem_runtime::telemetry::Error),
    /// A worker cannot run.
    #[error("{0}")]
    Worker(String),
    /// The topology of the last run cannot be used.
    #[error(transparent)]
    Topology(#[from] topology::KeptError),
}

/// Runs until Ctrl-C.
pub(crate) async fn run(arguments: &Arguments) -> Result<(), Error> {
    let began = Instant::now();
    if !arguments.directory.is_dir() {
        return Err(Error::NoDirectory(arguments.directory.clone()));
    }
    let _telemetry = tandem_runtime::telemetry::init("tandem-dev", "warn")?;
    let console = Console::start(Palette::of_stdout());
    let data = arguments.data.clone().unwrap_or_else(|| arguments.directory.join(DATA_DIRECTORY));
    std::fs::create_dir_all(&data).map_err(|source| Error::File { doing: "create", path: data.clone(), source })?;

    let watch = Watch::new(&[arguments.directory.clone(), arguments.directory.join(application::DEV_FILE)]);
    let listeners = Listeners {
        http: Port::bind(arguments.http, "--http").await?,
        admin: Port::bind(arguments.admin, "--admin").await?,
    };
    let location = arguments.store.clone().unwrap_or_else(|| Location::Embedded(data.clone()));
    let opened = store::open(&location).await?;
    let (topology_file, peers) = (data.join(KEPT_FILE), location.peers());
    let start = Start { arguments, watch, console, topology_file, peers, began };
    match opened {
        Opened::Embedded(store) => start.serve(store, listeners).await,
        #[cfg(feature = "tikv")]
        Opened::Tikv(store) => start.serve(store, listeners).await,
    }
}

/// What an application is started with.
struct Start<'a> {
    arguments: &'a Arguments,
    watch: Watch,
    console: Console,
    topology_file: PathBuf,
    peers: Option<PeerOptions>,
    began: Instant,
}

impl Start<'_> {
    /// Runs on a store until Ctrl-C.
    async fn serve<S: Store>(self, store: S, listeners: Listeners) -> Result<(), Error> {
        let Start { arguments, mut watch, console, topology_file, peers, began } = self;
        let previous = topology::read_kept(&topology_file)?;
        let application = first_application(arguments, previous.as_ref(), &mut watch, &console).await?;

        let (failures, mut failed) = mpsc::channel(1);
        let mut workers = Workers::new(&arguments.directory, arguments.keep_going, console.clone(), failures)?;
        let topology = workers.start(&application).await?;
        let serving = Serving::start(Options { peers, ..Options::default() }, store, topology, listeners).await?;
        topology::write_kept(&topology_file, &application.topology)?;
        workers.wait_until_ready(WORKERS_READY_WITHIN, &mut failed).await?;
        if !serving.has_workers(HANDSHAKE_WITHIN).await {
            console.error("some workers listen, but do not take part; the log above says why");
        }
        // Before anybody is told that it serves: whoever is told may stop it at once.
        let signals = Signals::listen().map_err(Error::Signals)?;
        serve::print_banner(&serving, &console, &application.topology);
        if !arguments.quiet {
            serve::print_outcomes(&serving, console.clone());
        }
        if let Some(path) = &arguments.ready_file {
            let failed = |source| Error::File { doing: "write", path: path.clone(), source };
            serving.write_ready_file(path).map_err(failed)?;
        }
        print_error(&format!("ready in {:.2} s", began.elapsed().as_secs_f64()));

        let mut running = Running { arguments, watch, workers, serving, console, application, topology_file, signals };
        let ended = running.until_stopped(&mut failed).await;
        running.stop().await;
        ended
    }
}

struct Running<'a, S: Store> {
    arguments: &'a Arguments,
    watch: Watch,
    workers: Workers,
    serving: Serving<S>,
    console: Console,
    application: Application,
    topology_file: PathBuf,
    signals: Signals,
}

impl<S: Store> Running<'_, S> {
    /// Applies changes of the files until somebody stops us, or a worker fails for good.
    async fn until_stopped(&mut self, failed: &mut mpsc::Receiver<String>) -> Result<(), Error> {
        loop {
            tokio::select! {
                biased;
                _ = self.signals.received() => return Ok(()),
                () = self.serving.runtime().store_stopped() => return Err(Error::StoreStopped),
                Some(failure) = failed.recv() => return Err(Error::Worker(failure)),
                () = self.watch.changed() => {
                    // What cannot be applied has been printed; what runs goes on.
                    if let Err(error) = self.reload(failed).await {
                        self.console.error(&format!("{}; what runs goes on unchanged", crate::chain(&error)));
                    }
                }
            }
        }
    }

    async fn reload(&mut self, failed: &mut mpsc::Receiver<String>) -> Result<(), Error> {
        let began = Instant::now();
        let (directory, previous) = (&self.arguments.directory, Some(&self.application.topology));
        let application = application::read(directory, previous, &self.console)?;
        if application == self.application {
            return Ok(());
        }
        let topology = if application.workers == self.application.workers {
            self.workers.fill_in(&application)
        } else {
            let topology = self.workers.start(&application).await?;
            self.workers.wait_until_ready(WORKERS_READY_WITHIN, failed).await?;
            topology
        };
        self.serving.runtime().set_topology(topology);
        self.workers.retire().await;
        topology::write_kept(&self.topology_file, &application.topology)?;
        self.application = application;
        self.console.line(&format!("reloaded in {:.2} s, state was kept", began.elapsed().as_secs_f64()));
        serve::print_routes(&self.console, &self.application.topology);
        Ok(())
    }

    /// Stops taking requests, lets flows end, then stops the workers. A second Ctrl-C does not wait.
    async fn stop(&mut self) {
        print_error("stopping; once more Ctrl-C to not wait for running flows");
        tokio::select! {
            () = self.serving.stop(STOP_GRACE) => {}
            _ = self.signals.received() => {}
        }
        self.workers.stop().await;
    }
}

/// The application as the files say. With `--keep-going` it waits until they are right.
async fn first_application(
    arguments: &Arguments,
    previous: Option<&Topology>,
    watch: &mut Watch,
    console: &Console,
) -> Result<Application, Error> {
    loop {
        match application::read(&arguments.directory, previous, console) {
            Ok(application) => return Ok(application),
            Err(error) if arguments.keep_going => {
                console.error(&format!("{}; waiting for a change", crate::chain(&error)));
                watch.changed().await;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_the_embedded_store_is_not_named_as_a_cluster() {
        assert!(matches!(cluster("tikv://127.0.0.1:2379/demo"), Ok(Location::Tikv(_))));
        assert!(cluster(".tandem").unwrap_err().contains("--data"));
        assert!(cluster("tikv://127.0.0.1").unwrap_err().contains("HOST:PORT"));
    }
}
