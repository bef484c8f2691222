//! `tandem dev`: the whole application on this machine: resources, workers, an embedded store, the runtime.
//!
//! | module | concept |
//! | --- | --- |
//! | [`application`] | what the files say: resources compiled to a topology, and the commands of the workers |
//! | [`workers`] | the processes that run the functions' code |
//! | [`guard`] | sees to it that no worker outlives us, whatever happens to us |
//! | [`watch`] | notices that files have changed |
//! | [`console`] | lines for the terminal, from many tasks, that never hold anybody up |
//! | [`serve`] | the store, the runtime and its two ports |
//!
//! **Invariant:** a change of the files either takes effect as a whole, or is refused with its problems and nothing
//! changes. State is kept in both cases.

mod application;
mod console;
mod guard;
mod serve;
mod watch;
mod workers;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tandem_model::topology::Topology;
use tokio::sync::mpsc;

use self::application::Application;
use self::console::Console;
use self::serve::Serving;
use self::workers::Workers;
use crate::output::{Palette, print_error};

/// Where state is kept, below the application's directory.
const DATA_DIRECTORY: &str = ".tandem";
/// The topology of the last run, so that a state cannot change its type between two runs.
const TOPOLOGY_FILE: &str = "topology.json";
/// How long workers may take until they answer, before "ready" is said without them.
const WORKERS_READY_WITHIN: Duration = Duration::from_secs(20);
/// How long the handshake with workers that listen may take, before "ready" is said without it.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// Run the application in DIR on this machine, with live outcomes. Files are watched; state is kept.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The directory with the resources and tandem-dev.yaml.
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Where state is kept. DIR/.tandem if absent.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
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
    /// A port cannot be had.
    #[error("{0}")]
    Port(String),
    /// The data directory cannot be used.
    #[error(transparent)]
    Store(#[from] tandem_store::Error),
    /// The store failed while it ran.
    #[error("the store has stopped, and what was written last is unknown; the log says why. Start again: it recovers")]
    StoreStopped,
    /// The runtime does not start.
    #[error("failed to start the runtime: {0}")]
    Runtime(String),
    /// Logging cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] tandem_runtime::telemetry::Error),
    /// A worker cannot run.
    #[error("{0}")]
    Worker(String),
    /// The topology of the last run cannot be read.
    #[error("{path} is damaged or of a newer version; with it removed, changes of state types are not noticed once")]
    Topology {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
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

    let mut watch = watch::Watch::new(&arguments.directory);
    let listeners = serve::Listeners::bind(arguments.http, arguments.admin).await?;
    let store = serve::open_store(&data).await?;
    let topology_file = data.join(TOPOLOGY_FILE);
    let previous = read_topology(&topology_file)?;
    let application = first_application(arguments, previous.as_ref(), &mut watch, &console).await?;

    let (failures, mut failed) = mpsc::channel(1);
    let mut workers = Workers::new(&arguments.directory, arguments.keep_going, console.clone(), failures)?;
    let topology = workers.start(&application).await?;
    let serving = Serving::start(store, topology, listeners).await?;
    write_topology(&topology_file, &application.topology)?;
    workers.wait_until_ready(WORKERS_READY_WITHIN, &mut failed).await?;
    if !serving.has_workers(HANDSHAKE_WITHIN).await {
        console.error("some workers listen, but do not take part; the log above says why");
    }
    // Before anybody is told that it serves: whoever is told may stop it at once.
    let signal = StopSignal::listen()?;
    serving.print_banner(&console, &application.topology);
    if !arguments.quiet {
        serving.print_outcomes(console.clone());
    }
    if let Some(path) = &arguments.ready_file {
        serving.write_ready_file(path)?;
    }
    print_error(&format!("ready in {:.2} s", began.elapsed().as_secs_f64()));

    let mut running = Running { arguments, watch, workers, serving, console, application, topology_file, signal };
    let ended = running.until_stopped(&mut failed).await;
    running.stop().await;
    ended
}

struct Running<'a> {
    arguments: &'a Arguments,
    watch: watch::Watch,
    workers: Workers,
    serving: Serving,
    console: Console,
    application: Application,
    topology_file: PathBuf,
    signal: StopSignal,
}

impl Running<'_> {
    /// Applies changes of the files until somebody stops us, or a worker fails for good.
    async fn until_stopped(&mut self, failed: &mut mpsc::Receiver<String>) -> Result<(), Error> {
        loop {
            tokio::select! {
                biased;
                () = self.signal.received() => return Ok(()),
                () = self.serving.store_stopped() => return Err(Error::StoreStopped),
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
        self.serving.set_topology(topology);
        self.workers.retire().await;
        write_topology(&self.topology_file, &application.topology)?;
        self.application = application;
        self.console.line(&format!("reloaded in {:.2} s, state was kept", began.elapsed().as_secs_f64()));
        serve::print_routes(&self.console, &self.application.topology);
        Ok(())
    }

    /// Stops taking requests, lets flows end, then stops the workers. A second Ctrl-C does not wait.
    async fn stop(&mut self) {
        print_error("stopping; once more Ctrl-C to not wait for running flows");
        tokio::select! {
            () = self.serving.stop() => {}
            () = self.signal.received() => {}
        }
        self.workers.stop().await;
    }
}

/// The application as the files say. With `--keep-going` it waits until they are right.
async fn first_application(
    arguments: &Arguments,
    previous: Option<&Topology>,
    watch: &mut watch::Watch,
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

/// Ctrl-C, or a polite request to end. From its creation on neither ends the process by itself.
struct StopSignal {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl StopSignal {
    fn listen() -> Result<Self, Error> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let listen = |kind| signal(kind).map_err(|error| Error::Runtime(format!("no signals: {error}")));
            Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    async fn received(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(not(unix))]
        // If even this cannot be had, the process can only be killed, and that is safe as well.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn read_topology(path: &Path) -> Result<Option<Topology>, Error> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let topology = serde_json::from_slice(&bytes);
            topology.map(Some).map_err(|source| Error::Topology { path: path.to_owned(), source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { doing: "read", path: path.to_owned(), source }),
    }
}

fn write_topology(path: &Path, topology: &Topology) -> Result<(), Error> {
    let json = serde_json::to_vec_pretty(topology);
    let json = json.map_err(|source| Error::Topology { path: path.to_owned(), source })?;
    write_file(path, &json)
}

/// Writes a file so that a reader sees all of it or nothing.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::File { doing: "write", path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    std::fs::write(&new, bytes).map_err(failed)?;
    std::fs::rename(&new, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topology_of_the_last_run_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(TOPOLOGY_FILE);
        assert_eq!(read_topology(&path).unwrap(), None);
        let topology = Topology { format: Topology::FORMAT, ..Topology::default() };
        write_topology(&path, &topology).unwrap();
        assert_eq!(read_topology(&path).unwrap(), Some(topology));
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(read_topology(&path), Err(Error::Topology { .. })));
    }
}
