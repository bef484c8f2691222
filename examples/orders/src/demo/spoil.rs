//! Spoils one thing in the evidence, to show that the checks would see it.

use orders::order::OrderPlaced;

use crate::answer::{Answer, Ending};
use crate::checks::{Evidence, Invariant, large_orders};

/// Breaks `invariant`, and perhaps others with it, by changing one thing. Does nothing if there is no such thing to change.
pub(crate) fn spoil(evidence: &mut Evidence, invariant: Invariant) {
    match invariant {
        Invariant::Stock => first_shelf(evidence, |shelf| shelf.available += 1),
        Invariant::NoOversell => first_shelf(evidence, |shelf| shelf.available = -1),
        Invariant::Money => first_wallet(evidence, |wallet| wallet.balance -= 1),
        Invariant::OrderIsWhole => move_again(evidence),
        Invariant::Points => {
            evidence.stored.loyalty.first_entry().into_iter().for_each(|mut entry| entry.get_mut().points += 1);
        }
        Invariant::Cart => {
            evidence.stored.cart.first_entry().into_iter().for_each(|mut entry| entry.get_mut().checkouts += 1);
        }
        Invariant::RejectedLeftNothing => commit_a_rejected_order(evidence),
        Invariant::NumbersHaveNoGap => first_wallet(evidence, |wallet| wallet.orders += 1),
        Invariant::AcknowledgedIsThere => drop(evidence.stored.order.pop_first()),
        Invariant::OneOutcome => forget_an_answer(evidence),
        Invariant::ImpossibleRefused => fill_the_impossible(evidence),
        Invariant::Voucher => send_voucher_again(evidence),
        Invariant::Event => drop(evidence.stored.events.pop()),
    }
}

fn first_shelf(evidence: &mut Evidence, change: impl FnOnce(&mut crate::stored::Shelf)) {
    if let Some(shelf) = evidence.stored.inventory.values_mut().next() {
        change(shelf);
    }
}

fn first_wallet(evidence: &mut Evidence, change: impl FnOnce(&mut crate::stored::Wallet)) {
    if let Some(wallet) = evidence.stored.payment.values_mut().next() {
        change(wallet);
    }
}

/// One line of an order takes stock twice, as if it had been run twice.
fn move_again(evidence: &mut Evidence) {
    let moved = evidence.stored.inventory.values_mut().find(|shelf| !shelf.movements.is_empty());
    let quantity = moved.and_then(|shelf| shelf.movements.values_mut().next());
    if let Some(quantity) = quantity {
        *quantity *= 2;
    }
}

/// An order that a client was told is rejected is there all the same.
fn commit_a_rejected_order(evidence: &mut Evidence) {
    let pairs = evidence.plan.orders.iter().zip(&evidence.told);
    let rejected = pairs.filter(|(_, told)| told.receipt().is_none()).map(|(planned, _)| planned.id.clone()).next();
    let any = evidence.stored.order.values().next().cloned();
    if let (Some(id), Some(placed)) = (rejected, any) {
        evidence.stored.events.push(OrderPlaced {
            order: id.clone(),
            customer: placed.customer.clone(),
            total: placed.total,
        });
        evidence.stored.order.insert(id, placed);
    }
}

/// A client never learns what became of its order.
fn forget_an_answer(evidence: &mut Evidence) {
    evidence.told.first_mut().into_iter().for_each(|told| told.first = None);
}

/// A client is told that an order is done that nobody could fill.
fn fill_the_impossible(evidence: &mut Evidence) {
    let receipt = evidence.told.iter().find_map(|told| told.receipt().cloned());
    let mut pairs = evidence.plan.orders.iter().zip(&mut evidence.told);
    let impossible = pairs.find(|(planned, _)| planned.twist.cannot_be_filled());
    if let (Some(receipt), Some((_, told))) = (receipt, impossible) {
        told.first = Some(Answer { flow: String::new(), ending: Ending::Committed(receipt) });
    }
}

/// A message is delivered twice.
fn send_voucher_again(evidence: &mut Evidence) {
    let large = large_orders(&evidence.stored).next().map(|(id, placed)| (id.clone(), placed.customer.clone()));
    if let Some((id, customer)) = large {
        *evidence.stored.loyalty.entry(customer).or_default().vouchers.entry(id).or_default() += 1;
    }
}
