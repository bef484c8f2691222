//! `tandem dev` and its workers as processes, in a directory of their own.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use tandem_e2e_tikv::processes::Guard;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::sleep;

use super::child::Process;
use super::journal::Journal;
use super::place::State;
use super::web::{Place, Web};
use super::worker::Protocol;
use crate::model::observed::Observed;

/// Slots of the data.
pub(crate) const SLOTS: u16 = 16;
/// Deadline of requests that name none, in milliseconds.
pub(crate) const DEADLINE_MS: u64 = 3_000;
/// How long a start may take.
const START_WITHIN: Duration = Duration::from_secs(40);
/// How long a runtime that is told to end may take: longer than it lets flows end.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// How often something is looked at that nobody announces.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Lines of the runtime's log that are told if it does not start.
const LOG_LINES: usize = 20;

/// The programs that are run.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `tandem`.
    pub tandem: PathBuf,
    /// `tandem-verify`, which is its own worker.
    pub verify: PathBuf,
    /// `tikv://...`, if state is not kept in a directory.
    pub store: Option<String>,
}

impl Programs {
    /// `tandem-verify`, and `tandem` from beside it.
    pub fn beside(verify: &Path) -> anyhow::Result<Self> {
        let tandem = verify.with_file_name("tandem");
        let profile = if cfg!(debug_assertions) { "" } else { " --release" };
        let path = tandem.display();
        ensure!(tandem.exists(), "{path} is not there; build it with: cargo build{profile} -p tandem-cli");
        Ok(Self { tandem, verify: verify.to_owned(), store: None })
    }
}

/// A function of the application.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    /// Handlers with their isolation.
    pub(crate) handlers: &'static [(&'static str, &'static str)],
    /// States with their kind and type.
    pub(crate) states: &'static [(&'static str, &'static str, &'static str)],
    /// Which of our workers runs it.
    pub(crate) worker: usize,
}

/// An application, and who runs its code.
#[derive(Clone, Debug)]
pub(crate) struct Application {
    /// Each has a route to each of its handlers, as `/{function}/{handler}/{key}`.
    pub(crate) functions: Vec<Function>,
    pub(crate) egresses: &'static [&'static str],
    /// How our workers are talked to.
    pub(crate) workers: Vec<Protocol>,
    /// A further worker of all functions, which the runtime starts and looks after.
    pub(crate) of_runtime: Option<Protocol>,
}

/// A worker process of ours. It keeps its address when it is started again.
struct Worker {
    protocol: Protocol,
    address: SocketAddr,
    process: Option<Process>,
}

/// All processes, and the directory in which they live.
pub(crate) struct Site {
    directory: TempDir,
    programs: Programs,
    state: State,
    journal: Arc<Journal>,
    guard: Guard,
    runtime: Option<Process>,
    workers: Vec<Worker>,
    place: watch::Sender<Place>,
    lives: u64,
    /// A copy of the store.
    earlier: Option<TempDir>,
}

