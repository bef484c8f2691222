//! The processes that the benchmark starts: it is their program as well.
//!
//! Each prints one line when it is ready, answers the lines it is asked on its standard input, and ends when that is
//! closed, so that none outlives the benchmark.

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub(crate) mod front;
pub(crate) mod runtime;
pub(crate) mod worker;

/// What a process that serves says about itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// Where it listens.
    pub(crate) address: String,
}

/// What a system has counted so far. `None` where it does not count that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counted {
    /// Times that a journal was synced.
    pub(crate) syncs: Option<u64>,
    /// Runs of user code, or of a transaction.
    pub(crate) attempts: Option<u64>,
    /// Attempts that were thrown away because of others.
    pub(crate) conflicts: Option<u64>,
    /// Commits of a store that is not embedded: groups of flows.
    pub(crate) commits: Option<u64>,
    /// Keys and values that stores wrote.
    pub(crate) stored_bytes: Option<u64>,
    /// Requests that stores were asked.
    pub(crate) store_requests: Option<u64>,
    /// Other runtimes that a runtime has a stream to.
    pub(crate) peers: usize,
}

impl Counted {
    /// What both have counted. Of peers, those of the second.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        let sum = |of: fn(&Self) -> Option<u64>| match (of(self), of(other)) {
            (Some(one), Some(two)) => Some(one + two),
            (one, two) => one.or(two),
        };
        Self {
            syncs: sum(|counted| counted.syncs),
            attempts: sum(|counted| counted.attempts),
            conflicts: sum(|counted| counted.conflicts),
            commits: sum(|counted| counted.commits),
            stored_bytes: sum(|counted| counted.stored_bytes),
            store_requests: sum(|counted| counted.store_requests),
            peers: other.peers,
        }
    }
}

/// Prints one line of JSON for the process that started this one.
fn say(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(value)?)?;
    Ok(out.flush()?)
}

/// The lines that the process that started this one asks. Closed when that one is gone.
fn questions() -> mpsc::UnboundedReceiver<String> {
    let (sender, questions) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    questions
}

/// Returns when the process that started this one is gone.
async fn until_abandoned() {
    let mut questions = questions();
    while questions.recv().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_counts_stays_uncounted() {
        let one = Counted { syncs: Some(1), attempts: Some(2), ..Counted::default() };
        let two = Counted { attempts: Some(3), conflicts: Some(4), ..Counted::default() };
        let expected = Counted { syncs: Some(1), attempts: Some(5), conflicts: Some(4), ..Counted::default() };
        assert_eq!(one.plus(&two), expected);
    }
}
