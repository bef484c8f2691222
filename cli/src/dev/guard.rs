//! No worker outlives `tandem dev`, not even when that is killed with no time to say so.
//!
//! A small shell process holds a pipe from us. As long as we live, we tell it which process groups are our workers. When
//! the pipe closes, because we ended or were killed, it ends those that are left.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// Reads the list of groups, one list a line; at the end of input, ends the groups of the last list.
const SCRIPT: &str = "while read -r line; do groups=$line; done; \
                      for group in $groups; do kill -TERM \"-$group\" 2>/dev/null; done";

/// Keeps the list of process groups. Cheap to clone.
#[derive(Clone)]
pub(super) struct Guard {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    shell: Child,
    pipe: Option<ChildStdin>,
    groups: BTreeSet<u32>,
}

impl Guard {
    /// Starts the shell.
    pub(super) fn start() -> io::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        own_group(&mut command);
        let mut shell = command.spawn()?;
        let pipe = shell.stdin.take();
        Ok(Self { inner: Arc::new(Mutex::new(Inner { shell, pipe, groups: BTreeSet::new() })) })
    }

    /// A worker was started as the leader of its own process group.
    pub(super) fn add(&self, group: u32) {
        self.change(|groups| groups.insert(group));
    }

    /// A worker has ended.
    pub(super) fn remove(&self, group: u32) {
        self.change(|groups| groups.remove(&group));
    }

    fn change(&self, change: impl FnOnce(&mut BTreeSet<u32>) -> bool) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut inner.groups);
        let groups: Vec<String> = inner.groups.iter().map(u32::to_string).collect();
        if let Some(pipe) = &mut inner.pipe {
            // Without the shell there is no guard; workers are still stopped when we end in good order.
            let _ = writeln!(pipe, "{}", groups.join(" "));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.shell.wait();
    }
}

/// Ctrl-C in the terminal is for us alone: workers must live until their flows have ended.
#[cfg(unix)]
pub(super) fn own_group(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
}

/// Elsewhere there are no process groups.
#[cfg(not(unix))]
pub(super) fn own_group(_command: &mut Command) {}

/// Asks a process group to end.
pub(super) fn terminate(group: u32) {
    signal("-TERM", group);
}

/// Ends what is left of a process group.
pub(super) fn kill(group: u32) {
    signal("-KILL", group);
}

/// Without unsafe code, a signal takes a process. A group that is not there any more is what was wanted.
fn signal(signal: &str, group: u32) {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("kill {signal} -{group}")]).stdout(Stdio::null()).stderr(Stdio::null());
    let _ = command.status();
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn sleeper() -> Child {
        let mut command = Command::new("sleep");
        command.arg("600");
        own_group(&mut command);
        command.spawn().unwrap()
    }

    fn ends_within(child: &mut Child, limit: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < limit {
            if child.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    /// Take the `drop(self.pipe.take())` out and the worker outlives the guard.
    #[test]
    fn workers_end_with_the_guard_unless_they_were_removed() {
        let guard = Guard::start().unwrap();
        let (mut guarded, mut released) = (sleeper(), sleeper());
        guard.add(guarded.id());
        guard.add(released.id());
        guard.remove(released.id());
        drop(guard);
        assert!(ends_within(&mut guarded, Duration::from_secs(10)));
        assert!(released.try_wait().unwrap().is_none());
        released.kill().unwrap();
        released.wait().unwrap();
    }
}
