//! Clients of random programs: each sends one request after the other over HTTP, and goes on asking until it knows how a
//! request ended, whatever becomes of the runtime in the meantime.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join4;
use http::{Method, StatusCode};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tandem_model::ids::{Instance, Payload, RequestId};
use tandem_model::outcome::Outcome;
use tandem_model::request::Request;
use tandem_model::slot::SlotCount;
use tokio::time::{sleep, timeout};

use super::plan::Cast;
use super::site::{DEADLINE_MS, SLOTS};
use super::web::{Raw, Web};
use crate::model::judge::{Answer, Asked};
use crate::program::generate::{Entry, Generator};
use crate::program::{Program, Step, To};

/// Wait before a request is sent again that was not accepted.
const SEND_AGAIN: Duration = Duration::from_millis(30);
/// How long a client that was told 202 waits with each question.
const ASK_WAIT: &str = "2s";

/// All clients, and what they know.
pub(super) struct Clients {
    web: Web,
    all: Vec<Vec<Job>>,
    think_ms_max: u64,
    state: Mutex<Vec<Known>>,
    known: AtomicUsize,
    /// Requests that somebody is at.
    waiting: Mutex<BTreeMap<usize, String>>,
}

/// A request, and what its client knows of it.
#[derive(Debug)]
struct Known {
    asked: Asked,
    /// Bodies that were refused since another one ran, and the life of the runtime that said so.
    mismatched: Vec<(usize, u64)>,
    /// The first life that told an outcome.
    answered_in: Option<u64>,
}

/// One request, and what its client does with it.
#[derive(Clone, Debug)]
struct Job {
    number: usize,
    function: String,
    handler: String,
    key: String,
    id: String,
    bodies: Vec<Bytes>,
    think_ms: u64,
    tricks: Tricks,
    /// Its code may break, hang or be cancelled, so that any outcome is as it should be.
    is_odd: bool,
}

/// Unusual things that a client does.
#[derive(Clone, Debug, Default)]
struct Tricks {
    deadline_ms: Option<u64>,
    duplicate_after_ms: Option<u64>,
    other_body_after_ms: Option<u64>,
    cancel_after_ms: Option<u64>,
    /// Waits no longer for an answer, and asks again.
    patience_ms: Option<u64>,
    /// Does not wait, but asks later.
    asks_later: bool,
    /// Sends it once more when it knows the outcome.
    asks_again: bool,
}

enum Reply {
    Outcome(Answer),
    /// The id was used for another body.
    Mismatched,
    Running,
    /// Nobody knows the flow.
    Unknown,
    /// Not accepted, or not known yet: ask again.
    Again,
}

