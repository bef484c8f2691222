//! Every invariant of the shop, checked on what was planned, what clients were told, and what is stored.
//!
//! **Invariant:** pure. An order counts as confirmed because it is stored, not because a client was told so; that the two
//! agree is an invariant of its own.

use std::collections::{BTreeMap, BTreeSet};

use orders::order::{POINT_CENTS, Placed, VOUCHER_FROM_CENTS};
use orders::{Cents, SoldLine};

use crate::answer::{Ending, Told};
use crate::plan::{Plan, Planned, Twist};
use crate::stored::Stored;

/// What the checks look at.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    /// What was to be done.
    pub(crate) plan: Plan,
    /// What clients were told, in the order of the plan's orders.
    pub(crate) told: Vec<Told>,
    /// What is stored now.
    pub(crate) stored: Stored,
}

/// What became of one invariant.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    /// What must hold.
    pub(crate) invariant: Invariant,
    /// How many things were looked at.
    pub(crate) count: usize,
    /// What is broken, one sentence each.
    pub(crate) broken: Vec<String>,
}

impl Checked {
    fn look<T>(&mut self, things: impl IntoIterator<Item = T>, problem: impl Fn(T) -> Option<String>) {
        for thing in things {
            self.count += 1;
            self.broken.extend(problem(thing));
        }
    }
}

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Invariant {
    /// Nothing was lost or made up on a shelf.
    Stock,
    /// Nothing was sold that was not there.
    NoOversell,
    /// Nothing was lost or made up in a wallet.
    Money,
    /// Order, payment and stock movements come together.
    OrderIsWhole,
    /// Points of a spawned call came with the order.
    Points,
    /// A cart and its order agree.
    Cart,
    /// What was refused left nothing.
    RejectedLeftNothing,
    /// Not even a number was used up.
    NumbersHaveNoGap,
    /// What was acknowledged is there.
    AcknowledgedIsThere,
    /// One request, one outcome.
    OneOutcome,
    /// What cannot be filled was not.
    ImpossibleRefused,
    /// A delayed message was delivered exactly once.
    Voucher,
    /// A record left exactly once.
    Event,
}

impl Invariant {
    /// All of them, in the order of the table.
    pub(crate) const ALL: [Self; 13] = [
        Self::Stock,
        Self::NoOversell,
        Self::Money,
        Self::OrderIsWhole,
        Self::Points,
        Self::Cart,
        Self::RejectedLeftNothing,
        Self::NumbersHaveNoGap,
        Self::AcknowledgedIsThere,
        Self::OneOutcome,
        Self::ImpossibleRefused,
        Self::Voucher,
        Self::Event,
    ];

    /// In words.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::Stock => "stock: initial = available + confirmed",
            Self::NoOversell => "stock: never less than none",
            Self::Money => "money: initial = wallet + confirmed totals",
            Self::OrderIsWhole => "order exists = exactly one payment = stock moved",
            Self::Points => "points = whole dollars of confirmed orders",
            Self::Cart => "a cart is emptied exactly by a confirmed order",
            Self::RejectedLeftNothing => "an order that did not commit changed nothing",
            Self::NumbersHaveNoGap => "a customer's orders are numbered without a gap",
            Self::AcknowledgedIsThere => "an acknowledged order is there, as acknowledged",
            Self::OneOutcome => "a request has one outcome, however often sent",
            Self::ImpossibleRefused => "an order that cannot be filled was rejected",
            Self::Voucher => "a large order = exactly one voucher, sent later",
            Self::Event => "an order = exactly one event",
        }
    }

    fn check(self, evidence: &Evidence) -> Checked {
        let mut checked = Checked { invariant: self, count: 0, broken: Vec::new() };
        match self {
            Self::Stock => stock(evidence, &mut checked),
            Self::NoOversell => no_oversell(evidence, &mut checked),
            Self::Money => money(evidence, &mut checked),
            Self::OrderIsWhole => order_is_whole(evidence, &mut checked),
            Self::Points => points(evidence, &mut checked),
            Self::Cart => cart(evidence, &mut checked),
            Self::RejectedLeftNothing => rejected_left_nothing(evidence, &mut checked),
            Self::NumbersHaveNoGap => numbers_have_no_gap(evidence, &mut checked),
            Self::AcknowledgedIsThere => acknowledged_is_there(evidence, &mut checked),
            Self::OneOutcome => one_outcome(evidence, &mut checked),
            Self::ImpossibleRefused => impossible_refused(evidence, &mut checked),
            Self::Voucher => voucher(evidence, &mut checked),
            Self::Event => event(evidence, &mut checked),
        }
        checked
    }
}

