//! The programs under test as processes. Whatever happens to a test, none of them outlives it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Nothing here takes so long unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// How often something is looked at again that nobody announces.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(5);

const TANDEM: &str = env!("CARGO_BIN_EXE_tandem");

/// The program of an example, which lies beside ours. Built if it is not there.
pub(crate) fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let directory = Path::new(TANDEM).parent().unwrap();
    let path = directory.join(name);
    if !path.exists() {
        BUILT.get_or_init(|| build_examples(directory));
    }
    assert!(path.exists(), "{} is not there; build it with: cargo build -p orders -p transfers", path.display());
    path
}

fn build_examples(directory: &Path) {
    println!("building the examples, which are not in {}", directory.display());
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        None | Some("debug") => "dev",
        Some(name) => name,
    };
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "-p", "orders", "-p", "transfers"]);
    build.args(["--profile", profile, "--target-dir"]).arg(directory.parent().unwrap());
    assert!(build.status().unwrap().success(), "the examples do not build");
}

/// A copy of an example's resources in a directory of its own, with workers from beside our program.
pub(crate) fn application(name: &str, functions: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let there = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    for entry in std::fs::read_dir(there).unwrap() {
        let from = entry.unwrap().path();
        if from.extension().is_some_and(|extension| extension == "yaml") {
            std::fs::copy(&from, directory.path().join(from.file_name().unwrap())).unwrap();
        }
    }
    let program = example(name).display().to_string();
    let worker = serde_json::json!({"name": name, "command": [program], "instances": 2});
    let text =
        format!("workers:\n- {worker}\n").replace("\"name\"", &format!("\"functions\": [{functions}], \"name\""));
    std::fs::write(directory.path().join("Tandemfile"), text).unwrap();
    directory
}

/// Runs `tandem` to its end.
pub(crate) fn tandem(arguments: &[&str]) -> Output {
    Command::new(TANDEM).args(arguments).env("NO_COLOR", "1").output().unwrap()
}

/// All that a process has printed so far.
#[derive(Clone, Default)]
struct Printed(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Printed {
    fn read(&self, output: impl Read + Send + 'static) {
        let printed = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                printed.0.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                printed.0.1.notify_all();
            }
        });
    }

    /// The first line behind the first `after` ones that contains `part`.
    fn wait_for(&self, part: &str, after: usize) -> String {
        let lines = self.0.0.lock().unwrap();
        let found = |lines: &[String]| lines.iter().skip(after).find(|line| line.contains(part)).cloned();
        let (lines, _) =
            self.0.1.wait_timeout_while(lines, PATIENCE, |lines| found(lines).is_none()).unwrap_or_else(|_| panic!());
        found(&lines).unwrap_or_else(|| panic!("no line with {part:?} came after line {after}:\n{}", lines.join("\n")))
    }

    fn count(&self) -> usize {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn text(&self) -> String {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}

/// A `tandem dev` that runs. Dropped, it is killed; its workers then end by themselves.
pub(crate) struct Dev {
    child: Child,
    printed: Printed,
    marked: usize,
    /// Where requests come in, as `127.0.0.1:4711`.
    pub(crate) http: String,
    /// Where `tandem flows` and its like ask.
    pub(crate) admin: String,
}

impl Dev {
    /// Starts it and waits until it serves.
    pub(crate) fn start(directory: &Path) -> Self {
        Self::start_as(Command::new(TANDEM), directory)
    }

    /// The same, as the last arguments of another command.
    pub(crate) fn start_behind(program: &str, arguments: &[&str], directory: &Path) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).arg(TANDEM);
        Self::start_as(command, directory)
    }

    fn start_as(mut command: Command, directory: &Path) -> Self {
        let ready = directory.join("ready.json");
        let _ = std::fs::remove_file(&ready);
        command.arg("dev").arg(directory).args(["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ready-file"]);
        command.arg(&ready).env("NO_COLOR", "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let printed = Printed::default();
        printed.read(child.stdout.take().unwrap());
        printed.read(child.stderr.take().unwrap());
        let mut dev = Self { child, printed, marked: 0, http: String::new(), admin: String::new() };
        let until = Instant::now() + PATIENCE;
        while !ready.exists() {
            let ended = dev.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < until, "it is not ready ({ended:?}):\n{}", dev.printed.text());
            std::thread::sleep(LOOK_EVERY);
        }
        let addresses: Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
        let address = |name: &str| addresses[name].as_str().unwrap().trim_start_matches("http://").to_owned();
        (dev.http, dev.admin) = (address("http"), address("admin"));
        dev
    }

    /// Its process id.
    #[cfg(target_os = "linux")]
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// From here on, [`Dev::wait_for`] looks only at what is printed later.
    pub(crate) fn mark(&mut self) {
        self.marked = self.printed.count();
    }

    /// The first line since the mark that contains `part`.
    pub(crate) fn wait_for(&self, part: &str) -> String {
        self.printed.wait_for(part, self.marked)
    }

    /// Runs a command that asks its admin port.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Output {
        tandem(&[arguments, &["--admin", &format!("http://{}", self.admin)]].concat())
    }

    /// Ends it as Ctrl-C does.
    pub(crate) fn stop(mut self) {
        signal(self.child.id(), "INT");
        let (status, printed) = self.ended();
        assert!(status.success(), "{status}:\n{printed}");
    }

    /// Waits until it has ended, and gives what it printed.
    pub(crate) fn ended(&mut self) -> (ExitStatus, String) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, self.printed.text());
            }
            assert!(Instant::now() < until, "it does not end:\n{}", self.printed.text());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The processes that it has started from `program`.
    #[cfg(target_os = "linux")]
    pub(crate) fn workers(&self, program: &str) -> Vec<u32> {
        let parent = format!(" {} ", self.child.id());
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        // The line is `id (program) state parent ...`; a zombie is in state Z.
        let is_ours = |id: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            let rest = stat.strip_prefix(&format!("{id} ({program}) "));
            rest.is_some_and(|rest| !rest.starts_with('Z') && rest[1..].starts_with(&parent))
        };
        ids.filter(is_ours).collect()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("tandem dev printed:\n{}", self.printed.text());
        }
    }
}

/// Sends a signal to one process.
pub(crate) fn signal(process: u32, name: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {process}")]).status().unwrap();
    assert!(status.success(), "no signal {name} for {process}");
}

/// What a process printed on both of its outputs.
pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
