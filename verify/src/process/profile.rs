//! The functions that run programs, for the plain HTTP profile: what `program::functions` does through the SDK, done
//! one answer at a time. It keeps nothing between two steps but what it puts into the memo.
//!
//! Everything that programs contain can be said in the profile, so nothing is left out. What it writes is applied at its
//! end, so it keeps its own writes in the memo, and lays them over what it reads.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::program::{AS_TOLD, ORDER, OUT, Program, Scan, Seen, Step, To};

/// The state of kind value.
const VALUE: &str = "value";
/// The state of kind map.
const ENTRIES: &str = "entries";

/// What the runtime asks.
#[derive(Debug, Deserialize)]
pub(super) struct Ask {
    attempt: u32,
    payload: Program,
    states: BTreeMap<String, Option<i64>>,
    results: Map<String, Value>,
    memo: Option<Memo>,
}

/// Where a program is, and what it has done so far.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Memo {
    at: usize,
    log: Vec<Seen>,
    /// Empty as long as the value was not written.
    value: Vec<Option<i64>>,
    entries: BTreeMap<String, Option<i64>>,
    sends: Vec<Value>,
    emits: Vec<Value>,
}

/// A program that runs, up to its next question.
struct Playing {
    ask: Ask,
    memo: Memo,
}

/// What to answer instead of going on.
enum Stop {
    /// Something is needed first.
    Ask(Value),
    Reject(Value),
    Broken {
        for_good: bool,
    },
    /// The question cannot be understood.
    Nonsense(String),
}

type Done = Result<(), Stop>;

/// Answers one step.
pub(super) async fn answer(Json(ask): Json<Ask>) -> Response {
    let mut ask = ask;
    let memo = ask.memo.take().unwrap_or_default();
    let mut playing = Playing { ask, memo };
    let stop = match playing.play().await {
        Ok(()) => return Json(playing.end()).into_response(),
        Err(stop) => stop,
    };
    match stop {
        Stop::Ask(mut question) => {
            question["memo"] = json!(playing.memo);
            Json(question).into_response()
        }
        Stop::Reject(rejection) => Json(json!({ "reject": rejection })).into_response(),
        Stop::Broken { for_good: true } => (StatusCode::BAD_REQUEST, AS_TOLD).into_response(),
        Stop::Broken { for_good: false } => (StatusCode::INTERNAL_SERVER_ERROR, AS_TOLD).into_response(),
        Stop::Nonsense(what) => (StatusCode::UNPROCESSABLE_ENTITY, what).into_response(),
    }
}

impl Playing {
    async fn play(&mut self) -> Done {
        while let Some(step) = self.ask.payload.steps.get(self.memo.at).cloned() {
            self.step(step).await?;
            self.memo.at += 1;
        }
        if self.ask.payload.notes_order {
            self.memo.emits.push(json!({"egress": ORDER, "payload": self.ask.payload.tag}));
        }
        Ok(())
    }

    /// The last answer. What has nothing in it is left out, so that a program which only reads has no effect.
    fn end(self) -> Value {
        let mut end = json!({"result": self.memo.log});
        if let Some(value) = self.memo.value.last() {
            end["writes"] = json!({ VALUE: value });
        }
        if !self.memo.entries.is_empty() {
            end["entries"] = json!({ ENTRIES: self.memo.entries });
        }
        if !self.memo.sends.is_empty() {
            end["sends"] = json!(self.memo.sends);
        }
        if !self.memo.emits.is_empty() {
            end["emits"] = json!(self.memo.emits);
        }
        end
    }

