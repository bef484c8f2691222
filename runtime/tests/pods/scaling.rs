//! Pods come and go under load, and no client notices.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tandem_model::outcome::Outcome;
use tandem_runtime::runtime::NotAccepted;
use tandem_store::memory::MemoryStore;

use crate::pods::{Pod, Pods, settled};
use crate::script::{PATIENCE, Step, node};
use crate::stage::{end_of, ended, eventually};

const KEYS: u64 = 40;
const CLIENTS: u64 = 8;

type Serving = Mutex<Vec<Arc<Pod<MemoryStore>>>>;

/// Sends until it is told to stop. A request that was not taken is sent again elsewhere, with the same id.
async fn client(number: u64, serving: &Serving, stop: &AtomicBool, sum: &AtomicI64, refused: &AtomicU64) {
    let mut at = number;
    while !stop.load(Ordering::Relaxed) {
        at += 7;
        let id = format!("client-{number}-{at}");
        let send = Step::Send(node(&format!("sent-{}", at % 5), vec![Step::Add(1)]), 0);
        let to = node(&format!("scaled-{}", at % KEYS), vec![Step::Add(1), send]);
        let mut turn = usize::try_from(at).unwrap();
        loop {
            let pod = {
                let serving = serving.lock().unwrap();
                Arc::clone(&serving[turn % serving.len()])
            };
            turn += 1;
            match pod.submit(&id, &to).await {
                Ok(accepted) => {
                    let record = ended(accepted).await.record;
                    assert_eq!(record.outcome, Outcome::Committed, "{:?}", end_of(&record));
                    sum.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                Err(NotAccepted::Unavailable(_)) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                Err(other) => panic!("{other}"),
            }
        }
    }
}

async fn some_more(sum: &AtomicI64) {
    let before = sum.load(Ordering::Relaxed);
    eventually("requests are answered", async || sum.load(Ordering::Relaxed) > before + 60).await;
}

async fn scale(pods: &Pods<MemoryStore>, serving: &Serving, sum: &AtomicI64) {
    some_more(sum).await;
    for number in 1..5 {
        let pod = Arc::new(pods.start(&format!("pod-{number}")).await);
        serving.lock().unwrap().push(pod);
        some_more(sum).await;
    }
    let all: Vec<_> = serving.lock().unwrap().clone();
    settled(&all.iter().map(|pod| &**pod).collect::<Vec<_>>()).await;
    some_more(sum).await;
    // The first one, which is the oldest, and two more go.
    for _ in 0..3 {
        let pod = Arc::clone(&serving.lock().unwrap()[0]);
        let stopping = pod.stop(PATIENCE);
        let taken_out = async {
            // As a load balancer does it: some time after it is not ready any more.
            eventually("it is not ready", async || !pod.stage.runtime.is_ready()).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            serving.lock().unwrap().remove(0);
        };
        tokio::join!(stopping, taken_out);
        some_more(sum).await;
    }
}

// To see it fail: let a pod that stops refuse what the others own (`Runtime::route` that looks whether it is ready first).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_one_to_five_and_back_to_two_without_a_failed_request() {
    let pods = Pods::on(MemoryStore::new()).await;
    let first = Arc::new(pods.start("pod-0").await);
    let serving: Serving = Mutex::new(vec![first]);
    let (stop, sum, refused) = (AtomicBool::new(false), AtomicI64::new(0), AtomicU64::new(0));
    let clients = join_all((0..CLIENTS).map(|number| client(number, &serving, &stop, &sum, &refused)));
    let scaling = async {
        scale(&pods, &serving, &sum).await;
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(clients, scaling);
    let last = Arc::clone(&serving.lock().unwrap()[0]);
    let total = async |prefix: &str, count: u64| {
        let mut total = 0;
        for number in 0..count {
            total += last.stage.value(&format!("{prefix}-{number}")).await.unwrap_or(0);
        }
        total
    };
    let done = sum.load(Ordering::Relaxed);
    assert_eq!(total("scaled", KEYS).await, done);
    eventually("all messages have arrived", async || total("sent", 5).await == done).await;
    assert_eq!(refused.load(Ordering::Relaxed), 0, "of {done}");
}