impl Clients {
    /// The clients of a cast, with all that they are going to do if there is time.
    pub(super) fn new(cast: &Cast, web: Web, mut random: SmallRng) -> anyhow::Result<Self> {
        let mut generator = Generator::new(SmallRng::from_rng(&mut random), cast.shape.clone());
        let (mut state, mut all) = (Vec::new(), Vec::new());
        for client in 0..cast.clients {
            let mut jobs = Vec::new();
            for number in 0..cast.requests {
                let tricks = Tricks::new(cast, &mut random);
                let entry = generator.entry();
                let mut bodies = vec![entry.clone()];
                if tricks.other_body_after_ms.is_some() {
                    bodies.push(generator.other_body(&entry));
                }
                let think_ms = random.random_range(0..=cast.think_ms_max);
                let job = Job::new(state.len(), format!("c{client}-{number}"), &bodies, think_ms, tricks)?;
                state.push(Known::new(&job, &bodies)?);
                jobs.push(job);
            }
            all.push(jobs);
        }
        let (state, known, waiting) = (Mutex::new(state), AtomicUsize::new(0), Mutex::default());
        Ok(Self { web, all, think_ms_max: cast.think_ms_max, state, known, waiting })
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Known>> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_waiting(&self) -> MutexGuard<'_, BTreeMap<usize, String>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many requests have a known outcome.
    pub(super) fn known(&self) -> usize {
        self.known.load(Ordering::SeqCst)
    }

    /// Requests that clients are at.
    pub(super) fn waiting(&self) -> Vec<String> {
        self.lock_waiting().values().cloned().collect()
    }

    /// One client: begins requests until it is time, and brings each to its end.
    pub(super) async fn run(&self, client: usize, until: Instant) {
        for job in self.all.get(client).into_iter().flatten() {
            sleep(Duration::from_millis(job.think_ms.min(self.think_ms_max))).await;
            if Instant::now() >= until {
                return;
            }
            self.lock_waiting().insert(job.number, job.id.clone());
            Sending { clients: self, job }.run().await;
            self.lock_waiting().remove(&job.number);
            self.known.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Asks both functions something harmless. Whether they did it.
    pub(super) async fn probe(&self) -> anyhow::Result<bool> {
        let read = Program { notes_order: false, steps: vec![Step::Read], tag: 0 };
        let at = |function: &str, key: &str, handler: &str, program| To {
            function: function.to_owned(),
            handler: handler.to_owned(),
            key: key.to_owned(),
            program,
        };
        let call = Step::Call(at("leaf", "a-0", "run", read.clone()));
        let entry = at("node", "l0-0", "look", Program { steps: vec![call], ..read });
        let tricks = Tricks { patience_ms: Some(1_000), ..Tricks::default() };
        let job = {
            let mut state = self.lock();
            let number = state.len();
            let bodies = [entry];
            let job = Job { is_odd: true, ..Job::new(number, format!("probe-{number}"), &bodies, 0, tricks)? };
            state.push(Known::new(&job, &bodies)?);
            job
        };
        Sending { clients: self, job: &job }.until_known(0, false).await;
        let state = self.lock();
        let answers = &state[job.number].asked.answers;
        Ok(answers.iter().any(|answer| answer.outcome == Outcome::Committed))
    }

    /// What is known of all requests that were sent. `last` is the life in which everything came to its end.
    pub(super) fn asked(&self, last: u64) -> Vec<Asked> {
        let state = self.lock();
        let sent = state.iter().filter(|known| known.asked.first_sent > 0);
        sent.map(|known| {
            // What was refused because another body ran has no meaning if that one was lost with its process.
            let counts = |life: u64| life == last || known.answered_in.is_some_and(|answered| answered <= life);
            let mismatched = known.mismatched.iter().filter(|(_, life)| counts(*life)).map(|(body, _)| *body);
            Asked { mismatched: mismatched.collect(), ..known.asked.clone() }
        })
        .collect()
    }
}

impl Known {
    fn new(job: &Job, bodies: &[Entry]) -> anyhow::Result<Self> {
        let slots = SlotCount::new(SLOTS).unwrap_or_default();
        let mut digests = Vec::new();
        let mut request = None;
        for (entry, payload) in bodies.iter().zip(&job.bodies) {
            let (id, instance) = (job.id.parse::<RequestId>()?, Instance::parse(&entry.function, &entry.key)?);
            let (handler, payload) = (entry.handler.parse()?, Payload::json(payload.clone()));
            let made = Request::new(slots, id, instance, handler, payload, Duration::ZERO);
            digests.push((made.digest, entry.program.clone()));
            request.get_or_insert((made.flow, entry));
        }
        let (flow, first) = request.ok_or_else(|| anyhow::anyhow!("a request has no body"))?;
        let asked = Asked {
            flow,
            id: job.id.clone(),
            place: first.place(),
            handler: first.handler.clone(),
            bodies: digests,
            deadline_ms: job.tricks.deadline_ms.unwrap_or(DEADLINE_MS),
            first_sent: 0,
            cancelled: false,
            cancel_confirmed: false,
            answers: Vec::new(),
            mismatched: Vec::new(),
        };
        Ok(Self { asked, mismatched: Vec::new(), answered_in: None })
    }
}

impl Job {
    fn new(number: usize, id: String, bodies: &[Entry], think_ms: u64, tricks: Tricks) -> anyhow::Result<Self> {
        let first = bodies.first().ok_or_else(|| anyhow::anyhow!("a request has no body"))?;
        let bytes = bodies.iter().map(|entry| serde_json::to_vec(&entry.program).map(Bytes::from));
        let hangs = |step: &Step| matches!(step, Step::Hang(_));
        let is_odd = first.program.may_break() || first.program.any(&hangs) || tricks.deadline_ms.is_some();
        let (function, handler, key) = (first.function.clone(), first.handler.clone(), first.key.clone());
        Ok(Self {
            number,
            function,
            handler,
            key,
            id,
            bodies: bytes.collect::<Result<_, _>>()?,
            think_ms,
            tricks,
            is_odd,
        })
    }
}

impl Tricks {
    fn new(cast: &Cast, random: &mut SmallRng) -> Self {
        let mut maybe = |max_ms: u64| {
            let does = random.random_range(0..100) < cast.tricks_percent;
            does.then(|| random.random_range(0..max_ms))
        };
        Self {
            deadline_ms: maybe(1_000).map(|ms| ms + 1),
            duplicate_after_ms: maybe(300),
            other_body_after_ms: maybe(300),
            cancel_after_ms: maybe(100),
            patience_ms: maybe(1_000).map(|ms| ms + 5),
            asks_later: maybe(2).is_some(),
            asks_again: maybe(2).is_some(),
        }
    }
}

struct Sending<'a> {
    clients: &'a Clients,
    job: &'a Job,
}

impl Sending<'_> {
    async fn run(&self) {
        let tricks = &self.job.tricks;
        let again = async {
            if let Some(ms) = tricks.duplicate_after_ms {
                sleep(Duration::from_millis(ms)).await;
                self.count("duplicate");
                self.until_known(0, false).await;
            }
        };
        let other = async {
            if let Some(ms) = tricks.other_body_after_ms {
                sleep(Duration::from_millis(ms)).await;
                self.count("other-body");
                self.until_known(1, false).await;
            }
        };
        let cancel = async {
            if let Some(ms) = tricks.cancel_after_ms {
                sleep(Duration::from_millis(ms)).await;
                self.cancel().await;
            }
        };
        join4(self.until_known(0, tricks.asks_later), again, other, cancel).await;
        if tricks.asks_again {
            self.count("asked-again");
            self.until_known(0, false).await;
        }
    }

    fn count(&self, what: &str) {
        self.clients.web.journal.count(what);
    }

    fn tick(&self) -> u64 {
        self.clients.web.journal.tick()
    }

    fn note(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.clients.lock()[self.job.number]);
    }

