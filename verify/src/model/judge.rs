//! Says whether what happened is one of the things that may happen.
//!
//! Every committed flow has noted its place in the order of commits, so all of them are run again on the model, one
//! after the other: each must see what it saw, and each state on the way is known. Flows that only read, and flows that
//! were refused, must fit to one of these states between the moment they were sent and the moment they were answered.
//! A sample of the store must be exactly one of these states.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::Serialize;
use tandem_model::ids::FlowId;
use tandem_model::outcome::{Digest, FlowRecord, Outcome};

use super::observed::Observed;
use super::run::{End, Ran, each};
use super::{State, Writes, apply};
use crate::program::{Program, Seen};

mod answers;
mod messages;

/// Violations that are told; there may be more.
const TOLD_MAX: usize = 20;

/// A request, as its client knows it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The flow it starts.
    pub flow: FlowId,
    /// What the client calls it.
    pub id: String,
    /// The entry instance.
    pub place: String,
    /// The entry handler.
    pub handler: String,
    /// What was sent under this id, by digest. Of several, one is taken.
    pub bodies: Vec<(Digest, Program)>,
    /// Shortest deadline that it was sent with, in milliseconds.
    pub deadline_ms: u64,
    /// When it was sent first, on any clock that only counts up.
    pub first_sent: u64,
    /// Somebody asked to cancel it.
    pub cancelled: bool,
    /// A cancel was answered with "it will end as CANCELLED".
    pub cancel_confirmed: bool,
    /// All answers that told an outcome.
    pub answers: Vec<Answer>,
    /// Answers that said the id was used for another body, by body.
    pub mismatched: Vec<usize>,
}

/// An answer with an outcome.
#[derive(Clone, Debug)]
pub struct Answer {
    /// When the request was sent which it answers.
    pub sent: u64,
    /// When it came.
    pub at: u64,
    /// Which of the bodies was sent.
    pub body: usize,
    /// It answers an earlier sending of the same request as well, which had not ended.
    pub repeated: bool,
    /// How the request ended.
    pub outcome: Outcome,
    /// Why, if it did not commit.
    pub reason: Option<String>,
    /// What it returned, if it committed.
    pub result: Option<Bytes>,
}

/// What was in the store at one moment during the run.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When.
    pub at: u64,
    /// What.
    pub rows: Observed,
}

/// Everything that is known of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Requests of clients.
    pub asked: Vec<Asked>,
    /// Looks at the store on the way.
    pub samples: Vec<Sample>,
    /// What is in the store at the end.
    pub end: Observed,
    /// Workers were lost on the way, so flows may have failed for it.
    pub workers_lost: bool,
    /// More than one process worked on the store at a time: then nobody promises an order of messages.
    pub had_rivals: bool,
    /// Whether messages have to keep their order: not with processes that do not know of each other.
    pub keeps_lanes: bool,
}

/// What was found, and how much was looked at.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// What must not be. Empty is good.
    pub violations: Vec<String>,
    /// How many violations were found; not all are told.
    pub violations_found: usize,
    /// Flows that were run again on the model and saw what they saw.
    pub replayed: usize,
    /// Of them, messages.
    pub messages: usize,
    /// Refusals whose reason was found in a state.
    pub refusals: usize,
    /// Answers of flows that only read, each found in a state.
    pub looks: usize,
    /// Samples that are exactly one state.
    pub samples: usize,
    /// Flows that were run more than once.
    pub ran_again: usize,
    /// Flows with too many ways to go.
    pub undecided: usize,
    /// Flows by outcome, messages included.
    pub outcomes: BTreeMap<String, usize>,
}

/// Holds a history against the model.
pub fn judge(history: &History) -> Verdict {
    let mut judge = Judge::new(history);
    if !judge.replay() {
        // Nothing is known of the states from there on.
        return judge.verdict;
    }
    judge.records();
    judge.answers();
    judge.refusals();
    judge.looks();
    judge.real_time();
    judge.emitted();
    judge.lanes();
    judge.samples();
    judge.verdict
}

