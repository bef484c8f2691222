//! A lean HTTP/1.1 client: one connection, one request at a time, no more parsing than is needed.
//!
//! The load generator shares the cores with what it measures, so every microsecond that it takes is missing there.

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::tally::Ended;
use crate::workload::Operation;

/// What a client names its request by.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// As the runtime writes it when user code said no.
const REJECTED: &[u8] = b"tandem-outcome: REJECTED";
/// As it writes it when others were faster each time.
const GAVE_UP: &[u8] = b"tandem-outcome: CONFLICT";
const HEAD_END: &[u8] = b"\r\n\r\n";
/// Largest answer that is expected, and more.
const BUFFER_BYTES: usize = 16 * 1024;
const OK: u16 = 200;
const CONFLICT: u16 = 409;

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

/// One answer, as far as it is of interest.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    /// What was not applied says why.
    outcome: Option<Ended>,
    /// Bytes of head and body.
    bytes: usize,
}

impl Client {
    /// Connects to `address`.
    pub(crate) async fn connect(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("failed to connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, request: Vec::new(), answer: vec![0; BUFFER_BYTES] })
    }

    /// Sends a request and waits for its outcome.
    pub(crate) async fn request(&mut self, id: &str, operation: &Operation) -> anyhow::Result<Ended> {
        let Operation { path, body, .. } = operation;
        self.request.clear();
        for part in ["POST ", path, " HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"] {
            self.request.extend_from_slice(part.as_bytes());
        }
        let length = body.len().to_string();
        for part in [IDEMPOTENCY_KEY, ": ", id, "\r\ncontent-length: ", &length, "\r\n\r\n", body] {
            self.request.extend_from_slice(part.as_bytes());
        }
        self.stream.write_all(&self.request).await?;
        let answer = self.answer().await?;
        match (answer.status, answer.outcome) {
            (OK, _) => Ok(Ended::Committed),
            (CONFLICT, Some(outcome)) => Ok(outcome),
            (status, _) => {
                let text = String::from_utf8_lossy(&self.answer[..answer.bytes]);
                anyhow::bail!("{path} was answered {status}: {text}")
            }
        }
    }

    async fn answer(&mut self) -> anyhow::Result<Answer> {
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.answer[filled..]).await?;
            anyhow::ensure!(read > 0, "the connection was closed, or an answer has more than {BUFFER_BYTES} bytes");
            filled += read;
            if let Some(answer) = parse(&self.answer[..filled])?
                && answer.bytes <= filled
            {
                anyhow::ensure!(answer.bytes == filled, "an answer was followed by something that nobody asked for");
                return Ok(answer);
            }
        }
    }
}

/// Reads the head, if all of it is there.
fn parse(received: &[u8]) -> anyhow::Result<Option<Answer>> {
    const STATUS_AT: std::ops::Range<usize> = 9..12;
    let Some(head) = received.windows(HEAD_END.len()).position(|window| window == HEAD_END) else { return Ok(None) };
    let (head, body_at) = (&received[..head], head + HEAD_END.len());
    let number = |text: &[u8]| std::str::from_utf8(text).ok().and_then(|text| text.trim().parse::<usize>().ok());
    let status = head.get(STATUS_AT).and_then(number).and_then(|status| u16::try_from(status).ok());
    let status = status.context("an answer without a status")?;
    let mut length = None;
    let mut outcome = None;
    for line in head.split(|byte| *byte == b'\n') {
        if let Some((name, value)) = line.split_at_checked("content-length:".len())
            && name.eq_ignore_ascii_case(b"content-length:")
        {
            length = number(value);
        }
        for (begin, meaning) in [(REJECTED, Ended::Rejected), (GAVE_UP, Ended::GaveUp)] {
            if line.starts_with(begin) {
                outcome = Some(meaning);
            }
        }
    }
    let length = length.context("an answer without a length")?;
    Ok(Some(Answer { status, outcome, bytes: body_at + length }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_read_when_its_head_is_complete() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n17";
        assert_eq!(parse(&text[..40]).unwrap(), None);
        let answer = parse(text).unwrap().unwrap();
        assert_eq!(answer, Answer { status: 200, outcome: None, bytes: text.len() });
        // The head alone says how much is to come.
        assert_eq!(parse(&text[..text.len() - 2]).unwrap().unwrap().bytes, text.len());
    }

    #[test]
    fn rejection_is_told_from_other_conflicts() {
        let with = |outcome: &str| {
            let text = format!("HTTP/1.1 409 Conflict\r\ntandem-outcome: {outcome}\r\ncontent-length: 0\r\n\r\n");
            parse(text.as_bytes()).unwrap().unwrap()
        };
        assert_eq!(with("REJECTED").outcome, Some(Ended::Rejected));
        assert_eq!(with("CONFLICT").outcome, Some(Ended::GaveUp));
        assert_eq!(with("CANCELLED").outcome, None);
    }

    #[test]
    fn answer_without_a_length_is_refused() {
        parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap_err();
    }
}
