//! A cluster that outlives the command that started it: its plan and the ids of its processes lie in its directory.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::sleep;

use crate::Error;
use crate::binaries::Binaries;
use crate::cluster::await_store;
use crate::go::Builder;
use crate::plan::{Plan, Tls};
use crate::processes::{ended, send_output, signal};

/// Between a request to end and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What to bring up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where data, logs and the plan are. What is there already wins over the rest of the options.
    pub directory: PathBuf,
    /// How many stores.
    pub stores: usize,
    /// Raw keys at which the key space is cut.
    pub splits: Vec<Vec<u8>>,
    /// Certificates on both sides.
    pub tls: bool,
    /// The port of PD, if it is free.
    pub port: u16,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    /// `pd`, or `store-` and a number.
    pub name: String,
    /// Where clients find it.
    pub address: String,
    /// The control port of a store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// Its id, if it runs.
    pub process: Option<u32>,
}

/// A cluster, as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Absolute.
    pub directory: PathBuf,
    /// For clients.
    pub pd_endpoints: Vec<String>,
    /// For clients of a cluster with TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// PD, then the stores.
    pub processes: Vec<Process>,
}

impl Status {
    /// Whether all of it runs.
    pub fn is_up(&self) -> bool {
        self.processes.iter().all(|process| process.process.is_some())
    }

    /// Whether none of it runs.
    pub fn is_down(&self) -> bool {
        self.processes.iter().all(|process| process.process.is_none())
    }
}

/// Starts what does not run, and waits until it is ready.
pub async fn up(options: &Options, builder: &Builder) -> Result<Status, Error> {
    let directory = absolute(&options.directory)?;
    if let Some(status) = status(&directory)?.filter(Status::is_up) {
        return Ok(status);
    }
    let builder = builder.clone();
    let built = tokio::task::spawn_blocking(move || Binaries::built_by(&builder)).await;
    let binaries = built.map_err(std::io::Error::other).map_err(Error::io("build"))??;
    // What is left of a cluster that lost a process.
    down(&directory).await?;
    let mut plan = match Plan::load(&directory)? {
        Some(plan) => plan,
        None => fresh(options, &directory)?,
    };
    plan.prepare(&directory, &binaries)?;
    plan.processes = Vec::new();
    let begun = begin(&mut plan, &directory, &binaries).await;
    if let Err(error) = begun {
        down(&directory).await?;
        return Err(error);
    }
    Ok(describe(&directory, &plan))
}

fn fresh(options: &Options, directory: &Path) -> Result<Plan, Error> {
    let mut plan = Plan::new(options.stores, &options.splits, options.tls.then(|| Tls::inside(directory)))?;
    let wanted = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, options.port));
    if options.port != 0 && std::net::TcpListener::bind(wanted).is_ok() {
        plan.pd.listen = wanted;
        plan.pd.advertise = wanted;
    }
    Ok(plan)
}

async fn begin(plan: &mut Plan, directory: &Path, binaries: &Binaries) -> Result<(), Error> {
    let mut commands = vec![plan.pd_command(directory, binaries)];
    commands.extend((0..plan.stores.len()).map(|store| plan.store_command(store, directory, binaries)));
    for (number, command) in commands.into_iter().enumerate() {
        plan.processes.push(spawn(command, &name(number), directory)?);
        // After each: whatever becomes of us, somebody can end what was started.
        plan.save(directory)?;
    }
    for (store, address) in plan.stores.iter().enumerate() {
        await_store(store, address.second, || {
            let gone = plan.processes.iter().position(|id| !runs(*id, directory));
            gone.map_or(Ok(()), |gone| Err(ended(&name(gone), "by itself", &log(&name(gone), directory))))
        })
        .await?;
    }
    Ok(())
}

fn spawn(mut command: Command, name: &str, directory: &Path) -> Result<u32, Error> {
    // A group of its own: Ctrl-C in the terminal is not for it.
    let child = send_output(&mut command, &log(name, directory)).and_then(|command| command.process_group(0).spawn());
    child.map(|child| child.id()).map_err(Error::io(format!("start {name}")))
}

