//! Random programs: what a request does, and the functions that do it.
//!
//! A program travels as the JSON payload of a request; the functions of [`functions`] interpret it, in a simulation as
//! well as in real processes. Everything that a program reads from state it returns as its log, so that a log and a
//! state tell whether the one can come from the other.
//!
//! | module | concept |
//! | --- | --- |
//! | [`functions`] | the functions that run programs |
//! | [`generate`] | programs from a seed |

use serde::{Deserialize, Serialize};

pub mod functions;
pub mod generate;

/// The egress to which the entry of every flow that may write emits one record: it shows the order of commits.
pub const ORDER: &str = "order";
/// The egress to which programs emit.
pub const OUT: &str = "out";
/// Whatever is called once it says so is out of the ordinary: text of the panics and failures that programs ask for.
pub const AS_TOLD: &str = "as told";

/// What a request, a message or a call does on its instance.
///
/// The fields of all structures here are in alphabetical order: JSON that went through a map, as that of the HTTP
/// profile does, has the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// It begins a flow, so it notes the flow's place in the order of commits. Not with flows that only read.
    pub notes_order: bool,
    /// What to do, one after the other.
    pub steps: Vec<Step>,
    /// Tells apart what is otherwise equal. Every request and every message has its own.
    pub tag: u64,
}

/// One thing that a program does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Logs the value.
    Read,
    /// Logs the value, and adds to it.
    Add(i64),
    /// Replaces the value without looking.
    Set(i64),
    /// Removes the value without looking.
    Clear,
    /// Logs an entry.
    Entry(String),
    /// Logs an entry, and adds to it.
    Bump(String, i64),
    /// Replaces an entry without looking.
    Put(String, i64),
    /// Removes an entry without looking.
    Remove(String),
    /// Logs the entries of a range.
    Scan(Scan),
    /// Logs the value, and rejects with `too-little` if it is less.
    Need(i64),
    /// Rejects with this reason.
    Reject(String),
    /// Logs what the callee logged. A "no" of the callee is a "no" of the caller.
    Call(To),
    /// Logs what the callee logged, or its "no".
    Handle(To),
    /// The same for callees that run at the same time.
    Together(Vec<To>),
    /// Nobody waits for it.
    Spawn(To),
    /// A message, delivered after so many milliseconds.
    Send(To, u64),
    /// Emits to [`OUT`].
    Emit(i64),
    /// Takes its time, in milliseconds.
    Sleep(u64),
    /// Breaks for good.
    Fail,
    /// Breaks in attempts before this one, and may be run again.
    Break(u32),
    /// Panics in attempts before this one.
    Panic(u32),
    /// Never returns in attempts before this one.
    Hang(u32),
}

/// A range of entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// From this key on.
    pub from: Option<String>,
    /// At most so many.
    pub limit: Option<u32>,
    /// From the last one down. Only with a limit.
    pub reverse: bool,
    /// Up to this key, which is not part of it.
    pub to: Option<String>,
}

/// Whom to call, and what it should do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct To {
    /// The function.
    pub function: String,
    /// The handler.
    pub handler: String,
    /// The key of the instance.
    pub key: String,
    /// What to do there.
    pub program: Program,
}

impl To {
    /// `function/key`, as people write an instance.
    pub fn place(&self) -> String {
        format!("{}/{}", self.function, self.key)
    }
}

/// One thing that a program saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seen {
    /// The value, if there was one.
    Value(Option<i64>),
    /// An entry, if there was one.
    Entry(Option<i64>),
    /// Entries of a range, in the order asked for.
    Entries(Vec<(String, i64)>),
    /// What a callee saw.
    Called(Vec<Self>),
    /// A callee said no, for this reason.
    No(String),
}

impl Step {
    /// The callees of this step, messages not included.
    pub fn callees(&self) -> &[To] {
        match self {
            Self::Call(to) | Self::Handle(to) | Self::Spawn(to) => std::slice::from_ref(to),
            Self::Together(all) => all,
            Self::Read
            | Self::Add(_)
            | Self::Set(_)
            | Self::Clear
            | Self::Entry(_)
            | Self::Bump(..)
            | Self::Put(..)
            | Self::Remove(_)
            | Self::Scan(_)
            | Self::Need(_)
            | Self::Reject(_)
            | Self::Send(..)
            | Self::Emit(_)
            | Self::Sleep(_)
            | Self::Fail
            | Self::Break(_)
            | Self::Panic(_)
            | Self::Hang(_) => &[],
        }
    }
}

impl Program {
    /// Whether this step or one further down is as asked for. Messages are programs of their own.
    pub fn any(&self, is_so: &dyn Fn(&Step) -> bool) -> bool {
        self.steps.iter().any(|step| is_so(step) || step.callees().iter().any(|to| to.program.any(is_so)))
    }

    /// Whether its code may break in some attempt.
    pub fn may_break(&self) -> bool {
        self.any(&|step| matches!(step, Step::Fail | Step::Break(_) | Step::Panic(_)))
    }

    /// All instances that it may call.
    pub fn places(&self) -> Vec<String> {
        let callees = self.steps.iter().flat_map(Step::callees);
        callees.flat_map(|to| std::iter::once(to.place()).chain(to.program.places())).collect()
    }
}
