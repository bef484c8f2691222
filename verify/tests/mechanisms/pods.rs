//! Several runtimes on one store.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use tandem_model::ids::Key;
use tandem_model::outcome::Outcome;
use tandem_runtime::dial::Tcp;
use tandem_runtime::peers::PeerOptions;
use tandem_runtime::runtime::Options;
use tandem_store::Store;
use tandem_store::memory::MemoryStore;
use tokio::net::TcpListener;

use crate::claim;
use crate::script::{Step, node};
use crate::stage::{Stage, Worker, eventually, topology};

const BEAT: Duration = Duration::from_millis(20);
/// Long enough for a machine that is busy.
const DEAD_AFTER: Duration = Duration::from_secs(2);
/// More keys than are needed to find one of each owner.
const KEYS_MAX: usize = 10_000;
/// Calls, one after the other, that make a flow slow.
const SLOW: usize = 40;

/// Two runtimes that know each other, with one worker.
pub(crate) async fn two<S: Store>(store: S) -> ([Stage<S>; 2], Worker) {
    let worker = Worker::start().await;
    let start = async |name: &str| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let peers = PeerOptions { beat: BEAT, dead_after: DEAD_AFTER, ..PeerOptions::new(listener, address) };
        let peers = Some(PeerOptions { name: Some(name.to_owned()), dial: Arc::new(Tcp), ..peers });
        Stage::of(store.clone(), Options { peers, ..Options::default() }, topology(&[&worker])).await
    };
    let stages = [start("one").await, start("two").await];
    eventually("the runtimes know each other", async || {
        stages.iter().all(|stage| {
            let map = stage.runtime.map();
            let taking = map.members.iter().filter(|member| !member.draining).count();
            taking == stages.len() && stage.runtime.peers_connected() == 1
        })
    })
    .await;
    (stages, worker)
}

/// A key that a runtime owns.
fn own_key<S: Store>(stage: &Stage<S>) -> String {
    let map = stage.runtime.map();
    let slots = stage.layout.slots();
    let is_own = |key: &String| map.is_mine(slots.slot_of(&key.parse::<Key>().unwrap()));
    (0..KEYS_MAX).map(|at| format!("key-{at}")).find(is_own).unwrap()
}

pub(crate) async fn a_slow_flow_commits_though_fast_ones_elsewhere_never_let_go() {
    let ([one, two], _worker) = two(MemoryStore::new()).await;
    let (hot, entry, is_done) = (own_key(&one), own_key(&two), Cell::new(false));
    let fast = async || {
        while !is_done.get() {
            one.run(&hot, vec![Step::Add(1)]).await;
        }
    };
    let slow = async {
        let cold = node("cold", vec![Step::Read]);
        let record = two.run(&entry, vec![Step::Call(node(&hot, vec![Step::Add(1)])), Step::Repeat(SLOW, cold)]).await;
        is_done.set(true);
        record.outcome
    };
    let (outcome, ..) = tokio::join!(slow, fast(), fast());
    claim!(outcome, Outcome::Committed);
}
