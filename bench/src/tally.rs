//! What was acknowledged, to be compared with what is stored: a run that differs has no result.

use std::collections::HashMap;

use crate::workload::{Cell, Family, Operation};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All of it was applied.
    Committed,
    /// Nothing of it was, since user code said no.
    Rejected,
    /// Nothing of it was, since others were faster each time. Whoever asked asks again.
    GaveUp,
}

/// All that clients were told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    committed: u64,
    rejected: u64,
    gave_up: u64,
    orders: u64,
    order_total: u64,
    deltas: HashMap<Cell, i64>,
}

/// All that is stored.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    /// By cell.
    pub(crate) numbers: HashMap<Cell, u64>,
    /// How many there are.
    pub(crate) orders: u64,
    /// What they cost together.
    pub(crate) order_total: u64,
    /// Request records that say so.
    pub(crate) committed: u64,
    /// Request records that say so.
    pub(crate) rejected: u64,
    /// Request records that say so.
    pub(crate) gave_up: u64,
}

impl Stored {
    /// Takes in what is stored elsewhere.
    pub(crate) fn merge(&mut self, other: Self) {
        self.numbers.extend(other.numbers);
        self.orders += other.orders;
        self.order_total += other.order_total;
        self.committed += other.committed;
        self.rejected += other.rejected;
        self.gave_up += other.gave_up;
    }
}

impl Tally {
    /// A client was told this.
    pub(crate) fn add(&mut self, operation: &Operation, ended: Ended) {
        match ended {
            Ended::Committed => self.committed += 1,
            Ended::Rejected => return self.rejected += 1,
            Ended::GaveUp => return self.gave_up += 1,
        }
        for change in &operation.changes {
            *self.deltas.entry(change.cell).or_default() += change.by;
        }
        if let Some(order) = &operation.order {
            self.orders += 1;
            self.order_total += order.total.unsigned_abs();
        }
    }

    /// Takes in what other clients were told.
    pub(crate) fn merge(&mut self, other: Self) {
        self.committed += other.committed;
        self.rejected += other.rejected;
        self.gave_up += other.gave_up;
        self.orders += other.orders;
        self.order_total += other.order_total;
        for (cell, by) in other.deltas {
            *self.deltas.entry(cell).or_default() += by;
        }
    }

    /// Every number is what the acknowledged requests make of it, and there is one record for each request.
    pub(crate) fn compare(&self, families: &[Family], stored: &Stored) -> anyhow::Result<()> {
        for (what, acknowledged, found) in [
            ("records of committed requests", self.committed, stored.committed),
            ("records of rejected requests", self.rejected, stored.rejected),
            ("records of requests that were given up", self.gave_up, stored.gave_up),
            ("orders", self.orders, stored.orders),
            ("total of all orders", self.order_total, stored.order_total),
        ] {
            anyhow::ensure!(acknowledged == found, "{what}: {found} stored, {acknowledged} acknowledged");
        }
        let rows: usize = families.iter().map(|family| family.rows as usize).sum();
        anyhow::ensure!(stored.numbers.len() == rows, "{} instances stored, {rows} expected", stored.numbers.len());
        for (cell, found) in &stored.numbers {
            let Family { function, initial, .. } = &families[cell.family];
            let delta = self.deltas.get(cell).copied().unwrap_or(0);
            let expected = initial.checked_add_signed(delta);
            anyhow::ensure!(
                expected == Some(*found),
                "{function}/{}: {found} stored, {initial} at first and {delta} acknowledged since",
                cell.key()
            );
        }
        // What was acknowledged for an instance that is not there.
        let lost = self.deltas.keys().find(|cell| !stored.numbers.contains_key(cell));
        anyhow::ensure!(lost.is_none(), "a request was committed on {lost:?}, which does not exist");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Change, Workload};

    const CELL: Cell = Cell { family: 0, row: 1 };

    fn operation() -> Operation {
        let changes = vec![Change { cell: CELL, by: 1 }];
        Operation { changes, ..Operation::default() }
    }

    fn told(times: usize) -> Tally {
        let mut tally = Tally::default();
        (0..times).for_each(|_| tally.add(&operation(), Ended::Committed));
        tally.add(&operation(), Ended::Rejected);
        tally
    }

    fn verdict(tally: &Tally, spoil: impl FnOnce(&mut Stored)) -> Result<(), String> {
        let families = Workload::Counter { keys: 2, theta: 0.0, functions: 0 }.families();
        let numbers = HashMap::from([(CELL, 3), (Cell { family: 0, row: 0 }, 0)]);
        let mut stored = Stored { numbers, committed: 3, rejected: 1, ..Stored::default() };
        spoil(&mut stored);
        tally.compare(&families, &stored).map_err(|error| error.to_string())
    }

    #[test]
    fn what_was_acknowledged_and_stored_is_fine() {
        verdict(&told(3), |_| {}).unwrap();
    }

    #[test]
    fn every_difference_is_found() {
        assert!(verdict(&told(2), |_| {}).unwrap_err().contains("3 stored, 2 acknowledged"));
        let lost = verdict(&told(3), |stored| *stored.numbers.get_mut(&CELL).unwrap() = 2).unwrap_err();
        assert!(lost.contains("counter/k1: 2 stored"), "{lost}");
        assert!(verdict(&told(3), |stored| stored.rejected = 0).unwrap_err().contains("rejected"));
        assert!(verdict(&told(3), |stored| stored.orders = 1).unwrap_err().contains("orders"));
        let gone = verdict(&told(3), |stored| stored.numbers.clear()).unwrap_err();
        assert!(gone.contains("0 instances stored"), "{gone}");
    }

    #[test]
    fn what_was_given_up_is_counted_and_changes_nothing() {
        let mut tally = told(3);
        tally.add(&operation(), Ended::GaveUp);
        assert!(verdict(&tally, |_| {}).unwrap_err().contains("given up"));
        verdict(&tally, |stored| stored.gave_up = 1).unwrap();
    }

    #[test]
    fn clients_add_up() {
        let mut all = told(1);
        all.merge(told(2));
        verdict(&all, |stored| stored.rejected = 2).unwrap();
    }
}
