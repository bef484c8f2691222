//! Programs from a seed.
//!
//! Calls go down through levels of instances, so that there are no rings of calls by accident. Spawned calls have
//! instances of their own, where they only add, so that it does not matter when they run. Callees that run at the same
//! time and may meet on an instance read what they write, so that the log says in which order they met.

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use super::{Program, Scan, Step, To};

/// Levels of instances, the entries included.
const LEVELS: usize = 3;
/// Steps of one program at most.
const STEPS_MAX: usize = 4;
/// Entries that programs use in each map.
const ENTRIES: usize = 4;
/// What an account may be short of: transfers begin with empty accounts.
const CREDIT: i64 = 50;

/// What kinds of programs there are.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Instances on each level: few of them are fought over.
    pub keys: usize,
    /// Mostly scans, and writes of entries.
    pub scans: bool,
    /// Steps that break, panic or hang.
    pub bad_code: bool,
    /// Messages to other instances.
    pub sends: bool,
    /// Longest time that a step takes, in milliseconds.
    pub sleep_ms_max: u64,
}

/// A request: the entry instance and handler, and the program.
pub type Entry = To;

/// Makes programs.
#[derive(Debug)]
pub struct Generator {
    random: SmallRng,
    shape: Shape,
    last_tag: u64,
    /// In the program that is being made: calls reach instances that only spawned calls have otherwise.
    spawns: bool,
}

/// What may be among the steps of a program.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    level: usize,
    writes: bool,
    /// Only steps that log what they change.
    logged: bool,
}

impl Generator {
    /// A generator that makes the same programs whenever it is given the same.
    pub fn new(random: SmallRng, shape: Shape) -> Self {
        Self { random, shape, last_tag: 0, spawns: false }
    }

    /// The next request.
    pub fn entry(&mut self) -> Entry {
        self.spawns = self.random.random_bool(0.3);
        match self.random.random_range(0..10) {
            0 | 1 => self.transfer(),
            2 => self.audit(),
            3 => self.look(),
            4 => self.node("snapshot", true, Allowed { level: 0, writes: true, logged: false }),
            _ => self.node("run", true, Allowed { level: 0, writes: true, logged: false }),
        }
    }

    /// The same request with another body.
    pub fn other_body(&mut self, entry: &Entry) -> Entry {
        let mut other = entry.clone();
        other.program.tag = self.tag();
        other
    }

