//! Checking takes time in proportion to the history.

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::super::Element;
use super::{Isolation, Kind, Level, Transaction, check, is_clean};

const TRANSACTIONS: u32 = 100_000;
const KEYS: usize = 5_000;
const PROCESSES: u32 = 64;
/// Far more than it takes, and far less than anything quadratic would.
const TIME_MAX: Duration = Duration::from_mins(1);

/// Many clients at a time; each transaction is true at one point between its ends.
fn large() -> Vec<Transaction> {
    let mut random = SmallRng::seed_from_u64(1);
    let mut lists: Vec<Vec<Element>> = vec![Vec::new(); KEYS];
    let transaction = |number: u32| {
        let time = u64::from(number) * 10;
        let isolation = if number.is_multiple_of(3) { Isolation::Snapshot } else { Isolation::Serializable };
        let ends = (time.saturating_sub(random.random_range(0..300)), time + random.random_range(0..300));
        let mut transaction = Transaction::new(number % PROCESSES, ends.0, ends.1).isolation(isolation);
        for operation in 0..4 {
            let key = random.random_range(0..KEYS);
            let name = format!("k{key}");
            transaction = if random.random_bool(0.5) {
                let element = u64::from(number) * 4 + operation;
                lists[key].push(element);
                transaction.append(&name, element)
            } else {
                transaction.read(&name, &lists[key])
            };
        }
        transaction
    };
    (0..TRANSACTIONS).map(transaction).collect()
}

#[test]
fn a_hundred_thousand_transactions_take_seconds() {
    let mut history = large();
    // Last: two that miss each other.
    let began = Instant::now();
    is_clean(&history, &[Level::Declared]);
    let skew = |read: &str, append: &str| Transaction::new(999, 2_000_000, 3_000_000).read(read, &[]).append(append, 1);
    history.extend([skew("a", "b"), skew("b", "a")]);
    let report = check(&history, Level::StrictSerializable);
    assert_eq!(report.anomalies.iter().map(|anomaly| anomaly.kind).collect::<Vec<_>>(), [Kind::G2], "{report}");
    let took = began.elapsed();
    assert!(took < TIME_MAX, "two checks took {took:?}");
}

#[test]
fn what_nobody_read_does_not_make_it_slow() {
    let one = |number: u32| {
        Transaction::new(number, 0, 1).append("x", u64::from(number)).read("y", &[]).isolation(Isolation::Snapshot)
    };
    let history: Vec<Transaction> = (0..TRANSACTIONS / 4).map(one).collect();
    let readers = (0..TRANSACTIONS / 4).map(|number| Transaction::new(number, 0, 1).read("x", &[]));
    let began = Instant::now();
    is_clean(&history.into_iter().chain(readers).collect::<Vec<_>>(), &[Level::StrictSerializable]);
    let took = began.elapsed();
    assert!(took < TIME_MAX, "it took {took:?}");
}
