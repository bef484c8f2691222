//! Clients: each sends one request after the other, and goes on asking until it knows how a request ended.
//!
//! What a client knows survives a crash of the runtime: it repeats what was not answered, with the same id.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use rand::rngs::SmallRng;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use super::plan::{DEADLINE_MS, Plan};
use super::trace::Trace;
use crate::jobs::{ASK_WAIT, CANCEL_CONFIRMED, Habits, Job, Raw, Reply, Target, Times};
use crate::model::judge::Asked;

/// Wait before a request is sent again that was not accepted.
const SEND_AGAIN: Duration = Duration::from_millis(100);
/// When clients do something unusual.
const TIMES: Times = Times {
    deadline_ms_max: 2_000,
    again_ms_max: 1_000,
    cancel_ms_max: 500,
    patience_ms_min: 10,
    patience_ms_more: 3_000,
};

/// An odd number with bits all over it: the golden ratio.
const STIR: u64 = 0x9e37_79b9_7f4a_7c15;

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

impl Clients {
    /// The clients of a plan, with all that they are going to do.
    pub(crate) fn new(plan: &Plan, trace: &Trace, random: SmallRng) -> Self {
        let habits = Habits {
            clients: plan.clients,
            requests: plan.requests,
            think_ms_max: plan.think_ms_max,
            tricks_percent: plan.tricks_percent,
            times: TIMES,
            shape: plan.shape.clone(),
        };
        let target = Target { slots: plan.topology().slots, deadline_ms: DEADLINE_MS };
        let (jobs, asked) = habits.jobs(target, random).unwrap_or_else(|problem| {
            trace.alarm(&problem.to_string());
            (Vec::new(), Vec::new())
        });
        let all = jobs.into_iter().map(|jobs| Client { jobs, next: Cell::new(0) }).collect();
        Self { trace: trace.clone(), all, asked: RefCell::new(asked), known: Cell::new(0) }
    }

    pub(crate) fn all(&self) -> &[Client] {
        &self.all
    }

    /// How many requests have a known outcome.
    pub(crate) fn known(&self) -> usize {
        self.known.get()
    }

    pub(crate) fn are_done(&self) -> bool {
        self.waiting().is_empty()
    }

    /// Requests that clients are at.
    pub(crate) fn waiting(&self) -> Vec<String> {
        let current = self.all.iter().filter_map(|client| client.jobs.get(client.next.get()));
        current.map(|job| job.id.clone()).collect()
    }

    /// What is known of all requests that were sent.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.borrow().iter().filter(|asked| asked.first_sent > 0).cloned().collect()
    }
}

impl Client {
    /// Goes through the jobs that are left.
    pub(crate) async fn run(&self, clients: &Clients, routers: &[Router]) {
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
        // What was refused because another body ran has no meaning any more if that one was lost with its process.
        self.asked(|asked| {
            if asked.answers.is_empty() {
                asked.mismatched.clear();
            }
        });
        let until_known = |body, asks_later| self.until_known(body, asks_later);
        self.job.tricks.play(until_known, self.cancel(), |what| self.count(what)).await;
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
        let (id, status) = (&job.id, raw.status.as_u16());
        let at = self.clients.trace.tick(&format!("http-{status}"), &format!("{id} {status} {:?}", raw.outcome));
        raw.reply(sent, at, body).unwrap_or_else(|| self.strange(&raw))
    }

    /// Asks how the flow is.
    async fn ask(&self, sent: u64, body: usize) -> Reply {
        let (flow, path) = self.flow();
        let Ok(request) = Request::get(format!("{path}?wait={ASK_WAIT}")).body(Body::empty()) else {
            return Reply::Again;
        };
        let raw = self.call(request).await;
        let at = || self.clients.trace.tick("asked-later", &format!("{flow} {:?}", raw.outcome));
        raw.flow(self.job, sent, at, body).unwrap_or_else(|| self.strange(&raw))
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
        let raw = self.call(request).await;
        self.clients.trace.note(&format!("cancel of {} answered {}", self.job.id, raw.status));
        let Some(kind) = raw.cancel() else { return drop(self.strange(&raw)) };
        self.count(kind);
        if kind == CANCEL_CONFIRMED {
            self.asked(|asked| asked.cancel_confirmed = asked.handler != "look");
        }
    }

    fn strange(&self, raw: &Raw) -> Reply {
        self.clients.trace.alarm(&format!("{} got a strange answer: {}", self.job.id, raw.text()));
        Reply::Again
    }

    async fn call(&self, request: Request<Body>) -> Raw {
        // Of several processes, any may be asked. What stirs the number of the request keeps clients that come in turn
        // from asking the same process for ever. A router never fails.
        let stirred = self.clients.trace.note("request").wrapping_mul(STIR) >> (u64::BITS / 2);
        let which = stirred % self.routers.len() as u64;
        let router = self.routers[usize::try_from(which).unwrap_or_default()].clone();
        let Ok(response) = router.oneshot(request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Raw::new(&parts, bytes)
    }
}
