//! The processes that run the functions' code: started, watched, started again, and stopped.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tandem_model::ids::FunctionName;
use tandem_model::topology::{Endpoint, Topology};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::application::{Application, Worker};
use super::console::Console;
use super::guard::{self, Guard};

/// Tells a worker where to listen.
const ADDRESS_VARIABLE: &str = "TANDEM_WORKER_ADDRESS";
/// A worker that ended so often in a row is not started again.
const FAILURES_MAX: u32 = 6;
/// A worker that lived so long has not failed in a row.
const LIVED_WELL: Duration = Duration::from_secs(10);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How long a worker that is asked to end may take.
const STOP_GRACE: Duration = Duration::from_secs(6);
/// How often it is looked whether a worker listens.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A longer line of a worker is printed in pieces.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// All worker processes.
pub(super) struct Workers {
    directory: PathBuf,
    keep_going: bool,
    console: Console,
    failures: mpsc::Sender<String>,
    guard: Guard,
    running: Vec<Process>,
    retired: Vec<Process>,
}

/// One worker process, and the task that looks after it.
struct Process {
    worker: Worker,
    address: SocketAddr,
    stop: CancellationToken,
    supervisor: JoinHandle<()>,
}

impl Workers {
    /// No workers yet. `failures` is told when one cannot be kept running, unless we are to keep going.
    pub(super) fn new(
        directory: &Path,
        keep_going: bool,
        console: Console,
        failures: mpsc::Sender<String>,
    ) -> Result<Self, Error> {
        let guard = Guard::start();
        let guard =
            guard.map_err(|error| Error::Worker(format!("failed to start sh, which guards workers: {error}")))?;
        let directory = directory.to_owned();
        Ok(Self { directory, keep_going, console, failures, guard, running: Vec::new(), retired: Vec::new() })
    }

    /// Starts what the application has and is not running, and gives the topology with all workers filled in. What the
    /// application has no more runs on until [`Workers::retire`]. If one cannot be started, nothing changes.
    pub(super) async fn start(&mut self, application: &Application) -> Result<Topology, Error> {
        let mut before: Vec<Process> = std::mem::take(&mut self.running);
        let mut kept = Vec::new();
        let mut wanted = Vec::new();
        for worker in &application.workers {
            for instance in 1..=worker.instances {
                match before.iter().position(|process| process.worker == *worker) {
                    Some(at) => kept.push(before.swap_remove(at)),
                    None => wanted.push((worker, instance)),
                }
            }
        }
        match self.start_all(&wanted, name_width(application)) {
            Ok(started) => {
                self.running = kept;
                self.running.extend(started);
                self.retired.extend(before);
                Ok(self.fill_in(application))
            }
            Err((error, started)) => {
                stop_all(started).await;
                self.running = kept;
                self.running.extend(before);
                Err(error)
            }
        }
    }

    fn start_all(&self, wanted: &[(&Worker, u16)], width: usize) -> Result<Vec<Process>, (Error, Vec<Process>)> {
        let mut started = Vec::new();
        let addresses = match free_addresses(wanted.len()) {
            Ok(addresses) => addresses,
            Err(error) => return Err((Error::Worker(format!("failed to find free ports: {error}")), started)),
        };
        for ((worker, instance), address) in wanted.iter().zip(addresses) {
            match self.start_one(worker, *instance, address, width) {
                Ok(process) => started.push(process),
                Err(error) => return Err((error, started)),
            }
        }
        Ok(started)
    }

    fn start_one(&self, worker: &Worker, instance: u16, address: SocketAddr, width: usize) -> Result<Process, Error> {
        let label = if worker.instances > 1 { format!("{}-{instance}", worker.name) } else { worker.name.clone() };
        let stop = CancellationToken::new();
        let supervisor = Supervisor {
            directory: self.directory.join(&worker.directory),
            worker: worker.clone(),
            address,
            label,
            width,
            keep_going: self.keep_going,
            console: self.console.clone(),
            failures: self.failures.clone(),
            guard: self.guard.clone(),
            stop: stop.clone(),
        };
        let child = supervisor.spawn().map_err(Error::Worker)?;
        let worker = worker.clone();
        Ok(Process { worker, address, stop, supervisor: tokio::spawn(supervisor.run(child)) })
    }

    /// The application's topology, with the addresses of the workers that run.
    pub(super) fn fill_in(&self, application: &Application) -> Topology {
        let mut endpoints: BTreeMap<&FunctionName, Vec<Endpoint>> = BTreeMap::new();
        for process in &self.running {
            let (url, protocol) = (format!("http://{}", process.address), process.worker.protocol.into());
            for function in &process.worker.functions {
                endpoints.entry(function).or_default().push(Endpoint::new(url.clone(), protocol));
            }
        }
        let mut topology = application.topology.clone();
        for (name, function) in &mut topology.functions {
            function.workers.extend(endpoints.remove(name).unwrap_or_default());
        }
        topology
    }