/// A message that was released.
#[derive(Clone, Debug)]
struct Released {
    lane: (String, String),
    handler: String,
    program: Program,
    delay_ms: u64,
    /// Place in the order of the flow that sent it.
    sender_at: usize,
    /// When that flow ended, by wall time.
    sent_unix_ms: u64,
    /// Its own flow, once it is known.
    flow: Option<FlowId>,
}

struct Judge<'a> {
    history: &'a History,
    verdict: Verdict,
    asked: BTreeMap<FlowId, &'a Asked>,
    /// State before each flow of the order, and the last one.
    states: Vec<State>,
    places: BTreeMap<FlowId, usize>,
    messages: BTreeMap<Digest, Released>,
    /// Digests of messages in the order of their release, by lane. Delayed ones are in none.
    lanes: BTreeMap<(String, String), Vec<Digest>>,
    emitted: Vec<(FlowId, Vec<i64>)>,
}

impl<'a> Judge<'a> {
    fn new(history: &'a History) -> Self {
        let asked = history.asked.iter().map(|asked| (asked.flow, asked)).collect();
        Self {
            history,
            verdict: Verdict::default(),
            asked,
            states: vec![State::new()],
            places: BTreeMap::new(),
            messages: BTreeMap::new(),
            lanes: BTreeMap::new(),
            emitted: Vec::new(),
        }
    }

    fn violation(&mut self, text: impl Into<String>) {
        self.verdict.violations_found += 1;
        if self.verdict.violations.len() < TOLD_MAX {
            self.verdict.violations.push(text.into());
        }
    }

    /// Runs all committed flows again, in the order of their commits. `false` if one has too many ways to go.
    fn replay(&mut self) -> bool {
        for (place, flow) in self.history.end.order.iter().enumerate() {
            let state = self.states.last().cloned().unwrap_or_default();
            let next = match self.replay_one(place, *flow) {
                Ok(Some(writes)) => writes,
                Ok(None) => return false,
                Err(problem) => {
                    self.violation(format!("flow {flow}, number {place} in the order: {problem}"));
                    Writes::new()
                }
            };
            let mut state = state;
            apply(&mut state, &next);
            self.states.push(state);
        }
        if self.states.last() != Some(&self.history.end.state) {
            let expected = self.states.last().cloned().unwrap_or_default();
            let difference = difference(&expected, &self.history.end.state);
            self.violation(format!("the state at the end is not what the committed flows leave: {difference}"));
        }
        true
    }

    fn replay_one(&mut self, place: usize, flow: FlowId) -> Result<Option<Writes>, String> {
        if self.places.insert(flow, place).is_some() {
            return Err("it committed twice".to_owned());
        }
        let record = self.history.end.records.get(&flow).ok_or("it has no record")?;
        if record.outcome != Outcome::Committed {
            return Err(format!("it is in the order of commits, but its record says {}", record.outcome));
        }
        let (handler, program) = self.program_of(record)?;
        let log = log_of(record.result.as_ref().map(|payload| &payload.bytes))?;
        let at = record.instance.to_string();
        let ran = if handler == "snapshot" {
            self.run_on_snapshot(place, &at, &program, &log)?
        } else {
            self.run_at(place, &at, &program, &log)?
        };
        let Some(ran) = ran else {
            self.verdict.undecided += 1;
            return Ok(None);
        };
        self.verdict.replayed += 1;
        self.release(place, record, &program, &ran);
        self.emitted.push((flow, ran.emits));
        Ok(Some(ran.writes))
    }

    /// What a flow ran: the body that its record says was taken, or the message that was released with that digest.
    fn program_of(&mut self, record: &FlowRecord) -> Result<(String, Program), String> {
        if let Some(asked) = self.asked.get(&record.flow) {
            let found = asked.bodies.iter().find(|(digest, _)| *digest == record.digest);
            let (_, program) = found.ok_or("its record has the digest of a body that was never sent")?;
            return Ok((asked.handler.clone(), program.clone()));
        }
        let released = self.messages.get_mut(&record.digest);
        let released = released.ok_or("nobody sent it: not a client, nor a flow before it in the order")?;
        if released.flow.replace(record.flow).is_some_and(|other| other != record.flow) {
            return Err("its message was delivered as two flows".to_owned());
        }
        self.verdict.messages += 1;
        Ok((released.handler.clone(), released.program.clone()))
    }

