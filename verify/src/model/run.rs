//! Runs a program on a state.
//!
//! Where the real runtime may choose (which of several callees at the same time comes first, whether the "no" of a
//! spawned call is heard before or after something else) the model can be asked for every choice: [`each`].

use std::collections::BTreeSet;

use super::{Row, State, Writes};
use crate::program::{Program, Scan, Seen, Step, To};

/// Ways through one program that are tried before its flow counts as undecided.
const WAYS_MAX: usize = 10_000;

/// What a program did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// How it ended.
    pub end: End,
    /// What it wrote. Empty unless it is done.
    pub writes: Writes,
    /// Messages: the sender, whom it is for, and the delay in milliseconds. Of one sender in their order.
    pub sends: Vec<(String, To, u64)>,
    /// What it emitted to [`crate::program::OUT`].
    pub emits: Vec<i64>,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It returned, with this log.
    Done(Vec<Seen>),
    /// It said no, for this reason.
    No(String),
    /// It broke.
    Broken,
}

/// Somebody said no, or broke, so that whoever called does not go on.
enum Stop {
    No(String),
    Broken,
    /// The whole flow ends, whoever would have handled it.
    Flow(Box<Self>),
}

/// The choices on one way through a program.
#[derive(Debug, Default)]
struct Choices {
    taken: Vec<(usize, usize)>,
    at: usize,
}

impl Choices {
    fn choose(&mut self, of: usize) -> usize {
        if self.at == self.taken.len() {
            self.taken.push((0, of));
        }
        let choice = self.taken[self.at].0;
        self.at += 1;
        choice
    }

    /// Moves on to the next way. `false` if there is none.
    fn next(&mut self) -> bool {
        self.at = 0;
        while let Some((choice, of)) = self.taken.pop() {
            if choice + 1 < of {
                self.taken.push((choice + 1, of));
                return true;
            }
        }
        false
    }
}

/// Runs a program in all ways that there are, until `take` says that it has seen enough. `None` if there are too many
/// ways.
pub fn each(state: &State, place: &str, program: &Program, mut take: impl FnMut(Ran) -> bool) -> Option<bool> {
    let mut choices = Choices::default();
    for _ in 0..WAYS_MAX {
        let ran = Flow::new(state, &mut choices).run(place, program);
        if take(ran) {
            return Some(true);
        }
        if !choices.next() {
            return Some(false);
        }
    }
    None
}

struct Flow<'a> {
    state: &'a State,
    choices: &'a mut Choices,
    path: Vec<String>,
    effects: Effects,
}

#[derive(Clone, Default)]
struct Effects {
    writes: Writes,
    sends: Vec<(String, To, u64)>,
    emits: Vec<i64>,
    /// Spawned calls whose end has yet to be heard.
    pending: Vec<Option<String>>,
}

impl<'a> Flow<'a> {
    fn new(state: &'a State, choices: &'a mut Choices) -> Self {
        Self { state, choices, path: Vec::new(), effects: Effects::default() }
    }

    fn run(mut self, place: &str, program: &Program) -> Ran {
        let end = match self.call(place, program) {
            Ok(log) => self.heard(log),
            Err(stop) => end_of(stop),
        };
        let effects = if matches!(end, End::Done(_)) { self.effects } else { Effects::default() };
        let Effects { writes, sends, emits, pending: _ } = effects;
        Ran { end, writes, sends, emits }
    }

    /// The end of a flow whose entry returned: spawned calls may still say no, or break.
    fn heard(&mut self, log: Vec<Seen>) -> End {
        if self.effects.pending.is_empty() {
            return End::Done(log);
        }
        let which = self.choices.choose(self.effects.pending.len());
        self.effects.pending[which].clone().map_or(End::Broken, End::No)
    }

    /// Runs a call to its log, or leaves everything as it was.
    fn call(&mut self, place: &str, program: &Program) -> Result<Vec<Seen>, Stop> {
        if self.path.iter().any(|running| running == place) {
            return Err(Stop::Flow(Box::new(Stop::Broken)));
        }
        let before = self.effects.clone();
        self.path.push(place.to_owned());
        let mut log = Vec::new();
        let ended = program.steps.iter().try_for_each(|step| self.step(place, step, &mut log));
        self.path.pop();
        match ended {
            Ok(()) => Ok(log),
            Err(stop) => {
                self.effects = before;
                Err(stop)
            }
        }
    }

