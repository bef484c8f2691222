//! Whether what committers were told fits together with what is stored.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tandem_model::ids::Timestamp;

use super::plan::Plan;
use super::work::{Attempt, BALANCE, Ended, account_key, balance_of, elements_of};
use crate::history::{self, Element, Isolation, Level, Operation, Status, Transaction};

/// All rows at the end, with the time of their last change.
pub type Rows = BTreeMap<Bytes, (Timestamp, Bytes)>;

/// Everything that is wrong.
pub fn judge(plan: &Plan, attempts: &[Attempt], rows: &Rows) -> Vec<String> {
    let mut problems = Vec::new();
    for attempt in attempts {
        problems.extend(record(attempt, rows));
        problems.extend(effects(attempt, rows));
    }
    problems.extend(balances(plan, attempts, rows));
    problems.extend(strangers(attempts, rows));
    problems.extend(real_time(attempts));
    problems.extend(cycles(attempts));
    problems
}

fn is_stored(attempt: &Attempt, rows: &Rows) -> bool {
    attempt.record.as_ref().is_some_and(|record| rows.contains_key(record))
}

/// The record says what the committer was told.
fn record(attempt: &Attempt, rows: &Rows) -> Option<String> {
    let record = attempt.record.as_ref()?;
    let stored = rows.get(record);
    let id = attempt.id;
    match (&attempt.ended, stored) {
        (Ended::Committed(at), None) => Some(format!("attempt {id} was committed at {at}, and is gone")),
        (Ended::Committed(at), Some((other, _))) if at != other => {
            Some(format!("attempt {id} was committed at {at}, and is stored at {other}"))
        }
        (Ended::Rejected(why), Some((at, _))) => {
            Some(format!("attempt {id} was rejected ({why}), and is there at {at}"))
        }
        (Ended::Decided(there), _) if *there != stored.is_some() => {
            Some(format!("attempt {id} was decided, there: {there}, and now it is {}", stored.is_some()))
        }
        _ => None,
    }
}

/// All of it, or nothing.
fn effects(attempt: &Attempt, rows: &Rows) -> Option<String> {
    attempt.record.as_ref()?;
    let there = is_stored(attempt, rows);
    let is_wrong = |operation: &&Operation| match operation {
        Operation::Append { key, element } => elements(key, rows).contains(element) != there,
        Operation::Read { .. } => false,
    };
    let wrong = attempt.operations.iter().find(is_wrong)?;
    Some(format!("attempt {}: its record is there: {there}, but not so {wrong:?}", attempt.id))
}

/// What a list or table has.
fn elements(key: &str, rows: &Rows) -> Vec<Element> {
    let (kind, number) = key.split_at(1);
    let prefix = format!("{kind}/{number}");
    let of_table = format!("{prefix}/");
    let is_in = |row: &Bytes| **row == *prefix.as_bytes() || row.starts_with(of_table.as_bytes());
    rows.iter().filter(|(row, _)| is_in(row)).flat_map(|(_, (_, value))| elements_of(Some(value))).collect()
}

/// Money neither comes nor goes.
fn balances(plan: &Plan, attempts: &[Attempt], rows: &Rows) -> Vec<String> {
    let mut expected = vec![BALANCE; plan.accounts];
    for attempt in attempts.iter().filter(|attempt| is_stored(attempt, rows)) {
        attempt.moves.iter().for_each(|(account, amount)| expected[*account] += amount);
    }
    let wrong = expected.iter().enumerate().filter_map(|(account, expected)| {
        let found = balance_of(rows.get(&account_key(account)).map(|(_, value)| value));
        (found != Some(*expected)).then(|| format!("account {account} has {found:?} instead of {expected}"))
    });
    wrong.collect()
}

/// Records of nobody.
fn strangers(attempts: &[Attempt], rows: &Rows) -> Vec<String> {
    let known: BTreeSet<&Bytes> = attempts.iter().filter_map(|attempt| attempt.record.as_ref()).collect();
    let is_record = |row: &Bytes| row.get(1..3) == Some(b"~q");
    let strange = rows.keys().filter(|row| is_record(row) && !known.contains(row));
    strange.map(|row| format!("{row:?} is there, and nobody wrote it")).collect()
}

/// What was answered before something began has an earlier time.
fn real_time(attempts: &[Attempt]) -> Vec<String> {
    let committed = |attempt: &Attempt| match (&attempt.ended, &attempt.record) {
        (Ended::Committed(at), Some(_)) => Some((attempt.invoked, attempt.completed, *at, attempt.id)),
        _ => None,
    };
    let all: Vec<_> = attempts.iter().filter_map(committed).collect();
    let (mut by_begin, mut by_end) = (all.clone(), all);
    by_begin.sort_unstable();
    by_end.sort_unstable_by_key(|(_, completed, ..)| *completed);
    let (mut ended, mut latest, mut problems) = (by_end.into_iter().peekable(), None, Vec::new());
    for (invoked, _, at, id) in by_begin {
        while let Some((_, _, other, other_id)) = ended.next_if(|(_, completed, ..)| *completed < invoked) {
            latest = latest.max(Some((other, other_id)));
        }
        if let Some((other, other_id)) = latest.filter(|(other, _)| *other >= at) {
            problems.push(format!("attempt {id} began after {other_id} was answered at {other}, and is at {at}"));
        }
    }
    problems
}

/// Lists as a history.
fn cycles(attempts: &[Attempt]) -> Vec<String> {
    let history: Vec<Transaction> = attempts.iter().map(transaction).collect();
    match history::check(&history, Level::StrictSerializable) {
        Err(malformed) => vec![malformed.to_string()],
        Ok(report) => {
            report.anomalies.iter().map(|anomaly| format!("{}: {}", anomaly.kind, anomaly.explanation)).collect()
        }
    }
}

fn transaction(attempt: &Attempt) -> Transaction {
    let status = match attempt.ended {
        Ended::Committed(_) | Ended::Decided(true) => Status::Committed,
        Ended::Rejected(_) | Ended::Decided(false) => Status::Aborted,
        Ended::Unknown => Status::Unknown,
    };
    Transaction {
        process: attempt.committer,
        invoked: attempt.invoked,
        completed: attempt.completed,
        status,
        isolation: Isolation::Serializable,
        operations: attempt.operations.clone(),
    }
}
