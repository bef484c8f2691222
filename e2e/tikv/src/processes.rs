//! Processes of ours, none of which outlives us: each is killed when its handle is dropped, and a small shell that holds a
//! pipe from us kills those that are left, and clears up, when we end in another way.
//!
//! That shell also serves what lives in a `static`, which is never dropped.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Error;

/// Reads the list of processes, one list a line; at the end of input, kills those of the last list, and removes the
/// directory that it was given. What is just being killed may still put a file there.
const SCRIPT: &str = "while read -r line; do all=$line; done; for one in $all; do kill -9 \"$one\" 2>/dev/null; done; \
                      [ -z \"$1\" ] || for again in 1 2 3 4 5 6 7 8 9; do rm -rf \"$1\" && break; sleep 0.2; done";
/// How much of a log goes into an error.
const TAIL_BYTES: u64 = 2_000;

/// Keeps the list of our processes for the shell. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Guard(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    shell: Child,
    pipe: Option<ChildStdin>,
    processes: BTreeSet<u32>,
}

impl Guard {
    /// Starts the shell. The directory, if any, is removed when the last handle is gone.
    pub fn start(directory: Option<&Path>) -> io::Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "sh"]).arg(directory.unwrap_or_else(|| Path::new("")));
        // Ctrl-C in a terminal must not end it before it has done its work.
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut shell = shell.spawn()?;
        let pipe = shell.stdin.take();
        Ok(Self(Arc::new(Mutex::new(Inner { shell, pipe, processes: BTreeSet::new() }))))
    }

    /// From now on, the process with this id is killed when we end.
    pub fn add(&self, id: u32) {
        self.change(|processes| processes.insert(id));
    }

    /// The process with this id has ended.
    pub fn remove(&self, id: u32) {
        self.change(|processes| processes.remove(&id));
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

/// A process of ours, with a log.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    guard: Guard,
}

impl Process {
    /// Starts it; what it writes is added to the log.
    pub fn spawn(name: String, mut command: Command, log: &Path, guard: &Guard) -> Result<Self, Error> {
        let started = send_output(&mut command, log).and_then(|command| command.process_group(0).spawn());
        let child = started.map_err(Error::io(format!("start {name}")))?;
        guard.add(child.id());
        Ok(Self { name, log: log.to_owned(), child, guard: guard.clone() })
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// An error if it has ended.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(ended(&self.name, &status.to_string(), &self.log)),
            Err(error) => Err(ended(&self.name, &error.to_string(), &self.log)),
        }
    }

    /// Kills it with SIGKILL, also when it is frozen, and waits for its end.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.child.kill().and_then(|()| self.child.wait()).map(drop).map_err(Error::io(format!("kill {}", self.name)))
    }

    /// Sends it a signal by name, as `STOP`.
    pub fn signal(&self, name: &str) -> Result<(), Error> {
        signal(self.child.id(), name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.kill();
        self.guard.remove(self.child.id());
    }
}

/// Lets a command write into a log, and read nothing.
pub(crate) fn send_output<'a>(command: &'a mut Command, log: &Path) -> io::Result<&'a mut Command> {
    let file = OpenOptions::new().create(true).append(true).open(log)?;
    Ok(command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file))
}

/// The error of a process that is gone.
pub(crate) fn ended(name: &str, status: &str, log: &Path) -> Error {
    Error::Ended { process: name.to_owned(), status: status.to_owned(), log: log.to_owned(), tail: tail(log) }
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let mut text = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        file.read_to_end(&mut text)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&text).trim().to_owned(),
        Err(error) => format!("(there is no log: {error})"),
    }
}

/// Sends a signal by name, as `TERM`, to a process that we started.
pub(crate) fn signal(id: u32, name: &str) -> Result<(), Error> {
    let attempted = format!("send SIG{name} to process {id}");
    // Without unsafe code, a signal takes a process.
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).stderr(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Error::Io { attempted, source: io::Error::other(format!("kill: {status}")) }),
        Err(source) => Err(Error::Io { attempted, source }),
    }
}
