//! Who must come before whom.
//!
//! The nodes are events. A serializable transaction is one event: all that it read and wrote is true at one point of
//! time. One with snapshot isolation is two: it *begins*, and sees what was committed until then, and it *commits*.
//!
//! | relation | of | before |
//! | --- | --- | --- |
//! | follows (ww) | commit of the one who appended | begin of the one who appended next to it: two who write the same list are never at it together |
//! | sees (wr) | commit of the one who appended | begin of the one who read it |
//! | misses (rw) | begin of the one who read | commit of the one who appended what was not there yet |
//! | process, time | commit of the earlier | begin of the later |
//!
//! A circle of events cannot be. With two events for each transaction, write skew is no circle: each begins before
//! the other commits. Everything else that snapshot isolation forbids is one.

use super::graph::{Edge, Graph, Node, node_of};
use super::orders::{Key, Orders};
use super::{Element, Isolation, Level, Status, Transaction};

/// Why one event comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Relation {
    /// Part of the event or of the relation that leads here.
    Same,
    /// ww.
    Follows,
    /// wr.
    Sees,
    /// rw.
    Misses,
    /// The same process did it first.
    Process,
    /// It had ended when the other one began.
    Time,
}

/// What an edge says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label {
    pub(super) relation: Relation,
    pub(super) key: Key,
    pub(super) element: Element,
}

const SAME: Label = Label { relation: Relation::Same, key: 0, element: 0 };

/// All events and their order.
#[derive(Debug)]
pub(super) struct Edges {
    pub(super) graph: Graph<Label>,
    /// Which transaction each event belongs to; none for the nodes that only pass on.
    pub(super) transactions: Vec<Option<usize>>,
    /// Edges between transactions.
    pub(super) relations: usize,
}

struct Builder {
    edges: Vec<Edge<Label>>,
    transactions: Vec<Option<usize>>,
    begins: Vec<Node>,
    commits: Vec<Node>,
    relations: usize,
}

/// Infers all edges.
pub(super) fn infer(history: &[Transaction], orders: &Orders<'_>, level: Level) -> Edges {
    let mut builder = Builder::events(history, level);
    for key in 0..orders.lists.len() {
        builder.appends(orders, key);
    }
    builder.reads(orders);
    if level.keeps_time() {
        builder.processes(history, orders);
        builder.time(history, orders);
    }
    let graph = Graph::new(builder.transactions.len(), builder.edges);
    Edges { graph, transactions: builder.transactions, relations: builder.relations }
}

impl Builder {
    fn events(history: &[Transaction], level: Level) -> Self {
        let mut builder =
            Self { edges: Vec::new(), transactions: Vec::new(), begins: Vec::new(), commits: Vec::new(), relations: 0 };
        for (place, transaction) in history.iter().enumerate() {
            let begin = builder.node(Some(place));
            let commit = match level.isolation(transaction) {
                Isolation::Serializable => begin,
                Isolation::Snapshot => {
                    let commit = builder.node(Some(place));
                    builder.pass(begin, commit);
                    commit
                }
            };
            builder.begins.push(begin);
            builder.commits.push(commit);
        }
        builder
    }

    fn node(&mut self, transaction: Option<usize>) -> Node {
        self.transactions.push(transaction);
        node_of(self.transactions.len() - 1)
    }

    fn pass(&mut self, from: Node, to: Node) {
        self.edges.push(Edge { from, to, is_free: true, label: SAME });
    }

    fn relate(&mut self, from: Node, to: Node, label: Label) {
        self.relations += 1;
        self.edges.push(Edge { from, to, is_free: false, label });
    }

    /// Each one who appended comes before the one who appended next, the last of them before all of whom nothing was read.
    fn appends(&mut self, orders: &Orders<'_>, key: Key) {
        let versions = &orders.lists[key];
        let mut last: Option<usize> = None;
        for element in versions.order {
            let Some(writer) = orders.writer(key, *element) else { continue };
            if let Some(last) = last.filter(|last| *last != writer) {
                let label = Label { relation: Relation::Follows, key, element: *element };
                self.relate(self.commits[last], self.begins[writer], label);
            }
            last = Some(writer);
        }
        let Some(last) = last else { return };
        for (writer, element) in &versions.unread {
            if *writer != last {
                let label = Label { relation: Relation::Follows, key, element: *element };
                self.relate(self.commits[last], self.begins[*writer], label);
            }
        }
    }

