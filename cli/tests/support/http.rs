//! An HTTP client that sends exactly what it is told, good or bad, one connection for each request.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::process::{LOOK_EVERY, PATIENCE};

/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// 202 says that the flow still runs; 429 and 503 that it was not accepted.
const NOT_YET: [u16; 3] = [202, 429, 503];

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    head: String,
    body: Vec<u8>,
}

impl Request {
    /// A request without a body.
    pub(crate) fn new(method: &str, path: &str) -> Self {
        Self { head: format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n"), body: Vec::new() }
    }

    /// The same with a body of JSON.
    pub(crate) fn json(self, body: &str) -> Self {
        self.header("content-type", "application/json").body(body.as_bytes())
    }

    /// The same with a body.
    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self.header("content-length", &body.len().to_string())
    }

    /// The same with a header more.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// The same with this request id.
    pub(crate) fn id(self, id: &str) -> Self {
        self.header("idempotency-key", id)
    }

    /// As it goes over the line.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [self.head.as_bytes(), b"\r\n", &self.body].concat()
    }

    /// Sends it once.
    pub(crate) fn send(&self, address: &str) -> io::Result<Answer> {
        exchange(address, &self.bytes())
    }

    /// Sends it until there is an answer that is final.
    pub(crate) fn settle(&self, address: &str) -> Answer {
        let until = Instant::now() + PATIENCE;
        loop {
            let problem = match self.send(address) {
                Ok(answer) if !NOT_YET.contains(&answer.status) => return answer,
                Ok(answer) => answer.text(),
                Err(error) => error.to_string(),
            };
            assert!(Instant::now() < until, "no outcome: {problem}");
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// Sends bytes and reads the answer.
pub(crate) fn exchange(address: &str, bytes: &[u8]) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    // Whoever refuses a request early need not read all of it.
    let written = stream.write_all(bytes);
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    if let Some(answer) = Answer::parse(&answer) {
        return Ok(answer);
    }
    written?;
    read?;
    Err(io::Error::from(io::ErrorKind::UnexpectedEof))
}

/// Sends bytes and goes away without reading; if `politely`, it first says that nothing more will come.
pub(crate) fn send_and_go(address: &str, bytes: &[u8], politely: bool) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(bytes).unwrap();
    if politely {
        stream.shutdown(Shutdown::Write).unwrap();
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    /// Nothing if it is not complete.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers: Vec<_> = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        let answer = Self { status, headers, body: bytes[end + 4..].to_vec() };
        let length = answer.header("content-length")?.parse::<usize>().ok()?;
        (answer.body.len() == length).then_some(answer)
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Whether it is done.
    pub(crate) fn committed(&self) -> bool {
        self.header("tandem-outcome") == Some("COMMITTED")
    }

    /// What stays the same however often a request is sent.
    pub(crate) fn outcome(&self) -> (u16, Option<&str>, Option<&str>, &[u8]) {
        (self.status, self.header("tandem-outcome"), self.header("tandem-flow"), &self.body)
    }
}