    async fn step(&mut self, step: Step) -> Done {
        let attempt = self.ask.attempt;
        match step {
            Step::Read => self.see(Seen::Value(self.value())),
            Step::Add(amount) => {
                let value = self.value();
                self.see(Seen::Value(value));
                self.memo.value = vec![Some(value.unwrap_or_default() + amount)];
            }
            Step::Set(value) => self.memo.value = vec![Some(value)],
            Step::Clear => self.memo.value = vec![None],
            Step::Entry(key) => {
                let entry = self.entry(&key)?;
                self.see(Seen::Entry(entry));
            }
            Step::Bump(key, amount) => {
                let entry = self.entry(&key)?;
                self.see(Seen::Entry(entry));
                self.memo.entries.insert(key, Some(entry.unwrap_or_default() + amount));
            }
            Step::Put(key, value) => drop(self.memo.entries.insert(key, Some(value))),
            Step::Remove(key) => drop(self.memo.entries.insert(key, None)),
            Step::Scan(scan) => {
                let entries = self.scan(&scan)?;
                self.see(Seen::Entries(entries));
            }
            Step::Need(least) => {
                let value = self.value();
                self.see(Seen::Value(value));
                if value.unwrap_or_default() < least {
                    return Err(no("too-little", &format!("{value:?} of {least}")));
                }
            }
            Step::Reject(reason) => return Err(no(&reason, AS_TOLD)),
            Step::Emit(number) => self.memo.emits.push(json!({"egress": OUT, "payload": number})),
            Step::Sleep(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            Step::Fail => return Err(Stop::Broken { for_good: true }),
            Step::Break(until) if attempt < until => return Err(Stop::Broken { for_good: false }),
            #[expect(clippy::panic, reason = "user code that panics is what is tested: the connection breaks")]
            Step::Panic(until) if attempt < until => panic!("{AS_TOLD}"),
            Step::Hang(until) if attempt < until => std::future::pending().await,
            Step::Break(_) | Step::Panic(_) | Step::Hang(_) => {}
            Step::Call(to) => self.call(&to)?,
            Step::Handle(to) => self.together(std::slice::from_ref(&to))?,
            Step::Together(all) => self.together(&all)?,
            Step::Spawn(to) => drop(self.asked(|id| json!({"calls": [call_to(&to, &id, true)]}))?),
            Step::Send(to, delay_ms) => self.memo.sends.push(json!({
                "function": to.function, "key": to.key, "handler": to.handler, "payload": to.program, "delayMs": delay_ms,
            })),
        }
        Ok(())
    }

    fn see(&mut self, seen: Seen) {
        self.memo.log.push(seen);
    }

    fn value(&self) -> Option<i64> {
        let stored = || self.ask.states.get(VALUE).copied().flatten();
        self.memo.value.last().copied().unwrap_or_else(stored)
    }

    /// The answer to what this step needs first, or the question.
    fn asked(&self, question: impl FnOnce(String) -> Value) -> Result<&Value, Stop> {
        let id = self.memo.at.to_string();
        match self.ask.results.get(&id) {
            Some(result) => Ok(result),
            None => Err(Stop::Ask(question(id))),
        }
    }

    fn read(&self, question: impl FnOnce(String) -> Value) -> Result<Vec<(String, i64)>, Stop> {
        #[derive(Deserialize)]
        struct Entry {
            key: String,
            value: i64,
        }

        let result = self.asked(question)?;
        let entries: Vec<Entry> = parsed(&result["entries"])?;
        Ok(entries.into_iter().map(|entry| (entry.key, entry.value)).collect())
    }

    fn entry(&self, key: &str) -> Result<Option<i64>, Stop> {
        if let Some(written) = self.memo.entries.get(key) {
            return Ok(*written);
        }
        let entries = self.read(|id| json!({"reads": [{"id": id, "state": ENTRIES, "entry": key}]}))?;
        Ok(entries.first().map(|(_, value)| *value))
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<(String, i64)>, Stop> {
        // With entries of its own on top, it cannot know how many stored ones it needs.
        let is_simple = self.memo.entries.is_empty();
        let stored = self.read(|id| {
            let mut read = json!({"id": id, "state": ENTRIES});
            let bounds = [("from", &scan.from), ("to", &scan.to)];
            for (name, bound) in bounds.into_iter().filter_map(|(name, bound)| Some((name, bound.as_ref()?))) {
                read[name] = json!(bound);
            }
            if let Some(limit) = scan.limit.filter(|_| is_simple) {
                read["limit"] = json!(limit);
                read["reverse"] = json!(scan.reverse);
            }
            json!({ "reads": [read] })
        })?;
        if is_simple {
            return Ok(stored);
        }
        let within = |key: &String| {
            scan.from.as_ref().is_none_or(|from| key >= from) && scan.to.as_ref().is_none_or(|to| key < to)
        };
        let mut all: BTreeMap<String, Option<i64>> =
            stored.into_iter().map(|(key, value)| (key, Some(value))).collect();
        all.extend(self.memo.entries.iter().filter(|(key, _)| within(key)).map(|(key, value)| (key.clone(), *value)));
        let mut all: Vec<(String, i64)> = all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        if scan.reverse {
            all.reverse();
        }
        all.truncate(scan.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)));
        Ok(all)
    }

    fn call(&mut self, to: &To) -> Done {
        let result = self.asked(|id| json!({"calls": [call_to(to, &id, false)]}))?;
        if let Some(rejection) = result.get("reject") {
            return Err(Stop::Reject(rejection.clone()));
        }
        let log = parsed(&result["value"])?;
        self.see(Seen::Called(log));
        Ok(())
    }

    /// Calls at the same time, whose "no" is handled.
    fn together(&mut self, all: &[To]) -> Done {
        let id = |number: usize| format!("{}-{number}", self.memo.at);
        let results: Option<Vec<&Value>> = (0..all.len()).map(|number| self.ask.results.get(&id(number))).collect();
        let Some(results) = results else {
            let calls: Vec<Value> =
                all.iter().enumerate().map(|(number, to)| call_to(to, &id(number), false)).collect();
            return Err(Stop::Ask(json!({ "calls": calls })));
        };
        let seen: Result<Vec<Seen>, Stop> = results
            .into_iter()
            .map(|result| match result.get("reject") {
                Some(rejection) => Ok(Seen::No(parsed(&rejection["reason"])?)),
                None => Ok(Seen::Called(parsed(&result["value"])?)),
            })
            .collect();
        self.memo.log.extend(seen?);
        Ok(())
    }
}

fn no(reason: &str, detail: &str) -> Stop {
    Stop::Reject(json!({"reason": reason, "detail": detail}))
}

fn call_to(to: &To, id: &str, spawn: bool) -> Value {
    let To { function, handler, key, program } = to;
    json!({"id": id, "function": function, "key": key, "handler": handler, "payload": program, "spawn": spawn})
}

fn parsed<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, Stop> {
    T::deserialize(value).map_err(|error| Stop::Nonsense(format!("{error} in {value}")))
}
