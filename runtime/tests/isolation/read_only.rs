//! Read-only flows: they wait for nobody, nobody waits for them, and they see no half of a flow.

use tandem_model::outcome::Outcome;

use super::{ALL, READ_ONLY, WRITING, at, on_each_store, read};
use crate::forgetful::ForgetfulStore;
use crate::script::{Step, node, point, reach, reached, until};
use crate::stage::{Stage, end_of, ended, result};

/// Reads x and y, entered at x itself.
fn look() -> Vec<Step> {
    vec![Step::Read, Step::Digit(read("y"))]
}

// To see it fail: give read-only flows a place in the line of their instance (`Runtime::submit`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_only_does_not_wait_for_a_writer_in_user_code() {
    on_each_store(async |zoo| {
        for handler in WRITING {
            zoo.set([("x", 0), ("y", 0)]).await;
            let (half, go) = (point("half"), point("go"));
            let gate = [Step::Reach(half.clone()), Step::Await(go.clone(), 1)];
            let writer = [vec![Step::Set(1), Step::Call(node("y", vec![Step::Set(1)]))], gate.into()].concat();
            let writing = zoo.begin(at(handler, "x", writer)).await;
            until(&half, 1).await;
            let record = zoo.stage.ask(at(READ_ONLY, "x", look())).await;
            assert_eq!((result(&record), record.attempts, reached(&go)), (0, 1, 0), "{handler}");
            reach(&go);
            assert_eq!(end_of(&ended(writing).await.record), (Outcome::Committed, ""));
            assert_eq!(zoo.result(at(READ_ONLY, "x", look())).await, 11);
        }
    })
    .await;
}

// To see it fail: open a live view for read-only flows, and wait for what is sealed (`Flow::open`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_only_does_not_wait_for_a_commit_in_the_store() {
    on_each_store(async |zoo| {
        for handler in WRITING {
            zoo.set([("x", 0), ("y", 0)]).await;
            zoo.store.hold();
            let mut writing =
                zoo.begin(at(handler, "x", vec![Step::Set(1), Step::Call(node("y", vec![Step::Set(1)]))])).await;
            zoo.store.until_waiting().await;
            let record = zoo.stage.ask(at(READ_ONLY, "x", look())).await;
            assert_eq!((result(&record), record.attempts), (0, 1), "{handler}");
            assert!(writing.outcome.try_recv().is_err(), "the commit is still held");
            zoo.store.let_go();
            assert_eq!(end_of(&ended(writing).await.record), (Outcome::Committed, ""));
            assert_eq!(zoo.result(at(READ_ONLY, "x", look())).await, 11);
        }
    })
    .await;
}

// To see it fail: take the turn on the entry instance for read-only flows, or let them validate what they read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_read_only_flow() {
    on_each_store(async |zoo| {
        for handler in WRITING {
            zoo.set([("x", 0), ("y", 0)]).await;
            let (seen, go) = (point("seen"), point("go"));
            let gate = [Step::Reach(seen.clone()), Step::Await(go.clone(), 1)];
            let slow = [vec![Step::Read], gate.into(), vec![Step::Digit(read("y"))]].concat();
            let looking = zoo.begin(at(READ_ONLY, "x", slow)).await;
            until(&seen, 1).await;
            let writer = at(handler, "x", vec![Step::Set(1), Step::Call(node("y", vec![Step::Set(1)]))]);
            let record = zoo.stage.ask(writer).await;
            assert_eq!((end_of(&record), record.attempts, reached(&go)), ((Outcome::Committed, ""), 1, 0), "{handler}");
            reach(&go);
            let record = ended(looking).await.record;
            assert_eq!((result(&record), record.attempts), (0, 1), "{handler}");
        }
    })
    .await;
}

const WIDTH: usize = 6;
const WRITERS: usize = 3;
const WRITES: usize = 30;

/// All instances that each flow writes, as many as digits.
fn wide(step: &Step) -> Vec<Step> {
    (0..WIDTH).map(|number| Step::Digit(node(&format!("wide-{number}"), vec![step.clone()]))).collect()
}

// To see it fail: open a live view for read-only flows and move it to the present with each read, or take one snapshot
// for each call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_only_sees_no_half_of_a_flow() {
    on_each_store(async |zoo| {
        for handler in WRITING {
            let mut steps = wide(&Step::Set(0));
            zoo.result(node("writer", steps.clone())).await;
            let one = async |writer: usize| {
                for number in 0..WRITES {
                    let value = i64::try_from((writer + WRITERS * number) % 10).unwrap();
                    let record = zoo.stage.ask(at(handler, &format!("writer-{writer}"), wide(&Step::Set(value)))).await;
                    assert!(matches!(record.outcome, Outcome::Committed | Outcome::Conflict), "{record:?}");
                }
            };
            let writing = async { tokio::join!(one(0), one(1), one(2)) };
            tokio::pin!(writing);
            steps = wide(&Step::Read);
            let mut seen = std::collections::BTreeSet::new();
            loop {
                let record = tokio::select! {
                    biased;
                    _ = &mut writing => break,
                    record = zoo.stage.ask(at(READ_ONLY, "auditor", steps.clone())) => record,
                };
                let (value, all_the_same) = (result(&record), 111_111);
                assert_eq!((value % all_the_same, record.attempts), (0, 1), "{handler}: {value}");
                seen.insert(value);
            }
            assert!(seen.len() > 1, "all looks were before the writes or after them: {seen:?}");
        }
    })
    .await;
}

// To see it fail: answer with an error where `Step::Refused` comes back from an attempt (`Flow::after`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_whose_snapshot_is_let_go_of_run_again_on_another_one() {
    for handler in ALL {
        let store = ForgetfulStore::default();
        let stage = Stage::start(store.clone()).await;
        stage.run("x", vec![Step::Set(1)]).await;
        stage.run("y", vec![Step::Set(2)]).await;
        let (here, go) = (point("here"), point("go"));
        let steps = vec![Step::Read, Step::Reach(here.clone()), Step::Await(go.clone(), 1), Step::Digit(read("y"))];
        let flow = stage.submit(&stage.id(), &at(handler, "x", steps)).await.unwrap();
        until(&here, 1).await;
        // What the second attempt has to see; the first could have seen only half of it.
        stage.run("y", vec![Step::Set(3)]).await;
        store.forget();
        reach(&go);
        let record = ended(flow).await.record;
        assert_eq!((end_of(&record), result(&record)), ((Outcome::Committed, ""), 13), "{handler}");
        assert_eq!((record.attempts, reached(&here)), (2, 2), "{handler}");
    }
}
