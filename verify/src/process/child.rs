//! Processes of ours, none of which outlives us: each is killed when its handle is dropped, and its guard kills
//! those that are left if we are killed ourselves.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tandem_e2e_tikv::processes::Guard;
use tokio::process::{Child, Command};
use tokio::time::timeout;

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
        guard.add(id);
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
        self.guard.remove(self.id);
    }
}
