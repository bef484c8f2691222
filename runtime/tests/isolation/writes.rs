//! Anomalies of flows that write: dirty writes, lost updates, write skew and longer circles.

use std::sync::Arc;

use futures_util::future::join_all;
use tandem_model::outcome::{FlowRecord, Outcome};

use super::{SERIALIZABLE, SNAPSHOT, WRITING, Zoo, at, attempts, on_each_store, read};
use crate::script::{Step, meet, node, point, reach, reached, until};
use crate::stage::{end_of, ended};

fn committed(records: &[Arc<FlowRecord>]) -> usize {
    records.iter().filter(|record| record.outcome == Outcome::Committed).count()
}

/// Takes `amount` from its own value if that and the other one's are `least` together, all seen before anybody writes.
fn take_if(other: &str, met: &str, parties: u64, least: i64, amount: i64) -> Vec<Step> {
    vec![Step::Call(read(other)), meet(met, parties), Step::Need(least), Step::Add(-amount)]
}

/// Two flows that each read both values and each change one, at the same time.
async fn skew(zoo: &Zoo, handler: &str, start: i64, least: i64, amount: i64) -> ([Arc<FlowRecord>; 2], i64) {
    zoo.set([("x", start), ("y", start)]).await;
    let met = point("met");
    let one = at(handler, "x", take_if("y", &met, 2, least, amount));
    let two = at(handler, "y", take_if("x", &met, 2, least, amount));
    let ended = zoo.both(one, two).await;
    assert_eq!(reached(&met), 2);
    let sum = zoo.stage.value("x").await.unwrap() + zoo.stage.value("y").await.unwrap();
    (ended, sum)
}

// To see it fail: in `Flow::choose_reads` drop the early return, so that only what is written is validated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_forbids_write_skew() {
    // Doctors on call: one may leave if the other stays. Accounts: x + y >= 0. Each on stores of its own: where flows have
    // just been in each other's way they take turns, and do not meet.
    for (start, least, amount, rest) in [(1, 2, 1, 1), (50, 100, 100, 0)] {
        on_each_store(async |zoo| {
            let (ended, sum) = skew(zoo, SERIALIZABLE, start, least, amount).await;
            let mut ends: Vec<(Outcome, u32)> = ended.iter().map(|record| (record.outcome, record.attempts)).collect();
            ends.sort_by_key(|(_, attempts)| *attempts);
            assert_eq!(ends, [(Outcome::Committed, 1), (Outcome::Rejected, 2)]);
            assert_eq!(sum, rest);
        })
        .await;
    }
}

// To see it fail: in `Flow::choose_reads` return always, so that snapshot isolation is serializable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_allows_write_skew() {
    on_each_store(async |zoo| {
        for (start, least, amount, rest) in [(1, 2, 1, 0), (50, 100, 100, -100)] {
            let (ended, sum) = skew(zoo, SNAPSHOT, start, least, amount).await;
            assert_eq!((committed(&ended), attempts(&ended), sum), (2, 2, rest));
        }
    })
    .await;
}

async fn ring_of_three(zoo: &Zoo, handler: &str) -> Vec<Arc<FlowRecord>> {
    zoo.set([("x", 1), ("y", 1), ("z", 1)]).await;
    let met = point("met");
    let ring = [("x", "y"), ("y", "z"), ("z", "x")];
    let flows = ring.map(|(own, other)| zoo.stage.ask(at(handler, own, take_if(other, &met, 3, 2, 1))));
    let ended = join_all(flows).await;
    assert_eq!(reached(&met), 3);
    ended
}

