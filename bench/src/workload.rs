//! What is asked for: the instances of each workload, its requests, and what each request changes.
//!
//! Every request is a list of changes to numbers. Some systems run code that comes to the same changes (`tandem`,
//! PostgreSQL), others apply the list as it is (`bare`); what is stored afterwards has to be the same everywhere.

use std::fmt;
use std::sync::Arc;

use rand::Rng;
use serde_json::json;

use crate::random::{self, Dice, Zipf};

/// What is read by those who add at a price.
const TARIFF: u64 = 7;
const ACCOUNTS: u32 = 10_000;
const BALANCE: u64 = 1_000_000;
/// Of a usual transfer.
const AMOUNT_MAX: i64 = 100;
/// One transfer in so many asks for more than an account has.
const EXCESSIVE_EVERY: u32 = 100;
const EXCESSIVE_AMOUNT: i64 = 1_000_000_000_000;
const WAREHOUSES: u32 = 10;
const CUSTOMERS_PER_WAREHOUSE: u32 = 3_000;
const ITEMS_PER_WAREHOUSE: u32 = 10_000;
const STOCK: u64 = 1_000_000_000;
const WALLET: u64 = 1_000_000_000_000;
const LINES_MIN: u32 = 5;
const LINES_MAX: u32 = 15;
const QUANTITY_MAX: i64 = 10;
/// One order in so many has a line that nobody knows.
const UNKNOWN_EVERY: u32 = 100;
/// Percentage of orders that a customer of any warehouse pays.
const REMOTE_PAYMENTS: u32 = 15;
/// TPC-C's constants A for items and customers.
const ITEM_SPREAD: u32 = 8_191;
const CUSTOMER_SPREAD: u32 = 1_023;
/// Functions with traffic, however many are declared.
const BUSY_FUNCTIONS_MAX: u32 = 10;
/// What a point of loyalty costs.
const CENTS_PER_POINT: i64 = 100;

/// A benchmark with its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Workload {
    /// One keyed counter.
    Counter {
        /// How many there are; of each function, if several are declared.
        keys: u32,
        /// Which one a request is for: Zipf's theta, 0 for a uniform choice.
        theta: f64,
        /// 0: the one function `counter`; else so many of its kind, of which at most ten have traffic.
        functions: u32,
    },
    /// An atomic transfer.
    Transfer {
        /// Of the choice of the creditor.
        theta: f64,
        /// That take part, the debtor included.
        accounts: usize,
    },
    /// Calls in a row, each of an instance of its own.
    Chain {
        /// How many.
        calls: usize,
        /// Instances.
        steps: u32,
    },
    /// A keyed counter that reads another instance, which nobody writes, in the same flow.
    Reading {
        /// Counters, chosen uniformly.
        keys: u32,
        /// Instances to read, chosen uniformly: with one, all flows read the same.
        read: u32,
    },
    /// An order with stock, payment and loyalty.
    Checkout {
        /// Some items and customers are more popular than others.
        skewed: bool,
    },
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Counter { keys: 1, .. } => f.write_str("one hot key"),
            Self::Counter { keys, functions: functions @ 1.., .. } => write!(f, "{keys} keys, {functions} functions"),
            Self::Counter { keys, theta: 0.0, .. } => write!(f, "{keys} keys, uniform"),
            Self::Counter { keys, theta, .. } => write!(f, "{keys} keys, Zipf {theta}"),
            Self::Transfer { theta, accounts } => write!(f, "{accounts} accounts, theta {theta}"),
            Self::Chain { calls, .. } => write!(f, "{calls} calls"),
            Self::Reading { keys, read: 1 } => write!(f, "{keys} keys, and all read one instance"),
            Self::Reading { keys, read } => write!(f, "{keys} keys, and each reads one of {read} instances"),
            Self::Checkout { skewed: true } => f.write_str("skewed"),
            Self::Checkout { skewed: false } => f.write_str("uniform"),
        }
    }
}

/// Instances of one function, with keys `k0`, `k1`, and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Family {
    /// The function.
    pub(crate) function: String,
    /// How many there are.
    pub(crate) rows: u32,
    /// What each holds at first.
    pub(crate) initial: u64,
}

/// The function that holds orders. Its instances come into being by requests.
pub(crate) const ORDER: &str = "order";

/// One number: which family, which of its rows. A row that the family does not have is something nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Cell {
    /// Index in [`Workload::families`].
    pub(crate) family: usize,
    /// From 0.
    pub(crate) row: u32,
}

impl Cell {
    /// The instance's key.
    pub(crate) fn key(self) -> String {
        format!("k{}", self.row)
    }
}

/// What becomes of one number. It must not fall below zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Which number.
    pub(crate) cell: Cell,
    /// Is added.
    pub(crate) by: i64,
}

/// An order that a request places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// Its key.
    pub(crate) key: String,
    /// What is paid for it.
    pub(crate) total: i64,
}

