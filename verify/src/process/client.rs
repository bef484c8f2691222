//! Clients of random programs: each sends one request after the other over HTTP, and goes on asking until it knows how a
//! request ended, whatever becomes of the runtime in the meantime.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use rand::rngs::SmallRng;
use tandem_model::outcome::Outcome;
use tandem_model::slot::SlotCount;
use tokio::time::{sleep, timeout};

use super::site::{DEADLINE_MS, SLOTS};
use super::web::Web;
use crate::jobs::{ASK_WAIT, CANCEL_CONFIRMED, Habits, Job, Raw, Reply, Target, Tricks};
use crate::model::judge::Asked;
use crate::program::{Program, Step, To};

/// Wait before a request is sent again that was not accepted.
const SEND_AGAIN: Duration = Duration::from_millis(30);
/// How long a probe waits for an answer before it asks again.
const PROBE_PATIENCE_MS: u64 = 1_000;
/// All clients, and what they know.
pub(super) struct Clients {
    web: Web,
    all: Vec<Vec<Job>>,
    state: Mutex<Vec<Known>>,
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

impl Clients {
    /// Clients with these habits, and all that they are going to do if there is time.
    pub(super) fn new(habits: &Habits, web: Web, random: SmallRng) -> anyhow::Result<Self> {
        let (all, asked) = habits.jobs(target(), random)?;
        let state = Mutex::new(asked.into_iter().map(Known::new).collect());
        Ok(Self { web, all, state })
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Known>> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One client: begins requests until it is time, and brings each to its end.
    pub(super) async fn run(&self, client: usize, until: Instant) {
        for job in self.all.get(client).into_iter().flatten() {
            sleep(Duration::from_millis(job.think_ms)).await;
            if Instant::now() >= until {
                return;
            }
            self.web.journal.begin(&job.id);
            Sending { clients: self, job }.run().await;
            self.web.journal.end(&job.id);
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
        let job = {
            let mut state = self.lock();
            let number = state.len();
            let (bodies, tricks) = ([entry], Tricks::impatient(PROBE_PATIENCE_MS));
            let job = Job { is_odd: true, ..Job::new(number, format!("probe-{number}"), &bodies, tricks)? };
            state.push(Known::new(job.question(&bodies, target())?));
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

/// What requests are sent to.
fn target() -> Target {
    Target { slots: SlotCount::new(SLOTS).unwrap_or_default(), deadline_ms: DEADLINE_MS }
}

impl Known {
    fn new(asked: Asked) -> Self {
        Self { asked, mismatched: Vec::new(), answered_in: None }
    }
}

struct Sending<'a> {
    clients: &'a Clients,
    job: &'a Job,
}

impl Sending<'_> {
    async fn run(&self) {
        let until_known = |body, asks_later| self.until_known(body, asks_later);
        self.job.tricks.play(until_known, self.cancel(), |what| self.count(what)).await;
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
            Some((raw, life)) => {
                let reply = raw.reply(sent, self.tick(), body);
                (reply.unwrap_or_else(|| self.strange(&raw)), life)
            }
            None => (Reply::Again, 0),
        }
    }

    /// Asks how the flow is.
    async fn ask(&self, sent: u64, body: usize) -> Reply {
        let path = format!("{}?wait={ASK_WAIT}", self.path());
        let Some((raw, _)) = self.clients.web.call(Method::GET, &path, &[], Bytes::new()).await else {
            return Reply::Again;
        };
        let at = || {
            self.count("asked-later");
            self.tick()
        };
        raw.flow(self.job, sent, at, body).unwrap_or_else(|| self.strange(&raw))
    }

    fn path(&self) -> String {
        format!("/flows/{}", self.clients.lock()[self.job.number].asked.flow)
    }

    async fn cancel(&self) {
        self.note(|known| known.asked.cancelled = true);
        let answer = self.clients.web.call(Method::DELETE, &self.path(), &[], Bytes::new()).await;
        let Some((raw, _)) = answer else { return };
        let Some(kind) = raw.cancel() else { return drop(self.strange(&raw)) };
        self.count(kind);
        if kind == CANCEL_CONFIRMED {
            self.note(|known| known.asked.cancel_confirmed = known.asked.handler != "look");
        }
    }

    fn strange(&self, raw: &Raw) -> Reply {
        self.clients.web.journal.alarm(format!("{} got a strange answer: {}", self.job.id, raw.text()));
        Reply::Again
    }
}