    /// Returns when all workers listen, or `within` has passed, or one has failed for good.
    pub(super) async fn wait_until_ready(
        &self,
        within: Duration,
        failed: &mut mpsc::Receiver<String>,
    ) -> Result<(), Error> {
        let began = Instant::now();
        for process in &self.running {
            while TcpStream::connect(process.address).await.is_err() {
                if began.elapsed() > within {
                    let (name, address) = (&process.worker.name, process.address);
                    self.console.error(&format!("worker {name} does not listen on {address} ({ADDRESS_VARIABLE}) yet"));
                    return Ok(());
                }
                if let Ok(failure) = failed.try_recv() {
                    return Err(Error::Worker(failure));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    /// Stops the workers that are not wanted any more.
    pub(super) async fn retire(&mut self) {
        stop_all(std::mem::take(&mut self.retired)).await;
    }

    /// Stops all workers.
    pub(super) async fn stop(&mut self) {
        self.retired.append(&mut self.running);
        self.retire().await;
    }
}

fn name_width(application: &Application) -> usize {
    let widths = application.workers.iter().map(|worker| {
        let number = if worker.instances > 1 { worker.instances.to_string().len() + 1 } else { 0 };
        worker.name.chars().count() + number
    });
    widths.max().unwrap_or(0)
}

async fn stop_all(processes: Vec<Process>) {
    for process in &processes {
        process.stop.cancel();
    }
    for process in processes {
        // A supervisor that panicked has dropped its child, which kills it.
        let _ = process.supervisor.await;
    }
}

/// Different ports that are free now. Somebody may take one before the worker does; then the worker says so and is
/// started again.
fn free_addresses(count: usize) -> std::io::Result<Vec<SocketAddr>> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    listeners.iter().map(TcpListener::local_addr).collect()
}

/// Looks after one process.
struct Supervisor {
    worker: Worker,
    directory: PathBuf,
    address: SocketAddr,
    label: String,
    width: usize,
    keep_going: bool,
    console: Console,
    failures: mpsc::Sender<String>,
    guard: Guard,
    stop: CancellationToken,
}

impl Supervisor {
    fn spawn(&self) -> Result<Child, String> {
        let Some((program, arguments)) = self.worker.command.split_first() else {
            return Err(format!("worker {} has no command", self.label));
        };
        // A relative program is meant relative to where it runs, not to where we were started.
        let path = Path::new(program);
        let path = if path.components().count() > 1 { self.directory.join(path) } else { path.to_owned() };
        let mut command = std::process::Command::new(&path);
        command.args(arguments).current_dir(&self.directory).envs(&self.worker.environment);
        command.env(ADDRESS_VARIABLE, self.address.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        guard::own_group(&mut command);
        let mut child = Command::from(command).kill_on_drop(true).spawn().map_err(|error| {
            let (label, directory) = (&self.label, self.directory.display());
            format!("worker {label}: failed to start {} in {directory}: {error}; is it built?", path.display())
        })?;
        if let Some(output) = child.stdout.take() {
            self.print(output);
        }
        if let Some(output) = child.stderr.take() {
            self.print(output);
        }
        if let Some(group) = child.id() {
            self.guard.add(group);
        }
        Ok(child)
    }

    /// Runs until told to stop, or until the worker cannot be kept running.
    async fn run(self, mut child: Child) {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let Some(ended) = self.wait(&mut child).await else { return };
            failures = if began.elapsed() > LIVED_WELL { 1 } else { failures + 1 };
            if failures >= FAILURES_MAX && !self.keep_going {
                let label = &self.label;
                let failure =
                    format!("worker {label} {ended}, for the {failures}th time in a row; what it printed is above");
                // Full or closed: somebody else has failed before, or we are stopping.
                let _ = self.failures.try_send(failure);
                return;
            }
            let pause = BACKOFF_FIRST.saturating_mul(1 << (failures - 1).min(16)).min(BACKOFF_MAX);
            let seconds = pause.as_secs_f64();
            self.console.error(&format!("worker {} {ended}; it is started again in {seconds:.1} s", self.label));
            child = loop {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                match self.spawn() {
                    Ok(child) => break child,
                    Err(error) => self.console.error(&error),
                }
            };
        }
    }

    /// How the process ended by itself; nothing if we were told to stop, and then it has been stopped.
    async fn wait(&self, child: &mut Child) -> Option<String> {
        let group = child.id();
        let ended = tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            ended = child.wait() => Some(ended.map_or_else(|error| error.to_string(), |status| status.to_string())),
        };
        if ended.is_none()
            && let Some(group) = group
        {
            signal(guard::terminate, group).await;
            if tokio::time::timeout(STOP_GRACE, child.wait()).await.is_err() {
                self.console.error(&format!("worker {} did not end within {} s", self.label, STOP_GRACE.as_secs()));
            }
        }
        if let Some(group) = group {
            // What it started may still hold its port.
            signal(guard::kill, group).await;
            self.guard.remove(group);
        }
        ended.map(|how| format!("ended with {how}"))
    }

    /// Prints what a worker prints, until it closes its end.
    fn print(&self, output: impl AsyncRead + Send + Unpin + 'static) {
        let (console, label, width) = (self.console.clone(), self.label.clone(), self.width);
        tokio::spawn(async move { print_lines(output, |line| console.worker(&label, width, line)).await });
    }
}

async fn signal(send: fn(u32), group: u32) {
    // It panics never, and a signal that was not sent shows as a worker that does not end.
    let _ = tokio::task::spawn_blocking(move || send(group)).await;
}

async fn print_lines(mut output: impl AsyncRead + Unpin, mut print: impl FnMut(&str)) {
    let mut line: Vec<u8> = Vec::new();
    let mut chunk = vec![0; LINE_BYTES_MAX];
    while let Ok(read @ 1..) = output.read(&mut chunk).await {
        for byte in &chunk[..read] {
            if *byte != b'\n' {
                line.push(*byte);
            }
            if *byte == b'\n' || line.len() >= LINE_BYTES_MAX {
                print(&String::from_utf8_lossy(&line));
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        print(&String::from_utf8_lossy(&line));
    }
}

#[cfg(test)]
mod tests {
    use tandem_model::topology::Function;

    use super::*;
    use crate::output::Palette;

    fn worker(name: &str, command: &[&str]) -> Worker {
        let text = serde_json::json!({"name": name, "functions": ["order"], "command": command, "instances": 2});
        serde_json::from_value(text).unwrap()
    }

    fn application(workers: Vec<Worker>) -> Application {
        let functions = [("order".parse().unwrap(), Function::default())].into();
        Application { topology: Topology { functions, ..Topology::default() }, workers }
    }

    fn workers(keep_going: bool) -> (Workers, mpsc::Receiver<String>) {
        let (failures, failed) = mpsc::channel(1);
        let console = Console::start(Palette::plain());
        (Workers::new(&std::env::temp_dir(), keep_going, console, failures).unwrap(), failed)
    }

    #[tokio::test]
    async fn unchanged_workers_keep_running_and_others_are_replaced() {
        let (mut workers, _failed) = workers(false);
        let (sleep, shell) = (worker("sleep", &["sleep", "600"]), worker("shell", &["sh", "-c", "sleep 600"]));
        let first = workers.start(&application(vec![sleep.clone()])).await.unwrap();
        let endpoints = |topology: &Topology| topology.functions.values().next().unwrap().workers.clone();
        assert_eq!(endpoints(&first).len(), 2);
        let second = workers.start(&application(vec![sleep.clone(), shell.clone()])).await.unwrap();
        assert_eq!(endpoints(&second).len(), 4);
        assert!(endpoints(&first).iter().all(|endpoint| endpoints(&second).contains(endpoint)));
        let third = workers.start(&application(vec![shell])).await.unwrap();
        assert_eq!((endpoints(&third).len(), workers.retired.len()), (2, 2));
        workers.retire().await;
        workers.stop().await;
    }

    #[tokio::test]
    async fn missing_command_is_said_and_changes_nothing() {
        let (mut workers, _failed) = workers(false);
        let sleep = worker("sleep", &["sleep", "600"]);
        workers.start(&application(vec![sleep.clone()])).await.unwrap();
        let both = application(vec![sleep, worker("ghost", &["./no-such-program"])]);
        let error = workers.start(&both).await.unwrap_err().to_string();
        assert!(error.contains("ghost-1") && error.contains("no-such-program"), "{error}");
        assert_eq!(workers.running.len(), 2);
        workers.stop().await;
    }

    #[tokio::test]
    async fn worker_that_keeps_ending_is_given_up() {
        let (mut workers, mut failed) = workers(false);
        let mut broken = worker("broken", &["sh", "-c", "exit 3"]);
        broken.instances = 1;
        workers.start(&application(vec![broken])).await.unwrap();
        let failure = tokio::time::timeout(Duration::from_mins(1), failed.recv()).await.unwrap().unwrap();
        assert!(failure.contains("worker broken ended with exit status: 3"), "{failure}");
        workers.stop().await;
    }

    #[tokio::test]
    async fn lines_are_cut_and_need_not_be_text() {
        let mut lines = Vec::new();
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        let output = [b"a\n\xff\n".as_slice(), long.as_bytes()].concat();
        print_lines(output.as_slice(), |line| lines.push(line.to_owned())).await;
        assert_eq!(lines[..2], ["a", "\u{fffd}"]);
        assert_eq!(lines[2..].iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES_MAX, 1]);
    }
}
