//! Histories of a serial execution are clean; with one read that is not true any more they are not.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::super::{Element, Operation};
use super::{ALL, Kind, Level, Status, Transaction, check, is_clean, one_after_the_other};

const SEEDS: u64 = 300;
const TRANSACTIONS: u32 = 60;
const KEYS: u32 = 4;
const PROCESSES: u32 = 5;

/// Transactions that ran one after the other, with their times; some were aborted, of some nobody knows.
fn serial(random: &mut SmallRng) -> Vec<Transaction> {
    let mut lists: BTreeMap<String, Vec<Element>> = BTreeMap::new();
    let mut element = 0;
    let mut history = Vec::new();
    for number in 0..TRANSACTIONS {
        let status = match random.random_range(0..10) {
            0 => Status::Aborted,
            1 => Status::Unknown,
            _ => Status::Committed,
        };
        // Nobody who was told nothing goes on.
        let process = if status == Status::Unknown { PROCESSES + number } else { number % PROCESSES };
        let mut transaction = Transaction::new(process, 0, 0).status(status);
        let mut after = lists.clone();
        for _ in 0..random.random_range(1..=4) {
            let key = format!("k{}", random.random_range(0..KEYS));
            let list = after.entry(key.clone()).or_default();
            if random.random_bool(0.5) {
                element += 1;
                list.push(element);
                transaction = transaction.append(&key, element);
            } else {
                transaction = transaction.read(&key, list);
            }
        }
        if status == Status::Committed || status == Status::Unknown && random.random_bool(0.5) {
            lists = after;
        }
        history.push(transaction);
    }
    one_after_the_other(history)
}

/// The read that is changed, and how.
fn corrupt(random: &mut SmallRng, history: &mut [Transaction]) -> String {
    let unused = 1_000_000;
    loop {
        let place = random.random_range(0..history.len());
        let transaction = &mut history[place];
        if transaction.status != Status::Committed {
            continue;
        }
        let operation = random.random_range(0..transaction.operations.len());
        let Operation::Read { elements, .. } = &mut transaction.operations[operation] else { continue };
        let what = random.random_range(0..4);
        match what {
            0 if !elements.is_empty() => {
                elements.remove(random.random_range(0..elements.len()));
            }
            1 if elements.len() >= 2 => {
                let first = random.random_range(0..elements.len() - 1);
                elements.swap(first, first + 1);
            }
            2 => elements.insert(random.random_range(0..=elements.len()), unused),
            3 if !elements.is_empty() => elements.push(elements[random.random_range(0..elements.len())]),
            _ => continue,
        }
        return format!("T{place}, operation {operation}, change {what}");
    }
}

#[test]
fn serial_histories_are_clean_in_whatever_order_they_are_told() {
    for seed in 0..SEEDS {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut history = serial(&mut random);
        history.shuffle(&mut random);
        is_clean(&history, &ALL);
        is_clean(&history, &[Level::Declared]);
    }
}

#[test]
fn one_read_that_is_not_true_is_found() {
    let mut by_kind: BTreeMap<Kind, u32> = BTreeMap::new();
    for seed in 0..SEEDS {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut history = serial(&mut random);
        let change = corrupt(&mut random, &mut history);
        // With the clock, serial transactions have no other order than theirs: no change is harmless.
        let report = check(&history, Level::StrictSerializable);
        assert!(!report.is_clean(), "seed {seed}: {change} was not found");
        for anomaly in report.anomalies {
            *by_kind.entry(anomaly.kind).or_default() += 1;
        }
    }
    for kind in [Kind::Unwritten, Kind::Duplicate, Kind::Internal, Kind::IncompatibleOrder, Kind::RealTime] {
        assert!(by_kind.contains_key(&kind), "no {kind} among {by_kind:?}");
    }
}
