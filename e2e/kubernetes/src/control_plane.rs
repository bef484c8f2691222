//! Only etcd and the API server (and, if wanted, the controller manager), on loopback and without a node: for tests of what
//! writes and watches objects. No pod ever runs.
//!
//! ```no_run
//! # async fn example() -> Result<(), tandem_e2e_kubernetes::Error> {
//! use tandem_e2e_kubernetes::ControlPlane;
//!
//! let control_plane = ControlPlane::start().await?;
//! let kubeconfig = control_plane.kubeconfig();
//! # let _ = kubeconfig; Ok(()) }
//! ```

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tandem_e2e_tikv::processes::{Guard, Process, tail};

use crate::binaries::{Binaries, builder};
use crate::certificates::{ADMINISTRATORS, Authority, Subject};
use crate::commands::{await_ok, run};
use crate::{Error, servers};

/// How long the API server may take to be ready.
const READY_WITHIN: Duration = Duration::from_mins(2);
/// How long etcd may take to answer.
const ETCD_WITHIN: Duration = Duration::from_secs(20);
/// Ports below those that the operating system gives to connections of clients.
const PORTS: std::ops::Range<u16> = 15_000..32_000;
/// Addresses of Services, which nobody can reach here.
const SERVICES: &str = "10.0.0.0/16";

/// Finishes namespaces, and removes what has lost its owner.
const COLLECTORS: &str = "--controllers=garbage-collector-controller,namespace-controller";

/// Set to anything but 0, a test that would be skipped builds Kubernetes.
pub const REQUIRE_VARIABLE: &str = "TANDEM_REQUIRE_KUBERNETES";

/// Which parts to start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Also the controllers of Kubernetes: those that collect garbage, make pods of StatefulSets and Deployments, and finish
    /// namespaces.
    pub controllers: bool,
    /// Of these only what collects garbage and finishes namespaces: for tests that play the others themselves.
    pub collectors: bool,
}

/// A process, and how it was started.
#[derive(Debug)]
struct Started {
    name: &'static str,
    arguments: Vec<String>,
    process: Process,
}

/// An API server with an etcd of its own. Both end with the handle, and also when this process is killed.
#[derive(Debug)]
pub struct ControlPlane {
    directory: PathBuf,
    server: String,
    binaries: Binaries,
    etcd: String,
    processes: Vec<Started>,
    guard: Guard,
}

impl ControlPlane {
    /// Starts etcd and the API server, and waits until it is ready. Builds them first if they never were.
    pub async fn start() -> Result<Self, Error> {
        Self::start_with(Options::default()).await
    }

    /// The same for tests that are not to take the minutes of a build: `None` if the programs were never built; the reason
    /// has been printed. With `TANDEM_REQUIRE_KUBERNETES=1` they are built.
    pub async fn start_if_built(options: Options) -> Result<Option<Self>, Error> {
        let required = std::env::var(REQUIRE_VARIABLE).is_ok_and(|value| !value.is_empty() && value != "0");
        if !required && !builder().is_built() {
            say_once("Kubernetes was never built here; `tandem-cluster build` does that");
            return Ok(None);
        }
        Self::start_with(options).await.map(Some)
    }

    /// The same with more parts.
    pub async fn start_with(options: Options) -> Result<Self, Error> {
        let started = tokio::task::spawn_blocking(move || Self::start_blocking(options)).await;
        started.map_err(std::io::Error::other).map_err(Error::io("start a control plane"))?
    }

    fn start_blocking(options: Options) -> Result<Self, Error> {
        let binaries = Binaries::built_by(&builder())?;
        let directory = fresh_directory()?;
        let [port, etcd, peers] = free_ports()?;
        let server = format!("https://127.0.0.1:{port}");
        let etcd_url = format!("http://127.0.0.1:{etcd}");
        let guard = Guard::start(Some(&directory)).map_err(Error::io("start a shell that clears up"))?;
        let mut this = Self { directory, server, binaries, etcd: etcd_url.clone(), processes: Vec::new(), guard };
        let certificates = this.directory.join("certificates");
        let authority = Authority::create(&certificates)?;
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let names = Subject { name: "api-server", hosts: &["localhost"], addresses: &[loopback], ..Subject::default() };
        authority.sign("api-server", &names)?;
        let administrator = Subject { name: "administrator", groups: &[ADMINISTRATORS], ..Subject::default() };
        authority.kubeconfig(&this.kubeconfig(), &this.server, &administrator)?;
        let peers = format!("http://127.0.0.1:{peers}");
        this.spawn("etcd", servers::etcd(&this.directory.join("etcd"), &etcd_url, &peers))?;
        let settings = servers::ApiServer {
            certificates: &certificates,
            etcd: &etcd_url,
            address: loopback,
            port,
            services: SERVICES,
            with_kubelets: false,
        };
        this.spawn("kube-apiserver", settings.arguments())?;
        if options.controllers || options.collectors {
            let user = Subject { name: "system:kube-controller-manager", ..Subject::default() };
            let file = this.directory.join("controllers.yaml");
            authority.kubeconfig(&file, &this.server, &user)?;
            let mut arguments = servers::controller_manager(&file, &certificates, None);
            if !options.controllers {
                // Of several all count.
                arguments.retain(|argument| !argument.starts_with("--controllers="));
                arguments.push(COLLECTORS.to_owned());
            }
            this.spawn("kube-controller-manager", arguments)?;
        }
        this.await_ready()?;
        Ok(this)
    }

