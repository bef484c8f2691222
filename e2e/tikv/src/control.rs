//! The control port of a test store: fail points, figures, regions.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::slots::hex;

/// A store that is frozen does not answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A way for requests to fail, by name. `GET /failpoints/names` of a control port and `e2e/tikv/README.md` list them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failpoint {
    name: String,
    times: u64,
    percent: u8,
    milliseconds: u64,
    prefix: String,
}

impl Failpoint {
    /// At every request that it is for, until it is taken away.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), times: 0, percent: 0, milliseconds: 0, prefix: String::new() }
    }

    /// Only so often.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Only at so many of a hundred requests, from 1 to 100; which ones follows from their order.
    #[must_use]
    pub fn percent(mut self, percent: u8) -> Self {
        self.percent = percent;
        self
    }

    /// How long a delay is.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.milliseconds = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Only at requests that name a key with this prefix, so that tests that share a cluster do not meet it.
    #[must_use]
    pub fn prefix(mut self, prefix: &[u8]) -> Self {
        self.prefix = hex(prefix);
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn query(&self) -> String {
        // Names are words with hyphens, prefixes hexadecimal: there is nothing to escape.
        format!("/failpoints?name={}&prefix={}", self.name, self.prefix)
    }
}

/// A fail point that is or was set, and what it met.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Met {
    /// Its name.
    pub name: String,
    /// The prefix of keys that it is for, in hexadecimal.
    #[serde(default)]
    pub prefix: String,
    /// Requests that it is for.
    pub met: u64,
    /// Those at which it fired: a test of a fault looks whether there was one.
    pub fired: u64,
    /// Requests that it holds now.
    pub holds: u64,
}

/// What a store has done since its process was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Requests by kind, as in `KvPrewrite`.
    pub requests: BTreeMap<String, u64>,
    /// Those that were answered with an error of the transport.
    pub failed: BTreeMap<String, u64>,
    /// Batches of rows that were written, each durable before its answer.
    pub batches: u64,
    /// Keys and values of these rows.
    pub batch_bytes: u64,
    /// Writes of the log, each with a sync: batches that come at the same time share one.
    pub log_writes: u64,
    /// All bytes that were given to the operating system to write; 0 where it does not say.
    pub disk_bytes: u64,
}

impl Figures {
    /// The sum over stores.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for (kind, count) in &other.requests {
            *self.requests.entry(kind.clone()).or_default() += count;
        }
        for (kind, count) in &other.failed {
            *self.failed.entry(kind.clone()).or_default() += count;
        }
        self.batches += other.batches;
        self.batch_bytes += other.batch_bytes;
        self.log_writes += other.log_writes;
        self.disk_bytes += other.disk_bytes;
        self
    }
}

/// A store and its regions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreRegions {
    /// The id that PD gave the store.
    pub store: u64,
    /// What PD tells clients.
    pub address: String,
    /// In the order of their keys.
    pub regions: Vec<Region>,
}

/// A region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Its id.
    pub id: u64,
    /// The first key, raw, in hexadecimal; empty at the beginning of the key space.
    pub start: String,
    /// The key behind the last; empty at the end of the key space.
    pub end: String,
    /// The part of its epoch that splits count up.
    pub version: u64,
    /// PD knows its leader.
    pub known: bool,
}

impl StoreRegions {
    /// Whether a raw key lies inside of one of its regions, and not at the beginning.
    pub(crate) fn inside(&self, key: &str) -> bool {
        self.regions
            .iter()
            .any(|region| region.start.as_str() < key && (region.end.is_empty() || key < region.end.as_str()))
    }
}

/// Why there is no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("nobody answers: {0}")]
    Nobody(String),
    #[error("{0}: {1}")]
    Status(StatusCode, String),
    #[error("the answer cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// Asks over plain HTTP.
pub(crate) async fn ask(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: Option<&impl Serialize>,
) -> Result<Bytes, Unanswered> {
    let body = body.map_or(Ok(Vec::new()), serde_json::to_vec)?;
    let nobody = |error: &dyn std::error::Error| Unanswered::Nobody(error.to_string());
    let request = Request::builder().method(method).uri(format!("http://{address}{path}"));
    let request = request.body(Full::new(Bytes::from(body))).map_err(|error| nobody(&error))?;
    // A connection belongs to the executor that it was made in, and tests have one each.
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let answer = async {
        let response = client.request(request).await.map_err(|error| nobody(&error))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| nobody(&error))?.to_bytes();
        Ok::<_, Unanswered>((status, body))
    };
    let (status, body) =
        timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| Unanswered::Nobody("timed out".to_owned()))??;
    if status.is_success() {
        return Ok(body);
    }
    Err(Unanswered::Status(status, String::from_utf8_lossy(&body).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_add_up_by_kind() {
        let of = |kind: &str, count| Figures {
            requests: [(kind.to_owned(), count)].into(),
            batches: count,
            ..Figures::default()
        };
        let sum = of("KvGet", 2).plus(&of("KvGet", 3)).plus(&of("KvScan", 1));
        assert_eq!(sum.requests, [("KvGet".to_owned(), 5), ("KvScan".to_owned(), 1)].into());
        assert_eq!(sum.batches, 6);
    }

    #[test]
    fn the_bound_of_a_region_is_not_inside() {
        let region =
            |start: &str, end: &str| Region { id: 1, start: start.into(), end: end.into(), version: 1, known: true };
        let store =
            StoreRegions { store: 1, address: String::new(), regions: vec![region("", "74"), region("75", "")] };
        let inside = |key: &str| store.inside(key);
        assert!(inside("73") && inside("7500") && !inside("74") && !inside("7410") && !inside("75"));
    }
}
