//! Instances that flows of all pods touch: nobody is to run until it has no attempts left.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tandem_model::outcome::Outcome;
use tandem_store::memory::MemoryStore;

use crate::far::FarStore;
use crate::pods::{Pod, Pods};
use crate::script::{Step, To, node};
use crate::stage::Stage;

/// What a commit takes.
const WAY: Duration = Duration::from_millis(2);
/// Clients of each pod.
const CLIENTS: usize = 6;
/// Calls, one after the other, that make a flow slow.
const SLOW: usize = 40;
/// Requests of each client, one after the other.
const EACH: usize = 12;

type Far = FarStore<MemoryStore>;

async fn pods() -> Pods<Far> {
    let mut pods = Pods::on(FarStore::new(MemoryStore::new(), WAY)).await;
    pods.topology.limits.attempts_max = 10;
    pods
}

/// Adds 1 to both of them, in this order.
fn both(first: &str, second: &str, entry: &str) -> To {
    let add = |key: &str| Step::Call(node(key, vec![Step::Add(1)]));
    node(entry, vec![add(first), add(second), Step::Add(1)])
}

fn turns(pods: &[Pod<Far>], what: &str) -> u64 {
    pods.iter().map(|pod| pod.figure(&format!(r#"turns_asked_total{{reason="{what}"}}"#))).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_of_all_pods_that_touch_the_same_two_instances_all_commit() {
    let pods = pods().await;
    let pods = pods.several::<3>().await;
    let (one, other) = (pods[0].own_key(0), pods[1].own_key(0));
    let client = |number: usize| {
        let (pod, one, other) = (&pods[number % pods.len()], &one, &other);
        // Behind the keys of the two.
        let entry = pod.own_key(1 + number);
        async move {
            let mut outcomes = Vec::new();
            for _ in 0..EACH {
                // Half of them go the other way round.
                let to = if number.is_multiple_of(2) { both(one, other, &entry) } else { both(other, one, &entry) };
                outcomes.push(pod.ask(to).await.record.outcome);
            }
            outcomes
        }
    };
    let outcomes = join_all((0..3 * CLIENTS).map(client)).await.concat();
    let committed = outcomes.iter().filter(|outcome| **outcome == Outcome::Committed).count();
    let total = 3 * CLIENTS * EACH;
    assert_eq!(committed, total);
    for key in [&one, &other] {
        assert_eq!(pods[2].stage.value(key).await, i64::try_from(total).ok());
    }
    assert!(turns(&pods, "granted") > 0);
    assert_eq!(turns(&pods, "unreachable"), 0);
}

// To see it fail: drop `opened` in `Flow::begin_on_view` of whoever `waits`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_in_a_line_run_on_the_views_that_they_came_with() {
    let store = FarStore::new(MemoryStore::new(), WAY);
    let stage = Stage::start(store.clone()).await;
    let before = store.snapshots();
    let client = async |_| {
        for _ in 0..EACH {
            let record = stage.run("hot", vec![Step::Add(1)]).await;
            assert_eq!(record.outcome, Outcome::Committed);
        }
    };
    join_all((0..CLIENTS).map(client)).await;
    let (flows, taken) = (CLIENTS * EACH, store.snapshots() - before);
    // Those who waited for very long, on a busy machine, have taken another one.
    assert!(taken < flows + flows / 2, "{taken} snapshots for {flows} flows");
    assert_eq!(stage.value("hot").await, i64::try_from(flows).ok());
}

// To see it fail: let `Turns::is_shared` be false for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_flow_commits_while_fast_ones_of_another_pod_never_let_go() {
    let pods = pods().await;
    let [one, two] = pods.several::<2>().await;
    let (hot, entry) = (one.own_key(0), two.own_key(0));
    let done = AtomicBool::new(false);
    let fast = async || {
        while !done.load(Ordering::Relaxed) {
            assert_eq!(one.ask(node(&hot, vec![Step::Add(1)])).await.record.outcome, Outcome::Committed);
        }
    };
    let slow = async {
        let cold = node("cold", vec![Step::Read]);
        let steps = vec![Step::Call(node(&hot, vec![Step::Add(1)])), Step::Repeat(SLOW, cold)];
        let ended = two.ask(node(&entry, steps)).await;
        done.store(true, Ordering::Relaxed);
        ended.record
    };
    let (record, ..) = tokio::join!(slow, fast(), fast());
    assert_eq!(record.outcome, Outcome::Committed, "{:?}", record.cause);
    assert_eq!((turns(&[two], "granted"), one.figure("turns_given_total")), (1, 1));
}