    fn step(&mut self, place: &str, step: &Step, log: &mut Vec<Seen>) -> Result<(), Stop> {
        match step {
            Step::Read => log.push(Seen::Value(self.value(place))),
            Step::Add(amount) => {
                let value = self.value(place);
                log.push(Seen::Value(value));
                self.write((place.to_owned(), None), Some(value.unwrap_or_default() + amount));
            }
            Step::Set(value) => self.write((place.to_owned(), None), Some(*value)),
            Step::Clear => self.write((place.to_owned(), None), None),
            Step::Entry(key) => log.push(Seen::Entry(self.entry(place, key))),
            Step::Bump(key, amount) => {
                let entry = self.entry(place, key);
                log.push(Seen::Entry(entry));
                self.write((place.to_owned(), Some(key.clone())), Some(entry.unwrap_or_default() + amount));
            }
            Step::Put(key, value) => self.write((place.to_owned(), Some(key.clone())), Some(*value)),
            Step::Remove(key) => self.write((place.to_owned(), Some(key.clone())), None),
            Step::Scan(scan) => log.push(Seen::Entries(self.scan(place, scan))),
            Step::Need(least) => {
                let value = self.value(place);
                log.push(Seen::Value(value));
                if value.unwrap_or_default() < *least {
                    return Err(Stop::No("too-little".to_owned()));
                }
            }
            Step::Reject(reason) => return Err(Stop::No(reason.clone())),
            Step::Emit(number) => self.effects.emits.push(*number),
            Step::Send(to, delay_ms) => self.effects.sends.push((place.to_owned(), to.clone(), *delay_ms)),
            Step::Fail | Step::Break(u32::MAX) | Step::Panic(u32::MAX) | Step::Hang(u32::MAX) => {
                return Err(Stop::Flow(Box::new(Stop::Broken)));
            }
            Step::Sleep(_) | Step::Break(_) | Step::Panic(_) | Step::Hang(_) => {}
            Step::Call(to) => log.push(Seen::Called(self.call(&to.place(), &to.program)?)),
            Step::Handle(to) => log.push(self.handle(to)?),
            Step::Together(all) => log.extend(self.together(all)?),
            Step::Spawn(to) => self.spawn(to)?,
        }
        Ok(())
    }

    fn handle(&mut self, to: &To) -> Result<Seen, Stop> {
        match self.call(&to.place(), &to.program) {
            Ok(log) => Ok(Seen::Called(log)),
            Err(Stop::No(reason)) => Ok(Seen::No(reason)),
            Err(stop) => Err(stop),
        }
    }

    /// Callees at the same time run as if one after the other, in some order if they can meet.
    fn together(&mut self, all: &[To]) -> Result<Vec<Seen>, Stop> {
        let mut left: Vec<usize> = (0..all.len()).collect();
        let mut seen: Vec<Option<Seen>> = vec![None; all.len()];
        let meet = can_meet(all);
        while !left.is_empty() {
            let next = if meet && left.len() > 1 { self.choices.choose(left.len()) } else { 0 };
            let index = left.remove(next);
            seen[index] = Some(self.handle(&all[index])?);
        }
        Ok(seen.into_iter().flatten().collect())
    }

    /// What a spawned call did counts as soon as it is done. A "no" of it ends the flow, at once or later, unless
    /// somebody above it says no first.
    fn spawn(&mut self, to: &To) -> Result<(), Stop> {
        let reason = match self.call(&to.place(), &to.program) {
            Ok(_) => return Ok(()),
            Err(Stop::No(reason)) => Some(reason),
            Err(Stop::Broken | Stop::Flow(_)) => None,
        };
        if self.choices.choose(2) == 0 {
            self.effects.pending.push(reason);
            return Ok(());
        }
        Err(Stop::Flow(Box::new(reason.map_or(Stop::Broken, Stop::No))))
    }

    fn write(&mut self, row: Row, value: Option<i64>) {
        self.effects.writes.insert(row, value);
    }

    fn lookup(&self, row: &Row) -> Option<i64> {
        self.effects.writes.get(row).copied().unwrap_or_else(|| self.state.get(row).copied())
    }

    fn value(&self, place: &str) -> Option<i64> {
        self.lookup(&(place.to_owned(), None))
    }

    fn entry(&self, place: &str, key: &str) -> Option<i64> {
        self.lookup(&(place.to_owned(), Some(key.to_owned())))
    }

    fn scan(&self, place: &str, scan: &Scan) -> Vec<(String, i64)> {
        let first = (place.to_owned(), Some(String::new()));
        let of_place = |row: &&Row| row.0 == place;
        let stored = self.state.range(first.clone()..).map(|(row, _)| row).take_while(of_place);
        let written = self.effects.writes.range(first..).map(|(row, _)| row).take_while(of_place);
        let keys: BTreeSet<&String> = stored.chain(written).filter_map(|(_, key)| key.as_ref()).collect();
        let within = keys.into_iter().filter(|key| {
            scan.from.as_ref().is_none_or(|from| *key >= from) && scan.to.as_ref().is_none_or(|to| *key < to)
        });
        let present = within.filter_map(|key| Some((key.clone(), self.entry(place, key)?)));
        let mut entries: Vec<(String, i64)> = present.collect();
        if scan.reverse {
            entries.reverse();
        }
        if let Some(limit) = scan.limit {
            entries.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        }
        entries
    }
}

fn end_of(stop: Stop) -> End {
    match stop {
        Stop::No(reason) => End::No(reason),
        Stop::Broken => End::Broken,
        Stop::Flow(stop) => end_of(*stop),
    }
}

/// Whether two callees at the same time can come to the same instance.
pub(super) fn can_meet(all: &[To]) -> bool {
    let mut seen = BTreeSet::new();
    all.iter().any(|to| {
        let places: BTreeSet<String> = std::iter::once(to.place()).chain(to.program.places()).collect();
        let met = !seen.is_disjoint(&places);
        seen.extend(places);
        met
    })
}