    /// Sends a body until it is known what became of it.
    async fn until_known(&self, body: usize, mut asks_later: bool) {
        let journal = &self.clients.web.journal;
        loop {
            let (calm, sent) = (journal.calm(), self.tick());
            self.note(|known| {
                if known.asked.first_sent == 0 {
                    known.asked.first_sent = sent;
                }
            });
            let sending = self.send(sent, body, asks_later);
            let reply = match self.job.tricks.patience_ms {
                Some(ms) => timeout(Duration::from_millis(ms), sending).await,
                None => Ok(sending.await),
            };
            let Ok((mut reply, life)) = reply else {
                self.count("gave-up-waiting");
                continue;
            };
            while matches!(reply, Reply::Running) {
                asks_later = false;
                reply = self.ask(sent, body).await;
            }
            journal.operation(calm, self.is_as_it_should_be(&reply));
            match reply {
                Reply::Outcome(answer) => {
                    return self.note(|known| {
                        known.answered_in = Some(known.answered_in.map_or(life, |first| first.min(life)));
                        known.asked.answers.push(answer);
                    });
                }
                Reply::Mismatched => return self.note(|known| known.mismatched.push((body, life))),
                Reply::Running | Reply::Unknown | Reply::Again => sleep(SEND_AGAIN).await,
            }
        }
    }

