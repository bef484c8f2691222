use std::sync::LazyLock;

use orders::order::{OrderPlaced, Receipt, Status};
use orders::payment::Payment;

use super::*;
use crate::answer::Answer;
use crate::plan::parse_purchases;
use crate::spoil::spoil;

const PURCHASES: &str = include_str!("../../../data/cdnow-sample.txt");
const SEED: u64 = 1;

/// The shop in a few lines, one order after the other: what Tandem must be equal to.
fn run(plan: Plan) -> Evidence {
    let mut stored = Stored::default();
    for item in &plan.items {
        let shelf = stored.inventory.entry(item.sku.clone()).or_default();
        (shelf.initial, shelf.available) = (item.stock, item.stock);
    }
    for (customer, balance) in &plan.wallets {
        let wallet = stored.payment.entry(customer.clone()).or_default();
        (wallet.initial, wallet.balance) = (*balance, *balance);
    }
    let told = plan.orders.iter().map(|planned| tell(planned, place(&plan, planned, &mut stored))).collect();
    Evidence { plan, told, stored }
}

fn place(plan: &Plan, planned: &Planned, stored: &mut Stored) -> Result<Receipt, &'static str> {
    if planned.from_cart {
        stored.cart.entry(planned.customer.clone()).or_default().lines.clone_from(&planned.lines);
    }
    let mut wanted: BTreeMap<&str, i64> = BTreeMap::new();
    let mut lines = Vec::new();
    for line in &planned.lines {
        let item = plan.items.iter().find(|item| item.sku == line.sku).ok_or("unknown-item")?;
        let wanted = wanted.entry(&line.sku).or_default();
        *wanted += line.quantity;
        if stored.inventory[&line.sku].available < *wanted {
            return Err("out-of-stock");
        }
        lines.push(SoldLine { sku: line.sku.clone(), quantity: line.quantity, price: item.price });
    }
    let total = lines.iter().map(|line| line.price * line.quantity).sum();
    let wallet = stored.payment.get_mut(&planned.customer).unwrap();
    if wallet.balance < total {
        return Err("insufficient-funds");
    }
    wallet.balance -= total;
    wallet.orders += 1;
    let number = wallet.orders;
    wallet.payments.insert(planned.id.clone(), Payment { amount: total, number });
    for (number, line) in planned.lines.iter().enumerate() {
        let shelf = stored.inventory.get_mut(&line.sku).unwrap();
        shelf.available -= line.quantity;
        shelf.movements.insert(format!("{}/{number}", planned.id), line.quantity);
    }
    let payment = format!("p-{}-{number}", planned.customer);
    let (customer, order) = (planned.customer.clone(), planned.id.clone());
    let earned = stored.loyalty.entry(customer.clone()).or_default();
    earned.points += total / POINT_CENTS;
    if total >= VOUCHER_FROM_CENTS {
        earned.vouchers.insert(order.clone(), 1);
    }
    if planned.from_cart {
        let basket = stored.cart.get_mut(&customer).unwrap();
        basket.lines.clear();
        basket.checkouts += 1;
    }
    stored.events.push(OrderPlaced { order: order.clone(), customer: customer.clone(), total });
    let (status, from_cart) = (Status::Confirmed, planned.from_cart);
    let placed = Placed { status, customer, lines, total, payment: payment.clone(), number, from_cart };
    stored.order.insert(order, placed);
    Ok(Receipt { payment, number, total })
}

fn tell(planned: &Planned, result: Result<Receipt, &'static str>) -> Told {
    let committed = result.is_ok();
    let ending = match result {
        Ok(receipt) => Ending::Committed(receipt),
        Err(reason) => Ending::Not("REJECTED".to_owned(), reason.to_owned()),
    };
    let answer = |ending| Answer { flow: planned.request_id(), ending };
    let mut told = Told { first: Some(answer(ending.clone())), ..Told::default() };
    match planned.twist {
        Twist::SentAgain => told.again = vec![answer(ending)],
        Twist::OtherBody => told.other_body = Some(answer(Ending::Refused(OTHER_BODY_STATUS))),
        Twist::PlacedTwice if committed => {
            told.placed_twice = Some(answer(Ending::Not("REJECTED".to_owned(), "already-placed".to_owned())));
        }
        Twist::PlacedTwice | Twist::Plain | Twist::UnknownItem | Twist::LastSoldOut | Twist::TooMany => {}
    }
    told
}

fn good_evidence() -> Evidence {
    static GOOD: LazyLock<Evidence> = LazyLock::new(|| run(Plan::new(parse_purchases(PURCHASES).unwrap(), SEED)));
    GOOD.clone()
}