/// One request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Operation {
    /// All of them, or none. The first is the entry.
    pub(crate) changes: Vec<Change>,
    /// Is read besides, and not changed.
    pub(crate) reads: Vec<Cell>,
    /// Comes into being with it.
    pub(crate) order: Option<Order>,
    /// How it is asked for over HTTP.
    pub(crate) path: String,
    /// JSON.
    pub(crate) body: String,
}

impl Workload {
    /// What exists before the first request.
    pub(crate) fn families(&self) -> Vec<Family> {
        let family = |function: &str, rows, initial| Family { function: function.to_owned(), rows, initial };
        match *self {
            Self::Counter { keys, functions: 0, .. } => vec![family("counter", keys, 0)],
            Self::Counter { keys, functions, .. } => {
                (0..Self::busy(functions)).map(|number| family(&format!("counter-{number}"), keys, 0)).collect()
            }
            Self::Transfer { .. } => vec![family("account", ACCOUNTS, BALANCE)],
            Self::Chain { steps, .. } => vec![family("step", steps, 0)],
            Self::Reading { keys, read } => vec![family("counter", keys, 0), family("tariff", read, TARIFF)],
            Self::Checkout { .. } => {
                let customers = WAREHOUSES * CUSTOMERS_PER_WAREHOUSE;
                vec![
                    family("cart", customers, 0),
                    family("stock", WAREHOUSES * ITEMS_PER_WAREHOUSE, STOCK),
                    family("payment", customers, WALLET),
                    family("loyalty", customers, 0),
                ]
            }
        }
    }

    /// How many functions besides the usual ones have to be declared.
    pub(crate) fn functions(&self) -> u32 {
        if let Self::Counter { functions, .. } = self { *functions } else { 0 }
    }

    /// How many of so many functions have traffic.
    pub(crate) fn busy(functions: u32) -> u32 {
        functions.clamp(1, BUSY_FUNCTIONS_MAX)
    }

    fn zipf(&self) -> Option<Arc<Zipf>> {
        let (items, theta) = match *self {
            Self::Counter { keys, theta, .. } if keys > 1 => (keys, theta),
            Self::Transfer { theta, .. } => (ACCOUNTS, theta),
            Self::Counter { .. } | Self::Chain { .. } | Self::Reading { .. } | Self::Checkout { .. } => return None,
        };
        (theta > 0.0).then(|| Arc::new(Zipf::new(items.into(), theta)))
    }

    /// The requests of so many clients.
    pub(crate) fn generators(&self, clients: usize, seed: u64) -> Vec<Generator> {
        let zipf = self.zipf();
        let generator = |client| Generator {
            workload: *self,
            dice: random::dice(seed, client),
            zipf: zipf.clone(),
            client,
            number: 0,
        };
        (0..clients).map(generator).collect()
    }
}

/// The requests of one client, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Generator {
    workload: Workload,
    dice: Dice,
    zipf: Option<Arc<Zipf>>,
    client: usize,
    number: u64,
}

impl Generator {
    /// The next request, and an id that no other has.
    pub(crate) fn next(&mut self) -> (String, Operation) {
        let id = self.next_id();
        let operation = match self.workload {
            Workload::Counter { keys, functions, .. } => self.add(keys, functions),
            Workload::Transfer { accounts, .. } => self.transfer(accounts),
            Workload::Chain { calls, steps } => self.chain(calls, steps),
            Workload::Reading { keys, read } => self.add_priced(keys, read),
            Workload::Checkout { skewed } => self.checkout(skewed),
        };
        (id, operation)
    }

    /// An id that no other request has.
    pub(crate) fn next_id(&mut self) -> String {
        self.number += 1;
        format!("{:08x}-bead-4000-8000-{:012x}", self.client, self.number)
    }

    fn popular(&mut self, items: u32) -> u32 {
        let chosen = self.zipf.as_ref().map(|zipf| zipf.scrambled(&mut self.dice));
        let chosen = chosen.and_then(|chosen| u32::try_from(chosen).ok());
        chosen.unwrap_or_else(|| self.dice.random_range(0..items))
    }

    fn add(&mut self, keys: u32, functions: u32) -> Operation {
        let row = self.popular(keys);
        let family = self.dice.random_range(0..Workload::busy(functions));
        let function = if functions == 0 { "counter".to_owned() } else { format!("counter-{family}") };
        let cell = Cell { family: family as usize, row };
        Operation {
            changes: vec![Change { cell, by: 1 }],
            path: format!("/{function}/k{row}"),
            body: "1".to_owned(),
            ..Operation::default()
        }
    }

    fn add_priced(&mut self, keys: u32, read: u32) -> Operation {
        let (row, tariff) = (self.dice.random_range(0..keys), self.dice.random_range(0..read));
        Operation {
            changes: vec![Change { cell: Cell { family: 0, row }, by: 1 }],
            reads: vec![Cell { family: 1, row: tariff }],
            path: format!("/priced/k{row}"),
            body: json!(format!("k{tariff}")).to_string(),
            ..Operation::default()
        }
    }

