//! The application as processes: one `tandem dev` on the embedded store, or several runtimes on one TiKV with the workers
//! that they share.

use std::ffi::OsString;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use tandem::ADDRESS_VARIABLE;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::client::Addresses;
use crate::process::{Running, Setup};

/// The store that `make tikv` brings up.
const BROUGHT_UP: &str = "tikv";
/// What the name of a TiKV cluster begins with.
const SCHEME: &str = "tikv://";
/// Endpoints of PD, separated by commas, in the place of those that `make tikv` has brought up.
const ENDPOINTS_VARIABLE: &str = "TANDEM_PD_ENDPOINTS";
/// Workers that several runtimes share.
const WORKERS: usize = 2;
/// How long a worker may take to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The functions that the workers run.
const FUNCTIONS: &str = "inventory, payment, order, cart, loyalty";

/// What is to be run.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Directory of the application.
    pub(crate) application: PathBuf,
    /// An empty directory, absolute.
    pub(crate) scratch: PathBuf,
    /// The same as it was named.
    pub(crate) shown: PathBuf,
    /// The `tandem` program, if it is not beside this one.
    pub(crate) tandem: Option<PathBuf>,
    /// `tikv`, or `tikv://...`; without it, the embedded store.
    pub(crate) store: Option<String>,
    /// How many runtimes share a TiKV.
    pub(crate) runtimes: usize,
    /// Runtimes that run already, in the place of any that would be started.
    pub(crate) at: Vec<Addresses>,
}

/// What runs. Dropped, all of it is killed.
pub(crate) struct Site {
    setups: Vec<Setup>,
    runtimes: Vec<Running>,
    _workers: Vec<Child>,
    /// Of runtimes that were not started here.
    given: Vec<Addresses>,
    /// Where its state is, for people.
    pub(crate) store: String,
}

impl Site {
    /// Starts everything and waits until it takes requests.
    pub(crate) async fn start(wanted: &Wanted) -> anyhow::Result<Self> {
        let given = wanted.at.clone();
        let (setups, workers, store) = match &wanted.store {
            _ if !given.is_empty() => (Vec::new(), Vec::new(), "state wherever they keep it".to_owned()),
            None => {
                let shown = format!("embedded store in {}", wanted.shown.display());
                (vec![embedded(wanted)?], Vec::new(), shown)
            }
            Some(store) => {
                let store = cluster(store).await?;
                let (workers, addresses) = start_workers(&wanted.scratch).await?;
                let configuration = write_configuration(wanted, &store, &addresses)?;
                let program = beside("tandem-runtime", "tandem-server")?;
                let setups = (0..wanted.runtimes).map(|index| one_of_many(wanted, &program, &configuration, index));
                (setups.collect(), workers, format!("state in {store}"))
            }
        };
        let mut runtimes = Vec::new();
        for setup in &setups {
            runtimes.push(Running::start(setup).await?);
        }
        Ok(Self { setups, runtimes, _workers: workers, given, store })
    }

    /// Where the runtimes listen.
    pub(crate) fn addresses(&self) -> Vec<Addresses> {
        self.runtimes.iter().map(|running| &running.addresses).chain(&self.given).cloned().collect()
    }

    /// Kills one of the runtimes and starts it again; which it was, and how long that took.
    pub(crate) async fn kill_one(&mut self) -> anyhow::Result<(String, Duration)> {
        // Neither the first nor the last one to start, where there are so many.
        let which = self.runtimes.len() / 2;
        let shown = match self.runtimes.len() {
            1 => "the runtime".to_owned(),
            all => format!("runtime {} of {all}", which + 1),
        };
        self.runtimes.remove(which).kill().await?;
        let again = Running::start(&self.setups[which]).await.context("failed to start the runtime again")?;
        let took = again.started_in;
        self.runtimes.insert(which, again);
        Ok((shown, took))
    }

    /// Asks all of them to end, and sees to it that they do.
    pub(crate) async fn stop(self, grace: Duration) -> anyhow::Result<()> {
        for running in self.runtimes {
            running.stop(grace).await?;
        }
        Ok(())
    }
}

/// A program that is built together with this one.
fn beside(program: &str, package: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("failed to find this program")?.with_file_name(program);
    ensure!(path.exists(), "{} is not there; build it with: cargo build --release -p {package}", path.display());
    Ok(path)
}

fn text(text: &str) -> OsString {
    OsString::from(text)
}

/// `tandem dev`, which starts its workers itself.
fn embedded(wanted: &Wanted) -> anyhow::Result<Setup> {
    let program = wanted.tandem.clone().map_or_else(|| beside("tandem", "tandem-cli"), Ok)?;
    ensure!(program.exists(), "{} is not there", program.display());
    let mut arguments = vec![text("dev"), wanted.application.clone().into_os_string()];
    arguments.extend([text("--data"), wanted.scratch.join("store").into_os_string()]);
    arguments.extend(["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"].map(text));
    Ok(Setup {
        program,
        arguments,
        ready_file: wanted.scratch.join("ready.json"),
        log: wanted.scratch.join("tandem.log"),
    })
}

