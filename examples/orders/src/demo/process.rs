//! The runtime as a process that is started, killed and started again.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::process::{Child, Command};

use crate::client::Addresses;

/// How long a start may take.
const START_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked whether it has started.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How to start it.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The program.
    pub(crate) program: PathBuf,
    /// Its arguments, without the last one: where it says that it is ready.
    pub(crate) arguments: Vec<OsString>,
    /// Where it says that.
    pub(crate) ready_file: PathBuf,
    /// Where it writes its log.
    pub(crate) log: PathBuf,
}

/// A runtime that runs, with the workers that it started. Dropped, it is killed with them.
pub(crate) struct Running {
    child: Child,
    /// Of it and of everything that it started.
    group: u32,
    /// Where it listens.
    pub(crate) addresses: Addresses,
    /// How long it took until it took requests.
    pub(crate) started_in: Duration,
}

impl Running {
    /// Starts it and waits until it takes requests.
    pub(crate) async fn start(setup: &Setup) -> anyhow::Result<Self> {
        let began = Instant::now();
        let Setup { program, arguments, ready_file, log: log_path } = setup;
        if ready_file.exists() {
            std::fs::remove_file(ready_file).context("failed to remove the last ready file")?;
        }
        let log = std::fs::File::options().create(true).append(true).open(log_path);
        let log = log.with_context(|| format!("failed to open {}", log_path.display()))?;
        let mut child = Command::new(program)
            .args(arguments)
            .arg("--ready-file")
            .arg(ready_file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A group of its own: a signal to the group reaches the workers as well, so that none is left behind.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("failed to start {}", program.display()))?;
        let group = child.id().context("the runtime has no process id")?;
        let addresses = loop {
            if let Some(addresses) = addresses(ready_file) {
                break addresses;
            }
            if let Some(status) = child.try_wait()? {
                bail!("the runtime ended with {status} before it was ready; its log is {}", log_path.display());
            }
            if began.elapsed() > START_WITHIN {
                bail!("the runtime was not ready within {START_WITHIN:?}; its log is {}", log_path.display());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        Ok(Self { child, group, addresses, started_in: began.elapsed() })
    }

    /// Kills it and its workers as a loss of power would: no clean-up, no farewell.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        signal_group(self.group, "KILL")?;
        self.child.wait().await.context("failed to wait for the killed runtime")?;
        Ok(())
    }

    /// Asks it to end, as Ctrl-C would, and sees to it that it does.
    pub(crate) async fn stop(mut self, grace: Duration) -> anyhow::Result<()> {
        signal_group(self.group, "INT")?;
        if tokio::time::timeout(grace, self.child.wait()).await.is_err() {
            signal_group(self.group, "KILL")?;
            self.child.wait().await.context("failed to wait for the killed runtime")?;
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Workers that outlived their runtime are gone with this, whatever the reason was that we came here. Without any
        // process left the signal finds nobody, which is as well.
        drop(signal_group(self.group, "KILL"));
    }
}

/// Without unsafe code, a signal to a group takes the shell. It is quick enough to wait for.
fn signal_group(group: u32, signal: &str) -> anyhow::Result<()> {
    let command = format!("kill -{signal} -{group}");
    let status = std::process::Command::new("sh").args(["-c", &command]).stderr(Stdio::null()).status();
    let status = status.context("failed to run sh")?;
    anyhow::ensure!(status.success(), "{command} did not work: {status}");
    Ok(())
}

/// Absent as long as the file is not there or not complete.
fn addresses(ready_file: &std::path::Path) -> Option<Addresses> {
    serde_json::from_slice(&std::fs::read(ready_file).ok()?).ok()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    /// A runtime that starts one worker, writes down its process id, and says that it is ready.
    const RUNTIME: &str = r#"#!/bin/sh
for last; do :; done
sleep 1000 &
echo $! > "$(dirname "$last")/worker"
printf '{"http":"http://127.0.0.1:1","admin":"http://127.0.0.1:2"}' > "$last"
wait
"#;

    fn setup(directory: &Path, script: &str) -> Setup {
        let program = directory.join("tandem");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Setup { program, arguments: Vec::new(), ready_file: directory.join("ready.json"), log: directory.join("log") }
    }

    /// A zombie that nobody has waited for yet is gone as well.
    fn is_running(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
    }

    async fn worker_is_gone(directory: &Path) {
        let worker = std::fs::read_to_string(directory.join("worker")).unwrap();
        let began = Instant::now();
        while is_running(worker.trim()) {
            assert!(began.elapsed() < START_WITHIN, "worker {worker} outlived its runtime");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    #[tokio::test]
    async fn a_killed_runtime_leaves_no_worker() {
        let directory = tempfile::tempdir().unwrap();
        let running = Running::start(&setup(directory.path(), RUNTIME)).await.unwrap();
        assert_eq!(running.addresses.http, "http://127.0.0.1:1");
        running.kill().await.unwrap();
        worker_is_gone(directory.path()).await;
    }

    #[tokio::test]
    async fn a_dropped_runtime_leaves_no_worker() {
        let directory = tempfile::tempdir().unwrap();
        drop(Running::start(&setup(directory.path(), RUNTIME)).await.unwrap());
        worker_is_gone(directory.path()).await;
    }

    #[tokio::test]
    async fn a_runtime_that_does_not_start_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let error = Running::start(&setup(directory.path(), "#!/bin/sh\nexit 3\n")).await.err().unwrap();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
    }
}