    fn transfer(&mut self, accounts: usize) -> Operation {
        let debtor = self.dice.random_range(0..ACCOUNTS);
        let creditors = random::distinct(accounts - 1, || {
            loop {
                let creditor = self.popular(ACCOUNTS);
                if creditor != debtor {
                    return creditor;
                }
            }
        });
        let excessive = self.dice.random_range(0..EXCESSIVE_EVERY) == 0;
        let amount = if excessive { EXCESSIVE_AMOUNT } else { self.dice.random_range(1..=AMOUNT_MAX) };
        let change = |row, by| Change { cell: Cell { family: 0, row }, by };
        let others = i64::try_from(creditors.len()).unwrap_or(i64::MAX);
        let mut changes = vec![change(debtor, -amount * others)];
        changes.extend(creditors.iter().map(|creditor| change(*creditor, amount)));
        let to: Vec<String> = creditors.iter().map(|creditor| format!("k{creditor}")).collect();
        Operation {
            changes,
            path: format!("/account/k{debtor}"),
            body: json!({ "to": to, "amount": amount }).to_string(),
            ..Operation::default()
        }
    }

    fn chain(&mut self, calls: usize, steps: u32) -> Operation {
        let rows = random::distinct(calls, || self.dice.random_range(0..steps));
        let keys: Vec<String> = rows.iter().skip(1).map(|row| format!("k{row}")).collect();
        Operation {
            path: format!("/step/k{}", rows[0]),
            body: json!(keys).to_string(),
            changes: rows.into_iter().map(|row| Change { cell: Cell { family: 0, row }, by: 1 }).collect(),
            ..Operation::default()
        }
    }

    fn customer(&mut self, warehouse: u32, skewed: bool) -> u32 {
        let customer = if skewed {
            random::non_uniform(&mut self.dice, CUSTOMER_SPREAD, CUSTOMERS_PER_WAREHOUSE)
        } else {
            self.dice.random_range(0..CUSTOMERS_PER_WAREHOUSE)
        };
        warehouse * CUSTOMERS_PER_WAREHOUSE + customer
    }

    fn checkout(&mut self, skewed: bool) -> Operation {
        let warehouse = self.dice.random_range(0..WAREHOUSES);
        let customer = self.customer(warehouse, skewed);
        let remote = self.dice.random_range(0..100) < REMOTE_PAYMENTS;
        let paying = if remote { self.dice.random_range(0..WAREHOUSES) } else { warehouse };
        let payer = if remote { self.customer(paying, skewed) } else { customer };
        let count = self.dice.random_range(LINES_MIN..=LINES_MAX) as usize;
        let mut items = random::distinct(count, || {
            let item = if skewed {
                random::non_uniform(&mut self.dice, ITEM_SPREAD, ITEMS_PER_WAREHOUSE)
            } else {
                self.dice.random_range(0..ITEMS_PER_WAREHOUSE)
            };
            warehouse * ITEMS_PER_WAREHOUSE + item
        });
        if self.dice.random_range(0..UNKNOWN_EVERY) == 0 {
            // Behind all that there is, so that the rest of the order has been worked on when it is noticed.
            items[count - 1] = WAREHOUSES * ITEMS_PER_WAREHOUSE;
        }
        let lines: Vec<(u32, i64)> =
            items.into_iter().map(|item| (item, self.dice.random_range(1..=QUANTITY_MAX))).collect();
        let key = format!("o{}-{}", self.client, self.number);
        order(customer, payer, key, &lines)
    }
}

fn order(customer: u32, payer: u32, key: String, lines: &[(u32, i64)]) -> Operation {
    let total = lines.iter().map(|(item, quantity)| price(*item) * quantity).sum::<i64>();
    let change = |family, row, by| Change { cell: Cell { family, row }, by };
    let mut changes = vec![change(0, customer, 1)];
    changes.extend(lines.iter().map(|(item, quantity)| change(1, *item, -quantity)));
    changes.push(change(2, payer, -total));
    changes.push(change(3, customer, points(total)));
    let shown: Vec<(String, i64)> = lines.iter().map(|(item, quantity)| (format!("k{item}"), *quantity)).collect();
    Operation {
        changes,
        path: format!("/cart/k{customer}"),
        body: json!({ "order": key, "payer": format!("k{payer}"), "lines": shown }).to_string(),
        order: Some(Order { key, total }),
        ..Operation::default()
    }
}

/// What one piece costs, in cents.
pub(crate) fn price(item: u32) -> i64 {
    const CHEAPEST: u32 = 100;
    const PRICES: u32 = 9_901;
    i64::from(CHEAPEST + item % PRICES)
}

/// What a customer gets for paying so much.
pub(crate) fn points(total: i64) -> i64 {
    total / CENTS_PER_POINT
}

#[cfg(test)]
mod tests;
