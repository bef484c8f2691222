//! The version order of each list, from what was read; and the anomalies that show without any graph.
//!
//! Lists only grow, so all reads of one list must be beginnings of the longest one, and that one is the order in
//! which its elements came. What was appended and never read came after all that was.

use std::collections::{HashMap, HashSet};

use super::cycles::Kind;
use super::words::{list, name};
use super::{Anomaly, Element, Operation, Status, Transaction};

/// A history that says nothing: an element is not unique.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("element {element} was appended to {key} twice: by {first} and by {second}")]
pub struct Malformed {
    /// The list.
    pub key: String,
    /// The element.
    pub element: Element,
    /// Who appended it.
    pub first: String,
    /// Who else.
    pub second: String,
}

/// Place of a list.
pub(super) type Key = usize;

/// One append.
#[derive(Clone, Copy, Debug)]
pub(super) struct Append {
    pub(super) transaction: usize,
    /// The how-manieth of its transaction to this list.
    ordinal: usize,
}

/// A list as a transaction found it, before it changed it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) transaction: usize,
    pub(super) key: Key,
    /// So many elements of the version order.
    pub(super) length: usize,
}

/// What is known of one list.
#[derive(Debug, Default)]
pub(super) struct Versions<'h> {
    pub(super) name: &'h str,
    /// The elements in the order in which they came, as far as they were read.
    pub(super) order: &'h [Element],
    /// Who read the longest list.
    reader: usize,
    /// What transactions that happened appended and nobody read: one element each.
    pub(super) unread: Vec<(usize, Element)>,
    /// All appends.
    pub(super) appends: HashMap<Element, Append>,
    /// How many appends each transaction made here.
    counts: HashMap<usize, usize>,
}

/// What is known of all lists.
#[derive(Debug)]
pub(super) struct Orders<'h> {
    pub(super) lists: Vec<Versions<'h>>,
    pub(super) found: Vec<Found>,
    /// Whether each transaction happened.
    pub(super) happened: Vec<bool>,
}

impl Orders<'_> {
    /// Who appended an element, if that happened.
    pub(super) fn writer(&self, key: Key, element: Element) -> Option<usize> {
        let append = self.lists[key].appends.get(&element)?;
        self.happened[append.transaction].then_some(append.transaction)
    }
}

/// A list as it was read, and how much of it was there before the reader's own appends.
struct Seen<'h> {
    transaction: usize,
    key: Key,
    elements: &'h [Element],
    /// Only of the first read of a list, and only if the rest is its own appends.
    before: Option<usize>,
}

struct Inference<'h> {
    history: &'h [Transaction],
    keys: HashMap<&'h str, Key>,
    orders: Orders<'h>,
    anomalies: Vec<Anomaly>,
}

/// Infers all orders.
pub(super) fn infer(history: &[Transaction]) -> Result<(Orders<'_>, Vec<Anomaly>), Malformed> {
    let happened = history.iter().map(|transaction| transaction.status == Status::Committed).collect();
    let orders = Orders { lists: Vec::new(), found: Vec::new(), happened };
    let mut inference = Inference { history, keys: HashMap::new(), orders, anomalies: Vec::new() };
    inference.note_appends()?;
    let seen = inference.note_reads();
    for read in &seen {
        inference.judge_elements(read);
    }
    for key in 0..inference.orders.lists.len() {
        inference.judge_order(key);
        inference.note_unread(key);
    }
    for read in &seen {
        inference.judge_read(read);
    }
    inference.judge_updates();
    Ok((inference.orders, inference.anomalies))
}

impl<'h> Inference<'h> {
    fn report(&mut self, kind: Kind, transactions: &[usize], explanation: String) {
        self.anomalies.push(Anomaly { kind, transactions: transactions.to_vec(), explanation });
    }

    fn key(&mut self, name: &'h str) -> Key {
        let lists = &mut self.orders.lists;
        *self.keys.entry(name).or_insert_with(|| {
            lists.push(Versions { name, ..Versions::default() });
            lists.len() - 1
        })
    }

