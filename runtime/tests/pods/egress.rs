//! An egress to which several pods emit: whoever follows it sees every record, whatever he resumes behind.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use tandem_store::keys::RowKey;
use tandem_store::memory::MemoryStore;

use crate::pods::{Pod, Pods};
use crate::script::{PATIENCE, Step, node};
use crate::stage::{EGRESS, eventually};
use crate::web::Web;

/// Records that each pod emits, one after the other.
const EACH: i64 = 25;

async fn emit(pod: &Pod<MemoryStore>, key: &str, number: i64) {
    pod.ask(node(key, vec![Step::Emit(EGRESS.into(), number)])).await;
}

/// Follows, and connects anew behind each record, until it has so many.
async fn follow(web: &Web, count: i64) -> Vec<i64> {
    let (mut after, mut seen) = (0, Vec::new());
    for _ in 0..count {
        let next = tokio::time::timeout(PATIENCE, web.first_behind(EGRESS, after)).await;
        let Ok((number, payload)) = next else { break };
        assert!(number > after, "{number} came behind {after}");
        after = number;
        seen.push(payload.parse().unwrap());
    }
    seen
}

// To see it fail: let `horizon` say that everything is settled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_resumes_misses_nothing_that_any_pod_emits() {
    let pods = Pods::on(MemoryStore::new()).await;
    let pods = pods.several::<2>().await;
    let webs = join_all(pods.iter().map(|pod| Web::start(&pod.stage.runtime))).await;
    let emitting = |number: usize| {
        let (pod, key) = (&pods[number], pods[number].own_key(0));
        async move {
            for at in 0..EACH {
                emit(pod, &key, at * 2 + i64::try_from(number).unwrap()).await;
            }
        }
    };
    let (one, two, ..) = tokio::join!(follow(&webs[0], 2 * EACH), follow(&webs[1], 2 * EACH), emitting(0), emitting(1));
    let all: BTreeSet<i64> = (0..2 * EACH).collect();
    for seen in [&one, &two] {
        assert_eq!(seen.iter().copied().collect::<BTreeSet<_>>(), all);
        // Of each pod in the order of its commits.
        for pod in 0..2 {
            assert!(seen.iter().filter(|number| *number % 2 == pod).is_sorted(), "{seen:?}");
        }
    }
    assert_eq!(one, two);
}

// To see it fail: do not remove the numbers of those who are gone (`Membership::remove_numbers`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_long_for_a_pod_that_was_killed_while_it_emitted() {
    let pods = Pods::on(MemoryStore::new()).await;
    let [one, two] = pods.several::<2>().await;
    let web = Web::start(&two.stage.runtime).await;
    let (first, second) = (one.own_key(0), two.own_key(0));
    emit(&one, &first, 1).await;
    one.kill();
    emit(&two, &second, 2).await;
    assert_eq!(follow(&web, 2).await, [1, 2]);
    eventually("no numbers are held", async || {
        two.stage.count(|row| matches!(row, RowKey::Meta { name } if name.starts_with("emits/"))).await == 0
    })
    .await;
}
