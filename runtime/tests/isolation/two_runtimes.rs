//! Two runtimes on one store: what one of them has sealed and not yet committed, the other one does not see. So whoever
//! has seen it must have all that it read validated.

use tandem_store::memory::MemoryStore;

use super::either::EitherStore;
use super::{SERIALIZABLE, SNAPSHOT, Zoo, at, read};
use crate::script::{Step, node, point, until};
use crate::stage::{ended, result};

/// Each runtime holds back the commit of a write, lets a reader see it, and lets go.
async fn fork(handler: &str) -> [(i64, u32); 2] {
    let store = EitherStore::Memory(MemoryStore::new());
    let zoos = [Zoo::shared(store.clone()).await, Zoo::shared(store).await];
    let mut flows = Vec::new();
    for (zoo, key) in zoos.iter().zip(["x", "y"]) {
        zoo.store.hold();
        flows.push(zoo.begin(at(handler, "writer", vec![Step::Call(node(key, vec![Step::Set(1)]))])).await);
        zoo.store.until_waiting().await;
        let seen = point("seen");
        let look = vec![Step::Digit(read("x")), Step::Digit(read("y")), Step::Reach(seen.clone())];
        flows.push(zoo.begin(at(handler, "reader", look)).await);
        until(&seen, 1).await;
    }
    for zoo in &zoos {
        zoo.store.let_go();
    }
    let mut seen = Vec::new();
    for flow in flows {
        let record = ended(flow).await.record;
        seen.push((result(&record), record.attempts));
    }
    [seen[1], seen[3]]
}

/// Whoever commits before the other one's write is right; who comes later runs again and sees both.
fn assert_no_fork([one, two]: [(i64, u32); 2]) {
    assert!([(10, 1), (11, 2)].contains(&one) && [(1, 1), (11, 2)].contains(&two), "{one:?}, {two:?}");
    assert!(one.1 + two.1 > 2, "a fork");
}

// To see it fail: validate nothing in the store (`Inner::commit_of` without reads).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_forbids_a_long_fork_over_two_runtimes() {
    assert_no_fork(fork(SERIALIZABLE).await);
}

// To see it fail: validate only what is written, whatever the flow has seen (`Flow::choose_reads`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_forbids_a_long_fork_over_two_runtimes() {
    assert_no_fork(fork(SNAPSHOT).await);
}
