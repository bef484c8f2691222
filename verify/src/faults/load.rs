//! Clients that ask while things go wrong, and what they were told.
//!
//! A client asks one runtime after the other, with the same request id, until it knows the outcome. So a request may be
//! with two runtimes at once, one of which has not heard of its own end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, StatusCode};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tandem_model::outcome::Outcome;
use tokio::time::sleep;

use super::functions::{Edition, Statement, Transfer};
use crate::jobs::Raw;
use crate::process::web::Web;

/// Wait before a request is sent again.
const SEND_AGAIN: Duration = Duration::from_millis(30);
/// How many accounts there are.
const ACCOUNTS: usize = 16;
/// Pairs of doctors.
const PAIRS: usize = 2;
/// Pages of the book: a flow of that many calls.
const PAGES: usize = 50;
/// How many accounts a transfer pays.
const CREDITORS: [usize; 4] = [1, 1, 3, 7];
/// Largest amount: now and then there is not enough.
const AMOUNT_MAX: i64 = 400;
/// Longest time between two requests of a client.
const THINK_MS_MAX: u64 = 40;
/// How often a snapshot is looked at.
const AUDIT_EVERY: Duration = Duration::from_millis(100);
/// How often one request is sent many times at once.
const STORM_EVERY: Duration = Duration::from_millis(1_500);
/// How often it is sent.
const STORM: usize = 50;
/// How often a whole book is printed.
const PRINT_EVERY: Duration = Duration::from_millis(700);
/// Of how many editions one fails at its last page.
const MISPRINT_EVERY: u64 = 3;
/// Requests that are asked once more at the end, spread over all.
const ASKED_AGAIN: usize = 150;

/// How much is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Some of everything.
    Usual,
    /// Many clients, each of whose transfers is about the same eight accounts, in any order.
    Hot,
}

impl Pace {
    fn transfers(self) -> usize {
        match self {
            Self::Usual => 4,
            Self::Hot => 64,
        }
    }
}

/// What a request was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Transfer { from: String, wanted: Transfer },
    Print { number: u64, fails: bool },
    Other,
}

/// A request, and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) wish: Wish,
    pub(super) told: Option<Told>,
    path: String,
    body: Bytes,
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) outcome: Outcome,
    /// What the handler returned.
    result: Option<Bytes>,
}

impl Told {
    /// Nothing if that has to be asked again.
    fn of(raw: &Raw) -> Result<Option<Self>, String> {
        match (raw.status, raw.outcome) {
            (StatusCode::OK, Some(outcome @ Outcome::Committed)) => {
                Ok(Some(Self { outcome, result: Some(raw.bytes.clone()) }))
            }
            (_, Some(outcome)) if outcome != Outcome::Committed && outcome != Outcome::Invalid => {
                Ok(Some(Self { outcome, result: None }))
            }
            (StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS, None) => Ok(None),
            _ => Err(raw.text()),
        }
    }
}

/// All clients.
pub(super) struct Load {
    web: Web,
    seed: u64,
    pace: Pace,
    books: Mutex<BTreeMap<String, Known>>,
    numbers: AtomicU64,
}

/// The name of an account.
fn account(number: usize) -> String {
    format!("a{number}")
}

fn accounts() -> Vec<String> {
    (0..ACCOUNTS).map(account).collect()
}

/// The two of each pair follow one another.
fn doctors() -> Vec<String> {
    (0..PAIRS).flat_map(|pair| ["left", "right"].map(|side| format!("{side}-{pair}"))).collect()
}

fn pages() -> Vec<String> {
    (0..PAGES).map(|page| format!("p{page}")).collect()
}

impl Load {
    pub(super) fn new(web: Web, seed: u64, pace: Pace) -> Self {
        Self { web, seed, pace, books: Mutex::default(), numbers: AtomicU64::new(0) }
    }

