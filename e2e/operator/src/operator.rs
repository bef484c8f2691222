//! `tandem-operator` as a process: it can be killed, frozen, and asked what it has used and counted.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// How long it may take to end when it is told to.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Ticks of `/proc/*/stat` in a second. Linux has had 100 on every machine this runs on.
const TICKS_A_SECOND: f64 = 100.0;
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;

/// The process. It ends with this value.
#[derive(Debug)]
pub struct Operator {
    child: Child,
    metrics: SocketAddr,
    health: SocketAddr,
}

/// What the process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Of all its threads, in seconds.
    pub cpu_seconds: f64,
    /// Memory that it holds.
    pub memory_kib: u64,
    /// Most memory that it held.
    pub peak_kib: u64,
}

impl Operator {
    /// Starts it over the cluster of a kubeconfig; what it says goes to the end of `log`.
    pub fn start(program: &Path, kubeconfig: &Path, log: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let [metrics, health] = [free_address()?, free_address()?];
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let child = Command::new(program)
            .env("KUBECONFIG", kubeconfig)
            .arg("--runtime-image=runtime:1")
            .arg(format!("--metrics-address={metrics}"))
            .arg(format!("--health-address={health}"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self { child, metrics, health })
    }

    /// Whether it knows everything that it needs.
    pub fn is_ready(&self) -> bool {
        ask(self.health, "/readyz").is_ok()
    }

    /// What it says about what is missing.
    pub fn readiness(&self) -> String {
        ask(self.health, "/readyz").unwrap_or_else(|error| error.to_string())
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Sends it a signal, such as `STOP`.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status()?;
        ensure!(status.success(), "kill -{name}: {status}");
        Ok(())
    }

    /// Kills it.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Tells it to end, and waits until it has.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.signal("TERM")?;
        let begun = Instant::now();
        while !self.has_ended() {
            ensure!(begun.elapsed() < ENDS_WITHIN, "the operator does not end");
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// What it has used.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(self.child.id())
    }

    /// The sum of all lines of a metric whose labels contain all of `labels`, and none of `without`.
    pub fn metric(&self, name: &str, labels: &[&str], without: &[&str]) -> anyhow::Result<f64> {
        let text = ask(self.metrics, "/metrics")?;
        let lines = text.lines().filter_map(|line| line.strip_prefix(name)).filter_map(|line| {
            let (shown, value) = line.rsplit_once(' ')?;
            let is_it = shown.is_empty() || shown.starts_with('{');
            let fits =
                labels.iter().all(|label| shown.contains(label)) && !without.iter().any(|label| shown.contains(label));
            if is_it && fits { value.parse::<f64>().ok() } else { None }
        });
        Ok(lines.sum())
    }

    /// How often it has called to change the cluster.
    pub fn writes(&self) -> anyhow::Result<f64> {
        self.metric("tandem_operator_writes_total", &[], &[])
    }

    /// All lines of its metrics that begin so.
    pub fn lines(&self, beginning: &str) -> anyhow::Result<Vec<String>> {
        let text = ask(self.metrics, "/metrics")?;
        Ok(text.lines().filter(|line| line.starts_with(beginning)).map(str::to_owned).collect())
    }
}

impl Usage {
    /// What the process of that id has used.
    pub fn of(id: u32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
        };
        Ok(Self {
            cpu_seconds: (ticks(USER_TIME) + ticks(SYSTEM_TIME)) / TICKS_A_SECOND,
            memory_kib: kib("VmRSS:"),
            peak_kib: kib("VmHWM:"),
        })
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.end();
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// The body of the answer, if it is 200.
fn ask(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
        _ => bail!("{address}{path}: {answer}"),
    }
}