    fn note_appends(&mut self) -> Result<(), Malformed> {
        for (transaction, content) in self.history.iter().enumerate() {
            for operation in &content.operations {
                let Operation::Append { key: name_of_list, element } = operation else { continue };
                let key = self.key(name_of_list);
                let versions = &mut self.orders.lists[key];
                let count = versions.counts.entry(transaction).or_default();
                let append = Append { transaction, ordinal: *count };
                *count += 1;
                if let Some(first) = versions.appends.insert(*element, append) {
                    let (first, second) = (name(first.transaction), name(transaction));
                    return Err(Malformed { key: name_of_list.clone(), element: *element, first, second });
                }
            }
        }
        Ok(())
    }

    /// Walks through what each committed transaction did, and keeps the longest list of each key.
    fn note_reads(&mut self) -> Vec<Seen<'h>> {
        let mut seen = Vec::new();
        for (transaction, content) in self.history.iter().enumerate() {
            if content.status != Status::Committed {
                continue;
            }
            // What the transaction must see: the last list it read, and what it appended since.
            let mut known: HashMap<Key, (Option<&'h [Element]>, Vec<Element>)> = HashMap::new();
            for operation in &content.operations {
                match operation {
                    Operation::Append { key, element } => {
                        let key = self.key(key);
                        known.entry(key).or_default().1.push(*element);
                    }
                    Operation::Read { key, elements } => {
                        let key = self.key(key);
                        let (last, own) = known.entry(key).or_default();
                        let before = self.judge_own(transaction, key, (*last, own.as_slice()), elements);
                        let is_first = last.is_none();
                        (*last, *own) = (Some(elements.as_slice()), Vec::new());
                        seen.push(Seen { transaction, key, elements, before: before.filter(|_| is_first) });
                    }
                }
            }
        }
        for read in &seen {
            let versions = &mut self.orders.lists[read.key];
            if read.elements.len() > versions.order.len() {
                (versions.order, versions.reader) = (read.elements, read.transaction);
            }
        }
        seen
    }

    /// Whether a transaction sees its own appends and what it saw before; how much was there before its appends.
    fn judge_own(
        &mut self,
        transaction: usize,
        key: Key,
        (last, own): (Option<&[Element]>, &[Element]),
        elements: &[Element],
    ) -> Option<usize> {
        let versions = &self.orders.lists[key];
        let who = name(transaction);
        let trouble = if !elements.ends_with(own) {
            Some(format!("does not end with {}, which it had appended itself", list(own)))
        } else if let Some(last) = last.filter(|last| elements[..elements.len() - own.len()] != **last) {
            Some(format!("is not what it had read before, {}, and its own appends {}", list(last), list(own)))
        } else if last.is_none() {
            let before = &elements[..elements.len() - own.len()];
            let is_own = |element: &&Element| {
                versions.appends.get(*element).is_some_and(|append| append.transaction == transaction)
            };
            before
                .last()
                .filter(is_own)
                .map(|early| format!("has {early}, which it appended only later, or in another place"))
        } else {
            None
        };
        let Some(trouble) = trouble else { return Some(elements.len() - own.len()) };
        let explanation = format!("{who} read {} as {}, which {trouble}", versions.name, list(elements));
        self.report(Kind::Internal, &[transaction], explanation);
        None
    }

    /// Elements that nobody appended, that were taken back, or that are there twice. A read that is a beginning of the
    /// longest one need not be looked at again.
    fn judge_elements(&mut self, read: &Seen<'h>) {
        let versions = &self.orders.lists[read.key];
        let is_longest = std::ptr::eq(versions.order, read.elements);
        if !is_longest && versions.order.starts_with(read.elements) {
            return;
        }
        let (mut troubles, mut observed, mut unique) = (Vec::new(), Vec::new(), HashSet::new());
        let reader = name(read.transaction);
        let what = || format!("{reader} read {} as {}", versions.name, list(read.elements));
        for element in read.elements {
            if !unique.insert(element) {
                troubles.push((Kind::Duplicate, vec![read.transaction], format!("{}, with {element} twice", what())));
            }
            let Some(append) = versions.appends.get(element) else {
                let explanation = format!("{}, but nobody ever appended {element}", what());
                troubles.push((Kind::Unwritten, vec![read.transaction], explanation));
                continue;
            };
            match self.history[append.transaction].status {
                Status::Committed => {}
                Status::Unknown => observed.push(append.transaction),
                Status::Aborted => {
                    let writer = name(append.transaction);
                    let explanation = format!("{}, with {element} of {writer}, which was aborted", what());
                    troubles.push((Kind::G1a, vec![append.transaction, read.transaction], explanation));
                }
            }
        }
        for transaction in observed {
            self.orders.happened[transaction] = true;
        }
        for (kind, transactions, explanation) in troubles {
            self.report(kind, &transactions, explanation);
        }
    }

