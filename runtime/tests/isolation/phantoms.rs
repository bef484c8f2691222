//! Anomalies of what is not there yet: in scans of maps, and in a map that lists instances.
//!
//! The SDK has no call that lists the instances of a function: who needs a list keeps it, in a map of an instance.

use std::sync::Arc;

use tandem_model::outcome::{FlowRecord, Outcome};

use super::{READ_ONLY, SERIALIZABLE, SNAPSHOT, Zoo, at, attempts, on_each_store};
use crate::script::{Step, To, meet, node, point, reach, reached, until};
use crate::stage::{end_of, ended, result};

const PLACES: i64 = 3;

fn put(key: &str, entry: &str, value: i64) -> Step {
    Step::Call(node(key, vec![Step::Put(entry.to_owned(), value)]))
}

fn scan(key: &str, how: Step) -> To {
    node(key, vec![how])
}

/// How they ended and on which attempt, the first to end so first.
fn ends(records: &[Arc<FlowRecord>]) -> Vec<(Outcome, u32)> {
    let mut ends: Vec<(Outcome, u32)> = records.iter().map(|record| (record.outcome, record.attempts)).collect();
    ends.sort_by_key(|(_, attempts)| *attempts);
    ends
}

const ONE_SAID_NO: [(Outcome, u32); 2] = [(Outcome::Committed, 1), (Outcome::Rejected, 2)];
const BOTH_AT_ONCE: [(Outcome, u32); 2] = [(Outcome::Committed, 1), (Outcome::Committed, 1)];

/// At most three bookings in a slot; two are there, and two come at the same time.
async fn book(zoo: &Zoo, handler: &str) -> (Vec<(Outcome, u32)>, usize) {
    let slot = format!("slot-{handler}");
    zoo.stage.run(&slot, vec![Step::Put("first".into(), 1), Step::Put("second".into(), 1)]).await;
    let met = point("met");
    let steps = |who: &str| {
        let count = Step::Call(scan(&slot, Step::Count));
        vec![count, meet(&met, 2), Step::AtMost(PLACES - 1), put(&slot, who, 1)]
    };
    let ended = zoo.both(at(handler, "one", steps("one")), at(handler, "two", steps("two"))).await;
    assert_eq!(reached(&met), 2);
    (ends(&ended), zoo.stage.entries(&slot).await.len())
}

// To see it fail: note no range in `ReadSet::add_range`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_forbids_phantoms_in_maps() {
    on_each_store(async |zoo| assert_eq!(book(zoo, SERIALIZABLE).await, (ONE_SAID_NO.into(), 3))).await;
}

// To see it fail: in `ReadSet::only` keep the ranges.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_allows_phantoms_in_maps_as_write_skew() {
    on_each_store(async |zoo| assert_eq!(book(zoo, SNAPSHOT).await, (BOTH_AT_ONCE.into(), 4))).await;
}

/// One of two entries has to stay; two flows each remove another one.
async fn remove(zoo: &Zoo, handler: &str) -> (Vec<(Outcome, u32)>, usize) {
    let guards = format!("guards-{handler}");
    zoo.stage.run(&guards, vec![Step::Put("a".into(), 1), Step::Put("b".into(), 1)]).await;
    let met = point("met");
    let steps = |who: &str| {
        // With less than two left there is nobody to stay: the entry is not removed.
        let remove = Step::Call(node(&guards, vec![Step::Remove(who.to_owned())]));
        vec![Step::Call(scan(&guards, Step::Count)), meet(&met, 2), Step::When(2, vec![remove])]
    };
    let ended = zoo.both(at(handler, "one", steps("a")), at(handler, "two", steps("b"))).await;
    assert_eq!(reached(&met), 2);
    (ends(&ended), zoo.stage.entries(&guards).await.len())
}