    fn books(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many clients there are.
    pub(super) fn count(&self) -> usize {
        self.pace.transfers() + PAIRS * 2 + 3
    }

    /// One client, until it is over.
    pub(super) async fn run(&self, client: usize) {
        let random = &mut SmallRng::seed_from_u64(self.seed ^ ((client as u64) << 32));
        let transfers = self.pace.transfers();
        let doctors = doctors();
        while !self.web.journal.is_over() {
            match client {
                0 => self.audit(random).await,
                1 => self.storm(random).await,
                2 => self.print().await,
                client if client < transfers + 3 => self.transfer(random).await,
                client => self.doctor(&doctors, client - transfers - 3, random).await,
            }
        }
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn wish(&self, random: &mut SmallRng) -> Wish {
        let mut among: Vec<usize> = (0..ACCOUNTS).collect();
        among.shuffle(random);
        let creditors = match self.pace {
            Pace::Usual => CREDITORS[random.random_range(0..CREDITORS.len())],
            Pace::Hot => {
                among.retain(|number| *number < 8);
                7
            }
        };
        let tag = format!("t{}", self.number());
        let to = among[1..=creditors].iter().copied().map(account).collect();
        let wanted = Transfer { tag, to, amount: random.random_range(1..=AMOUNT_MAX) };
        Wish::Transfer { from: account(among[0]), wanted }
    }

    async fn transfer(&self, random: &mut SmallRng) {
        if let Wish::Transfer { from, wanted } = self.wish(random) {
            let (id, path) = (wanted.tag.clone(), format!("/account/transfer/{from}"));
            self.enter(&id, &path, &wanted, Wish::Transfer { from, wanted: wanted.clone() });
            self.ask(&id).await;
        }
        sleep(Duration::from_millis(random.random_range(0..=THINK_MS_MAX))).await;
    }

    async fn doctor(&self, doctors: &[String], which: usize, random: &mut SmallRng) {
        let me = &doctors[which];
        let id = format!("d{}", self.number());
        if random.random_bool(0.6) {
            self.enter(&id, &format!("/doctor/leave/{me}"), &doctors[which ^ 1], Wish::Other);
        } else {
            self.enter(&id, &format!("/doctor/come/{me}"), &(), Wish::Other);
        }
        self.ask(&id).await;
        sleep(Duration::from_millis(random.random_range(0..=THINK_MS_MAX))).await;
    }

    async fn print(&self) {
        let number = self.number();
        let fails = number.is_multiple_of(MISPRINT_EVERY);
        let id = format!("p{number}");
        let edition = Edition { number, pages: pages(), fails };
        self.enter(&id, "/page/print/book", &edition, Wish::Print { number, fails });
        let told = self.ask(&id).await;
        if fails && told.outcome == Outcome::Committed {
            self.web.journal.alarm(format!("{id} committed, though its last page said no"));
        }
        sleep(PRINT_EVERY).await;
    }

    /// One request many times at once, with all runtimes. All get the same answer; with another body, it is refused.
    async fn storm(&self, random: &mut SmallRng) {
        if let Wish::Transfer { from, wanted } = self.wish(random) {
            let (id, path) = (wanted.tag.clone(), format!("/account/transfer/{from}"));
            let other = Transfer { amount: wanted.amount + 1, ..wanted.clone() };
            self.enter(&id, &path, &wanted, Wish::Transfer { from, wanted: wanted.clone() });
            join_all((0..STORM).map(|_| self.ask(&id))).await;
            self.web.journal.count("storms");
            self.mismatch(&id, &path, &other).await;
        }
        sleep(STORM_EVERY).await;
    }

    async fn mismatch(&self, id: &str, path: &str, other: &Transfer) {
        let body = json(other);
        while !self.web.journal.is_over() {
            match self.send(id, path, body.clone()).await {
                Some(raw) if raw.status == StatusCode::UNPROCESSABLE_ENTITY => {
                    return self.web.journal.count("other-bodies-refused");
                }
                Some(raw) if !matches!(Told::of(&raw), Ok(None)) => {
                    let text = raw.text();
                    return self.web.journal.alarm(format!("{id} with another body was not refused: {text}"));
                }
                _ => sleep(SEND_AGAIN).await,
            }
        }
    }

    fn enter(&self, id: &str, path: &str, body: &impl Serialize, wish: Wish) {
        let known = Known { wish, told: None, path: path.to_owned(), body: json(body) };
        self.books().insert(id.to_owned(), known);
        self.web.journal.begin(id);
    }

    async fn send(&self, id: &str, path: &str, body: Bytes) -> Option<Raw> {
        let headers = [("idempotency-key", id.to_owned())];
        self.web.call(Method::POST, path, &headers, body).await.map(|(raw, _)| raw)
    }

    /// Asks until it is known what came of a request that was entered.
    async fn ask(&self, id: &str) -> Told {
        let (path, body) =
            self.books().get(id).map(|known| (known.path.clone(), known.body.clone())).unwrap_or_default();
        let told = loop {
            let calm = self.web.journal.calm();
            let raw = self.send(id, &path, body.clone()).await;
            let told = raw.as_ref().map(Told::of);
            self.web.journal.operation(calm, matches!(&told, Some(Ok(Some(told))) if self.is_fine(told.outcome)));
            match told {
                Some(Ok(Some(told))) => break told,
                Some(Ok(None)) | None => self.web.journal.count("sent-again"),
                Some(Err(text)) => self.web.journal.alarm(format!("{id} got a strange answer: {text}")),
            }
            sleep(SEND_AGAIN).await;
        };
        self.web.journal.end(id);
        self.note(id, &told);
        told
    }

    /// Where everybody fights over the same keys, an end in time is all that is asked for.
    fn is_fine(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Committed | Outcome::Rejected => true,
            Outcome::Conflict | Outcome::TimedOut => self.pace == Pace::Hot,
            Outcome::Failed | Outcome::Cancelled | Outcome::Poisoned | Outcome::Invalid => false,
        }
    }

    /// Each request has one outcome, whoever asks, whenever.
    fn note(&self, id: &str, told: &Told) {
        let mut books = self.books();
        let Some(known) = books.get_mut(id) else { return };
        let first = known.told.get_or_insert_with(|| {
            self.web.journal.count(told.outcome.as_str());
            told.clone()
        });
        if first != told {
            self.web.journal.alarm(format!("{id} was answered with {first:?}, and then with {told:?}"));
        }
    }

    /// Looks at something in one snapshot, on whichever runtime has its turn. Nothing if there was no answer.
    async fn look<T: DeserializeOwned>(&self, path: &str, all: &[String]) -> Option<T> {
        let calm = self.web.journal.calm();
        let raw = self.send(&format!("look-{}", self.number()), path, json(&all)).await;
        let seen = raw.filter(|raw| raw.outcome == Some(Outcome::Committed));
        self.web.journal.operation(calm, seen.is_some());
        let seen = serde_json::from_slice(&seen?.bytes);
        if let Err(error) = &seen {
            self.web.journal.alarm(format!("{path} answered nonsense: {error}"));
        }
        self.web.journal.count(if calm.is_some() { "samples" } else { "samples-in-faults" });
        seen.ok()
    }

    async fn audit(&self, random: &mut SmallRng) {
        let broken = match random.random_range(0..3) {
            0 => self.look("/account/audit/auditor", &accounts()).await.and_then(|seen: Vec<Statement>| {
                let (sent, received) = sums(&seen);
                let is_poor = seen.iter().any(|statement| statement.balance() < 0);
                (sent != received || is_poor).then(|| format!("{sent} sent, {received} received: {seen:?}"))
            }),
            1 => self.look("/doctor/audit/auditor", &doctors()).await.and_then(|seen: Vec<bool>| {
                let nobody = seen.chunks(2).any(|pair| pair.iter().all(|away| *away));
                nobody.then(|| format!("nobody is on call: {seen:?}"))
            }),
            _ => self.look("/page/audit/auditor", &pages()).await.and_then(|seen: Vec<u64>| {
                let differ = seen.iter().any(|edition| *edition != seen[0]);
                differ.then(|| format!("pages of several editions: {seen:?}"))
            }),
        };
        if let Some(broken) = broken {
            self.web.journal.alarm(format!("a snapshot shows something that never was: {broken}"));
        }
        sleep(AUDIT_EVERY).await;
    }

    /// Whether a runtime does what it is asked, itself or through others.
    pub(super) async fn probe(&self, web: &Web) -> bool {
        let id = format!("probe{}", self.number());
        self.enter(&id, "/doctor/come/left-0", &(), Wish::Other);
        self.web.journal.end(&id);
        let (headers, body) = ([("idempotency-key", id.clone())], json(&()));
        let raw = web.call(Method::POST, "/doctor/come/left-0", &headers, body).await;
        let Some(Ok(Some(told))) = raw.map(|(raw, _)| Told::of(&raw)) else { return false };
        self.note(&id, &told);
        told.outcome == Outcome::Committed
    }

    /// Asks some of all requests once more: nothing may have changed.
    pub(super) async fn ask_again(&self) {
        let ids: Vec<String> = {
            let books = self.books();
            let told = books.iter().filter(|(_, known)| known.told.is_some());
            let ids: Vec<String> = told.map(|(id, _)| id.clone()).collect();
            let step = (ids.len() / ASKED_AGAIN).max(1);
            ids.into_iter().step_by(step).collect()
        };
        join_all(ids.iter().map(|id| self.ask(id))).await;
    }

    /// All that was asked, and what came of it.
    pub(super) fn take(&self) -> BTreeMap<String, Known> {
        std::mem::take(&mut *self.books())
    }
}

/// All that was sent, and all that was received.
fn sums(statements: &[Statement]) -> (i64, i64) {
    statements.iter().fold((0, 0), |(sent, received), one| (sent + one.sent, received + one.received))
}

fn json(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("names and numbers are always JSON").into()
}
