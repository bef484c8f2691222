//! What clients of random programs do with each of their requests, and what they make of the answers.
//!
//! It is the same in a simulation and against real processes. How requests travel, how time is counted and what a client
//! remembers differ: that is up to [`crate::world`] and [`crate::process`].

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join4;
use http::{StatusCode, response};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tandem_model::ids::{Instance, Payload, RequestId};
use tandem_model::outcome::Outcome;
use tandem_model::request::Request;
use tandem_model::slot::SlotCount;
use tokio::time::sleep;

use crate::model::judge::{Answer, Asked};
use crate::program::Step;
use crate::program::generate::{Entry, Generator, Shape};

/// How long a client that was told 202 waits with each question.
pub(crate) const ASK_WAIT: &str = "2s";
/// What a cancel is counted as that was in time.
pub(crate) const CANCEL_CONFIRMED: &str = "cancel-confirmed";

/// How clients behave.
#[derive(Clone, Debug)]
pub(crate) struct Habits {
    pub(crate) clients: usize,
    /// Requests of each client.
    pub(crate) requests: usize,
    /// Longest time between two requests of a client.
    pub(crate) think_ms_max: u64,
    /// How often clients do something unusual with a request.
    pub(crate) tricks_percent: u32,
    /// When they do it.
    pub(crate) times: Times,
    /// What they ask for.
    pub(crate) shape: Shape,
}

/// Longest times of what is unusual, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) deadline_ms_max: u64,
    pub(crate) again_ms_max: u64,
    pub(crate) cancel_ms_max: u64,
    pub(crate) patience_ms_min: u64,
    /// How much longer than the least.
    pub(crate) patience_ms_more: u64,
}

/// What a request is sent to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) slots: SlotCount,
    /// Deadline of requests that name none.
    pub(crate) deadline_ms: u64,
}

/// One request, and what its client does with it.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Its number among all requests.
    pub(crate) number: usize,
    pub(crate) function: String,
    pub(crate) handler: String,
    pub(crate) key: String,
    pub(crate) id: String,
    pub(crate) bodies: Vec<Bytes>,
    pub(crate) think_ms: u64,
    pub(crate) tricks: Tricks,
    /// Its code may break, hang or be cancelled, so that any outcome is as it should be.
    pub(crate) is_odd: bool,
}

/// Unusual things that a client does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tricks {
    pub(crate) deadline_ms: Option<u64>,
    /// Sends it again so long after the first time, whatever came of that.
    duplicate_after_ms: Option<u64>,
    /// Sends another body under the same id.
    other_body_after_ms: Option<u64>,
    cancel_after_ms: Option<u64>,
    /// Waits no longer for an answer, and asks again.
    pub(crate) patience_ms: Option<u64>,
    /// Does not wait, but asks later.
    asks_later: bool,
    /// Sends it once more when it knows the outcome.
    asks_again: bool,
}

/// What came back.
pub(crate) enum Reply {
    Outcome(Answer),
    /// The id was used for another body.
    Mismatched,
    /// 202.
    Running,
    /// Nobody knows the flow.
    Unknown,
    /// Not accepted, or not known yet: ask again.
    Again,
}

/// An answer of the ingress, as far as it is looked at.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) status: StatusCode,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) repeated: bool,
    pub(crate) bytes: Bytes,
}

impl Habits {
    /// What each client is going to do, and what is known of its requests before they are sent.
    pub(crate) fn jobs(&self, target: Target, mut random: SmallRng) -> anyhow::Result<(Vec<Vec<Job>>, Vec<Asked>)> {
        let mut generator = Generator::new(SmallRng::from_rng(&mut random), self.shape.clone());
        let (mut all, mut asked) = (Vec::new(), Vec::new());
        for client in 0..self.clients {
            let mut jobs = Vec::new();
            for number in 0..self.requests {
                let tricks = self.tricks(&mut random);
                let entry = generator.entry();
                let other = tricks.other_body_after_ms.is_some().then(|| generator.other_body(&entry));
                let bodies: Vec<Entry> = std::iter::once(entry).chain(other).collect();
                let think_ms = random.random_range(0..=self.think_ms_max);
                let job = Job::new(asked.len(), format!("c{client}-{number}"), &bodies, tricks)?;
                asked.push(job.question(&bodies, target)?);
                jobs.push(Job { think_ms, ..job });
            }
            all.push(jobs);
        }
        Ok((all, asked))
    }

