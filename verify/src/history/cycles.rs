//! Which circles there are, and their names.
//!
//! Relations are added kind by kind, so that each circle gets the name of the weakest promise that it breaks. In each
//! strongly connected component one short circle is looked for that needs a relation of the new kind.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use super::edges::{Edges, Label, Relation};
use super::graph::Edge;
use super::orders::{Key, Orders};
use super::{Anomaly, Element, Transaction, words};

/// What can be wrong, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An element was read that nobody appended.
    Unwritten,
    /// An element was there twice.
    Duplicate,
    /// A transaction did not see its own append, or saw a list change under it.
    Internal,
    /// Two reads of a list disagree on its order.
    IncompatibleOrder,
    /// Aborted read.
    G1a,
    /// Intermediate read: half of a transaction's appends to a list.
    G1b,
    /// Dirty write: appends of two transactions go through each other.
    G0,
    /// Circular information flow: each sees or follows the other.
    G1c,
    /// Two updates of the same version.
    LostUpdate,
    /// Read skew: a circle with exactly one missed write.
    GSingle,
    /// Several missed writes, never two in a row: long fork, for instance. Snapshot isolation forbids it.
    GNonadjacent,
    /// Missed writes, two of them in a row: write skew, for instance.
    G2,
    /// A circle only because of what the same process did before.
    Process,
    /// A circle only because of the clock: a stale read, for instance.
    RealTime,
}

impl Kind {
    /// Its name in the literature.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unwritten => "unwritten element",
            Self::Duplicate => "duplicate element",
            Self::Internal => "internal inconsistency",
            Self::IncompatibleOrder => "incompatible order",
            Self::G1a => "G1a (aborted read)",
            Self::G1b => "G1b (intermediate read)",
            Self::G0 => "G0 (dirty write)",
            Self::G1c => "G1c (circular information flow)",
            Self::LostUpdate => "lost update",
            Self::GSingle => "G-single (read skew)",
            Self::GNonadjacent => "G-nonadjacent (long fork)",
            Self::G2 => "G2 (anti-dependency cycle, write skew)",
            Self::Process => "process order violation",
            Self::RealTime => "real-time order violation",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why one transaction of a circle comes before the next one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) relation: Relation,
    pub(super) key: Key,
    pub(super) element: Element,
}

/// Relations of the new kind that are tried in one component, to find a short circle.
const TRIED_MAX: usize = 64;
/// Components whose circles are reported, for each kind of relation.
const COMPONENTS_MAX: usize = 16;

/// Finds a circle in each component that has one.
pub(super) fn find(history: &[Transaction], orders: &Orders<'_>, edges: &Edges) -> Vec<Anomaly> {
    let mut anomalies = Vec::new();
    let relations = [Relation::Follows, Relation::Sees, Relation::Misses, Relation::Process, Relation::Time];
    for newest in relations {
        for steps in circles(edges, newest) {
            let mut transactions: Vec<usize> = steps.iter().map(|step| step.from).collect();
            transactions.sort_unstable();
            transactions.dedup();
            let explanation = words::circle(history, orders, &steps);
            anomalies.push(Anomaly { kind: kind(&steps), transactions, explanation });
        }
    }
    anomalies
}

fn circles(edges: &Edges, newest: Relation) -> Vec<Vec<Step>> {
    let graph = &edges.graph;
    let components = graph.components(|label| label.relation <= newest);
    let is_inside = |edge: &Edge<Label>| components[edge.from as usize] == components[edge.to as usize];
    let mut starts: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (place, edge) in graph.edges().iter().enumerate() {
        if edge.label.relation == newest && is_inside(edge) {
            starts.entry(components[edge.from as usize]).or_default().push(place);
        }
    }
    let shortest = |starts: &Vec<usize>| {
        let with = |is_used: &dyn Fn(Relation) -> bool| {
            let circles = starts.iter().take(TRIED_MAX).filter_map(|start| {
                let edge = &graph.edges()[*start];
                let way = graph.way(edge.to, edge.from, |edge| is_inside(edge) && is_used(edge.label.relation))?;
                Some(steps(edges, *start, &way))
            });
            circles.min_by_key(Vec::len)
        };
        // With no other relation of the new kind, if that can be.
        with(&|relation| relation < newest).or_else(|| with(&|relation| relation <= newest))
    };
    starts.values().take(COMPONENTS_MAX).filter_map(shortest).collect()
}

/// From the events of a circle to its transactions.
fn steps(edges: &Edges, start: usize, way: &[usize]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut open: Option<Step> = None;
    for place in std::iter::once(start).chain(way.iter().copied()) {
        let edge = &edges.graph.edges()[place];
        let label = edge.label;
        if let Some(from) = edges.transactions[edge.from as usize].filter(|_| label.relation != Relation::Same) {
            open = Some(Step { from, to: from, relation: label.relation, key: label.key, element: label.element });
        } else if let Some(step) = open.as_mut().filter(|_| !edge.is_free) {
            step.element = label.element;
        }
        if let Some((to, mut step)) = edges.transactions[edge.to as usize].zip(open)
            && label_ends(edges, edge)
        {
            step.to = to;
            steps.push(step);
            open = None;
        }
    }
    steps
}

/// Whether an edge leads to another transaction, and not from the begin to the commit of the same one.
fn label_ends(edges: &Edges, edge: &Edge<Label>) -> bool {
    edges.transactions[edge.from as usize] != edges.transactions[edge.to as usize]
}

fn kind(steps: &[Step]) -> Kind {
    let relations: HashSet<Relation> = steps.iter().map(|step| step.relation).collect();
    if relations.contains(&Relation::Time) {
        return Kind::RealTime;
    }
    if relations.contains(&Relation::Process) {
        return Kind::Process;
    }
    let misses = steps.iter().filter(|step| step.relation == Relation::Misses).count();
    let next = steps.iter().cycle().skip(1);
    let is_adjacent =
        steps.iter().zip(next).any(|(one, next)| [one, next].iter().all(|step| step.relation == Relation::Misses));
    match misses {
        0 if relations.contains(&Relation::Sees) => Kind::G1c,
        0 => Kind::G0,
        1 => Kind::GSingle,
        _ if is_adjacent => Kind::G2,
        _ => Kind::GNonadjacent,
    }
}