/// One of several runtimes.
fn one_of_many(wanted: &Wanted, program: &Path, configuration: &Path, index: usize) -> Setup {
    let name = format!("runtime-{index}");
    let mut arguments = vec![text("--config"), configuration.to_owned().into_os_string()];
    arguments.extend(["--member", &name].map(text));
    Setup {
        program: program.to_owned(),
        arguments,
        ready_file: wanted.scratch.join(format!("{name}.json")),
        log: wanted.scratch.join(format!("{name}.log")),
    }
}

/// The one configuration that all runtimes have.
fn write_configuration(wanted: &Wanted, store: &str, workers: &[SocketAddr]) -> anyhow::Result<PathBuf> {
    let rest = store.strip_prefix(SCHEME).context("the store is no TiKV")?;
    let (endpoints, prefix) = rest.split_once('/').context("the store has no prefix")?;
    let resources = wanted.application.canonicalize().context("failed to find the resources")?;
    let mut listed = String::new();
    for address in workers {
        writeln!(listed, "  - {{functions: [{FUNCTIONS}], url: \"http://{address}\"}}")?;
    }
    let configuration = format!(
        "apiVersion: config.tandem.dev/v1alpha1\nkind: RuntimeConfiguration\n\
         store: {{tikv: {{endpoints: {endpoints:?}, prefix: {prefix:?}}}}}\n\
         listen: {{http: \"127.0.0.1:0\", admin: \"127.0.0.1:0\", peer: \"127.0.0.1:0\"}}\n\
         topology:\n  resources: [\"{resources}\"]\n  workers:\n{listed}",
        resources = resources.display(),
        endpoints = endpoints.split(',').collect::<Vec<_>>(),
    );
    let path = wanted.scratch.join("runtime.yaml");
    std::fs::write(&path, configuration).with_context(|| format!("failed to write {}", path.display()))?;
    Ok(path)
}

/// Starts workers, and waits until they listen.
async fn start_workers(scratch: &Path) -> anyhow::Result<(Vec<Child>, Vec<SocketAddr>)> {
    let program = beside("orders", "orders")?;
    // All are held until the last one is known, so that they differ.
    let listeners = (0..WORKERS).map(|_| std::net::TcpListener::bind("127.0.0.1:0"));
    let listeners: Vec<_> = listeners.collect::<Result<_, _>>().context("failed to find free ports")?;
    let addresses: Vec<SocketAddr> =
        listeners.iter().map(std::net::TcpListener::local_addr).collect::<Result<_, _>>()?;
    drop(listeners);
    let log = std::fs::File::create(scratch.join("workers.log")).context("failed to make a log")?;
    let mut workers = Vec::new();
    for address in &addresses {
        let mut command = Command::new(&program);
        command.env(ADDRESS_VARIABLE, address.to_string()).kill_on_drop(true);
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
        workers.push(command.spawn().with_context(|| format!("failed to start {}", program.display()))?);
    }
    for address in &addresses {
        let began = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            ensure!(began.elapsed() < LISTENS_WITHIN, "a worker does not listen on {address}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok((workers, addresses))
}

/// The store of this run: a prefix of its own, unless one was named, so that nothing is there yet.
async fn cluster(store: &str) -> anyhow::Result<String> {
    let store = if store == BROUGHT_UP { format!("{SCHEME}{}", endpoints().await?) } else { store.to_owned() };
    let Some(rest) = store.strip_prefix(SCHEME) else {
        bail!("{store:?} is neither {BROUGHT_UP} nor {SCHEME}HOST:PORT")
    };
    if rest.contains('/') {
        return Ok(store);
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(format!("{store}/demo/{}", now.as_secs()))
}

/// Where PD listens: what the variable says, or else what `make tikv` has brought up.
async fn endpoints() -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct Status {
        pd_endpoints: Vec<String>,
    }

    if let Some(endpoints) = std::env::var(ENDPOINTS_VARIABLE).ok().filter(|endpoints| !endpoints.is_empty()) {
        return Ok(endpoints);
    }
    let program = beside("tandem-tikv", "tandem-e2e-tikv")?;
    let asked = Command::new(&program).args(["status", "-o", "json"]).output().await;
    let asked = asked.with_context(|| format!("failed to start {}", program.display()))?;
    ensure!(asked.status.success(), "no cluster runs; bring one up with: make tikv");
    let status: Status = serde_json::from_slice(&asked.stdout).context("failed to read the state of the cluster")?;
    Ok(status.pd_endpoints.join(","))
}
