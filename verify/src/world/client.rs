//! Clients: each sends one request after the other, and goes on asking until it knows how a request ended.
//!
//! What a client knows survives a crash of the runtime: it repeats what was not answered, with the same id.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures_util::future::join4;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tandem_model::ids::{Instance, Payload, RequestId};
use tandem_model::outcome::Outcome;
use tandem_model::request::Request as FlowRequest;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use super::plan::{DEADLINE_MS, Plan};
use super::trace::Trace;
use crate::model::judge::{Answer, Asked};
use crate::program::generate::{Entry, Generator};

/// Wait before a request is sent again that was not accepted.
const SEND_AGAIN: Duration = Duration::from_millis(100);
/// How long a client that was told 202 waits with each question.
const ASK_WAIT: &str = "2s";

/// All clients, and what they know.
#[derive(Debug)]
pub struct Clients {
    trace: Trace,
    all: Vec<Client>,
    asked: RefCell<Vec<Asked>>,
    known: Cell<usize>,
}

/// One client.
#[derive(Debug)]
pub struct Client {
    jobs: Vec<Job>,
    /// The job that it is at.
    next: Cell<usize>,
}

/// One request, and what its client does with it.
#[derive(Clone, Debug)]
struct Job {
    /// Its number among all requests.
    number: usize,
    handler: String,
    key: String,
    id: String,
    bodies: Vec<Bytes>,
    think_ms: u64,
    tricks: Tricks,
}

/// Unusual things that a client does.
#[derive(Clone, Debug, Default)]
struct Tricks {
    deadline_ms: Option<u64>,
    /// Sends it again so long after the first time, whatever came of that.
    duplicate_after_ms: Option<u64>,
    /// Sends another body under the same id.
    other_body_after_ms: Option<u64>,
    cancel_after_ms: Option<u64>,
    /// Waits no longer for an answer, and asks again.
    patience_ms: Option<u64>,
    /// Does not wait, but asks later.
    asks_later: bool,
    /// Sends it once more when it knows the outcome.
    asks_again: bool,
}

/// What came back.
enum Reply {
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
struct Raw {
    status: StatusCode,
    outcome: Option<Outcome>,
    repeated: bool,
    bytes: Bytes,
}

impl Clients {
    /// The clients of a plan, with all that they are going to do.
    pub(super) fn new(plan: &Plan, trace: &Trace, mut random: SmallRng) -> Self {
        let mut generator = Generator::new(SmallRng::from_rng(&mut random), plan.shape.clone());
        let mut asked = Vec::new();
        let mut clients = Vec::new();
        for client in 0..plan.clients {
            let mut jobs = Vec::new();
            for number in 0..plan.requests {
                let id = format!("c{client}-{number}");
                let tricks = Tricks::new(plan, &mut random);
                let entry = generator.entry();
                let mut bodies = vec![entry.clone()];
                if tricks.other_body_after_ms.is_some() {
                    bodies.push(generator.other_body(&entry));
                }
                let Some(question) = question(plan, &id, &bodies, &tricks) else { continue };
                let bytes = bodies.iter().filter_map(|entry| serde_json::to_vec(&entry.program).ok()).map(Bytes::from);
                jobs.push(Job {
                    number: asked.len(),
                    handler: entry.handler,
                    key: entry.key,
                    id,
                    bodies: bytes.collect(),
                    think_ms: random.random_range(0..=plan.think_ms_max),
                    tricks,
                });
                asked.push(question);
            }
            clients.push(Client { jobs, next: Cell::new(0) });
        }
        Self { trace: trace.clone(), all: clients, asked: RefCell::new(asked), known: Cell::new(0) }
    }

    pub(super) fn all(&self) -> &[Client] {
        &self.all
    }

    /// How many requests have a known outcome.
    pub(super) fn known(&self) -> usize {
        self.known.get()
    }

    pub(super) fn are_done(&self) -> bool {
        self.waiting().is_empty()
    }

    /// Requests that clients are at.
    pub(super) fn waiting(&self) -> Vec<String> {
        let current = self.all.iter().filter_map(|client| client.jobs.get(client.next.get()));
        current.map(|job| job.id.clone()).collect()
    }

    /// What is known of all requests that were sent.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.borrow().iter().filter(|asked| asked.first_sent > 0).cloned().collect()
    }
}