    fn spawn(&mut self, name: &'static str, arguments: Vec<String>) -> Result<(), Error> {
        let process = self.launch(name, &arguments)?;
        self.processes.push(Started { name, arguments, process });
        Ok(())
    }

    fn launch(&self, name: &str, arguments: &[String]) -> Result<Process, Error> {
        let mut command = Command::new(self.binaries.program(name));
        command.args(arguments).current_dir(&self.directory);
        Ok(Process::spawn(name.to_owned(), command, &self.log(name), &self.guard)?)
    }

    fn await_ready(&mut self) -> Result<(), Error> {
        let kubectl = || run(self.kubectl().args(["get", "--raw", "/readyz"]));
        let ended = || {
            let log = self.log("kube-apiserver");
            let text = fs::read_to_string(&log).unwrap_or_default();
            let fatal = text.contains("Error: ") || text.lines().any(|line| line.starts_with('F'));
            let process = "kube-apiserver".to_owned();
            if fatal { Err(Error::Ended { process, tail: tail(&log), log }) } else { Ok(()) }
        };
        await_ok("the API server", READY_WITHIN, kubectl, ended).map(drop)
    }

    /// The id of a process: `etcd`, `kube-apiserver` or `kube-controller-manager`.
    pub fn id(&self, name: &str) -> Option<u32> {
        self.processes.iter().find(|started| started.name == name).map(|started| started.process.id())
    }

    /// Lets a process stand still until [`ControlPlane::resume`].
    pub fn freeze(&self, name: &str) -> Result<(), Error> {
        self.signal(name, "STOP")
    }

    /// Lets a frozen process go on.
    pub fn resume(&self, name: &str) -> Result<(), Error> {
        self.signal(name, "CONT")
    }

    fn signal(&self, name: &str, signal: &str) -> Result<(), Error> {
        let Some(started) = self.processes.iter().find(|started| started.name == name) else { return Ok(()) };
        Ok(started.process.signal(signal)?)
    }

    /// Kills a process and starts it again; waits until the API server is ready.
    pub fn restart(&mut self, name: &str) -> Result<(), Error> {
        let Some(at) = self.processes.iter().position(|started| started.name == name) else { return Ok(()) };
        self.processes[at].process.kill()?;
        self.processes[at].process = self.launch(name, &self.processes[at].arguments)?;
        self.await_ready()
    }

    /// Lets etcd forget everything but the present state, so that nobody can go on from an older one.
    pub fn forget_history(&self) -> Result<(), Error> {
        let status = self.ask_etcd("/v3/maintenance/status", "{}")?;
        let status: serde_json::Value =
            serde_json::from_str(&status).map_err(|error| Error::io("read the status of etcd")(error.into()))?;
        let revision = status["header"]["revision"].as_str().unwrap_or_default();
        self.ask_etcd("/v3/kv/compaction", &format!("{{\"revision\": \"{revision}\", \"physical\": true}}")).map(drop)
    }

    /// What etcd says to a question in JSON.
    fn ask_etcd(&self, path: &str, body: &str) -> Result<String, Error> {
        let attempted = format!("ask etcd for {path}");
        let address = self.etcd.trim_start_matches("http://");
        let ask = || {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(ETCD_WITHIN))?;
            // HTTP/1.0: the answer ends with the connection.
            write!(stream, "POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().map_err(Error::io(&attempted))?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
            _ => Err(Error::Command { attempted, said: answer }),
        }
    }

    /// Where the API server listens.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The kubeconfig of an administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("administrator.yaml")
    }

    /// All that a process wrote: `etcd`, `kube-apiserver` or `kube-controller-manager`.
    pub fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    /// `kubectl` as an administrator.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.binaries.program("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // Controllers first, so that none complains that the server is gone.
        while self.processes.pop().is_some() {}
    }
}

fn say_once(reason: &str) {
    static SAID: Once = Once::new();
    // Written past the capture of the test harness, which would show it only where a test fails.
    SAID.call_once(|| drop(writeln!(std::io::stderr(), "skipped tests on an API server: {reason}")));
}

fn fresh_directory() -> Result<PathBuf, Error> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let directory = std::env::temp_dir().join(format!("tandem-control-plane-{}-{number}", std::process::id()));
    // Of a process that had this id before.
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).map_err(Error::io(format!("create {}", directory.display())))?;
    Ok(directory)
}

/// Ports on loopback where nobody listens now, all different.
fn free_ports<const COUNT: usize>() -> Result<[u16; COUNT], Error> {
    static LOOKED: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    let mut found = Vec::new();
    let mut tries = 0;
    while found.len() < COUNT && tries < count {
        tries += 1;
        let step = LOOKED.fetch_add(1, Ordering::Relaxed);
        // Processes that look at the same moment begin at different ports.
        let offset = std::process::id().wrapping_mul(7919).wrapping_add(step) % count;
        let port = PORTS.start + u16::try_from(offset).expect("less than the number of ports");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            found.push(port);
        }
    }
    let none = |_| Error::io("find a free port")(std::io::ErrorKind::AddrInUse.into());
    found.try_into().map_err(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ() {
        let ports: [u16; 8] = free_ports().unwrap();
        let different: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(different.len(), ports.len(), "{ports:?}");
    }

    #[test]
    fn directories_differ() {
        let (one, other) = (fresh_directory().unwrap(), fresh_directory().unwrap());
        assert_ne!(one, other);
        fs::remove_dir_all(one).unwrap();
        fs::remove_dir_all(other).unwrap();
    }
}
