//! Two stores that are asked the same give the same answers: rows, decisions, and the keys that conflict.
//!
//! The memory store keeps every version and looks at all of them; the embedded store looks at a window of changes. So
//! each is the other's oracle. Transactions overlap in any way, but commit one after the other, so that there is one
//! right answer.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tandem_store::conformance::Transaction;
use tandem_store::embedded::{EmbeddedStore, Options};
use tandem_store::memory::MemoryStore;
use tandem_store::{CommitResult, KeyRange, Snapshot, Store};
use tempfile::TempDir;

/// Transactions that are open at the same time.
const OPEN: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Get(usize, u8),
    Scan(usize, u8, u8),
    Put(usize, u8, u8),
    Delete(usize, u8),
    Commit(usize),
    Abandon(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (who, key) = (0..OPEN, 0..6_u8);
    let step = prop_oneof![
        3 => (who.clone(), key.clone()).prop_map(|(who, key)| Step::Get(who, key)),
        1 => (who.clone(), key.clone(), 0..8_u8).prop_map(|(who, start, end)| Step::Scan(who, start, end)),
        3 => (who.clone(), key.clone(), any::<u8>()).prop_map(|(who, key, value)| Step::Put(who, key, value)),
        1 => (who.clone(), key).prop_map(|(who, key)| Step::Delete(who, key)),
        3 => who.clone().prop_map(Step::Commit),
        1 => who.prop_map(Step::Abandon),
    ];
    prop::collection::vec(step, 1..80)
}

fn key(key: u8) -> String {
    format!("key {key}")
}

struct Open<S: Store> {
    transaction: Transaction<S>,
    written: Vec<u8>,
}

/// Does all the steps and tells everything that could be seen.
async fn run<S: Store>(store: &S, steps: &[Step]) -> Vec<String> {
    let mut open: Vec<Option<Open<S>>> = (0..OPEN).map(|_| None).collect();
    let mut seen = Vec::new();
    for step in steps {
        let (Step::Get(who, _) | Step::Scan(who, ..) | Step::Put(who, ..) | Step::Delete(who, _)) = step else {
            let (Step::Commit(who) | Step::Abandon(who)) = step else { unreachable!("all others were matched") };
            if let (Some(ended), Step::Commit(_)) = (open[*who].take(), step) {
                seen.push(decision(ended.transaction.end().await.unwrap()));
            }
            continue;
        };
        let mut current = match open[*who].take() {
            Some(current) => current,
            None => Open { transaction: Transaction::begin(store).await, written: Vec::new() },
        };
        match step {
            Step::Get(_, at) => seen.push(format!("{:?}", current.transaction.get(&key(*at)).await)),
            Step::Scan(_, start, end) => {
                let range = KeyRange { start: key(*start).into(), end: (*end < 7).then(|| key(*end).into()) };
                seen.push(format!("{:?}", current.transaction.scan(range).await));
            }
            Step::Put(_, at, _) | Step::Delete(_, at) if current.written.contains(at) => {}
            Step::Put(_, at, value) => {
                current.transaction = current.transaction.put(&key(*at), &value.to_string());
                current.written.push(*at);
            }
            Step::Delete(_, at) => {
                current.transaction = current.transaction.delete(&key(*at));
                current.written.push(*at);
            }
            Step::Commit(_) | Step::Abandon(_) => unreachable!("handled above"),
        }
        open[*who] = Some(current);
    }
    seen.push(rows(store).await);
    seen
}

async fn rows<S: Store>(store: &S) -> String {
    let snapshot = store.snapshot().await.unwrap();
    format!("{:?}", snapshot.scan(&KeyRange::prefix(b""), usize::MAX, false).await.unwrap())
}

fn decision(result: CommitResult) -> String {
    match result {
        CommitResult::Committed(_) => "committed".to_owned(),
        CommitResult::Conflict(mut keys) => {
            keys.sort();
            keys.dedup();
            format!("conflict {keys:?}")
        }
        CommitResult::Undetermined(why) => why,
    }
}

/// The same cases in every run, and no files beside the sources.
fn config() -> ProptestConfig {
    ProptestConfig { cases: 64, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn both_stores_answer_alike(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let directory = TempDir::new().unwrap();
            let options = || Options { reserve_bytes: 0, ..Options::default() };
            let embedded = EmbeddedStore::open(directory.path(), options()).unwrap();
            let seen = run(&embedded, &steps).await;
            prop_assert_eq!(&seen, &run(&MemoryStore::new(), &steps).await);
            drop(embedded);
            let again = EmbeddedStore::open(directory.path(), options()).unwrap();
            prop_assert_eq!(seen.last(), Some(&rows(&again).await), "after a restart");
            Ok(())
        })?;
    }
}
