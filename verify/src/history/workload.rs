//! What clients ask of lists, and how their answers become a history.
//!
//! A [`Plan`] is one request: calls to append and to read, some of them at the same time. It travels as the JSON payload
//! of a request to a list or to the function `session` of [`functions`], in process, over HTTP, in a simulation or through real
//! processes that get killed. [`Plan::transactions`] makes of the plan and its answer what the checker reads.
//!
//! ```text
//! Plans (seed) ─▶ Plan ─payload─▶ session, list or log ─calls─▶ list/{key}, log/{key}
//!                  │                  │ lists that were read
//!                  └── transactions ◀─┘
//! ```
//!
//! | module | concept |
//! | --- | --- |
//! | [`functions`] | the functions that run plans |
//! | [`clients`] | clients of a runtime in this process, and a recorder for any clients |
//! | [`site`] | a worker and runtimes in this process |

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use tandem_model::outcome::{FlowRecord, Outcome};

use super::{Element, Isolation, Operation, Status, Transaction};

pub mod clients;
pub mod functions;
pub mod site;

/// What is done to one list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Put an element at its end.
    Append(Element),
    /// The same in a call that is spawned. Not with a read of the same list in the same plan.
    Spawn(Element),
    /// The same in a call that says no afterwards, which the caller handles: nobody may ever see the element.
    Undo(Element),
    /// Return all of it.
    Read,
    /// Wait until so many are at this point, on the first attempt. The key is the point's name.
    Meet(usize),
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The list.
    pub key: String,
    /// What to do with it.
    pub action: Action,
}

impl Step {
    /// A step of its own.
    pub fn new(key: &str, action: Action) -> Self {
        Self { key: key.to_owned(), action }
    }
}

/// At which level a plan runs, which is a handler of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Handler {
    /// Serializable.
    Run,
    /// Snapshot isolation.
    Snapshot,
    /// Only reads.
    Look,
}

impl Handler {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Snapshot => "snapshot",
            Self::Look => "look",
        }
    }

    /// What it promises. All that a read-only flow saw is true at one point, so it is serializable.
    pub fn isolation(self) -> Isolation {
        match self {
            Self::Run | Self::Look => Isolation::Serializable,
            Self::Snapshot => Isolation::Snapshot,
        }
    }
}

/// The payload of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// What to append to the list where it enters, after reading it. Not in a session.
    pub own: Option<Element>,
    /// Groups of calls: those of a group run at the same time and are of different lists, the groups one after the other.
    pub groups: Vec<Vec<Step>>,
    /// Say no at the end, so that nothing of it happens.
    pub reject: bool,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Function of the instance where it enters: `session`, `list` or `log`.
    pub function: &'static str,
    /// Key of that instance. If it is a list, nothing else in the plan is about that list.
    pub entry: String,
    /// The level.
    pub handler: Handler,
    /// What it does.
    pub work: Work,
}

/// What became of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It committed, and returned this.
    Committed(Vec<u8>),
    /// It had another outcome, or was not accepted: nothing of it happened, and nothing of it will.
    Aborted,
    /// There was no answer, or one that does not tell.
    Unknown,
}

impl Answer {
    /// What a record says.
    pub fn of(record: &FlowRecord) -> Self {
        if record.outcome != Outcome::Committed {
            return Self::Aborted;
        }
        record.result.as_ref().map_or(Self::Unknown, |result| Self::Committed(result.bytes.to_vec()))
    }
}

/// A committed plan returned what a session cannot return.
#[derive(Debug, thiserror::Error)]
pub enum Nonsense {
    /// It is not JSON, or not lists.
    #[error("the answer of a session cannot be read")]
    Unreadable(#[from] serde_json::Error),
    /// There are more or fewer lists than reads.
    #[error("a session of {reads} reads returned {lists} lists")]
    Count {
        /// Reads of the plan.
        reads: usize,
        /// Lists in the answer.
        lists: usize,
    },
}

impl Plan {
    /// One that enters at a session.
    pub fn new(entry: &str, handler: Handler, groups: Vec<Vec<Step>>) -> Self {
        let work = Work { own: None, groups, reject: false };
        Self { function: SESSION, entry: entry.to_owned(), handler, work }
    }

    /// The list where it enters.
    fn own_list(&self) -> Option<&String> {
        (self.function != SESSION).then_some(&self.entry)
    }

    /// The payload of the request.
    pub fn payload(&self) -> Vec<u8> {
        serde_json::to_vec(&self.work).expect("lists of names and numbers are always JSON")
    }