    fn tricks(&self, random: &mut SmallRng) -> Tricks {
        let mut maybe = |max_ms: u64| {
            let does = random.random_range(0..100) < self.tricks_percent;
            does.then(|| random.random_range(0..max_ms))
        };
        let times = self.times;
        Tricks {
            deadline_ms: maybe(times.deadline_ms_max).map(|ms| ms + 1),
            duplicate_after_ms: maybe(times.again_ms_max),
            other_body_after_ms: maybe(times.again_ms_max),
            cancel_after_ms: maybe(times.cancel_ms_max),
            patience_ms: maybe(times.patience_ms_more).map(|ms| ms + times.patience_ms_min),
            asks_later: maybe(2).is_some(),
            asks_again: maybe(2).is_some(),
        }
    }
}

impl Job {
    /// A request that is sent at once.
    pub(crate) fn new(number: usize, id: String, bodies: &[Entry], tricks: Tricks) -> anyhow::Result<Self> {
        let first = first(bodies)?;
        let bytes = bodies.iter().map(|entry| serde_json::to_vec(&entry.program).map(Bytes::from));
        let hangs = |step: &Step| matches!(step, Step::Hang(_));
        let is_odd = first.program.may_break() || first.program.any(&hangs) || tricks.deadline_ms.is_some();
        let (function, handler, key) = (first.function.clone(), first.handler.clone(), first.key.clone());
        let bodies = bytes.collect::<Result<_, _>>()?;
        Ok(Self { number, function, handler, key, id, bodies, think_ms: 0, tricks, is_odd })
    }

    /// What is known of it before it is sent.
    pub(crate) fn question(&self, bodies: &[Entry], target: Target) -> anyhow::Result<Asked> {
        let first = first(bodies)?;
        let mut flow = None;
        let mut digests = Vec::new();
        for (entry, payload) in bodies.iter().zip(&self.bodies) {
            let (id, instance) = (self.id.parse::<RequestId>()?, Instance::parse(&entry.function, &entry.key)?);
            let (handler, payload) = (entry.handler.parse()?, Payload::json(payload.clone()));
            let request = Request::new(target.slots, id, instance, handler, payload, Duration::ZERO);
            digests.push((request.digest, entry.program.clone()));
            flow = Some(request.flow);
        }
        Ok(Asked {
            flow: flow.ok_or_else(no_body)?,
            id: self.id.clone(),
            place: first.place(),
            handler: first.handler.clone(),
            bodies: digests,
            deadline_ms: self.tricks.deadline_ms.unwrap_or(target.deadline_ms),
            first_sent: 0,
            cancelled: false,
            cancel_confirmed: false,
            answers: Vec::new(),
            mismatched: Vec::new(),
        })
    }
}

fn first(bodies: &[Entry]) -> anyhow::Result<&Entry> {
    bodies.first().ok_or_else(no_body)
}

fn no_body() -> anyhow::Error {
    anyhow::anyhow!("a request has no body")
}

impl Tricks {
    /// A client that looks for an answer no longer than that, and else does nothing unusual.
    pub(crate) fn impatient(patience_ms: u64) -> Self {
        Self { patience_ms: Some(patience_ms), ..Self::default() }
    }