impl Site {
    /// Writes the resources, and starts the workers; not the runtime.
    pub(crate) fn new(programs: &Programs, application: &Application, journal: &Arc<Journal>) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("failed to make a directory")?;
        let state = State::of(programs.store.as_deref(), directory.path())?;
        let addresses = free_addresses(application.workers.len()).context("failed to find free ports")?;
        write_resources(directory.path(), programs, application, &addresses)?;
        let workers = application.workers.iter().zip(addresses);
        let workers = workers.map(|(protocol, address)| Worker { protocol: *protocol, address, process: None });
        let mut site = Self {
            directory,
            programs: programs.clone(),
            state,
            journal: Arc::clone(journal),
            guard: Guard::start(None).context("failed to start sh")?,
            runtime: None,
            workers: workers.collect(),
            place: watch::Sender::default(),
            lives: 0,
            earlier: None,
        };
        for which in 0..site.workers.len() {
            site.start_worker(which)?;
        }
        Ok(site)
    }

    /// A way to the runtime, whichever runs.
    pub(crate) fn web(&self) -> Web {
        Web::new(self.place.subscribe(), Arc::clone(&self.journal))
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// How many runtimes were started.
    pub(crate) fn lives(&self) -> u64 {
        self.lives
    }

    /// The directory in which the runtime keeps its state, if there is one.
    pub(crate) fn store(&self) -> Option<PathBuf> {
        match &self.state {
            State::Directory(directory) => Some(directory.clone()),
            State::Cluster { .. } => None,
        }
    }

    fn log(&self, name: &str) -> anyhow::Result<std::fs::File> {
        let path = self.directory.path().join(name);
        let log = std::fs::File::options().create(true).append(true).open(&path);
        log.with_context(|| format!("failed to open {}", path.display()))
    }

    /// Starts a worker that does not run.
    pub(crate) fn start_worker(&mut self, which: usize) -> anyhow::Result<()> {
        let log = self.log("workers.log")?;
        let worker = &mut self.workers[which];
        let mut command = Command::new(&self.programs.verify);
        command
            .args(["worker", protocol_name(worker.protocol)])
            .env(tandem::ADDRESS_VARIABLE, worker.address.to_string());
        command.stdout(log.try_clone()?).stderr(log);
        let process = Process::spawn(&mut command, &self.guard);
        worker.process = Some(process.with_context(|| format!("failed to start {}", self.programs.verify.display()))?);
        Ok(())
    }

    /// Kills a worker that runs.
    pub(crate) async fn kill_worker(&mut self, which: usize) -> anyhow::Result<()> {
        if let Some(mut process) = self.workers[which].process.take() {
            process.kill().await.context("failed to kill a worker")?;
        }
        Ok(())
    }

    /// Sends a signal to a worker that runs.
    pub(crate) async fn signal_worker(&self, which: usize, name: &str) -> anyhow::Result<()> {
        match &self.workers[which].process {
            Some(process) => Ok(process.signal(name).await?),
            None => Ok(()),
        }
    }

    fn ready_file(&self) -> PathBuf {
        self.directory.path().join("ready.json")
    }

    /// Starts a runtime, and does not wait for it.
    pub(crate) fn launch(&mut self) -> anyhow::Result<()> {
        let ready = self.ready_file();
        match std::fs::remove_file(&ready) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let (log, path) = (self.log("tandem.log")?, self.directory.path());
        let mut command = Command::new(&self.programs.tandem);
        command.arg("dev").arg(path.join("application")).arg("--data").arg(path.join("data"));
        command.args(["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--quiet", "--keep-going", "--ready-file"]);
        command.arg(&ready);
        if let State::Cluster { url, .. } = &self.state {
            command.args(["--store", url]);
        }
        command.env("NO_COLOR", "1").env_remove("TANDEM_LOG").stdout(log.try_clone()?).stderr(log);
        let process = Process::spawn(&mut command, &self.guard);
        self.runtime = Some(process.with_context(|| format!("failed to start {}", self.programs.tandem.display()))?);
        self.lives += 1;
        Ok(())
    }

    /// Waits until the runtime that was launched takes requests, and tells everybody where.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        #[derive(Deserialize)]
        struct Ready {
            http: String,
        }

        let (ready, began) = (self.ready_file(), Instant::now());
        loop {
            // It is put there as a whole.
            if let Ok(text) = std::fs::read(&ready) {
                let Ready { http } = serde_json::from_slice(&text).context("failed to read the ready file")?;
                self.place.send_replace(Place { http: vec![http], life: self.lives });
                return Ok(());
            }
            let runtime = self.runtime.as_mut().context("no runtime was launched")?;
            if let Some(ended) = runtime.ended() {
                bail!("the runtime ended with {ended} while it started:\n{}", self.last_of_log());
            }
            if began.elapsed() > START_WITHIN {
                bail!("the runtime was not ready within {START_WITHIN:?}:\n{}", self.last_of_log());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Says so if the runtime has ended by itself.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        if let Some(ended) = self.runtime.as_mut().and_then(Process::ended) {
            bail!("the runtime ended by itself with {ended}:\n{}", self.last_of_log());
        }
        Ok(())
    }

    /// Kills the runtime.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut runtime) = self.runtime.take() {
            runtime.kill().await.context("failed to kill the runtime")?;
        }
        Ok(())
    }

    /// Tells the runtime to end, and waits for that. It must end well.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(mut runtime) = self.runtime.take() {
            let ended_well = runtime.stop(STOP_WITHIN).await.context("failed to stop the runtime")?;
            ensure!(ended_well, "the runtime did not end well within {STOP_WITHIN:?}:\n{}", self.last_of_log());
        }
        Ok(())
    }

    /// Notes what the store is, or makes it what it was when this was called before. While no runtime runs.
    pub(crate) fn forget(&mut self) -> anyhow::Result<()> {
        let store = self.store().context("only what is in a directory can be forgotten")?;
        if let Some(earlier) = self.earlier.take() {
            std::fs::remove_dir_all(&store)?;
            copy_directory(earlier.path(), &store)?;
        } else {
            let earlier = tempfile::tempdir_in(self.directory.path())?;
            copy_directory(&store, earlier.path())?;
            self.earlier = Some(earlier);
        }
        Ok(())
    }

    /// All rows of the store, while no runtime runs.
    pub(crate) async fn observe(&self) -> anyhow::Result<Observed> {
        let rows = self.state.rows(self.directory.path()).await?;
        Observed::of(rows).map_err(anyhow::Error::msg)
    }

    /// Removes the state, where that does not go with the directory.
    pub(crate) async fn clean(&self) -> anyhow::Result<()> {
        self.state.remove().await.context("failed to remove the rows of this run")
    }

    /// Lines of the runtime's log that must not be there.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.directory.path().join("tandem.log")).unwrap_or_default();
        let is_bad = |line: &&str| line.starts_with("thread '") || line.contains(" ERROR ");
        log.lines().filter(is_bad).map(|line| format!("the runtime's log says: {line}")).collect()
    }

    fn last_of_log(&self) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("tandem.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Keeps the directory, for whoever looks for the cause.
    pub(crate) fn keep(self) -> PathBuf {
        let Self { directory, .. } = self;
        directory.keep()
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Grpc => "grpc",
        Protocol::Http => "http",
    }
}

