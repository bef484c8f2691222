//! What the demo prints at the end. Pure: evidence in, text out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use orders::Cents;
use orders::order::Placed;

use crate::answer::{Ending, Told};
use crate::checks::{Checked, Evidence, Invariant};

/// Broken things that are shown of each invariant.
const EXAMPLES_MAX: usize = 3;

/// `6,919`: with a comma between thousands.
pub(crate) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many orders ended how and why.
pub(crate) fn outcomes(told: &[Told]) -> String {
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for told in told {
        let outcome = match told.first.as_ref().map(|answer| &answer.ending) {
            Some(Ending::Committed(_)) => ("COMMITTED".to_owned(), String::new()),
            Some(Ending::Not(outcome, reason)) => (outcome.clone(), reason.clone()),
            Some(Ending::Refused(status)) => ("(refused)".to_owned(), status.to_string()),
            None => ("(no outcome)".to_owned(), String::new()),
        };
        *counts.entry(outcome).or_default() += 1;
    }
    let mut rows: Vec<_> = counts.into_iter().collect();
    rows.sort_by(|((outcome, _), count), ((other, _), than)| outcome.cmp(other).then(than.cmp(count)));
    let mut text = format!(" {:<13}{:<20}{:>8}\n", "outcome", "reason", "orders");
    for ((outcome, reason), count) in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, " {outcome:<13}{reason:<20}{:>8}", thousands(count));
    }
    text
}

/// Percentiles of latencies.
pub(crate) fn latencies(mut latencies: Vec<Duration>) -> String {
    latencies.sort_unstable();
    let at = |per_mille: usize| {
        let index = (latencies.len() * per_mille / 1_000).min(latencies.len().saturating_sub(1));
        let millis = latencies.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1_000.0);
        format!("{millis:.1} ms")
    };
    format!("latency: p50 {}, p90 {}, p99 {}, max {}", at(500), at(900), at(990), at(1_000))
}

/// Orders a second.
pub(crate) fn rate(orders: usize, elapsed: Duration) -> String {
    let nanos = elapsed.as_nanos().max(1);
    let per_second = u128::try_from(orders).unwrap_or(u128::MAX).saturating_mul(1_000_000_000) / nanos;
    format!("{}/s", thousands(usize::try_from(per_second).unwrap_or(usize::MAX)))
}

/// The table of invariants, with examples of what is broken.
pub(crate) fn invariants(checked: &[Checked]) -> String {
    let mut text = format!(" {:<54}{:>8}{:>8}\n", "invariant", "checked", "broken");
    for row in checked {
        let counts = (thousands(row.count), thousands(row.broken.len()));
        let _ = writeln!(text, " {:<54}{:>8}{:>8}", row.invariant.sentence(), counts.0, counts.1);
        for example in row.broken.iter().take(EXAMPLES_MAX) {
            let _ = writeln!(text, "   broken: {example}");
        }
    }
    text
}

/// Orders that were acknowledged and are not there.
pub(crate) fn lost(evidence: &Evidence) -> usize {
    let pairs = evidence.plan.orders.iter().zip(&evidence.told);
    pairs.filter(|(planned, told)| told.receipt().is_some() && !evidence.stored.order.contains_key(&planned.id)).count()
}

/// Orders that were paid, or took stock for a line, or sent their event, more than once.
pub(crate) fn doubled(evidence: &Evidence) -> usize {
    let mut events: BTreeMap<&str, usize> = BTreeMap::new();
    for event in &evidence.stored.events {
        *events.entry(&event.order).or_default() += 1;
    }
    let mut paid: BTreeMap<&str, Cents> = BTreeMap::new();
    for (id, payment) in evidence.stored.payment.values().flat_map(|wallet| &wallet.payments) {
        *paid.entry(id).or_default() += payment.amount;
    }
    let mut moved: BTreeMap<&str, i64> = BTreeMap::new();
    for (movement, quantity) in evidence.stored.inventory.values().flat_map(|shelf| &shelf.movements) {
        let order = movement.rsplit_once('/').map_or(movement.as_str(), |(order, _)| order);
        *moved.entry(order).or_default() += quantity;
    }
    let of = |id: &String| (events.get(id.as_str()), paid.get(id.as_str()), moved.get(id.as_str()));
    let is_doubled = |(id, placed): &(&String, &Placed)| {
        let (events, paid, moved) = of(id);
        let sold: i64 = placed.lines.iter().map(|line| line.quantity).sum();
        events.is_some_and(|count| *count > 1)
            || paid.is_some_and(|amount| *amount > placed.total)
            || moved.is_some_and(|quantity| *quantity > sold)
    };
    evidence.stored.order.iter().filter(is_doubled).count()
}

/// The last words: whether everything holds.
pub(crate) fn verdict(checked: &[Checked]) -> (bool, String) {
    let broken = checked.iter().filter(|row| !row.broken.is_empty()).count();
    let all = Invariant::ALL.len();
    let sentence = if broken > 0 {
        format!("BROKEN: {broken} of {all} invariants.")
    } else {
        format!("all {all} invariants hold.")
    };
    (broken == 0, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Answer;

    #[test]
    fn numbers_have_commas() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn outcomes_are_counted_by_reason() {
        let told = |reason: &str| {
            let ending = Ending::Not("REJECTED".to_owned(), reason.to_owned());
            Told { first: Some(Answer { flow: String::new(), ending }), ..Told::default() }
        };
        let text = outcomes(&[told("rare"), told("common"), told("common"), Told::default()]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["outcome", "reason", "orders"]);
        assert_eq!(lines[1], ["(no", "outcome)", "1"]);
        assert_eq!(lines[2], ["REJECTED", "common", "2"]);
        assert_eq!(lines[3], ["REJECTED", "rare", "1"]);
    }

    #[test]
    fn latencies_are_percentiles() {
        let text = latencies((1..=1_000).rev().map(Duration::from_millis).collect());
        assert_eq!(text, "latency: p50 501.0 ms, p90 901.0 ms, p99 991.0 ms, max 1000.0 ms");
        assert_eq!(rate(500, Duration::from_millis(250)), "2,000/s");
    }

    #[test]
    fn a_broken_invariant_is_shown_and_decides() {
        let row = |broken: Vec<String>| Checked { invariant: Invariant::Stock, count: 5, broken };
        let text = invariants(&[row(vec!["sku-1 is gone".to_owned()])]);
        assert!(text.contains("broken: sku-1 is gone"), "{text}");
        assert!(!verdict(&[row(vec!["x".to_owned()])]).0);
        assert!(verdict(&[row(Vec::new())]).0);
    }
}
