//! Runtimes and workers as processes of their own, on a cluster that somebody else starts.
//!
//! ```text
//! clients ─▶ proxy ─▶ tandem-runtime ◀─ proxy ◀─ the other runtimes
//!                        ⇅ gRPC
//!                     tandem-verify worker, twice
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tandem_e2e_tikv::processes::Guard;
use tandem_e2e_tikv::{Proxy, free_address};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::sleep;

use super::clock::Clock;
use crate::process::child::Process;
use crate::process::journal::Journal;
use crate::process::place::State;
use crate::process::site::{Application, Programs, write_resources};
use crate::process::web::{Place, Web};

/// How long a start may take.
const START_WITHIN: Duration = Duration::from_secs(40);
/// How long a runtime that is told to end may take.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// How long a signal may take until it shows.
const SIGNAL_WITHIN: Duration = Duration::from_secs(5);
/// How often something is looked at that nobody announces.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long a client waits for one answer: a little longer than the deadline of its request.
const PATIENCE: Duration = Duration::from_secs(4);
/// What the client of TiKV calls an error, and is nothing but somebody who is not there.
const UNREACHABLE: &str = "failed to connect to";
/// Lines of a log that are told if something does not start.
const LOG_LINES: usize = 20;

/// How runtimes are to be started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program, and what stands before its flags.
    pub command: Vec<String>,
    /// Further variables of its environment.
    pub environment: Vec<(String, String)>,
}

/// What a site looks like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// How many runtimes.
    pub(super) runtimes: usize,
    /// They cannot reach each other: each owns everything.
    pub(super) strangers: bool,
    /// Their clocks can be made to jump.
    pub(super) clocks: bool,
}

struct Runtime {
    http: SocketAddr,
    admin: SocketAddr,
    peer: SocketAddr,
    to_http: Proxy,
    to_peer: Proxy,
    process: Option<Process>,
    clock: Option<Clock>,
}

struct Worker {
    address: SocketAddr,
    process: Option<Process>,
}

/// Runtimes, workers, and the directory in which they live.
pub(super) struct Pods {
    directory: TempDir,
    verify: PathBuf,
    launch: Launch,
    shape: Shape,
    state: State,
    url: String,
    guard: Guard,
    runtimes: Vec<Runtime>,
    workers: Vec<Worker>,
    place: watch::Sender<Place>,
}

impl Pods {
    /// Writes the resources, and starts everything.
    pub(super) async fn start(
        (verify, launch): (&Path, &Launch),
        shape: Shape,
        application: &Application,
        url: &str,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("failed to make a directory")?;
        let addresses = application.workers.iter().map(|_| free_address());
        let addresses = addresses.collect::<Result<Vec<SocketAddr>, _>>().context("failed to find free ports")?;
        let programs = Programs { tandem: PathBuf::new(), verify: verify.to_owned(), store: None };
        write_resources(directory.path(), &programs, application, &addresses)?;
        let state = State::at(url)?;
        let workers = addresses.into_iter().map(|address| Worker { address, process: None }).collect();
        let mut pods = Self {
            verify: verify.to_owned(),
            launch: launch.clone(),
            shape,
            state,
            url: url.to_owned(),
            guard: Guard::start(None).context("failed to start sh")?,
            runtimes: Vec::new(),
            workers,
            place: watch::Sender::default(),
            directory,
        };
        for which in 0..pods.workers.len() {
            pods.start_worker(which)?;
        }
        for which in 0..shape.runtimes {
            let runtime = pods.place_of(which)?;
            pods.runtimes.push(runtime);
        }
        let all: Vec<usize> = (0..shape.runtimes).collect();
        pods.start_runtimes(&all).await?;
        let http = pods.runtimes.iter().map(|runtime| format!("http://{}", runtime.to_http.address())).collect();
        pods.place.send_replace(Place { http, life: 1 });
        Ok(pods)
    }

    /// Where one will be. It stays there when it is started again.
    fn place_of(&self, which: usize) -> anyhow::Result<Runtime> {
        // Not among those that connections to somebody else may take while it is down.
        let (http, admin, peer) = (free_address()?, free_address()?, free_address()?);
        let (to_http, to_peer) = (Proxy::before(http)?, Proxy::before(peer)?);
        let clock = self.shape.clocks.then(|| Clock::new(self.directory.path(), which)).transpose()?;
        Ok(Runtime { http, admin, peer, to_http, to_peer, process: None, clock })
    }

