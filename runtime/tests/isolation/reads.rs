//! Anomalies of flows that read: dirty reads of three kinds, read skew, long fork.

use tandem_model::outcome::Outcome;

use super::{ALL, READ_ONLY, SERIALIZABLE, SNAPSHOT, WRITING, Zoo, at, attempts, on_each_store, read, results};
use crate::script::{Step, To, meet, node, point, reach, reached, until};
use crate::stage::{end_of, ended, result};

fn set(key: &str, value: i64) -> Step {
    Step::Call(node(key, vec![Step::Set(value)]))
}

/// Reads one value, waits, reads another one: two digits.
fn read_both(handler: &str, reader: &str, keys: [&str; 2], seen: &str, go: &str) -> To {
    let [first, second] = keys.map(|key| Step::Digit(read(key)));
    at(handler, reader, vec![first, Step::Reach(seen.to_owned()), Step::Await(go.to_owned(), 1), second])
}

/// What each level returns, and after how many attempts, if others change what it reads between its reads. A
/// serializable flow is true when it commits, so it must run again; the others stay at the point where they began.
const CHANGED_MEANWHILE: [(&str, i64, u32); 3] = [(SERIALIZABLE, 11, 2), (SNAPSHOT, 0, 1), (READ_ONLY, 0, 1)];

/// Reads x, lets `others` change things, reads y.
async fn around(zoo: &Zoo, handler: &str, others: impl AsyncFn(&Zoo)) -> (i64, u32) {
    zoo.set([("x", 0), ("y", 0)]).await;
    let (seen, go) = (point("seen"), point("go"));
    let reading = zoo.begin(read_both(handler, "reader", ["x", "y"], &seen, &go)).await;
    until(&seen, 1).await;
    others(zoo).await;
    assert_eq!(reached(&go), 0, "it is between its two reads");
    reach(&go);
    let record = ended(reading).await.record;
    (result(&record), record.attempts)
}

// To see it fail: take a view for each call (`Attempt::read_rows`) for all but the serializable one; for that, return no
// rows from `ReadSet::changed` and validate nothing in the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_level_has_read_skew() {
    on_each_store(async |zoo| {
        for (handler, expected, attempts) in CHANGED_MEANWHILE {
            let seen = around(zoo, handler, async |zoo| zoo.set([("x", 1), ("y", 1)]).await).await;
            assert_eq!(seen, (expected, attempts), "{handler}");
        }
    })
    .await;
}

// To see it fail: the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_level_has_g_single() {
    on_each_store(async |zoo| {
        for (handler, expected, attempts) in CHANGED_MEANWHILE {
            // What is written to y follows from what was written to x.
            let chain = async |zoo: &Zoo| {
                zoo.set([("x", 1)]).await;
                let follow = vec![Step::Call(read("x")), Step::When(1, vec![set("y", 1)])];
                zoo.result(node("follower", follow)).await;
            };
            assert_eq!(around(zoo, handler, chain).await, (expected, attempts), "{handler}");
            assert_eq!(zoo.stage.value("y").await, Some(1));
        }
    })
    .await;
}

// To see it fail: the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_level_has_a_long_fork() {
    on_each_store(async |zoo| {
        for (handler, first, second) in [(SERIALIZABLE, 11, 11), (SNAPSHOT, 10, 0), (READ_ONLY, 10, 0)] {
            zoo.set([("x", 0), ("y", 0)]).await;
            let (seen, go) = (point("seen"), point("go"));
            let early = zoo.begin(read_both(handler, "early", ["x", "y"], &seen, &go)).await;
            until(&seen, 1).await;
            zoo.set([("x", 1)]).await;
            let late = zoo.begin(read_both(handler, "late", ["x", "y"], &seen, &go)).await;
            until(&seen, 2).await;
            zoo.set([("y", 1)]).await;
            reach(&go);
            let (early, late) = (ended(early).await.record, ended(late).await.record);
            // A fork would be 1 and 10: each sees one of two writes.
            assert_eq!((result(&late), result(&early)), (first, second), "{handler}");
        }
    })
    .await;
}

/// Reads x with each level, while something else is going on.
async fn everybody_sees(zoo: &Zoo, expected: i64) {
    for handler in ALL {
        let record = zoo.stage.ask(at(handler, handler, vec![Step::Call(read("x"))])).await;
        assert_eq!((result(&record), record.attempts), (expected, 1), "{handler}");
    }
}

