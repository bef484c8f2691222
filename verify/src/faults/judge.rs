//! What is stored at the end, against what clients were told.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tandem_model::outcome::{FlowRecord, Outcome};
use tandem_store::keys::{self, RowKey};
use tandem_store::rows;

use super::functions::Statement;
use super::load::{Known, Wish};
use crate::process::place::Row;

/// Amounts, or numbers, by request.
type ByTag = BTreeMap<String, i64>;

/// All that is stored, taken apart.
#[derive(Debug, Default)]
pub(super) struct Stored {
    records: BTreeMap<String, FlowRecord>,
    values: BTreeMap<(String, String), i64>,
    entries: BTreeMap<(String, String), ByTag>,
    /// Messages that are not delivered yet.
    pub(super) waiting: usize,
    /// Bodies of those that were set aside.
    set_aside: Vec<Bytes>,
}

impl Stored {
    /// Takes rows apart. Says which one makes no sense.
    pub(super) fn of(rows: Vec<Row>) -> Result<Self, String> {
        let mut stored = Self::default();
        for (key, value) in rows {
            let broken = |error: &dyn std::fmt::Display| format!("row {key:?} makes no sense: {error}");
            match keys::parse(&key).map_err(|error| broken(&error))? {
                RowKey::StateValue { instance, state, .. } => {
                    // What is no number is none of ours.
                    if let Some(number) = number(&value) {
                        stored.values.insert((instance.to_string(), state.to_string()), number);
                    }
                }
                RowKey::StateEntry { instance, state, entry, .. } => {
                    if let Some(number) = number(&value) {
                        let entries = stored.entries.entry((instance.to_string(), state.to_string())).or_default();
                        entries.insert(String::from_utf8_lossy(&entry).into_owned(), number);
                    }
                }
                RowKey::Request { .. } => {
                    let record = rows::decode_record(&value).map_err(|error| broken(&error))?;
                    stored.records.insert(record.request.to_string(), record);
                }
                RowKey::Inbox { .. } | RowKey::Timer { .. } => stored.waiting += 1,
                RowKey::DeadLetter { .. } => {
                    let message = rows::decode_message(&value).map_err(|error| broken(&error))?;
                    stored.set_aside.push(message.payload.bytes);
                }
                RowKey::Egress { .. } | RowKey::Lane { .. } | RowKey::Meta { .. } => {}
            }
        }
        Ok(stored)
    }

    fn value(&self, instance: &str, state: &str) -> i64 {
        self.values.get(&(instance.to_owned(), state.to_owned())).copied().unwrap_or_default()
    }

    /// All entries of a state of all instances of a function: by instance, then by request.
    fn all(&self, function: &str, state: &str) -> BTreeMap<&str, &ByTag> {
        let of = self.entries.iter().filter(|((instance, name), _)| name == state && instance.starts_with(function));
        of.map(|((instance, _), entries)| (instance.as_str(), entries)).collect()
    }
}

/// The text of JSON: `true` counts as 1.
fn number(bytes: &Bytes) -> Option<i64> {
    let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    value.as_i64().or_else(|| value.as_bool().map(i64::from))
}

/// What must not be.
pub(super) fn judge(books: &BTreeMap<String, Known>, stored: &Stored) -> Vec<String> {
    let mut problems = outcomes(books, stored);
    let mut expected = Expected::default();
    for known in books.values() {
        expected.add(known);
    }
    problems.extend(expected.compare(stored));
    problems.extend(together(books, stored));
    problems
}

/// G1 and G2: one outcome for each request, the one that was told.
fn outcomes(books: &BTreeMap<String, Known>, stored: &Stored) -> Vec<String> {
    let mut problems = Vec::new();
    for (id, known) in books {
        let record = stored.records.get(id).map(|record| record.outcome);
        match &known.told {
            Some(told) if record != Some(told.outcome) => {
                problems.push(format!("{id} was told to be {}, and its record says {record:?}", told.outcome));
            }
            _ => {}
        }
    }
    let is_ours = |id: &str| id.starts_with(['t', 'p', 'd']) && !id.starts_with("probe");
    let strange = stored.records.keys().filter(|id| is_ours(id) && !books.contains_key(*id));
    problems.extend(strange.map(|id| format!("there is a record of {id}, which nobody asked for")));
    problems
}

