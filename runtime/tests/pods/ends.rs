//! A pod goes: killed, told to stop, or only believed to be gone.

use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tandem_model::outcome::Outcome;
use tandem_runtime::runtime::NotAccepted;
use tandem_store::keys::{RowKey, metas};
use tandem_store::memory::MemoryStore;

use crate::pods::{Pods, settled};
use crate::script::{PATIENCE, Step, gone, node, other, point, reach, reached, until};
use crate::stage::{end_of, ended, eventually, result};

// To see it fail: leave whoever waits for a lost owner alone (`Runtime::outcome` without a second run).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_owner_is_killed_runs_elsewhere_and_once() {
    let pods = Pods::on(MemoryStore::new()).await;
    let [one, two] = pods.several::<2>().await;
    let (key, began, go) = (two.own_key(0), point("began"), point("go"));
    let send = Step::Send(other("told", vec![Step::Add(1)]), 0);
    let wait = vec![Step::Reach(began.clone()), Step::Await(go.clone(), 1)];
    let to = node(&key, [wait, vec![Step::Add(1), send, Step::PutRandom]].concat());
    let accepted = one.submit("killed", &to).await.unwrap();
    until(&began, 1).await;
    two.kill();
    until(&gone(&go), 1).await;
    reach(&go);
    let first = result(&ended(accepted).await.record);
    assert_eq!((one.stage.value(&key).await, one.stage.entries(&key).await.len()), (Some(1), 1));
    assert_eq!((result(&one.ask_as("killed", &to).await.record), reached(&began)), (first, 2));
    eventually("the message has arrived", async || one.stage.value_of("other", "told").await == Some(1)).await;
    // What is new does not wait until the one that was killed counts as gone.
    one.ask(node(&key, vec![Step::Add(1)])).await;
    settled(&[&one]).await;
    one.ask(node(&key, vec![Step::Add(1)])).await;
    assert_eq!(one.stage.value(&key).await, Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_told_to_stop_finishes_hands_over_and_leaves() {
    let pods = Pods::on(MemoryStore::new()).await;
    let [one, two] = pods.several::<2>().await;
    let (key, began, go) = (two.own_key(0), point("began"), point("go"));
    let to = node(&key, vec![Step::Reach(began.clone()), Step::Await(go.clone(), 1), Step::Add(1)]);
    let running = two.submit("running", &to).await.unwrap();
    until(&began, 1).await;
    let stopping = two.stop(PATIENCE);
    let meanwhile = async {
        // The other one owns everything, long before the first one has gone.
        settled(&[&one]).await;
        let late = two.ask(node(&two.own_key_of(&one), vec![Step::Add(1)])).await;
        assert_eq!(end_of(&late.record).0, Outcome::Committed);
        assert_eq!(reached(&go), 0);
        reach(&go);
    };
    tokio::join!(stopping, meanwhile);
    assert_eq!(ended(running).await.record.outcome, Outcome::Committed);
    let refused = two.submit("after", &to).await;
    assert!(matches!(refused, Err(NotAccepted::Unavailable(_))), "{refused:?}");
    let members = pods.store.rows().into_iter().filter(|(row, _)| metas("member/").contains(row)).count();
    assert_eq!(members, 1, "its row is gone");
    assert_eq!(one.figure("partitions_owned"), 64);
    assert!(!two.stage.runtime.is_ready());
}

// To see it fail: give the store no reads and no ranges to validate (`Inner::commit_of`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pods_that_both_believe_they_own_everything_cannot_both_commit() {
    const ACCOUNTS: u32 = 6;
    let mut pods = Pods::on(MemoryStore::new()).await;
    // Whoever counts as gone at once is never seen.
    pods.dead_after = Duration::ZERO;
    let [one, two] = [pods.start("one").await, pods.start("two").await];
    eventually("each owns all", async || [&one, &two].iter().all(|pod| pod.figure("partitions_owned") == 64)).await;
    for number in 0..ACCOUNTS {
        one.ask(node(&format!("account-{number}"), vec![Step::Set(100)])).await;
    }
    let transfer = |number: u64| {
        let mut random = SmallRng::seed_from_u64(number);
        let from = random.random_range(0..ACCOUNTS);
        let to = (from + random.random_range(1..ACCOUNTS)) % ACCOUNTS;
        let amount = random.random_range(1..80);
        let pay = Step::Call(node(&format!("account-{to}"), vec![Step::Add(amount)]));
        let pod = if number.is_multiple_of(2) { &one } else { &two };
        let steps = vec![Step::Need(amount), Step::Add(-amount), pay];
        async move { pod.ask(node(&format!("account-{from}"), steps)).await }
    };
    for ended in join_all((0..60).map(transfer)).await {
        assert!(matches!(ended.record.outcome, Outcome::Committed | Outcome::Rejected), "{:?}", end_of(&ended.record));
    }
    let mut sum = 0;
    for number in 0..ACCOUNTS {
        sum += two.stage.value(&format!("account-{number}")).await.unwrap();
    }
    assert_eq!(sum, i64::from(ACCOUNTS) * 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_takes_over_delivers_what_waits() {
    let pods = Pods::on(MemoryStore::new()).await;
    let one = pods.start("one").await;
    let (began, go) = (point("began"), point("go"));
    let slow = node("to", vec![Step::Reach(began.clone()), Step::Await(go.clone(), 1), Step::Note("0".to_owned())]);
    let note = |number: u32| Step::Send(node("to", vec![Step::Note(number.to_string())]), 0);
    let later = Step::Send(node("later", vec![Step::Add(1)]), 300);
    one.ask(node("from", vec![Step::Send(slow, 0), note(1), note(2), later])).await;
    until(&began, 1).await;
    let two = pods.start("two").await;
    one.kill();
    until(&gone(&go), 1).await;
    reach(&go);
    eventually("all have arrived", async || two.stage.value("to").await == Some(3)).await;
    let expected = [("0", 1), ("1", 2), ("2", 3)].map(|(name, place)| (name.to_owned(), place));
    assert_eq!(two.stage.entries("to").await.into_iter().collect::<Vec<_>>(), expected);
    eventually("the delayed one as well", async || two.stage.value("later").await == Some(1)).await;
    eventually("nothing waits", async || {
        two.stage.count(|row| matches!(row, RowKey::Inbox { .. } | RowKey::Timer { .. })).await == 0
    })
    .await;
}
