//! `tandem-operator probe URL...`: asks each address until it answers. The pod of `helm test` runs it, because the image has
//! no shell and no other client.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// How long all addresses together may take to answer.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// `HTTP/1.1 200`
const STATUS_LINE_BYTES: usize = 12;
/// Answers below it come from a server that works, whatever it thinks of the question.
const SERVER_ERROR: u16 = 500;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no address that can be asked.
    #[error("{url:?} is not of the form http://HOST[:PORT][/PATH]")]
    Address {
        /// What was given.
        url: String,
    },
    /// The time is over.
    #[error("failed to get an answer from {url} in time: {last}")]
    NoAnswer {
        /// What was asked.
        url: String,
        /// What the last attempt met.
        last: String,
    },
}

/// Asks each address, one after the other, until it answers with a status below 500. Gives up `patience` after the call.
pub async fn probe(urls: &[String], patience: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + patience;
    for url in urls {
        let (host, path) = parts(url)?;
        loop {
            let last = match timeout(ATTEMPT_TIMEOUT, ask(&host, path)).await {
                Ok(Ok(status)) if status < SERVER_ERROR => break,
                Ok(Ok(status)) => format!("status {status}"),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            if Instant::now() + PAUSE >= deadline {
                return Err(Error::NoAnswer { url: url.clone(), last });
            }
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Host with port, and path.
fn parts(url: &str) -> Result<(String, &str), Error> {
    let rest = url.strip_prefix("http://").unwrap_or_default();
    let (host, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    if host.is_empty() || !path.chars().all(|letter| letter.is_ascii_graphic()) {
        return Err(Error::Address { url: url.to_owned() });
    }
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    Ok((host, path))
}

async fn ask(host: &str, path: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(host).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut line = [0; STATUS_LINE_BYTES];
    stream.read_exact(&mut line).await?;
    let status = std::str::from_utf8(&line).ok().and_then(|line| line.strip_prefix("HTTP/1.")?.get(2..)?.parse().ok());
    status.ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "no answer of HTTP"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A server that gives these answers, one for each connection.
    async fn server(answers: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut question = [0; 1024];
                assert!(stream.read(&mut question).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        format!("http://{address}/metrics")
    }

    #[tokio::test]
    async fn asks_until_the_server_works() {
        let url = server(&["HTTP/1.1 503 Service Unavailable\r\n\r\n", "", "HTTP/1.1 404 Not Found\r\n\r\n"]).await;
        probe(&[url], PATIENCE).await.unwrap();
    }

    #[tokio::test]
    async fn every_address_has_to_answer() {
        let good = server(&["HTTP/1.1 200 OK\r\n\r\n"]).await;
        let bad = server(&["HTTP/1.1 500 Internal Server Error\r\n\r\n"]).await;
        let error = probe(&[good, bad.clone()], Duration::ZERO).await.unwrap_err();
        assert_eq!(error.to_string(), format!("failed to get an answer from {bad} in time: status 500"));
    }

    #[tokio::test]
    async fn what_is_no_http_is_no_answer() {
        let url = server(&["SSH-2.0-OpenSSH_9.2\r\n"]).await;
        let error = probe(&[url], Duration::ZERO).await.unwrap_err();
        assert!(error.to_string().ends_with("no answer of HTTP"), "{error}");
    }

    #[test]
    fn addresses_have_a_host_and_a_path() {
        assert_eq!(parts("http://a.b.svc").unwrap(), ("a.b.svc:80".to_owned(), "/"));
        assert_eq!(parts("http://a:8081/metrics").unwrap(), ("a:8081".to_owned(), "/metrics"));
        for wrong in ["", "a", "https://a", "http://", "http:///x", "http://a/x y"] {
            assert!(parts(wrong).is_err(), "{wrong}");
        }
    }
}