    /// Whether each transaction's appends are there in the order in which it made them, none left out in between.
    fn judge_order(&mut self, key: Key) {
        let versions = &self.orders.lists[key];
        let mut next: HashMap<usize, usize> = HashMap::new();
        let mut wrong = Vec::new();
        for element in versions.order {
            let Some(append) = versions.appends.get(element) else { continue };
            let expected = next.entry(append.transaction).or_default();
            if append.ordinal != *expected {
                let writer = name(append.transaction);
                let explanation = format!(
                    "the appends of {writer} to {} are in another order than it made them, or one is missing: {}",
                    versions.name,
                    list(versions.order)
                );
                wrong.push((append.transaction, explanation));
            }
            *expected = append.ordinal + 1;
        }
        let reader = versions.reader;
        for (writer, explanation) in wrong {
            self.report(Kind::IncompatibleOrder, &[writer, reader], explanation);
        }
    }

    fn note_unread(&mut self, key: Key) {
        let happened = &self.orders.happened;
        let versions = &mut self.orders.lists[key];
        let read: HashSet<Element> = versions.order.iter().copied().collect();
        let unread =
            versions.appends.iter().filter(|(element, append)| happened[append.transaction] && !read.contains(element));
        let mut unread: Vec<(usize, Element)> =
            unread.map(|(element, append)| (append.transaction, *element)).collect();
        unread.sort_unstable();
        unread.dedup_by_key(|(transaction, _)| *transaction);
        versions.unread = unread;
    }

    /// Whether a read is a beginning of the version order and ends where a transaction ended.
    fn judge_read(&mut self, read: &Seen<'h>) {
        let versions = &self.orders.lists[read.key];
        if !versions.order.starts_with(read.elements) {
            let explanation = format!(
                "{} read {} as {}, {} as {}; neither is a beginning of the other",
                name(read.transaction),
                versions.name,
                list(read.elements),
                name(versions.reader),
                list(versions.order)
            );
            let transactions = [read.transaction, versions.reader];
            self.report(Kind::IncompatibleOrder, &transactions, explanation);
            return;
        }
        let Some(length) = read.before else { return };
        self.orders.found.push(Found { transaction: read.transaction, key: read.key, length });
        let versions = &self.orders.lists[read.key];
        let Some(last) = read.elements[..length].last() else { return };
        let Some(append) = versions.appends.get(last) else { return };
        let count = versions.counts[&append.transaction];
        if append.ordinal + 1 < count {
            let (reader, writer) = (name(read.transaction), name(append.transaction));
            let explanation = format!(
                "{reader} read {} as {}, which ends in the middle of {writer}: {last} is number {} of its {count} appends there",
                versions.name,
                list(read.elements),
                append.ordinal + 1
            );
            self.report(Kind::G1b, &[append.transaction, read.transaction], explanation);
        }
    }

    /// Two transactions that read the same version of a list and both appended to it.
    fn judge_updates(&mut self) {
        let mut first: HashMap<(Key, usize), usize> = HashMap::new();
        let mut lost = Vec::new();
        for found in &self.orders.found {
            let versions = &self.orders.lists[found.key];
            if !versions.counts.contains_key(&found.transaction) {
                continue;
            }
            let Some(earlier) = first.insert((found.key, found.length), found.transaction) else { continue };
            let explanation = format!(
                "{} and {} both read {} as {}, and both appended to it",
                name(earlier),
                name(found.transaction),
                versions.name,
                list(&versions.order[..found.length])
            );
            lost.push(([earlier, found.transaction], explanation));
        }
        for (transactions, explanation) in lost {
            self.report(Kind::LostUpdate, &transactions, explanation);
        }
    }
}
