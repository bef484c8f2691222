//! The requests of the workloads are what the method says.

use std::collections::BTreeSet;

use super::*;

fn requests(workload: Workload, count: usize) -> Vec<(String, Operation)> {
    let mut generator = workload.generators(3, 7).swap_remove(2);
    (0..count).map(|_| generator.next()).collect()
}

#[test]
fn no_two_requests_have_the_same_id() {
    let workload = Workload::Counter { keys: 10, theta: 0.0, functions: 0 };
    let mut ids = BTreeSet::new();
    for mut generator in workload.generators(4, 1) {
        for _ in 0..100 {
            assert!(ids.insert(generator.next().0));
        }
    }
}

#[test]
fn transfers_keep_the_sum_and_never_pay_the_debtor() {
    let found = requests(Workload::Transfer { theta: 0.999, accounts: 8 }, 1_000);
    let mut excessive = 0;
    for (_, operation) in &found {
        assert_eq!(operation.changes.len(), 8);
        assert_eq!(operation.changes.iter().map(|change| change.by).sum::<i64>(), 0);
        let rows: BTreeSet<u32> = operation.changes.iter().map(|change| change.cell.row).collect();
        assert_eq!(rows.len(), 8);
        excessive += usize::from(operation.changes[0].by < -i64::try_from(BALANCE).unwrap());
    }
    assert!((1..100).contains(&excessive), "{excessive} of 1,000");
}

#[test]
fn chain_has_a_key_for_each_call() {
    for (_, operation) in requests(Workload::Chain { calls: 9, steps: 1_000 }, 100) {
        let rows: BTreeSet<u32> = operation.changes.iter().map(|change| change.cell.row).collect();
        assert_eq!(rows.len(), 9);
        let named: Vec<String> = serde_json::from_str(&operation.body).unwrap();
        let expected: Vec<String> = operation.changes[1..].iter().map(|change| change.cell.key()).collect();
        assert_eq!(named, expected);
    }
}

#[test]
fn one_order_in_a_hundred_names_an_unknown_item() {
    let workload = Workload::Checkout { skewed: true };
    let families = workload.families();
    let mut unknown = 0;
    for (_, operation) in requests(workload, 2_000) {
        let lines = operation.changes.iter().filter(|change| change.cell.family == 1);
        assert!((5..=15).contains(&lines.count()));
        unknown += usize::from(operation.changes.iter().any(|c| c.cell.row >= families[c.cell.family].rows));
    }
    assert!((5..60).contains(&unknown), "{unknown} of 2,000");
}

#[test]
fn traffic_goes_to_ten_functions_at_most() {
    let workload = Workload::Counter { keys: 100, theta: 0.0, functions: 1_000 };
    let found: BTreeSet<usize> = requests(workload, 500).iter().map(|(_, o)| o.changes[0].cell.family).collect();
    assert_eq!(found.len(), 10);
    assert_eq!(workload.families().len(), 10);
}

#[test]
fn a_counter_that_reads_names_what_it_reads() {
    let mut read = BTreeSet::new();
    for (_, operation) in requests(Workload::Reading { keys: 100, read: 10 }, 200) {
        let [cell] = operation.reads[..] else { panic!("{operation:?}") };
        assert_eq!(serde_json::from_str::<String>(&operation.body).unwrap(), cell.key());
        assert_eq!((cell.family, operation.changes.len(), operation.changes[0].cell.family), (1, 1, 0));
        read.insert(cell.row);
    }
    assert_eq!(read.len(), 10);
    let shared = requests(Workload::Reading { keys: 100, read: 1 }, 50);
    assert!(shared.iter().all(|(_, operation)| operation.reads[0].row == 0));
}
