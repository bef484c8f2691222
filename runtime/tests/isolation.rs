//! The isolation zoo: each anomaly of the literature, forced through real functions on each store.
//!
//! Nothing here hopes for a race: flows wait at points until the others are where the test wants them, and each test
//! asserts that they met. Serializable flows must run again or say no; Snapshot flows may do what is documented and
//! nothing else; read-only flows see one point of time, and wait for nobody. The names of the anomalies are those of
//! Adya, Liskov and O'Neil, "Generalized Isolation Level Definitions" (2000).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]
#![allow(dead_code, reason = "the support modules are shared by several tests")]

use std::sync::Arc;
use std::time::Duration;

use tandem_model::outcome::FlowRecord;
use tandem_runtime::peers::PeerOptions;
use tandem_runtime::runtime::{Accepted, Options};
use tandem_store::memory::MemoryStore;

use either::EitherStore;
use held::HeldStore;
use script::{Step, To, node};
use stage::{Stage, embedded};

#[path = "support/either.rs"]
mod either;
#[path = "support/forgetful.rs"]
mod forgetful;
#[path = "support/held.rs"]
mod held;
#[path = "isolation/phantoms.rs"]
mod phantoms;
#[path = "isolation/read_only.rs"]
mod read_only;
#[path = "isolation/reads.rs"]
mod reads;
#[path = "support/script.rs"]
mod script;
#[path = "support/stage.rs"]
mod stage;
#[path = "isolation/two_runtimes.rs"]
mod two_runtimes;
#[path = "isolation/writes.rs"]
mod writes;

/// Handlers of `node`, one for each level.
const SERIALIZABLE: &str = "run";
const SNAPSHOT: &str = "snapshot";
const READ_ONLY: &str = "look";
/// Those that may write.
const WRITING: [&str; 2] = [SERIALIZABLE, SNAPSHOT];
const ALL: [&str; 3] = [SERIALIZABLE, SNAPSHOT, READ_ONLY];

/// A runtime with functions, on a store with a gate before its commits.
struct Zoo {
    stage: Stage<HeldStore<EitherStore>>,
    store: HeldStore<EitherStore>,
}

impl Zoo {
    async fn on(store: EitherStore) -> Self {
        let store = HeldStore::new(store);
        Self { stage: Stage::start(store.clone()).await, store }
    }

    /// One of several runtimes on the store, which cannot reach each other.
    async fn shared(store: EitherStore) -> Self {
        let store = HeldStore::new(store);
        // It gives no sign of life while a test holds its commits.
        let (beat, linger) = (Duration::from_hours(1), Duration::ZERO);
        let peers = PeerOptions { beat, linger, ..PeerOptions::unreachable() };
        let options = Options { peers: Some(peers), ..Options::default() };
        Self { stage: Stage::start_with(store.clone(), options, |_| {}).await, store }
    }

    /// Sends a request, and does not wait for it.
    async fn begin(&self, to: To) -> Accepted {
        self.stage.submit(&self.stage.id(), &to).await.unwrap()
    }

    /// What a request returns; it must commit.
    async fn result(&self, to: To) -> i64 {
        let record = self.stage.ask(to).await;
        stage::result(&record)
    }

    /// Sends two requests that run at the same time, and waits for both.
    async fn both(&self, one: To, two: To) -> [Arc<FlowRecord>; 2] {
        let (one, two) = tokio::join!(self.stage.ask(one), self.stage.ask(two));
        [one, two]
    }

    /// Sets values.
    async fn set<const COUNT: usize>(&self, values: [(&str, i64); COUNT]) {
        let steps = values.map(|(key, value)| Step::Call(node(key, vec![Step::Set(value)])));
        self.result(node("setter", steps.into())).await;
    }
}

/// Does a test on each store, with a runtime of its own.
async fn on_each_store(test: impl AsyncFn(&Zoo)) {
    let directory = tempfile::tempdir().unwrap();
    for store in [EitherStore::Memory(MemoryStore::new()), EitherStore::Embedded(embedded(directory.path()))] {
        println!("on {store:?}");
        test(&Zoo::on(store).await).await;
    }
}

/// A handler of `node` on an instance.
fn at(handler: &str, key: &str, steps: Vec<Step>) -> To {
    To::of("node", key, handler, steps)
}

/// Reads the value of an instance.
fn read(key: &str) -> To {
    node(key, vec![Step::Read])
}

/// Attempts of all of them.
fn attempts(records: &[Arc<FlowRecord>]) -> u32 {
    records.iter().map(|record| record.attempts).sum()
}

/// What they returned, the smallest first.
fn results(records: &[Arc<FlowRecord>]) -> Vec<i64> {
    let mut results: Vec<i64> = records.iter().map(|record| stage::result(record)).collect();
    results.sort_unstable();
    results
}
