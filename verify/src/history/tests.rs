//! Every anomaly by hand, near misses, random histories against a checker that tries everything, and large ones.

mod anomalies;
mod corrupted;
mod exhaustive;
mod large;

use super::{Isolation, Kind, Level, Report, Status, Transaction};

/// A committed transaction at the same time as all others of its kind.
fn at_once(process: u32) -> Transaction {
    Transaction::new(process, 0, 100)
}

fn check(history: &[Transaction], level: Level) -> Report {
    super::check(history, level).unwrap()
}

/// Transactions one after the other, in this order.
fn one_after_the_other(transactions: Vec<Transaction>) -> Vec<Transaction> {
    let place = |(place, transaction): (u64, Transaction)| Transaction {
        invoked: 10 * place,
        completed: 10 * place + 5,
        ..transaction
    };
    (0..).zip(transactions).map(place).collect()
}

/// That an anomaly is found with its name, and with exactly these transactions in it.
fn finds(history: &[Transaction], level: Level, kind: Kind, transactions: &[usize]) -> Report {
    let report = check(history, level);
    let found = report.anomalies.iter().any(|anomaly| anomaly.kind == kind && anomaly.transactions == transactions);
    assert!(found, "{level:?}: no {kind} of {transactions:?} in {report}\n{:?}", report.anomalies);
    report
}

fn is_clean(history: &[Transaction], levels: &[Level]) {
    for level in levels {
        let report = check(history, *level);
        assert!(report.is_clean(), "{level:?}: {report}");
    }
}

const ALL: [Level; 4] = [Level::Snapshot, Level::StrongSnapshot, Level::Serializable, Level::StrictSerializable];
