//! Processes of clusters, found by a mark in their environment.
//!
//! The mark is there from the first moment of a process and is passed on to its children, so that nothing is lost when
//! whoever started it was killed before a list could be written. Containers do not have it; they are found by their cgroup.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;
use tandem_e2e_tikv::processes::tail;

use crate::commands::run;
use crate::place::Place;
use crate::{Error, packages};

/// The name of the cluster that a process belongs to.
const CLUSTER_MARK: &str = "TANDEM_CLUSTER_NODE";
/// Which of its processes it is.
const PROCESS_MARK: &str = "TANDEM_CLUSTER_PROCESS";
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A process that is not seen for so long has ended.
const ENDED_AFTER: Duration = Duration::from_secs(1);

/// A process of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Process {
    /// Such as `kubelet`.
    pub name: String,
    /// Its id.
    pub id: u32,
}

/// Starts a process inside of the network namespace of a cluster.
pub(crate) fn start(place: &Place, name: &str, program: &Path, arguments: &[String]) -> Result<(), Error> {
    let mut command = inside(place, program);
    command
        .args(arguments)
        .env("PATH", packages::path())
        .env(CLUSTER_MARK, place.node())
        .env(PROCESS_MARK, name)
        .current_dir(&place.directory);
    let log = place.log(name);
    let output = OpenOptions::new().create(true).append(true).open(&log);
    let output = output.and_then(|file| Ok((file.try_clone()?, file)));
    let (output, errors) = output.map_err(Error::io(format!("open {}", log.display())))?;
    // A group of its own: Ctrl-C in the terminal is not for it.
    command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
    command.spawn().map(drop).map_err(Error::io(format!("start {name}")))
}

/// A command that runs in the network namespace of a cluster. Not `ip netns exec`: that hides the cgroups.
pub(crate) fn inside(place: &Place, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", place.node())).arg("--").arg(program);
    command
}

/// All processes of a cluster that run, with those that they started.
pub(crate) fn all(place: &Place) -> Vec<Process> {
    let mark = format!("{CLUSTER_MARK}={}", place.node());
    let of = |id: u32| {
        let environment = fs::read(format!("/proc/{id}/environ")).ok()?;
        let words: Vec<_> = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        words.iter().find(|word| **word == mark)?;
        let name = words.iter().find_map(|word| word.strip_prefix(PROCESS_MARK)?.strip_prefix('='))?.to_owned();
        // What containerd starts has its mark, too.
        let program = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
        let name = if program.starts_with("containerd-shim") { "shim".to_owned() } else { name };
        (!is_dead(id)).then_some(Process { name, id })
    };
    ids().filter_map(of).collect()
}

/// An error if a process of the cluster has ended. While `nsenter` becomes the program, the system shows no environment for a
/// moment: only what stays away has ended.
pub(crate) fn check(place: &Place, name: &str) -> Result<(), Error> {
    let begun = Instant::now();
    while begun.elapsed() < ENDED_AFTER {
        if all(place).iter().any(|process| process.name == name) {
            return Ok(());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let log = place.log(name);
    Err(Error::Ended { process: name.to_owned(), tail: tail(&log), log })
}

fn ids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// One that has ended and that nobody has asked about counts as ended.
fn is_dead(id: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = status.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

/// Sends a signal by name, as `TERM`, to processes that belong to a cluster. One that has just ended hears none.
pub(crate) fn signal(ids: &[u32], name: &str) {
    for id in ids {
        // Without unsafe code, a signal takes a process.
        let _ = run(Command::new("kill").arg(format!("-{name}")).arg(id.to_string()));
    }
}

/// Waits until none of them runs; `false` if some still do.
pub(crate) fn await_end(longest: Duration, mut left: impl FnMut() -> Vec<u32>) -> bool {
    let begun = Instant::now();
    while !left().is_empty() {
        if begun.elapsed() > longest {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    true
}

/// The roots of the cgroup hierarchies: one with version 2, one for each controller with version 1.
pub(crate) fn cgroup_roots() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let entries = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let real: BTreeSet<PathBuf> =
        entries.filter_map(|path| path.canonicalize().ok()).filter(|path| path.is_dir()).collect();
    real.into_iter().collect()
}

/// The processes of all containers of a cluster.
pub(crate) fn contained(place: &Place) -> Vec<u32> {
    let mut found = BTreeSet::new();
    for root in cgroup_roots() {
        let mut left = vec![root.join(place.cgroup())];
        while let Some(directory) = left.pop() {
            let processes = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            found.extend(processes.lines().filter_map(|line| line.parse::<u32>().ok()));
            let below = fs::read_dir(&directory).into_iter().flatten().flatten();
            left.extend(
                below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
            );
        }
    }
    found.into_iter().collect()
}