    /// A serializable flow sees the state at its place in the order. `None` if that cannot be decided.
    fn run_at(&self, place: usize, at: &str, program: &Program, log: &[Seen]) -> Result<Option<Ran>, String> {
        match find(&self.states[place], at, program, |ran| is_log(&ran.end, log)) {
            Found::Way(ran) => Ok(Some(*ran)),
            Found::Undecided => Ok(None),
            Found::None(last) => {
                Err(format!("it saw {log:?}; in its place the model has {last:?} for {program:?} at {at}"))
            }
        }
    }

    /// A flow of isolation Snapshot sees one state at or before its place, and nobody wrote in between what it writes.
    fn run_on_snapshot(&self, place: usize, at: &str, program: &Program, log: &[Seen]) -> Result<Option<Ran>, String> {
        let mut overwrites = false;
        for seen_at in (0..=place).rev() {
            let ran = match find(&self.states[seen_at], at, program, |ran| is_log(&ran.end, log)) {
                Found::Way(ran) => ran,
                Found::None(_) => continue,
                Found::Undecided => return Ok(None),
            };
            let same = |row: &super::Row| self.states[seen_at].get(row) == self.states[place].get(row);
            if ran.writes.keys().all(same) {
                return Ok(Some(*ran));
            }
            overwrites = true;
        }
        let problem = if overwrites { "what it wrote was written by others since" } else { "no state before it fits" };
        Err(format!("a flow of isolation Snapshot saw {log:?}: {problem}"))
    }

    /// Every record is in the order exactly if it committed; what did not commit has a reason that can be.
    fn records(&mut self) {
        let history = self.history;
        for (flow, record) in &history.end.records {
            *self.verdict.outcomes.entry(record.outcome.to_string()).or_default() += 1;
            self.verdict.ran_again += usize::from(record.attempts > 1);
            let in_order = self.places.contains_key(flow);
            if record.outcome == Outcome::Committed {
                if !in_order {
                    self.violation(format!("flow {flow} has a record of its commit, but nothing of its effects"));
                }
                continue;
            }
            match self.program_of(record) {
                Ok((_, program)) => {
                    if let Some(problem) = self.without_reason(record, &program) {
                        self.violation(format!(
                            "flow {flow} ended as {} {:?}: {problem}",
                            record.outcome, record.cause
                        ));
                    }
                }
                Err(problem) => self.violation(format!("flow {flow} ended as {}: {problem}", record.outcome)),
            }
        }
    }

    fn without_reason(&self, record: &FlowRecord, program: &Program) -> Option<String> {
        let asked = self.asked.get(&record.flow);
        let reason = record.cause.as_ref().map_or("", |cause| cause.reason.as_str());
        let is_broken = program.may_break() && reason == "function-failed";
        let is_lost = self.history.workers_lost && reason == "worker-lost";
        match record.outcome {
            // Looked at elsewhere, or always possible.
            Outcome::Committed | Outcome::Rejected | Outcome::Conflict => None,
            Outcome::Failed => (!is_broken && !is_lost).then(|| "its code does not do that".to_owned()),
            Outcome::TimedOut => {
                let deadline_ms = asked.map_or(0, |asked| asked.deadline_ms);
                // A process that runs what another one could not has what is left of the time.
                let is_early = record.duration_us / 1_000 < deadline_ms && !self.history.had_rivals;
                is_early.then(|| format!("its deadline was {deadline_ms} ms"))
            }
            Outcome::Cancelled => {
                (!asked.is_some_and(|asked| asked.cancelled)).then(|| "nobody cancelled it".to_owned())
            }
            Outcome::Poisoned => {
                let waited = reason == "conflict" || reason == "deadline";
                (asked.is_some() || !(is_broken || is_lost || waited)).then(|| "its code does not do that".to_owned())
            }
            Outcome::Invalid => Some("nothing here sends such requests".to_owned()),
        }
    }

