//! A runtime process, and a worker of the HTTP profile that answers when it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How often something is looked at that nobody announces.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A worker that runs in this process.
pub(crate) struct Worker {
    pub(crate) address: SocketAddr,
    asked: Receiver<()>,
    answers: Sender<()>,
}

impl Worker {
    /// Starts it. Each question waits for one permission to be answered.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, asked) = channel();
        let (answers, permissions) = channel();
        let permissions = Arc::new(Mutex::new(permissions));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (tell, permissions) = (tell.clone(), Arc::clone(&permissions));
                std::thread::spawn(move || serve(stream.unwrap(), &tell, &permissions));
            }
        });
        Self { address, asked, answers }
    }

    /// Returns when it is asked something.
    pub(crate) fn asked(&self) {
        self.asked.recv_timeout(PATIENCE).unwrap();
    }

    /// Lets it answer one question.
    pub(crate) fn answer(&self) {
        self.answers.send(()).unwrap();
    }
}

fn serve(stream: TcpStream, tell: &Sender<()>, permissions: &Mutex<Receiver<()>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some(length) = read_head(&mut reader) {
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        // The test may be over, and then nobody cares.
        let _ = tell.send(());
        if permissions.lock().unwrap().recv().is_err() {
            return;
        }
        let _ = stream.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{\"result\": 1}",
        );
    }
}

/// Reads the head of a request; the length of its body, or nothing at the end.
fn read_head(reader: &mut impl BufRead) -> Option<usize> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim().to_lowercase();
        if line.is_empty() {
            return Some(length);
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
}

/// Sends a request without a body; the whole answer, or what went wrong.
pub(crate) fn post(address: &str, path: &str) -> String {
    ask(address, "POST", path, b"")
}

/// Sends a request; the whole answer, or what went wrong.
pub(crate) fn ask(address: &str, method: &str, path: &str, body: &[u8]) -> String {
    let send = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    send().unwrap_or_else(|error| error.to_string())
}

/// A runtime that takes requests.
pub(crate) struct Running {
    child: Child,
    printed: Arc<Mutex<String>>,
    pub(crate) http: String,
    pub(crate) admin: String,
}

impl Running {
    /// Starts it on the `runtime.yaml` of a directory, and waits until it serves.
    pub(crate) fn start(directory: &Path) -> Self {
        let mut running = Self::begin(directory);
        running.is_ready(directory);
        running
    }

    /// Starts it, and waits for nothing.
    pub(crate) fn begin(directory: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tandem-runtime"));
        command.current_dir(directory).env_remove("TANDEM_LOG");
        command.args(["--config", "runtime.yaml", "--ready-file", "ready.json"]);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let printed = Arc::new(Mutex::new(String::new()));
        let (mut stderr, to) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&printed));
        std::thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).unwrap() > 0 {
                to.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        Self { child, printed, http: String::new(), admin: String::new() }
    }

    /// Waits until it serves.
    pub(crate) fn is_ready(&mut self, directory: &Path) {
        let ready = directory.join("ready.json");
        let addresses = self.until("it is ready", |_| std::fs::read(&ready).ok());
        let addresses: serde_json::Value = serde_json::from_slice(&addresses).unwrap();
        let address = |of: &str| addresses[of].as_str().unwrap().trim_start_matches("http://").to_owned();
        (self.http, self.admin) = (address("http"), address("admin"));
    }

    /// Waits until there is something to be found.
    pub(crate) fn until<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            let ended = self.child.try_wait().unwrap();
            let waits = ended.is_none() && began.elapsed() < PATIENCE;
            assert!(waits, "in vain until {what} ({ended:?}):\n{}", self.said());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// What it has logged so far.
    pub(crate) fn said(&self) -> String {
        self.printed.lock().unwrap().clone()
    }

    /// Waits until it has logged this.
    pub(crate) fn wait_for(&mut self, part: &str) {
        self.until(part, |running| running.said().contains(part).then_some(()));
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    }

    /// The status that it ends with.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < PATIENCE, "it does not end:\n{}", self.said());
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