    fn reads(&mut self, orders: &Orders<'_>) {
        let next = orders.lists.iter().enumerate().map(|(key, _)| next_writers(orders, key)).collect::<Vec<_>>();
        let mut behind: Vec<Option<Behind>> = orders.lists.iter().map(|_| None).collect();
        for found in &orders.found {
            let versions = &orders.lists[found.key];
            let seen = versions.order[..found.length].last();
            if let Some((element, writer)) = seen.and_then(|seen| Some((seen, orders.writer(found.key, *seen)?)))
                && writer != found.transaction
            {
                let label = Label { relation: Relation::Sees, key: found.key, element: *element };
                self.relate(self.commits[writer], self.begins[found.transaction], label);
            }
            match next[found.key][found.length] {
                Some((writer, element)) if writer != found.transaction => {
                    let label = Label { relation: Relation::Misses, key: found.key, element };
                    self.relate(self.begins[found.transaction], self.commits[writer], label);
                }
                Some(_) => {}
                None => {
                    let behind = behind[found.key].get_or_insert_with(|| self.behind(&versions.unread, found.key));
                    self.miss_unread(found.transaction, behind, found.key);
                }
            }
        }
    }

    /// Nodes behind which lie all who appended what nobody read, so that each reader needs two edges and not as many
    /// as there are of those: one for those up to a place, one for those from a place on.
    fn behind(&mut self, unread: &[(usize, Element)], key: Key) -> Behind {
        let mut behind = Behind { writers: unread.iter().map(|(writer, _)| *writer).collect(), ..Behind::default() };
        for (place, (writer, element)) in unread.iter().enumerate() {
            let (up_to, from) = (self.node(None), self.node(None));
            let label = Label { relation: Relation::Same, key, element: *element };
            for node in [up_to, from] {
                self.edges.push(Edge { from: node, to: self.commits[*writer], is_free: false, label });
            }
            if place > 0 {
                self.pass(up_to, behind.up_to[place - 1]);
                self.pass(behind.from[place - 1], from);
            }
            behind.up_to.push(up_to);
            behind.from.push(from);
        }
        behind
    }

    fn miss_unread(&mut self, reader: usize, behind: &Behind, key: Key) {
        let label = Label { relation: Relation::Misses, key, element: 0 };
        // The reader may be one of them: not before itself.
        let (before, after) = match behind.writers.binary_search(&reader) {
            Ok(place) => (place.checked_sub(1), place + 1),
            Err(_) => (None, 0),
        };
        let nodes = [before.map(|place| behind.up_to[place]), behind.from.get(after).copied()];
        for node in nodes.into_iter().flatten() {
            self.relations += 1;
            self.edges.push(Edge { from: self.begins[reader], to: node, is_free: true, label });
        }
    }

    /// Each process does one thing after the other.
    fn processes(&mut self, history: &[Transaction], orders: &Orders<'_>) {
        let mut happened: Vec<usize> = (0..history.len()).filter(|place| orders.happened[*place]).collect();
        happened.sort_by_key(|place| (history[*place].process, history[*place].invoked));
        for pair in happened.windows(2) {
            let (first, second) = (&history[pair[0]], &history[pair[1]]);
            let is_done = first.status == Status::Committed && first.completed <= second.invoked;
            if first.process == second.process && is_done {
                let label = Label { relation: Relation::Process, ..SAME };
                self.relate(self.commits[pair[0]], self.begins[pair[1]], label);
            }
        }
    }

    /// Who was answered comes before who asked later. A node for each answer passes that on to the next answer, so that
    /// each transaction needs three edges and not as many as there are transactions after it.
    fn time(&mut self, history: &[Transaction], orders: &Orders<'_>) {
        let mut answered: Vec<usize> = (0..history.len())
            .filter(|place| orders.happened[*place] && history[*place].status == Status::Committed)
            .collect();
        answered.sort_by_key(|place| history[*place].completed);
        let answers: Vec<Node> = answered.iter().map(|_| self.node(None)).collect();
        let label = Label { relation: Relation::Time, ..SAME };
        for (place, transaction) in answered.iter().enumerate() {
            self.edges.push(Edge { from: self.commits[*transaction], to: answers[place], is_free: true, label });
            if place > 0 {
                self.pass(answers[place - 1], answers[place]);
            }
        }
        for (place, transaction) in history.iter().enumerate().filter(|(place, _)| orders.happened[*place]) {
            let earlier = answered.partition_point(|answered| history[*answered].completed < transaction.invoked);
            if earlier > 0 {
                self.relations += 1;
                let (from, to) = (answers[earlier - 1], self.begins[place]);
                self.edges.push(Edge { from, to, is_free: false, label: SAME });
            }
        }
    }
}

/// Who appended what nobody read, in order, and for each the nodes in front of those up to it and from it on.
#[derive(Debug, Default)]
struct Behind {
    writers: Vec<usize>,
    up_to: Vec<Node>,
    from: Vec<Node>,
}

/// For each length of a list, who appended the next element, and which.
fn next_writers(orders: &Orders<'_>, key: Key) -> Vec<Option<(usize, Element)>> {
    let order = orders.lists[key].order;
    let mut next = vec![None; order.len() + 1];
    for (place, element) in order.iter().enumerate().rev() {
        next[place] = orders.writer(key, *element).map(|writer| (writer, *element)).or(next[place + 1]);
    }
    next
}