    /// A "no" must be the answer in some state between sending and answering.
    fn refusals(&mut self) {
        let history = self.history;
        for record in history.end.records.values().filter(|record| record.outcome == Outcome::Rejected) {
            let Ok((_, program)) = self.program_of(record) else { continue };
            let reason = record.cause.as_ref().map_or("", |cause| cause.reason.as_str());
            let window = match self.asked.get(&record.flow) {
                Some(asked) => self.window(asked.first_sent, asked.answers.iter().map(|answer| answer.at).min()),
                None => (self.messages.get(&record.digest).map_or(0, |sent| sent.sender_at + 1), self.states.len() - 1),
            };
            let end = End::No(reason.to_owned());
            self.fits(
                window,
                &record.instance.to_string(),
                &program,
                |found| *found == end,
                || format!("flow {} was refused with {reason:?}", record.flow),
            );
            self.verdict.refusals += 1;
        }
    }

    /// Looks for a state in a window in which a program ends as it did.
    fn fits(
        &mut self,
        (first, last): (usize, usize),
        at: &str,
        program: &Program,
        is_so: impl Fn(&End) -> bool,
        what: impl Fn() -> String,
    ) {
        for place in first..=last {
            match find(&self.states[place], at, program, |ran| is_so(&ran.end)) {
                Found::Way(_) => return,
                Found::None(_) => {}
                Found::Undecided => {
                    self.verdict.undecided += 1;
                    return;
                }
            }
        }
        self.violation(format!("{}, but not in any state from {first} to {last}: {program:?} at {at}", what()));
    }

    /// The states that a request sent at one time and answered at another may have seen: not less than what was
    /// answered before, not more than what was sent before its answer.
    fn window(&self, sent: u64, answered: Option<u64>) -> (usize, usize) {
        let placed = || self.history.asked.iter().filter_map(|asked| Some((asked, *self.places.get(&asked.flow)?)));
        let known = |asked: &Asked| asked.answers.iter().any(|answer| answer.at < sent);
        let first = placed().filter(|(asked, _)| known(asked)).map(|(_, place)| place + 1).max().unwrap_or(0);
        let later = |asked: &Asked| answered.is_some_and(|answered| asked.first_sent > answered);
        let last = placed().filter(|(asked, _)| later(asked)).map(|(_, place)| place).min();
        (first, last.unwrap_or(self.states.len() - 1))
    }
}

/// What came of looking for a way through a program that ends as asked for.
enum Found {
    Way(Box<Ran>),
    /// There is none; this is how another one ends.
    None(Option<End>),
    /// There are too many ways to look at all of them.
    Undecided,
}

fn find(state: &State, at: &str, program: &Program, is_so: impl Fn(&Ran) -> bool) -> Found {
    let (mut found, mut last) = (None, None);
    let complete = each(state, at, program, |ran| {
        if is_so(&ran) {
            found = Some(ran);
            return true;
        }
        last = Some(ran.end);
        false
    });
    match (found, complete) {
        (Some(ran), _) => Found::Way(Box::new(ran)),
        (None, Some(_)) => Found::None(last),
        (None, None) => Found::Undecided,
    }
}

fn is_log(end: &End, log: &[Seen]) -> bool {
    matches!(end, End::Done(seen) if seen == log)
}

fn log_of(result: Option<&Bytes>) -> Result<Vec<Seen>, String> {
    let bytes = result.ok_or("it has no result")?;
    serde_json::from_slice(bytes).map_err(|error| format!("its result is no log: {error}"))
}

/// The rows in which two states differ.
fn difference(expected: &State, found: &State) -> String {
    let rows: BTreeSet<&super::Row> = expected.keys().chain(found.keys()).collect();
    let differ = rows.into_iter().filter(|row| expected.get(*row) != found.get(*row));
    let told = differ.map(|(place, entry)| {
        let row = (place.clone(), entry.clone());
        let entry = entry.as_ref().map(|entry| format!(" {entry}")).unwrap_or_default();
        format!("{place}{entry} is {:?}, not {:?}", found.get(&row), expected.get(&row))
    });
    told.collect::<Vec<_>>().join("; ")
}