// To see it fail: as for write skew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_forbids_g2() {
    on_each_store(async |zoo| {
        let ended = ring_of_three(zoo, SERIALIZABLE).await;
        assert_eq!(committed(&ended), 2);
        assert!(attempts(&ended) > 3, "nobody ran again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_allows_g2_with_two_missed_writes_in_a_row() {
    on_each_store(async |zoo| {
        let ended = ring_of_three(zoo, SNAPSHOT).await;
        assert_eq!((committed(&ended), attempts(&ended)), (3, 3));
    })
    .await;
}

/// Savings get 20 while 10 are taken from the current account, with a fee of 1 if both together are less; and somebody
/// sees the savings before that is done. (Fekete, O'Neil and O'Neil, "A Read-Only Transaction Anomaly Under Snapshot
/// Isolation", 2004.)
async fn fee(zoo: &Zoo, handler: &str) -> (i64, u32) {
    zoo.set([("current", 0), ("savings", 0)]).await;
    let (seen, go) = (point("seen"), point("go"));
    let gate = Step::OnAttempt(1, vec![Step::Reach(seen.clone()), Step::Await(go.clone(), 1)]);
    let fee = Step::When(0, vec![Step::Add(-1)]);
    let take = vec![Step::Call(read("savings")), gate, fee, Step::Add(-10)];
    let taking = zoo.begin(at(handler, "current", take)).await;
    until(&seen, 1).await;
    zoo.set([("savings", 2)]).await;
    let look = vec![Step::Digit(read("savings")), Step::Digit(read("current"))];
    assert_eq!(zoo.result(at("look", "auditor", look)).await, 20);
    reach(&go);
    let record = ended(taking).await.record;
    assert_eq!(end_of(&record), (Outcome::Committed, ""));
    (zoo.stage.value("current").await.unwrap(), record.attempts)
}

// To see it fail: as for write skew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_forbids_the_read_only_anomaly() {
    on_each_store(async |zoo| assert_eq!(fee(zoo, SERIALIZABLE).await, (-10, 2))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_allows_the_read_only_anomaly() {
    on_each_store(async |zoo| assert_eq!(fee(zoo, SNAPSHOT).await, (-11, 1))).await;
}

// To see it fail: return no rows from `ReadSet::changed`, and validate nothing in the store (`Inner::commit_of` without
// reads). For snapshot isolation: keep no reads at all in `Flow::choose_reads`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_level_loses_an_update() {
    on_each_store(async |zoo| {
        for handler in WRITING {
            zoo.set([("x", 0)]).await;
            let met = point("met");
            let add = || vec![Step::Call(node("x", vec![Step::Read, meet(&met, 2), Step::Add(1)]))];
            let ended = zoo.both(at(handler, "one", add()), at(handler, "two", add())).await;
            assert_eq!((reached(&met), committed(&ended), attempts(&ended)), (2, 2, 3), "{handler}");
            assert_eq!(zoo.stage.value("x").await, Some(2), "{handler}");
        }
    })
    .await;
}

async fn blind_writers(zoo: &Zoo, handler: &str) -> u32 {
    let met = point("met");
    let put = |number| vec![Step::Call(node("x", vec![Step::Put("e".into(), number)])), meet(&met, 2)];
    let ended = zoo.both(at(handler, "one", put(1)), at(handler, "two", put(2))).await;
    assert_eq!((reached(&met), committed(&ended)), (2, 2));
    attempts(&ended)
}

// To see it fail: in `Flow::choose_reads` leave out the rows that were written and not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_lets_only_one_of_two_blind_writers_win() {
    on_each_store(async |zoo| assert_eq!(blind_writers(zoo, SNAPSHOT).await, 3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_orders_blind_writers_without_a_conflict() {
    on_each_store(async |zoo| assert_eq!(blind_writers(zoo, SERIALIZABLE).await, 2)).await;
}

// To see it fail: commit each call for itself, or the rows of a flow in two groups (`Inner::add`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_level_has_dirty_writes() {
    const ROUNDS: usize = 10;
    on_each_store(async |zoo| {
        for handler in WRITING {
            for round in 0..ROUNDS {
                let met = point("met");
                // Entries of maps, so that nothing is read and nothing but the writes themselves is in the way.
                let put = |key: &str, number| Step::Call(node(key, vec![Step::Put("e".into(), number)]));
                let one = at(handler, "one", vec![put("x", 1), meet(&met, 2), put("y", 1)]);
                let two = at(handler, "two", vec![put("y", 2), meet(&met, 2), put("x", 2)]);
                let ended = zoo.both(one, two).await;
                assert_eq!((reached(&met), committed(&ended)), (2, 2));
                let (x, y) = (zoo.stage.entries("x").await, zoo.stage.entries("y").await);
                assert_eq!(x, y, "{handler}, round {round}");
            }
        }
    })
    .await;
}