// To see it fail: put the effects of a call into the sealed rows as it finishes (`Tree::finish`), or leave the overlay of
// a rejected call in place (`Tree::discard`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_level_has_g1a_of_a_flow_that_does_not_commit() {
    on_each_store(async |zoo| {
        zoo.set([("x", 0)]).await;
        for (last, outcome) in [
            (Step::Reject, Outcome::Rejected),
            (Step::Fail, Outcome::Failed),
            (Step::Emit("nowhere".into(), 1), Outcome::Failed),
        ] {
            for handler in WRITING {
                let (half, go) = (point("half"), point("go"));
                let gate = [Step::Reach(half.clone()), Step::Await(go.clone(), 1)];
                let steps = [vec![set("x", 1)], gate.into(), vec![last.clone()]].concat();
                let writing = zoo.begin(at(handler, "writer", steps)).await;
                until(&half, 1).await;
                everybody_sees(zoo, 0).await;
                reach(&go);
                assert_eq!(end_of(&ended(writing).await.record).0, outcome);
                everybody_sees(zoo, 0).await;
            }
        }
        let rejected = node("between", vec![set("x", 1), Step::Reject]);
        let record = zoo.stage.run("handler", vec![Step::Handle(rejected), Step::Call(read("x"))]).await;
        assert_eq!(result(&record), 0, "not even its own caller");
        everybody_sees(zoo, 0).await;
    })
    .await;
}

// To see it fail: leave `epoch` as it is in `Partition::throw_away`, and answer those behind as if they were durable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_level_has_g1a_of_a_commit_that_the_store_refuses() {
    on_each_store(async |zoo| {
        for handler in WRITING {
            zoo.set([("x", 0)]).await;
            let dirty = point("dirty");
            zoo.store.hold();
            let steps = vec![Step::OnAttempt(1, vec![set("x", 1)]), Step::OnAttempt(2, vec![Step::Reject])];
            let writing = zoo.begin(at(handler, "writer", steps)).await;
            zoo.store.until_waiting().await;
            let reader = vec![Step::Call(read("x")), Step::When(1, vec![Step::Reach(dirty.clone())])];
            let reading = zoo.begin(at(handler, "reader", reader)).await;
            // It sees what is sealed and not durable, and must not be answered with it.
            until(&dirty, 1).await;
            let look = zoo.stage.ask(at(READ_ONLY, "look", vec![Step::Call(read("x"))])).await;
            assert_eq!(result(&look), 0);
            zoo.store.refuse_next();
            zoo.store.let_go();
            assert_eq!(ended(writing).await.record.outcome, Outcome::Rejected);
            let record = ended(reading).await.record;
            assert_eq!((result(&record), record.attempts), (0, 2), "{handler}");
            everybody_sees(zoo, 0).await;
        }
    })
    .await;
}

// To see it fail: put the effects of a call into the sealed rows as it finishes (`Tree::finish`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_level_has_g1b() {
    on_each_store(async |zoo| {
        for handler in WRITING {
            zoo.set([("x", 0)]).await;
            let (half, go) = (point("half"), point("go"));
            let gate = [Step::Reach(half.clone()), Step::Await(go.clone(), 1)];
            let steps = [vec![set("x", 1)], gate.into(), vec![set("x", 2)]].concat();
            let writing = zoo.begin(at(handler, "writer", steps)).await;
            until(&half, 1).await;
            everybody_sees(zoo, 0).await;
            zoo.store.hold();
            reach(&go);
            zoo.store.until_waiting().await;
            let look = zoo.stage.ask(at(READ_ONLY, "look", vec![Step::Call(read("x"))])).await;
            assert_eq!(result(&look), 0);
            zoo.store.let_go();
            assert_eq!(end_of(&ended(writing).await.record), (Outcome::Committed, ""));
            everybody_sees(zoo, 2).await;
        }
    })
    .await;
}

/// Two flows that each write one value and then read the other one's.
async fn write_then_read(zoo: &Zoo, handler: &str) -> (Vec<i64>, u32) {
    zoo.set([("x", 0), ("y", 0)]).await;
    let met = point("met");
    let steps = |own: &str, other: &str| vec![set(own, 1), meet(&met, 2), Step::Call(read(other))];
    let ended = zoo.both(at(handler, "one", steps("x", "y")), at(handler, "two", steps("y", "x"))).await;
    assert_eq!(reached(&met), 2);
    (results(&ended), attempts(&ended))
}

// To see it fail: put the effects of a call into the sealed rows as it finishes: each sees the other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_forbids_g1c() {
    on_each_store(async |zoo| assert_eq!(write_then_read(zoo, SERIALIZABLE).await, (vec![0, 1], 3))).await;
}

// To see it fail: the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_forbids_g1c() {
    // That neither sees the other one is write skew, which it allows.
    on_each_store(async |zoo| assert_eq!(write_then_read(zoo, SNAPSHOT).await, (vec![0, 0], 2))).await;
}