/// Checks everything.
pub(crate) fn check_all(evidence: &Evidence) -> Vec<Checked> {
    Invariant::ALL.into_iter().map(|invariant| invariant.check(evidence)).collect()
}

fn sold_lines(stored: &Stored) -> impl Iterator<Item = &SoldLine> {
    stored.order.values().flat_map(|placed| &placed.lines)
}

fn stock(evidence: &Evidence, checked: &mut Checked) {
    let mut confirmed: BTreeMap<&str, i64> = BTreeMap::new();
    for line in sold_lines(&evidence.stored) {
        *confirmed.entry(&line.sku).or_default() += line.quantity;
    }
    checked.look(&evidence.plan.items, |item| {
        let (initial, available) =
            evidence.stored.inventory.get(&item.sku).map_or((0, 0), |shelf| (shelf.initial, shelf.available));
        let confirmed = confirmed.get(item.sku.as_str()).copied().unwrap_or(0);
        let holds = initial == item.stock && initial == available + confirmed;
        let sku = &item.sku;
        (!holds).then(|| format!("{sku}: {} stocked, {available} available, {confirmed} confirmed", item.stock))
    });
    let known: BTreeSet<&str> = evidence.plan.items.iter().map(|item| item.sku.as_str()).collect();
    let unknown = confirmed.keys().filter(|sku| !known.contains(*sku));
    checked.look(unknown, |sku| Some(format!("{sku} was sold and is not in the catalogue")));
}

fn no_oversell(evidence: &Evidence, checked: &mut Checked) {
    checked.look(&evidence.stored.inventory, |(sku, shelf)| {
        (shelf.available < 0).then(|| format!("{sku}: {} available", shelf.available))
    });
}

fn money(evidence: &Evidence, checked: &mut Checked) {
    let mut spent: BTreeMap<&str, Cents> = BTreeMap::new();
    for placed in evidence.stored.order.values() {
        *spent.entry(&placed.customer).or_default() += placed.total;
    }
    checked.look(&evidence.plan.wallets, |(customer, paid_in)| {
        let (initial, balance) =
            evidence.stored.payment.get(customer).map_or((0, 0), |wallet| (wallet.initial, wallet.balance));
        let spent = spent.get(customer.as_str()).copied().unwrap_or(0);
        let holds = initial == *paid_in && initial == balance + spent && balance >= 0;
        (!holds).then(|| format!("{customer}: {paid_in} paid in, {balance} left, {spent} spent"))
    });
}

/// Order ids that appear anywhere: as an order, in a payment, in a movement.
fn order_ids(stored: &Stored) -> BTreeSet<&str> {
    let orders = stored.order.keys().map(String::as_str);
    let payments = stored.payment.values().flat_map(|wallet| wallet.payments.keys()).map(String::as_str);
    let movements = stored.inventory.values().flat_map(|shelf| shelf.movements.keys());
    let moved = movements.map(|movement| movement.rsplit_once('/').map_or(movement.as_str(), |(order, _)| order));
    orders.chain(payments).chain(moved).collect()
}

fn order_is_whole(evidence: &Evidence, checked: &mut Checked) {
    let stored = &evidence.stored;
    let mut payments: BTreeMap<&str, Vec<(&str, Cents, i64)>> = BTreeMap::new();
    for (customer, wallet) in &stored.payment {
        for (order, payment) in &wallet.payments {
            payments.entry(order).or_default().push((customer, payment.amount, payment.number));
        }
    }
    let mut movements: BTreeMap<&str, BTreeSet<(usize, &str, i64)>> = BTreeMap::new();
    for (sku, shelf) in &stored.inventory {
        for (movement, quantity) in &shelf.movements {
            let (order, line) = movement.rsplit_once('/').unwrap_or((movement, ""));
            movements.entry(order).or_default().insert((line.parse().unwrap_or(usize::MAX), sku, *quantity));
        }
    }
    checked.look(order_ids(stored), |id| {
        let Some(placed) = stored.order.get(id) else {
            return Some(format!("{id}: paid or moved, but there is no such order"));
        };
        let paid = payments.get(id).map(Vec::as_slice).unwrap_or_default();
        if paid != [(placed.customer.as_str(), placed.total, placed.number)] {
            return Some(format!("{id}: one payment of {} expected, found {paid:?}", placed.total));
        }
        let expected: BTreeSet<(usize, &str, i64)> =
            placed.lines.iter().enumerate().map(|(line, sold)| (line, sold.sku.as_str(), sold.quantity)).collect();
        let moved = movements.get(id).cloned().unwrap_or_default();
        (moved != expected).then(|| format!("{id}: stock moved {moved:?}, expected {expected:?}"))
    });
}