// To see it fail: note no range in `ReadSet::add_range`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_forbids_that_what_was_counted_goes() {
    let expected = vec![(Outcome::Committed, 1), (Outcome::Committed, 2)];
    on_each_store(async |zoo| assert_eq!(remove(zoo, SERIALIZABLE).await, (expected.clone(), 1))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_allows_that_what_was_counted_goes() {
    on_each_store(async |zoo| assert_eq!(remove(zoo, SNAPSHOT).await, (BOTH_AT_ONCE.into(), 0))).await;
}

/// The same scan twice in one flow, and an entry that comes between: both digits must be the same.
async fn scan_twice(zoo: &Zoo, handler: &str, how: Step, entry: &str) -> (i64, u32) {
    let map = format!("map-{entry}-{handler}-{how:?}");
    zoo.stage.run(&map, vec![Step::Put("d".into(), 4), Step::Put("g".into(), 7)]).await;
    let (seen, go) = (point("seen"), point("go"));
    let look = || Step::Digit(scan(&map, how.clone()));
    let reader = vec![look(), Step::Reach(seen.clone()), Step::Await(go.clone(), 1), look()];
    let reading = zoo.begin(at(handler, "reader", reader)).await;
    until(&seen, 1).await;
    zoo.result(node("writer", vec![put(&map, entry, 9)])).await;
    reach(&go);
    let record = ended(reading).await.record;
    (result(&record), record.attempts)
}

// To see it fail: for the serializable one note no range in `ReadSet::add_range`; for the others take a view for each call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_level_sees_a_scan_change() {
    on_each_store(async |zoo| {
        for (handler, expected) in [(SERIALIZABLE, (33, 2)), (SNAPSHOT, (22, 1)), (READ_ONLY, (22, 1))] {
            assert_eq!(scan_twice(zoo, handler, Step::Count, "e").await, expected, "{handler}");
        }
    })
    .await;
}

// To see it fail: in `seen_range` return the whole range always (somebody runs again in vain), or cut it at the wrong end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_that_stops_early_protects_what_it_has_seen_and_no_more() {
    on_each_store(async |zoo| {
        for (how, entry, expected) in [
            (Step::First, "a", (99, 2)),
            (Step::First, "e", (44, 1)),
            (Step::First, "z", (44, 1)),
            (Step::Last, "z", (99, 2)),
            (Step::Last, "e", (77, 1)),
            (Step::Last, "a", (77, 1)),
        ] {
            let seen = scan_twice(zoo, SERIALIZABLE, how.clone(), entry).await;
            assert_eq!(seen, expected, "{how:?} and {entry}");
        }
    })
    .await;
}

/// A new instance, if there are not too many in the list yet: the instance and its place in the list.
async fn create(zoo: &Zoo, handler: &str) -> (Vec<(Outcome, u32)>, i64) {
    let list = format!("list-{handler}");
    let new = |name: &str| vec![Step::Set(1), put(&list, name, 1)];
    for name in ["first", "second"] {
        zoo.stage.run(&format!("{name}-{handler}"), new(&format!("{name}-{handler}"))).await;
    }
    let met = point("met");
    let create = |name: &str| {
        let checked = vec![Step::Call(scan(&list, Step::Count)), meet(&met, 2), Step::AtMost(PLACES - 1)];
        at(handler, name, [checked, new(name)].concat())
    };
    let ended = zoo.both(create(&format!("third-{handler}")), create(&format!("fourth-{handler}"))).await;
    assert_eq!(reached(&met), 2);
    let sum = zoo.stage.ask(at(READ_ONLY, &list, vec![Step::Each(vec![Step::Read])])).await;
    (ends(&ended), result(&sum))
}

// To see it fail: note no range in `ReadSet::add_range`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_forbids_phantoms_in_lists_of_instances() {
    on_each_store(async |zoo| assert_eq!(create(zoo, SERIALIZABLE).await, (ONE_SAID_NO.into(), 3))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_allows_phantoms_in_lists_of_instances_as_write_skew() {
    on_each_store(async |zoo| assert_eq!(create(zoo, SNAPSHOT).await, (BOTH_AT_ONCE.into(), 4))).await;
}

// To see it fail: take a view for each call; for the serializable one validate nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_level_sees_a_list_without_its_instances() {
    on_each_store(async |zoo| {
        for (handler, expected) in [(SERIALIZABLE, (22, 2)), (SNAPSHOT, (11, 1)), (READ_ONLY, (11, 1))] {
            let list = format!("list-{handler}");
            let new = |name: &str| at(SERIALIZABLE, name, vec![Step::Set(1), put(&list, name, 1)]);
            zoo.result(new(&format!("one-{handler}"))).await;
            let (seen, go) = (point("seen"), point("go"));
            let sum = Step::Digit(node(&list, vec![Step::Each(vec![Step::Read])]));
            let gate = [Step::Reach(seen.clone()), Step::Await(go.clone(), 1)];
            let steps = [vec![Step::Digit(scan(&list, Step::Count))], gate.into(), vec![sum]].concat();
            let reading = zoo.begin(at(handler, "reader", steps)).await;
            until(&seen, 1).await;
            let record = zoo.stage.ask(new(&format!("two-{handler}"))).await;
            assert_eq!(end_of(&record), (Outcome::Committed, ""));
            reach(&go);
            let record = ended(reading).await.record;
            assert_eq!((result(&record), attempts(&[record])), expected, "{handler}");
        }
    })
    .await;
}