/// What has to be there after all that was committed, by instance and request.
#[derive(Debug, Default)]
struct Expected {
    out: BTreeMap<String, ByTag>,
    into: BTreeMap<String, ByTag>,
    notes: BTreeMap<String, ByTag>,
}

impl Expected {
    fn add(&mut self, known: &Known) {
        let committed = known.told.as_ref().is_some_and(|told| told.outcome == Outcome::Committed);
        let (Wish::Transfer { from, wanted }, true) = (&known.wish, committed) else { return };
        let (tag, amount) = (&wanted.tag, wanted.amount);
        let total: i64 = wanted.to.iter().map(|_| amount).sum();
        self.out.entry(format!("account/{from}")).or_default().insert(tag.clone(), total);
        self.notes.entry(format!("receipts/{from}")).or_default().insert(tag.clone(), 1);
        for to in &wanted.to {
            self.into.entry(format!("account/{to}")).or_default().insert(tag.clone(), amount);
        }
    }

    /// G3 and the invariants of W1: exactly that, once, and nothing of anybody else.
    fn compare(mut self, stored: &Stored) -> Vec<String> {
        let mut problems = Vec::new();
        for letter in &stored.set_aside {
            // Told to people instead, which is not lost.
            let tag: String = serde_json::from_slice(letter).unwrap_or_default();
            self.notes.values_mut().for_each(|notes| notes.retain(|other, _| *other != tag));
        }
        self.notes.retain(|_, notes| !notes.is_empty());
        for (function, state, expected) in
            [("account", "out", &self.out), ("account", "into", &self.into), ("receipts", "notes", &self.notes)]
        {
            let found = stored.all(function, state);
            let instances = expected.keys().map(String::as_str).chain(found.keys().copied());
            for instance in instances.collect::<BTreeSet<&str>>() {
                let none = ByTag::new();
                let (expected, found) =
                    (expected.get(instance).unwrap_or(&none), found.get(instance).copied().unwrap_or(&none));
                problems.extend(differences(expected, found).map(|what| format!("{instance} {state}: {what}")));
            }
        }
        problems
    }
}

fn differences<'a>(expected: &'a ByTag, found: &'a ByTag) -> impl Iterator<Item = String> + 'a {
    let missing = expected.iter().filter(|(tag, amount)| found.get(*tag) != Some(amount));
    let missing =
        missing.map(|(tag, amount)| format!("{tag} has to be there with {amount}, found {:?}", found.get(tag)));
    let strange = found.iter().filter(|(tag, _)| !expected.contains_key(*tag));
    missing.chain(strange.map(|(tag, amount)| format!("{tag} is there with {amount} and never committed")))
}

/// What is true of all rows together.
fn together(books: &BTreeMap<String, Known>, stored: &Stored) -> Vec<String> {
    let mut problems = Vec::new();
    let (mut sent, mut received) = (0, 0);
    let accounts: BTreeSet<&String> = stored
        .values
        .keys()
        .map(|(instance, _)| instance)
        .filter(|instance| instance.starts_with("account/"))
        .collect();
    for account in accounts {
        let statement = Statement { sent: stored.value(account, "sent"), received: stored.value(account, "received") };
        let by_request = |state: &str| {
            stored.entries.get(&(account.clone(), state.to_owned())).map_or(0, |entries| entries.values().sum::<i64>())
        };
        if (statement.sent, statement.received) != (by_request("out"), by_request("into")) || statement.balance() < 0 {
            problems.push(format!("{account} does not add up: {statement:?}"));
        }
        sent += statement.sent;
        received += statement.received;
    }
    if sent != received {
        problems.push(format!("{sent} was sent and {received} received"));
    }
    let editions: BTreeSet<i64> = stored
        .values
        .iter()
        .filter(|((instance, _), _)| instance.starts_with("page/"))
        .map(|(_, edition)| *edition)
        .collect();
    let printed = |edition: i64| {
        books.values().any(|known| {
            let committed = known.told.as_ref().is_some_and(|told| told.outcome == Outcome::Committed);
            matches!(known.wish, Wish::Print { number, fails: false } if i64::try_from(number) == Ok(edition))
                && committed
        })
    };
    if editions.len() > 1 || !editions.iter().all(|edition| printed(*edition)) {
        problems.push(format!("the pages are of the editions {editions:?}"));
    }
    problems
}