fn points(evidence: &Evidence, checked: &mut Checked) {
    let mut expected: BTreeMap<&str, i64> = evidence.plan.wallets.keys().map(|key| (key.as_str(), 0)).collect();
    for placed in evidence.stored.order.values() {
        *expected.entry(&placed.customer).or_default() += placed.total / POINT_CENTS;
    }
    checked.look(expected, |(customer, expected)| {
        let points = evidence.stored.loyalty.get(customer).map_or(0, |earned| earned.points);
        (points != expected).then(|| format!("{customer}: {points} points, expected {expected}"))
    });
}

/// For each customer the orders that went through the cart, as planned and in their order.
fn cart_orders(plan: &Plan) -> BTreeMap<&str, Vec<&Planned>> {
    let mut orders: BTreeMap<&str, Vec<&Planned>> = BTreeMap::new();
    for planned in plan.orders.iter().filter(|planned| planned.from_cart) {
        orders.entry(&planned.customer).or_default().push(planned);
    }
    orders
}

fn cart(evidence: &Evidence, checked: &mut Checked) {
    let stored = &evidence.stored;
    checked.look(cart_orders(&evidence.plan), |(customer, planned)| {
        let basket = stored.cart.get(customer).cloned().unwrap_or_default();
        let is_confirmed = |planned: &&&Planned| stored.order.get(&planned.id).is_some_and(|placed| placed.from_cart);
        let confirmed = i64::try_from(planned.iter().filter(is_confirmed).count()).unwrap_or(i64::MAX);
        if basket.checkouts != confirmed {
            return Some(format!("{customer}: emptied {} times by {confirmed} orders", basket.checkouts));
        }
        let last = planned.last()?;
        let left = if is_confirmed(&last) { &[][..] } else { &last.lines };
        (basket.lines != left).then(|| format!("{customer}: {:?} in the cart, expected {left:?}", basket.lines))
    });
}

fn rejected_left_nothing(evidence: &Evidence, checked: &mut Checked) {
    let acknowledged: BTreeSet<&str> = acknowledged(evidence).map(|(planned, _)| planned.id.as_str()).collect();
    let there = order_ids(&evidence.stored);
    let not_committed = evidence.plan.orders.iter().filter(|planned| !acknowledged.contains(planned.id.as_str()));
    checked.look(not_committed, |planned| {
        let id = &planned.id;
        there
            .contains(id.as_str())
            .then(|| format!("{id} was not committed and left an order, a payment or a movement"))
    });
    let known: BTreeSet<&str> = evidence.plan.orders.iter().map(|planned| planned.id.as_str()).collect();
    checked.look(there.iter().filter(|id| !known.contains(*id)), |id| Some(format!("{id} was never asked for")));
}

fn numbers_have_no_gap(evidence: &Evidence, checked: &mut Checked) {
    let mut numbers: BTreeMap<&str, BTreeSet<i64>> = BTreeMap::new();
    let mut counts: BTreeMap<&str, i64> = evidence.plan.wallets.keys().map(|key| (key.as_str(), 0)).collect();
    for placed in evidence.stored.order.values() {
        numbers.entry(&placed.customer).or_default().insert(placed.number);
        *counts.entry(&placed.customer).or_default() += 1;
    }
    checked.look(counts, |(customer, count)| {
        let taken = evidence.stored.payment.get(customer).map_or(0, |wallet| wallet.orders);
        let numbers = numbers.get(customer).cloned().unwrap_or_default();
        let holds = taken == count && numbers == (1..=count).collect();
        (!holds).then(|| format!("{customer}: {count} orders, numbered {numbers:?}, {taken} counted"))
    });
}

fn acknowledged(evidence: &Evidence) -> impl Iterator<Item = (&Planned, &orders::order::Receipt)> {
    let pairs = evidence.plan.orders.iter().zip(&evidence.told);
    pairs.filter_map(|(planned, told)| told.receipt().map(|receipt| (planned, receipt)))
}