/// Ends all processes of the cluster in a directory: stores first, by their ids, asked before they are killed. Data stays.
/// `false` if there were none.
pub async fn down(directory: &Path) -> Result<bool, Error> {
    let directory = absolute(directory)?;
    let Some(mut plan) = Plan::load(&directory)? else { return Ok(false) };
    let running: Vec<u32> = plan.processes.iter().rev().copied().filter(|id| runs(*id, &directory)).collect();
    for id in &running {
        // Frozen ones do not hear the first signal before the second; one that has just ended hears none.
        let _ = signal(*id, "TERM").and_then(|()| signal(*id, "CONT"));
        if !await_end(*id, &directory, GRACE).await {
            let _ = signal(*id, "KILL");
            await_end(*id, &directory, GRACE).await;
        }
    }
    if !plan.processes.is_empty() {
        plan.processes = Vec::new();
        plan.save(&directory)?;
    }
    Ok(!running.is_empty())
}

/// Removes the directory of a cluster that is down.
pub fn wipe(directory: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", directory.display()))(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What runs of the cluster in a directory; `None` if there was never one.
pub fn status(directory: &Path) -> Result<Option<Status>, Error> {
    let directory = absolute(directory)?;
    Ok(Plan::load(&directory)?.map(|plan| describe(&directory, &plan)))
}

fn describe(directory: &Path, plan: &Plan) -> Status {
    let process = |number: usize, address: &str, control: Option<String>| Process {
        name: name(number),
        address: address.to_owned(),
        control,
        process: plan.processes.get(number).copied().filter(|id| runs(*id, directory)),
    };
    let pd = plan.pd.advertise.to_string();
    let mut processes = vec![process(0, &pd, None)];
    processes.extend(
        plan.stores.iter().enumerate().map(|(store, address)| {
            process(store + 1, &address.advertise.to_string(), Some(address.second.to_string()))
        }),
    );
    Status { directory: directory.to_owned(), pd_endpoints: vec![pd], tls: plan.tls.clone(), processes }
}

fn name(number: usize) -> String {
    if number == 0 { "pd".to_owned() } else { format!("store-{}", number - 1) }
}

fn log(name: &str, directory: &Path) -> PathBuf {
    directory.join(format!("{name}.log"))
}

fn absolute(directory: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(directory).map_err(Error::io(format!("find {}", directory.display())))
}

async fn await_end(id: u32, directory: &Path, longest: Duration) -> bool {
    let begun = Instant::now();
    while runs(id, directory) {
        if begun.elapsed() > longest {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
    true
}

/// Whether a process of this id runs and is one of the cluster in this directory: ids are used again, and nobody else's
/// process may be ended. All of ours name the directory in their arguments.
fn runs(id: u32, directory: &Path) -> bool {
    let arguments = match fs::read(format!("/proc/{id}/cmdline")) {
        Ok(arguments) => String::from_utf8_lossy(&arguments).into_owned(),
        Err(_) if Path::new("/proc/self").exists() => return false,
        Err(_) => match Command::new("ps").args(["-o", "args=", "-p", &id.to_string()]).output() {
            Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Err(_) => return false,
        },
    };
    arguments.contains(&*directory.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_that_is_not_ours_is_neither_seen_nor_ended() {
        let directory = tempfile::tempdir().unwrap();
        let mut plan = Plan::new(1, &[], None).unwrap();
        // Ids of processes that run, which are not of this cluster: ours and our parent's.
        plan.processes = vec![std::process::id(), std::os::unix::process::parent_id()];
        plan.save(directory.path()).unwrap();
        assert!(status(directory.path()).unwrap().unwrap().is_down());
        assert!(!down(directory.path()).await.unwrap());
    }

    #[tokio::test]
    async fn where_there_was_never_a_cluster_there_is_nothing_to_end() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(status(directory.path()).unwrap(), None);
        assert!(!down(directory.path()).await.unwrap());
        wipe(&directory.path().join("nowhere")).unwrap();
    }

    #[tokio::test]
    async fn a_process_of_ours_is_ended_by_its_id() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600", "sh"]).arg(directory.path());
        let id = spawn(command, "pd", directory.path()).unwrap();
        let mut plan = Plan::new(1, &[], None).unwrap();
        plan.processes = vec![id];
        plan.save(directory.path()).unwrap();
        assert_eq!(status(directory.path()).unwrap().unwrap().processes[0].process, Some(id));
        assert!(down(directory.path()).await.unwrap());
        assert!(status(directory.path()).unwrap().unwrap().is_down());
    }
}
