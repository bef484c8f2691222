//! Messages between pods: they arrive without a restart, and in the order in which they were committed.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use tandem_store::memory::MemoryStore;

use crate::pods::Pods;
use crate::script::{Step, node};
use crate::stage::eventually;

fn in_order(count: i64) -> BTreeMap<String, i64> {
    (1..=count).map(|place| (format!("{place:03}"), place)).collect()
}

fn note(number: i64) -> Step {
    Step::Send(node("to", vec![Step::Note(format!("{number:03}"))]), 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_the_owner_of_its_target_at_once_and_in_order() {
    const COUNT: i64 = 40;
    let pods = Pods::on(MemoryStore::new()).await;
    let [one, two] = pods.several::<2>().await;
    let (from, to) = (one.own_key(0), two.own_key(0));
    let send = |number: i64| Step::Send(node(&to, vec![Step::Note(format!("{number:03}"))]), 0);
    for number in 1..=COUNT {
        one.ask(node(&from, vec![send(number)])).await;
    }
    eventually("all have arrived", async || two.stage.value(&to).await == Some(COUNT)).await;
    assert_eq!(two.stage.entries(&to).await, in_order(COUNT));
    assert_eq!(two.figure("messages_delivered_total"), u64::try_from(COUNT).unwrap());
    assert_eq!(one.figure(r#"messages_hinted_total{reason="sent"}"#), u64::try_from(COUNT).unwrap());
    // Delayed ones as well.
    one.ask(node(&from, vec![Step::Send(node(&to, vec![Step::Note("last".to_owned())]), 30)])).await;
    eventually("the delayed one has arrived", async || two.stage.value(&to).await == Some(COUNT + 1)).await;
    assert_eq!(two.figure("messages_delivered_total"), u64::try_from(COUNT + 1).unwrap());
}

// To see it fail: number messages by the versions of each process (`Lanes::needed` gives nothing), or let a message be
// delivered before those ahead of it (`Flow::consume` without the range).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_keeps_the_order_of_commits_whoever_commits_and_delivers() {
    const COUNT: i64 = 60;
    let mut pods = Pods::on(MemoryStore::new()).await;
    pods.dead_after = Duration::ZERO;
    // Both believe that sender and receiver are theirs: each numbers, and each delivers.
    let [one, two] = [pods.start("one").await, pods.start("two").await];
    for number in 1..=COUNT {
        let pod = if number % 3 == 0 { &one } else { &two };
        pod.ask(node("from", vec![note(number)])).await;
    }
    eventually("all have arrived", async || one.stage.value("to").await == Some(COUNT)).await;
    assert_eq!(one.stage.entries("to").await, in_order(COUNT));
}

/// Both send at the same time. What one of them was told of before it sent must arrive before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_client_sees_its_messages_arrive_in_its_order() {
    const EACH: i64 = 25;
    let mut pods = Pods::on(MemoryStore::new()).await;
    pods.dead_after = Duration::ZERO;
    let pods = [pods.start("one").await, pods.start("two").await];
    let client = |name: &'static str, first: usize| {
        let pods = &pods;
        async move {
            for number in 1..=EACH {
                let note = Step::Note(format!("{name}-{number:03}"));
                let pod = &pods[(first + usize::try_from(number).unwrap()) % 2];
                pod.ask(node("from", vec![Step::Send(node("to", vec![note]), 0)])).await;
            }
        }
    };
    join_all([client("a", 0), client("b", 1)]).await;
    eventually("all have arrived", async || pods[0].stage.value("to").await == Some(2 * EACH)).await;
    let entries = pods[0].stage.entries("to").await;
    for name in ["a", "b"] {
        let places: Vec<i64> = entries.iter().filter(|(key, _)| key.starts_with(name)).map(|(_, at)| *at).collect();
        assert!(places.is_sorted(), "{name}: {places:?}");
    }
}
