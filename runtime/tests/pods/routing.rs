//! A request can come in anywhere, and runs at the owner.

use futures_util::future::join_all;
use tandem_model::outcome::Outcome;
use tandem_runtime::runtime::{Cancelled, FlowState, NotAccepted};
use tandem_store::memory::MemoryStore;

use crate::pods::Pods;
use crate::script::{PATIENCE, Step, node, point, reach, until};
use crate::stage::result;

const ACCEPTED: &str = r#"requests_accepted_total{function="node"}"#;
const ANSWERED: &str = r#"requests_forwarded_total{reason="answered"}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_comes_in_anywhere_and_runs_at_its_owner() {
    let pods = Pods::on(MemoryStore::new()).await;
    let pods = pods.several::<3>().await;
    for owner in &pods {
        for number in 0..3 {
            let key = owner.own_key(number);
            for entry in &pods {
                entry.ask(node(&key, vec![Step::Add(1)])).await;
            }
            assert_eq!(owner.stage.value(&key).await, Some(3));
        }
    }
    for pod in &pods {
        // Each owns 3 keys with 3 requests each, and got 3 requests for each of the 6 keys of others, a third of all.
        assert_eq!((pod.figure(ACCEPTED), pod.figure(ANSWERED)), (9, 6));
        assert_eq!(pod.figure("members"), 3);
    }
    let owned: u64 = pods.iter().map(|pod| pod.figure("partitions_owned")).sum();
    assert_eq!(owned, 64);
}

// To see it fail: run each request where it comes in, and take the absence of its record out of what it read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_at_all_pods_at_once_runs_once() {
    let pods = Pods::on(MemoryStore::new()).await;
    let pods = pods.several::<3>().await;
    for number in 0..10 {
        let (id, to) = (format!("once-{number}"), node("once", vec![Step::Add(1), Step::PutRandom]));
        let ended = join_all(pods.iter().map(|pod| pod.ask_as(&id, &to))).await;
        let results: Vec<i64> = ended.iter().map(|ended| result(&ended.record)).collect();
        assert!(results.iter().all(|result| *result == results[0]), "{results:?}");
    }
    assert_eq!(pods[0].stage.value("once").await, Some(10));
    assert_eq!(pods[1].stage.entries("once").await.len(), 10);
    // With another body it is refused wherever it comes in.
    for pod in &pods {
        let refused = pod.submit("once-0", &node("once", vec![Step::Add(2)])).await;
        assert!(matches!(refused, Err(NotAccepted::Mismatch { .. })), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_is_seen_and_cancelled_from_any_pod() {
    let pods = Pods::on(MemoryStore::new()).await;
    let [one, two, three] = pods.several::<3>().await;
    let (key, began, never) = (two.own_key(0), point("began"), point("never"));
    let to = node(&key, vec![Step::Reach(began.clone()), Step::Await(never, 1), Step::Add(1)]);
    let accepted = one.submit("seen", &to).await.unwrap();
    until(&began, 1).await;
    let flow = accepted.flow;
    let looked = three.run(|stage| async move { stage.runtime.flow(flow).await.unwrap() }).await;
    let FlowState::Running(running) = looked else { panic!("{looked:?}") };
    assert_eq!((running.instance.key.as_str(), running.attempt), (key.as_str(), 1));
    let cancelled = three.run(|stage| async move { stage.runtime.cancel(flow).await.unwrap() }).await;
    assert!(matches!(&cancelled, Cancelled::Done(_)), "{cancelled:?}");
    let ended = accepted.outcome.await.unwrap();
    assert_eq!(ended.record.outcome, Outcome::Cancelled);
    // And it is waited for from any pod.
    let (began, go) = (point("began"), point("go"));
    let to = node(&key, vec![Step::Reach(began.clone()), Step::Await(go.clone(), 1), Step::Add(1)]);
    let flow = one.submit("waited-for", &to).await.unwrap().flow;
    until(&began, 1).await;
    let waited = three.run(move |stage| async move {
        let waiting = stage.runtime.wait(flow, PATIENCE);
        reach(&go);
        waiting.await.unwrap()
    });
    assert!(matches!(waited.await, FlowState::Ended(record) if record.outcome == Outcome::Committed));
}