fn question(plan: &Plan, id: &str, bodies: &[Entry], tricks: &Tricks) -> Option<Asked> {
    let mut digests = Vec::new();
    let mut flow = None;
    let first = bodies.first()?;
    for entry in bodies {
        let (request, instance) = (id.parse::<RequestId>().ok()?, Instance::parse(&entry.function, &entry.key).ok()?);
        let payload = Payload::json(serde_json::to_vec(&entry.program).ok()?);
        let slots = plan.topology().slots;
        let handler = entry.handler.parse().ok()?;
        let request = FlowRequest::new(slots, request, instance, handler, payload, Duration::ZERO);
        flow = Some(request.flow);
        digests.push((request.digest, entry.program.clone()));
    }
    Some(Asked {
        flow: flow?,
        id: id.to_owned(),
        place: first.place(),
        handler: first.handler.clone(),
        bodies: digests,
        deadline_ms: tricks.deadline_ms.unwrap_or(DEADLINE_MS),
        first_sent: 0,
        cancelled: false,
        cancel_confirmed: false,
        answers: Vec::new(),
        mismatched: Vec::new(),
    })
}

impl Tricks {
    fn new(plan: &Plan, random: &mut SmallRng) -> Self {
        let mut maybe = |max_ms: u64| {
            let does = random.random_range(0..100) < plan.tricks_percent;
            does.then(|| random.random_range(0..max_ms))
        };
        Self {
            deadline_ms: maybe(2_000).map(|ms| ms + 1),
            duplicate_after_ms: maybe(1_000),
            other_body_after_ms: maybe(1_000),
            cancel_after_ms: maybe(500),
            patience_ms: maybe(3_000).map(|ms| ms + 10),
            asks_later: maybe(2).is_some(),
            asks_again: maybe(2).is_some(),
        }
    }
}

impl Client {
    /// Goes through the jobs that are left.
    pub(super) async fn run(&self, clients: &Clients, routers: &[Router]) {
        while let Some(job) = self.jobs.get(self.next.get()) {
            sleep(Duration::from_millis(job.think_ms)).await;
            let sending = Sending { clients, routers, job };
            sending.run().await;
            clients.known.set(clients.known.get() + 1);
            self.next.set(self.next.get() + 1);
        }
    }
}

struct Sending<'a> {
    clients: &'a Clients,
    routers: &'a [Router],
    job: &'a Job,
}