    /// An operation succeeded if it was told how it ended, and that has nothing to do with trouble.
    fn is_as_it_should_be(&self, reply: &Reply) -> bool {
        match reply {
            Reply::Outcome(answer) => match answer.outcome {
                Outcome::Committed | Outcome::Rejected | Outcome::Cancelled => true,
                _ => self.job.is_odd,
            },
            Reply::Mismatched => true,
            Reply::Running | Reply::Unknown | Reply::Again => false,
        }
    }

    async fn send(&self, sent: u64, body: usize, asks_later: bool) -> (Reply, u64) {
        let job = self.job;
        let mut headers = vec![("idempotency-key", job.id.clone())];
        if let Some(ms) = job.tricks.deadline_ms {
            headers.push(("tandem-deadline", format!("{ms}ms")));
        }
        if asks_later {
            headers.push(("prefer", "respond-async".to_owned()));
        }
        let path = format!("/{}/{}/{}", job.function, job.handler, job.key);
        match self.clients.web.call(Method::POST, &path, &headers, job.bodies[body].clone()).await {
            Some(raw) => (self.reply(&raw, sent, body), raw.life),
            None => (Reply::Again, 0),
        }
    }

    fn reply(&self, raw: &Raw, sent: u64, body: usize) -> Reply {
        let at = self.tick();
        let answer = |outcome, reason, result| {
            Reply::Outcome(Answer { sent, at, body, repeated: raw.repeated, outcome, reason, result })
        };
        match (raw.status, raw.outcome) {
            (StatusCode::ACCEPTED, _) => Reply::Running,
            (StatusCode::UNPROCESSABLE_ENTITY, _) => Reply::Mismatched,
            (StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS, None) => Reply::Again,
            (StatusCode::OK, Some(Outcome::Committed)) => answer(Outcome::Committed, None, Some(raw.bytes.clone())),
            (_, Some(outcome)) if outcome != Outcome::Committed && outcome != Outcome::Invalid => {
                let problem: BTreeMap<String, serde_json::Value> =
                    serde_json::from_slice(&raw.bytes).unwrap_or_default();
                let reason = problem.get("reason").and_then(|reason| reason.as_str()).map(str::to_owned);
                answer(outcome, reason, None)
            }
            _ => self.strange(raw),
        }
    }

    /// Asks how the flow is.
    async fn ask(&self, sent: u64, body: usize) -> Reply {
        let path = format!("{}?wait={ASK_WAIT}", self.path());
        let Some(raw) = self.clients.web.call(Method::GET, &path, &[], Bytes::new()).await else {
            return Reply::Again;
        };
        match raw.status {
            StatusCode::ACCEPTED => Reply::Running,
            StatusCode::NOT_FOUND => Reply::Unknown,
            // The record: it does not show which body was run, so it tells only if there is one.
            StatusCode::OK if self.job.bodies.len() > 1 => Reply::Unknown,
            StatusCode::OK => {
                let at = self.tick();
                let Some(outcome) = raw.outcome else { return self.strange(&raw) };
                self.count("asked-later");
                Reply::Outcome(Answer { sent, at, body, repeated: true, outcome, reason: None, result: None })
            }
            StatusCode::SERVICE_UNAVAILABLE => Reply::Again,
            _ => self.strange(&raw),
        }
    }

    fn path(&self) -> String {
        format!("/flows/{}", self.clients.lock()[self.job.number].asked.flow)
    }

    async fn cancel(&self) {
        self.note(|known| known.asked.cancelled = true);
        let Some(raw) = self.clients.web.call(Method::DELETE, &self.path(), &[], Bytes::new()).await else { return };
        match raw.status {
            StatusCode::OK if raw.outcome == Some(Outcome::Cancelled) => {
                self.count("cancel-confirmed");
                self.note(|known| known.asked.cancel_confirmed = known.asked.handler != "look");
            }
            StatusCode::CONFLICT => self.count("cancel-too-late"),
            StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE => self.count("cancel-unknown"),
            _ => drop(self.strange(&raw)),
        }
    }

    fn strange(&self, raw: &Raw) -> Reply {
        self.clients.web.journal.alarm(format!("{} got a strange answer: {}", self.job.id, raw.text()));
        Reply::Again
    }
}