    /// A way to all runtimes, in turn.
    pub(super) fn web(&self, journal: &Arc<Journal>) -> Web {
        Web::new(self.place.subscribe(), Arc::clone(journal)).patience(PATIENCE)
    }

    /// A way to one of them.
    pub(super) fn web_of(&self, which: usize, journal: &Arc<Journal>) -> Web {
        web_at(self.runtimes[which].to_http.address(), journal)
    }

    /// A way to what only people see of one of them.
    pub(super) fn admin_of(&self, which: usize, journal: &Arc<Journal>) -> Web {
        web_at(self.runtimes[which].admin, journal)
    }

    pub(super) fn runtimes(&self) -> usize {
        self.runtimes.len()
    }

    /// Between clients and a runtime.
    pub(super) fn to_http(&self, which: usize) -> &Proxy {
        &self.runtimes[which].to_http
    }

    /// Between the other runtimes and this one.
    pub(super) fn to_peer(&self, which: usize) -> &Proxy {
        &self.runtimes[which].to_peer
    }

    /// The clock of a runtime.
    pub(super) fn clock(&self, which: usize) -> anyhow::Result<&Clock> {
        self.runtimes[which].clock.as_ref().context("the clocks of this site cannot be changed")
    }

    /// Where its rows are.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    fn log(&self, name: &str) -> anyhow::Result<std::fs::File> {
        let path = self.directory.path().join(name);
        let log = std::fs::File::options().create(true).append(true).open(&path);
        log.with_context(|| format!("failed to open {}", path.display()))
    }

    fn start_worker(&mut self, which: usize) -> anyhow::Result<()> {
        let log = self.log("workers.log")?;
        let worker = &mut self.workers[which];
        let mut command = Command::new(&self.verify);
        command.args(["worker", "grpc"]).env(tandem::ADDRESS_VARIABLE, worker.address.to_string());
        command.stdout(log.try_clone()?).stderr(log);
        worker.process = Some(Process::spawn(&mut command, &self.guard).context("failed to start a worker")?);
        Ok(())
    }

    fn launch_runtime(&mut self, which: usize) -> anyhow::Result<()> {
        let name = format!("runtime-{which}");
        let (log, path) = (self.log(&format!("{name}.log"))?, self.directory.path());
        let ready = path.join(format!("{name}.json"));
        match std::fs::remove_file(&ready) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let (program, first) = self.launch.command.split_first().context("there is no program")?;
        let runtime = &mut self.runtimes[which];
        let mut command = Command::new(program);
        command.args(first).args(["--store", &self.url, "--resources"]).arg(path.join("application"));
        command.args(["--http", &runtime.http.to_string(), "--admin", &runtime.admin.to_string()]);
        command.args(["--log-format", "text", "--drain-grace", "5s", "--ready-file"]).arg(&ready);
        if !self.shape.strangers {
            let advertised = runtime.to_peer.address().to_string();
            command.args(["--peer", &runtime.peer.to_string(), "--advertise", &advertised, "--member", &name]);
        }
        if let Some(clock) = &runtime.clock {
            command.envs(clock.environment());
        }
        command.envs(self.launch.environment.clone());
        command.env("NO_COLOR", "1").env_remove("TANDEM_LOG").stdout(log.try_clone()?).stderr(log);
        let process = Process::spawn(&mut command, &self.guard);
        runtime.process = Some(process.with_context(|| format!("failed to start {program}"))?);
        Ok(())
    }

    /// Starts runtimes, and waits until they take requests.
    async fn start_runtimes(&mut self, which: &[usize]) -> anyhow::Result<()> {
        let began = Instant::now();
        for which in which {
            self.launch_runtime(*which)?;
        }
        for which in which {
            let ready = self.directory.path().join(format!("runtime-{which}.json"));
            while !ready.exists() {
                let ended = self.runtimes[*which].process.as_mut().and_then(Process::ended);
                if let Some(ended) = ended {
                    bail!("runtime {which} ended with {ended} while it started:\n{}", self.last_of_log(*which));
                }
                if began.elapsed() > START_WITHIN {
                    bail!("runtime {which} was not ready within {START_WITHIN:?}:\n{}", self.last_of_log(*which));
                }
                sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    fn process_of(&mut self, who: Who) -> &mut Option<Process> {
        match who {
            Who::Runtime(which) => &mut self.runtimes[which].process,
            Who::Worker(which) => &mut self.workers[which].process,
        }
    }

    /// Kills it, and sees to it that it was there before and is gone now.
    pub(super) async fn kill(&mut self, who: Who) -> anyhow::Result<()> {
        let mut process = self.process_of(who).take().with_context(|| format!("{who:?} does not run"))?;
        if let Some(ended) = process.ended() {
            bail!("{who:?} ended by itself with {ended} before it was killed");
        }
        process.kill().await.with_context(|| format!("failed to kill {who:?}"))
    }

    /// Starts it again.
    pub(super) async fn restart(&mut self, who: Who) -> anyhow::Result<()> {
        match who {
            Who::Runtime(which) => self.start_runtimes(&[which]).await,
            Who::Worker(which) => self.start_worker(which),
        }
    }

    /// Stops it in the middle of whatever it does, or lets it go on, and waits until that shows.
    pub(super) async fn signal(&mut self, who: Who, name: &str) -> anyhow::Result<()> {
        let process = self.process_of(who).as_ref().with_context(|| format!("{who:?} does not run"))?;
        process.signal(name).await?;
        await_state(process.id(), name == STOP).await
    }

    /// Says so if a runtime has ended by itself.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        for which in 0..self.runtimes.len() {
            if let Some(ended) = self.runtimes[which].process.as_mut().and_then(Process::ended) {
                bail!("runtime {which} ended by itself with {ended}:\n{}", self.last_of_log(which));
            }
        }
        Ok(())
    }

    /// Tells all runtimes to end, and waits for that.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        for which in 0..self.runtimes.len() {
            if let Some(mut process) = self.runtimes[which].process.take() {
                let ended_well = process.stop(STOP_WITHIN).await.context("failed to stop a runtime")?;
                ensure!(ended_well, "runtime {which} did not end well:\n{}", self.last_of_log(which));
            }
        }
        Ok(())
    }

    /// Lines of the logs that must not be there.
    pub(super) fn complaints(&self) -> Vec<String> {
        let all = (0..self.runtimes.len()).flat_map(|which| {
            let log = self.log_of(which);
            let is_bad =
                |line: &&str| line.starts_with("thread '") || (line.contains(" ERROR ") && !line.contains(UNREACHABLE));
            let bad = log.lines().filter(is_bad).map(|line| format!("the log of runtime {which} says: {line}"));
            bad.collect::<Vec<_>>()
        });
        all.collect()
    }

    fn log_of(&self, which: usize) -> String {
        std::fs::read_to_string(self.directory.path().join(format!("runtime-{which}.log"))).unwrap_or_default()
    }

    fn last_of_log(&self, which: usize) -> String {
        let log = self.log_of(which);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Keeps the directory, for whoever looks for the cause.
    pub(super) fn keep(self) -> PathBuf {
        let Self { directory, .. } = self;
        directory.keep()
    }
}

fn web_at(address: SocketAddr, journal: &Arc<Journal>) -> Web {
    let place = Place { http: vec![format!("http://{address}")], life: 1 };
    Web::new(watch::Sender::new(place).subscribe(), Arc::clone(journal)).patience(PATIENCE)
}

/// A process of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Runtime(usize),
    Worker(usize),
}

/// Freezes a process.
pub(super) const STOP: &str = "STOP";
/// Lets it go on.
pub(super) const CONTINUE: &str = "CONT";

/// Waits until a process stands still, or does not any more. Where the system does not tell, it is believed.
pub(super) async fn await_state(process: u32, stands_still: bool) -> anyhow::Result<()> {
    const STOPPED: char = 'T';
    let began = Instant::now();
    loop {
        let Ok(text) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { return Ok(()) };
        // Behind the name, which is in brackets and may contain anything.
        let state = text.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if (state == Some(STOPPED)) == stands_still {
            return Ok(());
        }
        ensure!(began.elapsed() < SIGNAL_WITHIN, "process {process} is in state {state:?} after a signal");
        sleep(LOOK_EVERY).await;
    }
}