impl Sending<'_> {
    async fn run(&self) {
        let tricks = &self.job.tricks;
        // What was refused because another body ran has no meaning any more if that one was lost with its process.
        self.asked(|asked| {
            if asked.answers.is_empty() {
                asked.mismatched.clear();
            }
        });
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
        self.clients.trace.count(what);
    }

    fn asked(&self, change: impl FnOnce(&mut Asked)) {
        change(&mut self.clients.asked.borrow_mut()[self.job.number]);
    }

    /// Sends a body until it is known what became of it.
    async fn until_known(&self, body: usize, mut asks_later: bool) {
        loop {
            let sent = self.clients.trace.tick("sent", &format!("{} body {body}", self.job.id));
            self.asked(|asked| {
                if asked.first_sent == 0 {
                    asked.first_sent = sent;
                }
            });
            let reply = match self.job.tricks.patience_ms {
                Some(ms) => timeout(Duration::from_millis(ms), self.send(sent, body, asks_later)).await,
                None => Ok(self.send(sent, body, asks_later).await),
            };
            let Ok(mut reply) = reply else {
                self.count("gave-up-waiting");
                continue;
            };
            while matches!(reply, Reply::Running) {
                asks_later = false;
                reply = self.ask(sent, body).await;
            }
            match reply {
                Reply::Outcome(answer) => return self.asked(|asked| asked.answers.push(answer)),
                Reply::Mismatched => return self.asked(|asked| asked.mismatched.push(body)),
                Reply::Running | Reply::Unknown | Reply::Again => sleep(SEND_AGAIN).await,
            }
        }
    }

    async fn send(&self, sent: u64, body: usize, asks_later: bool) -> Reply {
        let job = self.job;
        let mut request = Request::post(format!("/{}/{}", job.handler, job.key)).header("idempotency-key", &job.id);
        if let Some(ms) = job.tricks.deadline_ms {
            request = request.header("tandem-deadline", format!("{ms}ms"));
        }
        if asks_later {
            request = request.header("prefer", "respond-async");
        }
        let Ok(request) = request.body(Body::from(job.bodies[body].clone())) else { return Reply::Again };
        let raw = self.call(request).await;
        self.reply(raw, sent, body)
    }

    /// Asks how the flow is.
    async fn ask(&self, sent: u64, body: usize) -> Reply {
        let (flow, path) = self.flow();
        let Ok(request) = Request::get(format!("{path}?wait={ASK_WAIT}")).body(Body::empty()) else {
            return Reply::Again;
        };
        let Raw { status, outcome, repeated: _, bytes } = self.call(request).await;
        match status {
            StatusCode::ACCEPTED => Reply::Running,
            StatusCode::NOT_FOUND => Reply::Unknown,
            // The record: it does not show which body was run, so it tells only if there is one.
            StatusCode::OK if self.job.bodies.len() > 1 => Reply::Unknown,
            StatusCode::OK => {
                let at = self.clients.trace.tick("asked-later", &format!("{flow} {outcome:?}"));
                let Some(outcome) = outcome else { return self.strange(status, &bytes) };
                Reply::Outcome(Answer { sent, at, body, repeated: true, outcome, reason: None, result: None })
            }
            StatusCode::SERVICE_UNAVAILABLE => Reply::Again,
            _ => self.strange(status, &bytes),
        }
    }

    fn flow(&self) -> (String, String) {
        let flow = self.clients.asked.borrow()[self.job.number].flow.to_string();
        let path = format!("/flows/{flow}");
        (flow, path)
    }

    async fn cancel(&self) {
        let (_, path) = self.flow();
        self.clients.trace.tick("cancel", &self.job.id);
        self.asked(|asked| asked.cancelled = true);
        let Ok(request) = Request::delete(path).body(Body::empty()) else { return };
        let Raw { status, outcome, repeated: _, bytes } = self.call(request).await;
        self.clients.trace.note(&format!("cancel of {} answered {status}", self.job.id));
        match status {
            StatusCode::OK if outcome == Some(Outcome::Cancelled) => {
                self.count("cancel-confirmed");
                self.asked(|asked| asked.cancel_confirmed = asked.handler != "look");
            }
            StatusCode::CONFLICT => self.count("cancel-too-late"),
            StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE => self.count("cancel-unknown"),
            _ => drop(self.strange(status, &bytes)),
        }
    }

    fn reply(&self, raw: Raw, sent: u64, body: usize) -> Reply {
        let Raw { status, outcome, repeated, bytes } = raw;
        let told = format!("{} {} {outcome:?}", self.job.id, status.as_u16());
        let at = self.clients.trace.tick(&format!("http-{}", status.as_u16()), &told);
        match (status, outcome) {
            (StatusCode::ACCEPTED, _) => Reply::Running,
            (StatusCode::UNPROCESSABLE_ENTITY, _) => Reply::Mismatched,
            (StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS, None) => Reply::Again,
            (StatusCode::OK, Some(Outcome::Committed)) => {
                let (outcome, result) = (Outcome::Committed, Some(bytes));
                Reply::Outcome(Answer { sent, at, body, repeated, outcome, reason: None, result })
            }
            (_, Some(outcome)) if outcome != Outcome::Committed && outcome != Outcome::Invalid => {
                let problem: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&bytes).unwrap_or_default();
                let reason = problem.get("reason").and_then(|reason| reason.as_str()).map(str::to_owned);
                Reply::Outcome(Answer { sent, at, body, repeated, outcome, reason, result: None })
            }
            _ => self.strange(status, &bytes),
        }
    }

    fn strange(&self, status: StatusCode, bytes: &Bytes) -> Reply {
        let text = String::from_utf8_lossy(bytes);
        self.clients.trace.alarm(&format!("{} got a strange answer: {status} {text}", self.job.id));
        Reply::Again
    }

    async fn call(&self, request: Request<Body>) -> Raw {
        // Of two processes, any may be asked. A router never fails.
        let which = self.clients.trace.note("request") % self.routers.len() as u64;
        let router = self.routers[usize::try_from(which).unwrap_or_default()].clone();
        let Ok(response) = router.oneshot(request).await;
        let status = response.status();
        let repeated = response.headers().contains_key("tandem-repeated");
        let outcome = response.headers().get("tandem-outcome").and_then(|outcome| outcome.to_str().ok());
        let outcome = outcome.and_then(|outcome| Outcome::ALL.into_iter().find(|known| known.as_str() == outcome));
        let bytes = response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Raw { status, outcome, repeated, bytes }
    }
}