    fn steps(&self) -> impl Iterator<Item = &Step> {
        self.work.groups.iter().flatten()
    }

    /// What the checker reads: the request itself, and what calls of it did that were undone. Times are those of the
    /// client, before it sent the request and after it had the answer.
    pub fn transactions(
        &self,
        process: u32,
        (invoked, completed): (u64, u64),
        answer: &Answer,
    ) -> Result<Vec<Transaction>, Nonsense> {
        let (status, lists) = match answer {
            Answer::Committed(bytes) => (Status::Committed, serde_json::from_slice(bytes)?),
            Answer::Aborted => (Status::Aborted, Vec::new()),
            Answer::Unknown => (Status::Unknown, Vec::new()),
        };
        let lists: Vec<Vec<Element>> = lists;
        let called = self.steps().filter(|step| step.action == Action::Read).count();
        let reads = called + usize::from(self.own_list().is_some());
        if status == Status::Committed && reads != lists.len() {
            return Err(Nonsense::Count { reads, lists: lists.len() });
        }
        let mut whole =
            Transaction::new(process, invoked, completed).status(status).isolation(self.handler.isolation());
        let mut undone = Transaction::new(process, invoked, completed).status(Status::Aborted);
        let mut lists = lists.into_iter();
        if let Some(key) = self.own_list() {
            let read = lists.next().map(|elements| Operation::Read { key: key.clone(), elements });
            let append = self.work.own.map(|element| Operation::Append { key: key.clone(), element });
            whole.operations.extend(read.into_iter().chain(append));
        }
        for Step { key, action } in self.steps() {
            let append = |element| Operation::Append { key: key.clone(), element };
            match action {
                Action::Append(element) | Action::Spawn(element) => whole.operations.push(append(*element)),
                Action::Undo(element) => undone.operations.push(append(*element)),
                Action::Read => {
                    let read = lists.next().map(|elements| Operation::Read { key: key.clone(), elements });
                    whole.operations.extend(read);
                }
                Action::Meet(_) => {}
            }
        }
        Ok(if undone.operations.is_empty() { vec![whole] } else { vec![whole, undone] })
    }
}

/// What plans are like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many lists there are: half of them a value, half of them a map.
    pub keys: usize,
    /// Most calls of one plan.
    pub calls_max: usize,
    /// How many in a hundred run at the level of a snapshot.
    pub snapshot_percent: u32,
    /// How many in a hundred only read.
    pub look_percent: u32,
    /// How many in a hundred say no at the end.
    pub reject_percent: u32,
}

impl Shape {
    /// All kinds of plans over so many lists.
    pub fn of_keys(keys: usize) -> Self {
        Self { keys, calls_max: 5, snapshot_percent: 20, look_percent: 20, reject_percent: 5 }
    }

    /// The names of all lists.
    pub fn names(&self) -> Vec<String> {
        (0..self.keys).map(functions::name_of).collect()
    }
}

/// The function where plans enter that do not enter at a list.
const SESSION: &str = "session";
/// How far the elements of two clients are apart.
const ELEMENTS_OF_A_CLIENT: Element = 1 << 32;

/// The plans of one client. Elements are unique among all clients with different numbers.
#[derive(Debug)]
pub struct Plans {
    random: SmallRng,
    shape: Shape,
    client: u32,
    element: Element,
}

impl Plans {
    /// All plans follow from the seed and the client's number.
    pub fn new(seed: u64, client: u32, shape: Shape) -> Self {
        let random = SmallRng::seed_from_u64(seed ^ (u64::from(client) << 40));
        Self { random, shape, client, element: Element::from(client) * ELEMENTS_OF_A_CLIENT }
    }