fn acknowledged_is_there(evidence: &Evidence, checked: &mut Checked) {
    checked.look(acknowledged(evidence), |(planned, receipt)| {
        let id = &planned.id;
        let Some(placed) = evidence.stored.order.get(id) else {
            return Some(format!("{id} was acknowledged and is not there"));
        };
        (!agrees(planned, receipt, placed)).then(|| format!("{id} is there as {placed:?}, acknowledged as {receipt:?}"))
    });
}

fn agrees(planned: &Planned, receipt: &orders::order::Receipt, placed: &Placed) -> bool {
    let wanted = planned.lines.iter().map(|line| (&line.sku, line.quantity));
    let sold = placed.lines.iter().map(|line| (&line.sku, line.quantity));
    let total: Cents = placed.lines.iter().map(|line| line.price * line.quantity).sum();
    receipt.payment == placed.payment
        && receipt.number == placed.number
        && receipt.total == placed.total
        && total == placed.total
        && planned.customer == placed.customer
        && wanted.eq(sold)
}

fn one_outcome(evidence: &Evidence, checked: &mut Checked) {
    checked.look(evidence.plan.orders.iter().zip(&evidence.told), |(planned, told)| {
        let id = &planned.id;
        let Some(first) = &told.first else { return Some(format!("{id} has no outcome")) };
        if let Some(other) = told.again.iter().find(|again| *again != first) {
            return Some(format!("{id} ended as {first:?} and as {other:?}"));
        }
        if let Some(other) = told.other_body.as_ref().filter(|other| other.ending != Ending::Refused(OTHER_BODY_STATUS))
        {
            return Some(format!("{id}: the same request id with another body was not refused: {other:?}"));
        }
        let twice = told.placed_twice.as_ref().filter(|twice| !twice.ending.is_for("already-placed"));
        twice.map(|twice| format!("{id} was placed a second time: {twice:?}"))
    });
}

/// How a request id is refused that was used for another body.
const OTHER_BODY_STATUS: u16 = 422;

fn impossible_refused(evidence: &Evidence, checked: &mut Checked) {
    let pairs = evidence.plan.orders.iter().zip(&evidence.told);
    checked.look(pairs.filter(|(planned, _)| planned.twist.cannot_be_filled()), |(planned, told)| {
        let ending = &told.first.as_ref()?.ending;
        // A scarce disc on another line may be the first to say no; then that is the reason.
        let refused =
            ending.is_for("out-of-stock") || planned.twist == Twist::UnknownItem && ending.is_for("unknown-item");
        (!refused).then(|| format!("{} ({:?}) ended as {ending:?}", planned.id, planned.twist))
    });
}

/// Orders that earn a voucher.
pub(crate) fn large_orders(stored: &Stored) -> impl Iterator<Item = (&String, &Placed)> {
    stored.order.iter().filter(|(_, placed)| placed.total >= VOUCHER_FROM_CENTS)
}

fn voucher(evidence: &Evidence, checked: &mut Checked) {
    let expected: BTreeMap<(&str, &str), i64> =
        large_orders(&evidence.stored).map(|(id, placed)| ((placed.customer.as_str(), id.as_str()), 1)).collect();
    let mut found: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for (customer, earned) in &evidence.stored.loyalty {
        found.extend(earned.vouchers.iter().map(|(order, count)| ((customer.as_str(), order.as_str()), *count)));
    }
    let keys: BTreeSet<_> = expected.keys().chain(found.keys()).copied().collect();
    checked.look(keys, |key| {
        let (expected, found) = (expected.get(&key).unwrap_or(&0), found.get(&key).unwrap_or(&0));
        (expected != found).then(|| format!("{} of {}: {found} vouchers, expected {expected}", key.1, key.0))
    });
}

fn event(evidence: &Evidence, checked: &mut Checked) {
    let mut events: BTreeMap<&str, Vec<(&str, Cents)>> = BTreeMap::new();
    for event in &evidence.stored.events {
        events.entry(&event.order).or_default().push((&event.customer, event.total));
    }
    let orders = evidence.stored.order.keys().map(String::as_str);
    let ids: BTreeSet<&str> = orders.chain(events.keys().copied()).collect();
    checked.look(ids, |id| {
        let placed = evidence.stored.order.get(id);
        let expected: Vec<_> = placed.iter().map(|placed| (placed.customer.as_str(), placed.total)).collect();
        let found = events.get(id).cloned().unwrap_or_default();
        (expected != found).then(|| format!("{id}: events {found:?}, expected {expected:?}"))
    });
}

#[cfg(test)]
mod tests;