fn free_addresses(count: usize) -> std::io::Result<Vec<SocketAddr>> {
    let listeners = (0..count).map(|_| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let listeners: Vec<std::net::TcpListener> = listeners.collect::<Result<_, _>>()?;
    listeners.iter().map(std::net::TcpListener::local_addr).collect()
}

pub(crate) fn copy_directory(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// A way in to each handler of a function.
fn routes_of(function: &Function) -> Result<String, std::fmt::Error> {
    let (mut text, name) = (String::new(), function.name);
    for (handler, _) in function.handlers {
        text += &resource("FunctionRoute", &format!("{name}-{handler}"));
        writeln!(text, "  http: {{method: POST, path: \"/{name}/{handler}/{{key}}\"}}")?;
        writeln!(text, "  to: {{function: {name}, handler: {handler}}}\n  key: request.path.key")?;
    }
    Ok(text)
}

/// The beginning of a resource.
fn resource(kind: &str, name: &str) -> String {
    format!("---\napiVersion: tandem.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n")
}

pub(crate) fn write_resources(
    directory: &Path,
    programs: &Programs,
    application: &Application,
    addresses: &[SocketAddr],
) -> anyhow::Result<()> {
    let mut routes = String::new();
    let mut text = resource("FunctionRuntime", "default");
    writeln!(text, "  slots: {SLOTS}\n  limits: {{deadline: {DEADLINE_MS}ms}}")?;
    for egress in application.egresses {
        writeln!(text, "{}  stream: {{retention: 24h}}", resource("FunctionEgress", egress))?;
    }
    for function in &application.functions {
        text += &resource("Function", function.name);
        let (address, protocol) = (addresses[function.worker], application.workers[function.worker]);
        writeln!(text, "  endpoint: {{url: \"http://{address}\", protocol: {protocol:?}}}\n  handlers:")?;
        for (handler, isolation) in function.handlers {
            writeln!(text, "  - {{name: {handler}, isolation: {isolation}}}")?;
        }
        routes += &routes_of(function)?;
        if !function.states.is_empty() {
            writeln!(text, "  states:")?;
        }
        for (name, kind, value_type) in function.states {
            writeln!(text, "  - {{name: {name}, kind: {kind}, type: {value_type}}}")?;
        }
    }
    let path = directory.join("application");
    std::fs::create_dir(&path)?;
    std::fs::write(path.join("resources.yaml"), text + &routes)?;
    if let Some(protocol) = application.of_runtime {
        let functions: Vec<&str> = application.functions.iter().map(|function| function.name).collect();
        let command = [programs.verify.display().to_string(), "worker".to_owned(), protocol_name(protocol).to_owned()];
        let protocol = format!("{protocol:?}");
        let worker =
            serde_json::json!({"name": "own", "functions": functions, "command": command, "protocol": protocol});
        std::fs::write(path.join("Tandemfile"), serde_json::json!({"workers": [worker]}).to_string())?;
    }
    Ok(())
}