    /// A plan that reads all lists at once: who asks it last knows the order of everything.
    pub fn read_all(shape: &Shape, entry: &str) -> Plan {
        let reads = shape.names().iter().map(|name| Step::new(name, Action::Read)).collect();
        Plan::new(entry, Handler::Look, vec![reads])
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    /// At a list, where others wait for their turn, or at a session of its own, or now and then at one that is shared.
    fn entry(&mut self) -> (&'static str, String) {
        match self.random.random_range(0..10) {
            0..5 => {
                let name = functions::name_of(self.random.random_range(0..self.shape.keys));
                (functions::function_of(&name), name)
            }
            5 => (SESSION, "shared".to_owned()),
            _ => (SESSION, format!("client-{}", self.client)),
        }
    }

    fn action(&mut self, handler: Handler, is_last: bool) -> Action {
        if handler == Handler::Look {
            return Action::Read;
        }
        self.element += 1;
        match self.random.random_range(0..20) {
            0..10 => Action::Append(self.element),
            10 => Action::Undo(self.element),
            11 if is_last => Action::Spawn(self.element),
            _ => Action::Read,
        }
    }

    /// Groups of calls, all but of one list; a spawned one is in the last group, with a list of its own.
    fn groups(&mut self, handler: Handler, but: &str) -> Vec<Vec<Step>> {
        let mut names = self.shape.names();
        names.retain(|name| name != but);
        let mut calls = self.random.random_range(0..=self.shape.calls_max);
        let mut groups: Vec<Vec<Step>> = Vec::new();
        while calls > 0 && !names.is_empty() {
            let size = self.random.random_range(1..=calls).min(names.len());
            calls -= size;
            names.shuffle(&mut self.random);
            let mut group = Vec::with_capacity(size);
            for name in &names[..size] {
                let is_new = groups.iter().flatten().all(|step| step.key != *name);
                let action = self.action(handler, calls == 0 && is_new);
                group.push(Step::new(name, action));
            }
            groups.push(group);
        }
        groups
    }
}

impl Iterator for Plans {
    type Item = Plan;

    fn next(&mut self) -> Option<Plan> {
        let handler = if self.chance(self.shape.look_percent) {
            Handler::Look
        } else if self.chance(self.shape.snapshot_percent) {
            Handler::Snapshot
        } else {
            Handler::Run
        };
        let reject = self.chance(self.shape.reject_percent);
        let (function, entry) = self.entry();
        let groups = self.groups(handler, &entry);
        let writes_own = handler != Handler::Look && function != SESSION && self.chance(70);
        self.element += 1;
        let work = Work { own: writes_own.then_some(self.element), groups, reject };
        Some(Plan { function, entry, handler, work })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Level, check};
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_plans_and_elements_are_unique() {
        let plans = |client| Plans::new(7, client, Shape::of_keys(4)).take(200).collect::<Vec<Plan>>();
        assert_eq!(plans(1), plans(1));
        let alone = Plans::new(7, 2, Shape::of_keys(1)).take(200).map(|plan| plan.work.groups.len()).max();
        assert_eq!(alone, Some(5), "one list is enough");
        let all = [plans(0), plans(1)].concat();
        assert!([SESSION, "list", "log"].iter().all(|name| all.iter().any(|plan| plan.function == *name)));
        let transactions = all.iter().flat_map(|plan| plan.transactions(0, (0, 1), &Answer::Unknown).unwrap());
        let history: Vec<Transaction> = transactions.collect();
        assert!(check(&history, Level::StrictSerializable).unwrap().is_clean());
        let of = |handler| all.iter().filter(|plan| plan.handler == handler).count();
        assert!([Handler::Run, Handler::Snapshot, Handler::Look].into_iter().all(|handler| of(handler) > 20));
        assert!(
            all.iter().any(|plan| plan.work.groups.len() > 1 && plan.work.groups.iter().any(|group| group.len() > 1))
        );
    }

    #[test]
    fn an_answer_becomes_a_transaction() {
        let steps = [("a", Action::Read), ("b", Action::Append(1)), ("c", Action::Undo(2)), ("d", Action::Read)];
        let group = steps.map(|(key, action)| Step::new(key, action)).to_vec();
        let plan = Plan::new("e", Handler::Snapshot, vec![group]);
        let made = plan.transactions(3, (5, 9), &Answer::Committed(b"[[7],[]]".to_vec())).unwrap();
        let whole =
            Transaction::new(3, 5, 9).isolation(Isolation::Snapshot).read("a", &[7]).append("b", 1).read("d", &[]);
        let undone = Transaction::new(3, 5, 9).status(Status::Aborted).append("c", 2);
        assert_eq!(made, [whole, undone]);
        let work = Work { own: Some(8), ..Work::default() };
        let at_list = Plan { function: "list", entry: "list-0".to_owned(), handler: Handler::Run, work };
        let made = at_list.transactions(3, (5, 9), &Answer::Committed(b"[[7]]".to_vec())).unwrap();
        assert_eq!(made, [Transaction::new(3, 5, 9).read("list-0", &[7]).append("list-0", 8)]);
        assert!(plan.transactions(3, (5, 9), &Answer::Committed(b"[[7]]".to_vec())).is_err());
        assert!(plan.transactions(3, (5, 9), &Answer::Committed(b"no".to_vec())).is_err());
    }
}