fn broken(evidence: &Evidence) -> Vec<Invariant> {
    check_all(evidence)
        .into_iter()
        .filter(|checked| !checked.broken.is_empty())
        .map(|checked| checked.invariant)
        .collect()
}

#[test]
fn a_shop_that_works_breaks_nothing_and_everything_is_looked_at() {
    let evidence = good_evidence();
    for checked in check_all(&evidence) {
        assert!(checked.broken.is_empty(), "{:?}: {:?}", checked.invariant, checked.broken);
        assert!(checked.count > 0, "{:?} looked at nothing", checked.invariant);
    }
}

#[test]
fn every_reason_to_say_no_occurs() {
    let evidence = good_evidence();
    for reason in ["out-of-stock", "insufficient-funds", "unknown-item"] {
        let endings = evidence.told.iter().filter_map(|told| told.first.as_ref());
        let count = endings.filter(|answer| answer.ending.is_for(reason)).count();
        assert!(count >= 10, "{count} orders ended with {reason}");
    }
    let committed = evidence.told.iter().filter(|told| told.receipt().is_some()).count();
    assert!(committed * 10 > evidence.told.len() * 7, "most orders are filled, but only {committed} are");
}

#[test]
fn every_spoiled_thing_is_seen_by_its_invariant() {
    let good = good_evidence();
    for invariant in Invariant::ALL {
        let mut evidence = good.clone();
        spoil(&mut evidence, invariant);
        assert!(broken(&evidence).contains(&invariant), "{invariant:?} did not see what was spoiled");
    }
}

/// Applies a change to good evidence and expects that exactly these invariants see it.
fn check_change(expected: &[Invariant], change: impl FnOnce(&mut Evidence)) {
    let mut evidence = good_evidence();
    change(&mut evidence);
    assert_eq!(broken(&evidence), expected);
}

#[test]
fn a_lost_order_is_seen_from_all_sides() {
    let expected = [
        Invariant::Stock,
        Invariant::Money,
        Invariant::OrderIsWhole,
        Invariant::Points,
        Invariant::NumbersHaveNoGap,
        Invariant::AcknowledgedIsThere,
        Invariant::Event,
    ];
    check_change(&expected, |evidence| {
        let direct = |(_, placed): &(&String, &Placed)| !placed.from_cart && placed.total < VOUCHER_FROM_CENTS;
        let id = evidence.stored.order.iter().find(direct).unwrap().0.clone();
        evidence.stored.order.remove(&id);
    });
}

#[test]
fn a_payment_without_an_order_is_seen() {
    check_change(&[Invariant::OrderIsWhole, Invariant::RejectedLeftNothing], |evidence| {
        let mut pairs = evidence.plan.orders.iter().zip(&evidence.told);
        let (planned, _) = pairs.find(|(_, told)| told.receipt().is_none()).unwrap();
        let wallet = evidence.stored.payment.get_mut(&planned.customer).unwrap();
        wallet.payments.insert(planned.id.clone(), Payment { amount: 1, number: 1 });
    });
}

#[test]
fn a_payment_that_is_missing_is_seen() {
    check_change(&[Invariant::OrderIsWhole], |evidence| {
        let wallet = evidence.stored.payment.values_mut().find(|wallet| !wallet.payments.is_empty()).unwrap();
        wallet.payments.clear();
    });
}

#[test]
fn a_cart_that_kept_its_lines_is_seen() {
    check_change(&[Invariant::Cart], |evidence| {
        let basket = evidence.stored.cart.values_mut().find(|basket| basket.lines.is_empty()).unwrap();
        basket.lines.push(orders::Line { sku: "sku-01-01".to_owned(), quantity: 1 });
    });
}

#[test]
fn two_answers_to_one_request_are_seen() {
    check_change(&[Invariant::OneOutcome], |evidence| {
        let told = evidence.told.iter_mut().find(|told| !told.again.is_empty()).unwrap();
        told.again[0].flow.push('x');
    });
}

#[test]
fn a_second_body_that_was_taken_is_seen() {
    check_change(&[Invariant::OneOutcome], |evidence| {
        let told = evidence.told.iter_mut().find(|told| told.other_body.is_some()).unwrap();
        told.other_body.clone_from(&told.first);
    });
}

#[test]
fn an_order_that_was_placed_twice_is_seen() {
    check_change(&[Invariant::OneOutcome], |evidence| {
        let told = evidence.told.iter_mut().find(|told| told.placed_twice.is_some()).unwrap();
        told.placed_twice.clone_from(&told.first);
    });
}

#[test]
fn an_event_that_left_twice_is_seen() {
    check_change(&[Invariant::Event], |evidence| {
        let event = evidence.stored.events[0].clone();
        evidence.stored.events.push(event);
    });
}