    fn tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }

    fn key(&mut self, prefix: &str) -> String {
        format!("{prefix}-{}", self.random.random_range(0..self.shape.keys))
    }

    fn program(&mut self, notes_order: bool, steps: Vec<Step>) -> Program {
        Program { tag: self.tag(), notes_order, steps }
    }

    fn node(&mut self, handler: &str, is_entry: bool, allowed: Allowed) -> To {
        let key = self.key(&format!("l{}", allowed.level));
        let steps = self.steps(allowed, is_entry);
        let program = self.program(is_entry && allowed.writes, steps);
        To { function: "node".to_owned(), key, handler: handler.to_owned(), program }
    }

    fn steps(&mut self, allowed: Allowed, is_entry: bool) -> Vec<Step> {
        let count = self.random.random_range(1..=STEPS_MAX);
        (0..count).map(|_| self.step(allowed, is_entry)).collect()
    }

    fn step(&mut self, allowed: Allowed, is_entry: bool) -> Step {
        match self.random.random_range(0..100) {
            0..3 if self.shape.bad_code && is_entry && allowed.writes => self.bad_code(),
            3..12 if self.shape.sends && allowed.writes => self.send(0),
            12..17 => Step::Sleep(self.random.random_range(0..=self.shape.sleep_ms_max)),
            17..20 => Step::Need(self.random.random_range(-20..10)),
            20..22 => Step::Reject("no".to_owned()),
            22..55 if allowed.level + 1 < LEVELS => self.call(allowed),
            55..60 if allowed.writes => Step::Emit(self.random.random_range(0..100)),
            60..100 if allowed.writes && !allowed.logged => self.write(),
            60..80 if allowed.writes => self.logged_write(),
            _ => self.read(),
        }
    }

    fn entry_key(&mut self) -> String {
        format!("e-{}", self.random.random_range(0..ENTRIES))
    }

    fn read(&mut self) -> Step {
        match self.random.random_range(0..4) {
            _ if self.shape.scans && self.random.random_bool(0.6) => Step::Scan(self.scan()),
            0 | 1 => Step::Read,
            2 => Step::Entry(self.entry_key()),
            _ => Step::Scan(self.scan()),
        }
    }

    fn scan(&mut self) -> Scan {
        let from = self.random.random_bool(0.5).then(|| self.entry_key());
        let to = self.random.random_bool(0.5).then(|| self.entry_key());
        let limit = self.random.random_bool(0.5).then(|| self.random.random_range(1..=3));
        Scan { from, to, limit, reverse: limit.is_some() && self.random.random_bool(0.5) }
    }

    fn logged_write(&mut self) -> Step {
        let amount = self.random.random_range(-5..10);
        if self.random.random_bool(0.6) { Step::Add(amount) } else { Step::Bump(self.entry_key(), amount) }
    }

    fn write(&mut self) -> Step {
        if self.shape.scans && self.random.random_bool(0.6) {
            let key = self.entry_key();
            return if self.random.random_bool(0.5) { Step::Put(key, 1) } else { Step::Remove(key) };
        }
        match self.random.random_range(0..8) {
            0 => Step::Set(self.random.random_range(0..20)),
            1 => Step::Put(self.entry_key(), self.random.random_range(0..20)),
            2 => Step::Remove(self.entry_key()),
            3 => Step::Clear,
            _ => self.logged_write(),
        }
    }

    fn bad_code(&mut self) -> Step {
        let until = *[2, 3, u32::MAX].choose(&mut self.random).unwrap_or(&2);
        match self.random.random_range(0..5) {
            0 => Step::Fail,
            1 | 2 => Step::Break(until),
            3 => Step::Panic(until),
            _ => Step::Hang(until),
        }
    }

    fn call(&mut self, allowed: Allowed) -> Step {
        let below = Allowed { level: allowed.level + 1, ..allowed };
        match self.random.random_range(0..10) {
            0..4 => Step::Call(self.node("run", false, below)),
            4..6 => Step::Handle(self.node("run", false, below)),
            6..8 => {
                let below = Allowed { logged: true, ..below };
                let count = self.random.random_range(2..=3);
                Step::Together((0..count).map(|_| self.node("run", false, below)).collect())
            }
            _ if allowed.writes && self.spawns => Step::Spawn(self.spawned()),
            _ if self.spawns => Step::Read,
            _ => {
                let key = self.key("s");
                let steps = vec![Step::Read];
                let program = self.program(false, steps);
                Step::Call(To { function: "leaf".to_owned(), key, handler: "run".to_owned(), program })
            }
        }
    }

    fn spawned(&mut self) -> To {
        let mut steps = vec![Step::Add(self.random.random_range(1..5))];
        if self.random.random_bool(0.3) {
            steps.push(Step::Sleep(self.random.random_range(0..=self.shape.sleep_ms_max)));
        }
        if self.random.random_bool(0.1) {
            steps.push(Step::Reject("spawned-no".to_owned()));
        }
        let (key, program) = (self.key("s"), self.program(false, steps));
        To { function: "leaf".to_owned(), key, handler: "run".to_owned(), program }
    }

    /// A message. Its program never hangs: a message has a long deadline, and is delivered again and again.
    fn send(&mut self, depth: usize) -> Step {
        let level = self.random.random_range(0..LEVELS);
        let key = self.key(&format!("l{level}"));
        let mut steps = vec![self.logged_write()];
        match self.random.random_range(0..8) {
            0 => steps.push(Step::Reject("no".to_owned())),
            1 if self.shape.bad_code => steps.push(Step::Fail),
            2 if self.shape.bad_code => steps.push(Step::Break(2)),
            3 if depth < 2 => steps.push(self.send(depth + 1)),
            4 => steps.push(Step::Sleep(self.random.random_range(0..=self.shape.sleep_ms_max))),
            _ => {}
        }
        let delay_ms = if self.random.random_bool(0.3) { self.random.random_range(1..3_000) } else { 0 };
        let program = self.program(true, steps);
        Step::Send(To { function: "node".to_owned(), key, handler: "run".to_owned(), program }, delay_ms)
    }

    /// A program that only reads: values of several instances, which have to be of one moment.
    fn look(&mut self) -> Entry {
        self.spawns = false;
        self.node("look", true, Allowed { level: 0, writes: false, logged: true })
    }

    fn account(&mut self, number: usize, steps: Vec<Step>) -> To {
        let program = self.program(false, steps);
        To { function: "leaf".to_owned(), key: format!("a-{number}"), handler: "run".to_owned(), program }
    }

    /// Moves an amount from one account to another: their sum is the same for ever.
    fn transfer(&mut self) -> Entry {
        let accounts = self.shape.keys.max(2);
        let from = self.random.random_range(0..accounts);
        let to = (from + self.random.random_range(1..accounts)) % accounts;
        let amount = self.random.random_range(1..10);
        let taken = self.account(from, vec![Step::Need(amount - CREDIT), Step::Add(-amount)]);
        let given = self.account(to, vec![Step::Add(amount)]);
        let steps = vec![Step::Call(taken), Step::Call(given)];
        let (key, program) = (self.key("l0"), self.program(true, steps));
        To { function: "node".to_owned(), key, handler: "run".to_owned(), program }
    }

    /// Reads all accounts.
    fn audit(&mut self) -> Entry {
        let accounts = self.shape.keys.max(2);
        let read: Vec<To> = (0..accounts).map(|number| self.account(number, vec![Step::Read])).collect();
        let together = self.random.random_bool(0.5);
        let steps = if together { vec![Step::Together(read)] } else { read.into_iter().map(Step::Call).collect() };
        let reads_only = self.random.random_bool(0.6);
        let (key, program) = (self.key("l0"), self.program(!reads_only, steps));
        let handler = if reads_only { "look" } else { "run" };
        To { function: "node".to_owned(), key, handler: handler.to_owned(), program }
    }
}