    /// Does all that a client does with a request. `until_known` sends one of its bodies until it is known what became
    /// of it, and asks later if it is told so.
    pub(crate) async fn play<K: Future<Output = ()>>(
        &self,
        until_known: impl Fn(usize, bool) -> K,
        cancel: impl Future<Output = ()>,
        count: impl Fn(&str),
    ) {
        let again = async {
            if is_time(self.duplicate_after_ms).await {
                count("duplicate");
                until_known(0, false).await;
            }
        };
        let other = async {
            if is_time(self.other_body_after_ms).await {
                count("other-body");
                until_known(1, false).await;
            }
        };
        let cancel = async {
            if is_time(self.cancel_after_ms).await {
                cancel.await;
            }
        };
        join4(until_known(0, self.asks_later), again, other, cancel).await;
        if self.asks_again {
            count("asked-again");
            until_known(0, false).await;
        }
    }
}

/// Waits for its time, if it has one.
async fn is_time(after_ms: Option<u64>) -> bool {
    match after_ms {
        Some(ms) => {
            sleep(Duration::from_millis(ms)).await;
            true
        }
        None => false,
    }
}

impl Raw {
    /// What is looked at of an answer.
    pub(crate) fn new(parts: &response::Parts, bytes: Bytes) -> Self {
        let repeated = parts.headers.contains_key("tandem-repeated");
        let outcome = parts.headers.get("tandem-outcome").and_then(|outcome| outcome.to_str().ok());
        let outcome = outcome.and_then(|outcome| Outcome::ALL.into_iter().find(|known| known.as_str() == outcome));
        Self { status: parts.status, outcome, repeated, bytes }
    }

    /// The text, for people.
    pub(crate) fn text(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(&self.bytes))
    }

    /// What it says of a request that was sent then, with that body. Nothing if it is no answer that there should be.
    pub(crate) fn reply(&self, sent: u64, at: u64, body: usize) -> Option<Reply> {
        let answer = |outcome, reason, result| {
            Some(Reply::Outcome(Answer { sent, at, body, repeated: self.repeated, outcome, reason, result }))
        };
        match (self.status, self.outcome) {
            (StatusCode::ACCEPTED, _) => Some(Reply::Running),
            (StatusCode::UNPROCESSABLE_ENTITY, _) => Some(Reply::Mismatched),
            (StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS, None) => Some(Reply::Again),
            (StatusCode::OK, Some(Outcome::Committed)) => answer(Outcome::Committed, None, Some(self.bytes.clone())),
            (_, Some(outcome)) if outcome != Outcome::Committed && outcome != Outcome::Invalid => {
                let problem: BTreeMap<String, serde_json::Value> =
                    serde_json::from_slice(&self.bytes).unwrap_or_default();
                let reason = problem.get("reason").and_then(|reason| reason.as_str()).map(str::to_owned);
                answer(outcome, reason, None)
            }
            _ => None,
        }
    }

    /// The same of an answer to the question how the flow is. `at` tells the time, and is asked if there is an outcome.
    pub(crate) fn flow(&self, job: &Job, sent: u64, at: impl FnOnce() -> u64, body: usize) -> Option<Reply> {
        match self.status {
            StatusCode::ACCEPTED => Some(Reply::Running),
            StatusCode::NOT_FOUND => Some(Reply::Unknown),
            // The record: it does not show which body was run, so it tells only if there is one.
            StatusCode::OK if job.bodies.len() > 1 => Some(Reply::Unknown),
            StatusCode::OK => self.outcome.map(|outcome| {
                Reply::Outcome(Answer { sent, at: at(), body, repeated: true, outcome, reason: None, result: None })
            }),
            StatusCode::SERVICE_UNAVAILABLE => Some(Reply::Again),
            _ => None,
        }
    }

    /// What it says of a cancel, as it is counted.
    pub(crate) fn cancel(&self) -> Option<&'static str> {
        match self.status {
            StatusCode::OK if self.outcome == Some(Outcome::Cancelled) => Some(CANCEL_CONFIRMED),
            StatusCode::CONFLICT => Some("cancel-too-late"),
            StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE => Some("cancel-unknown"),
            _ => None,
        }
    }
}
