//! Processes of ours, none of which outlives us: each is killed when its handle is dropped, and a small shell that holds
//! a pipe from us kills those that are left if we are killed ourselves.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::process::{ChildStdin, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Reads the list of processes, one list a line; at the end of input, kills those of the last list.
const SCRIPT: &str = "while read -r line; do all=$line; done; for one in $all; do kill -9 \"$one\" 2>/dev/null; done";

/// Keeps the list of our processes for the shell. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Guard(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    shell: std::process::Child,
    pipe: Option<ChildStdin>,
    processes: BTreeSet<u32>,
}

impl Guard {
    /// Starts the shell.
    pub(crate) fn start() -> io::Result<Self> {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        own_group(&mut shell);
        let mut shell = shell.spawn()?;
        let pipe = shell.stdin.take();
        Ok(Self(Arc::new(Mutex::new(Inner { shell, pipe, processes: BTreeSet::new() }))))
    }

    fn change(&self, change: impl FnOnce(&mut BTreeSet<u32>) -> bool) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut inner.processes);
        let all: Vec<String> = inner.processes.iter().map(u32::to_string).collect();
        if let Some(pipe) = &mut inner.pipe {
            // Without the shell, processes are still killed when their handles are dropped.
            let _ = writeln!(pipe, "{}", all.join(" "));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.shell.wait();
    }
}

/// Ctrl-C in a terminal must not end the shell before it has done its work.
#[cfg(unix)]
fn own_group(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
}

#[cfg(not(unix))]
fn own_group(_command: &mut std::process::Command) {}

/// A process of ours.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    id: u32,
    guard: Guard,
}

impl Process {
    /// Starts it.
    pub(crate) fn spawn(command: &mut Command, guard: &Guard) -> io::Result<Self> {
        let child = command.stdin(Stdio::null()).kill_on_drop(true).spawn()?;
        let id = child.id().ok_or_else(|| io::Error::other("a new process has no id"))?;
        guard.change(|processes| processes.insert(id));
        Ok(Self { child, id, guard: guard.clone() })
    }

    /// Its id.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Kills it, without any farewell, whether it is frozen or not.
    pub(crate) async fn kill(&mut self) -> io::Result<()> {
        self.child.start_kill()?;
        self.child.wait().await.map(drop)
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(status) => status.map(|status| status.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Sends it a signal by name: `TERM`, `STOP` or `CONT`.
    pub(crate) async fn signal(&self, name: &str) -> io::Result<()> {
        // Without unsafe code, a signal takes a process.
        let mut command = Command::new("sh");
        let status = command.args(["-c", &format!("kill -{name} {}", self.id)]).stdin(Stdio::null()).status().await?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("kill -{name} ended with {status}"))) }
    }

    /// Asks it to end, and waits for that. `false` if it had to be killed.
    pub(crate) async fn stop(&mut self, grace: Duration) -> io::Result<bool> {
        self.signal("TERM").await?;
        if let Ok(status) = timeout(grace, self.child.wait()).await {
            return status.map(|status| status.success());
        }
        self.kill().await?;
        Ok(false)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.start_kill();
        self.guard.change(|processes| processes.remove(&self.id));
    }
}
