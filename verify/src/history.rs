//! List-append histories, and the checker that finds anomalies in them.
//!
//! Clients append unique elements to lists and read whole lists, many in one transaction. A list that was read tells
//! in which order its elements came, and so which transaction saw, followed or missed which other one. If these
//! relations go round in a circle, no order of the transactions explains what was seen. This is the method of Kingsbury
//! and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations" (VLDB 2020), with the anomalies of
//! Adya, "Weak Consistency" (1999); the code is our own.
//!
//! ```text
//! history ─▶ orders: version order of each list,  ─▶ edges: ww, wr, rw, process, real time ─▶ cycles ─▶ report
//!            reads that make no sense at all
//! ```
//!
//! | module | concept |
//! | --- | --- |
//! | [`workload`] | functions that append and read, and what clients ask of them |
//! | `orders` | version orders, and anomalies that need no graph |
//! | `edges` | who must come before whom |
//! | `graph` | strongly connected components, shortest ways back |
//! | `cycles` | which circles there are, and their names |
//! | `words` | explanations for people |
//!
//! **Invariant:** what is reported cannot have happened in a system that keeps the level. The other way round,
//! everything is found that the serializable levels forbid.

use serde::{Deserialize, Serialize};

pub use cycles::Kind;
pub use orders::Malformed;

mod cycles;
mod edges;
mod graph;
mod orders;
mod words;
pub mod workload;

#[cfg(test)]
mod tests;

/// What is appended; unique in its list.
pub type Element = u64;

/// One thing that a transaction did to one list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Put an element at the end of a list.
    Append {
        /// The list.
        key: String,
        /// The element.
        element: Element,
    },
    /// Saw a whole list.
    Read {
        /// The list.
        key: String,
        /// What was in it, in order.
        elements: Vec<Element>,
    },
}

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// It happened.
    Committed,
    /// It did not happen. Its reads are not looked at.
    Aborted,
    /// It may have happened, or may still happen. Its reads are not looked at.
    Unknown,
}

/// What a transaction was promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Isolation {
    /// All of it is true at one point of time. Read-only transactions on one snapshot as well.
    #[default]
    Serializable,
    /// What it read is true when it began; of two at the same time that write the same list, one loses.
    Snapshot,
}

/// One transaction, as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// Whoever does one thing after the other. A process that was told nothing must not be used again.
    pub process: u32,
    /// When the client asked, on a clock that all processes share and that only goes forward.
    pub invoked: u64,
    /// When the client had the answer, on the same clock. Without meaning for [`Status::Unknown`].
    pub completed: u64,
    /// What the answer was.
    pub status: Status,
    /// What was promised; only [`Level::Declared`] looks at it.
    pub isolation: Isolation,
    /// What it did to each list, in order. The order between different lists has no meaning.
    pub operations: Vec<Operation>,
}

impl Transaction {
    /// A committed one without operations.
    pub fn new(process: u32, invoked: u64, completed: u64) -> Self {
        let (status, isolation) = (Status::Committed, Isolation::Serializable);
        Self { process, invoked, completed, status, isolation, operations: Vec::new() }
    }

    /// With one more append.
    #[must_use]
    pub fn append(mut self, key: &str, element: Element) -> Self {
        self.operations.push(Operation::Append { key: key.to_owned(), element });
        self
    }

    /// With one more read.
    #[must_use]
    pub fn read(mut self, key: &str, elements: &[Element]) -> Self {
        self.operations.push(Operation::Read { key: key.to_owned(), elements: elements.to_vec() });
        self
    }

    /// With another status.
    #[must_use]
    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// With another promise.
    #[must_use]
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }
}

/// What is checked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Snapshot isolation: write skew is allowed (a circle with two missed writes in a row), and nothing else.
    Snapshot,
    /// The same, and a snapshot shows all that was answered before it was taken.
    StrongSnapshot,
    /// There is one order of the transactions.
    Serializable,
    /// There is one order, and it keeps to what came after what by the clock.
    StrictSerializable,
    /// Each transaction as it says itself, with the clock.
    Declared,
}

impl Level {
    fn isolation(self, transaction: &Transaction) -> Isolation {
        match self {
            Self::Snapshot | Self::StrongSnapshot => Isolation::Snapshot,
            Self::Serializable | Self::StrictSerializable => Isolation::Serializable,
            Self::Declared => transaction.isolation,
        }
    }

    fn keeps_time(self) -> bool {
        match self {
            Self::Snapshot | Self::Serializable => false,
            Self::StrongSnapshot | Self::StrictSerializable | Self::Declared => true,
        }
    }
}

/// Something that the level forbids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// Which kind of thing.
    pub kind: Kind,
    /// Positions in the history of the transactions that are part of it.
    pub transactions: Vec<usize>,
    /// What happened, in words.
    pub explanation: String,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The worst first; at most some dozens of each kind.
    pub anomalies: Vec<Anomaly>,
    /// Transactions that happened: committed ones, and unknown ones of which something was seen.
    pub happened: usize,
    /// Relations between transactions that were inferred.
    pub relations: usize,
}

impl Report {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.anomalies.is_empty()
    }

    /// Whether this was found.
    pub fn has(&self, kind: Kind) -> bool {
        self.anomalies.iter().any(|anomaly| anomaly.kind == kind)
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_clean() {
            return write!(f, "no anomaly in {} transactions, {} relations", self.happened, self.relations);
        }
        for anomaly in &self.anomalies {
            writeln!(f, "{}: {}", anomaly.kind, anomaly.explanation)?;
        }
        Ok(())
    }
}

/// Looks for everything in a history that the level forbids. Takes time in proportion to the size of the history.
///
/// `Err` means that the history says nothing: the same element was appended twice to the same list.
pub fn check(history: &[Transaction], level: Level) -> Result<Report, Malformed> {
    let (orders, mut anomalies) = orders::infer(history)?;
    let edges = edges::infer(history, &orders, level);
    anomalies.extend(cycles::find(history, &orders, &edges));
    anomalies.sort_by_key(|anomaly| anomaly.kind);
    let happened = orders.happened.iter().filter(|happened| **happened).count();
    Ok(Report { anomalies, happened, relations: edges.relations })
}
