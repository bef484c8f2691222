//! Owners that die at every step of a commit: whoever comes later finds all of it or nothing, and waits for a bounded time.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tandem_store::{CommitResult, Snapshot as _, Store as _};
use tandem_store_tikv::TikvStore;
use tandem_store_tikv::cluster::{
    CheckTransaction, Cluster as _, CommitAnswer, CommitKeys, FoundLock, KeyProblem, OnePhase, Prewrite,
    PrewriteAnswer, TransactionStatus,
};

/// A lock of a dead owner is gone after this time.
const PATIENCE: Duration = Duration::from_secs(5);
const LIVES_MS: u64 = 300;

fn key(name: &'static str) -> Bytes {
    Bytes::from_static(name.as_bytes())
}

async fn now(store: &TikvStore) -> Timestamp {
    store.cluster().timestamp().await.expect("PD answers")
}

/// The first steps of a transaction whose owner then dies: primary `a`, and what is asked for of `a` and `z`.
async fn prewrite(store: &TikvStore, start: Timestamp, keys: &[&'static str]) -> Vec<PrewriteAnswer> {
    let mut answers = Vec::new();
    for name in keys {
        let request = Prewrite {
            start,
            primary: key("a"),
            mutations: vec![(key(name), Some(key("new")))],
            lives_ms: LIVES_MS,
            transaction_keys: 2,
            one_phase: None,
            repeated: false,
        };
        let region = store.cluster().region_of(&key(name)).await.expect("PD answers");
        answers.push(store.cluster().prewrite(region, request).await.expect("the store answers"));
    }
    answers
}

async fn commit(store: &TikvStore, start: Timestamp, name: &'static str) -> CommitAnswer {
    let at = now(store).await;
    let region = store.cluster().region_of(&key(name)).await.expect("PD answers");
    let request = CommitKeys { start, at, keys: vec![key(name)] };
    store.cluster().commit(region, request).await.expect("the store answers")
}

async fn read(store: &TikvStore, name: &'static str) -> Option<Bytes> {
    let begin = Instant::now();
    let snapshot = store.snapshot().await.expect("PD answers");
    let value = snapshot.get(&key(name)).await.expect("the lock goes");
    assert!(begin.elapsed() < PATIENCE, "it took {:?}", begin.elapsed());
    value
}

#[tokio::test]
async fn a_secondary_without_a_primary_is_freed() {
    let Some((store, ())) = super::open().await else { return };
    let start = now(&store).await;
    assert_eq!(prewrite(&store, start, &["z"]).await, [PrewriteAnswer::Locked]);
    assert_eq!(read(&store, "z").await, None);
    // The primary that was on its way comes too late.
    let late = prewrite(&store, start, &["a"]).await;
    assert!(
        matches!(&late[..], [PrewriteAnswer::Refused(problems)] if problems.contains(&KeyProblem::RolledBack)),
        "{late:?}"
    );
}

#[tokio::test]
async fn a_reader_of_the_primary_decides_for_ever() {
    let Some((store, ())) = super::open().await else { return };
    let start = now(&store).await;
    assert_eq!(prewrite(&store, start, &["a", "z"]).await, [PrewriteAnswer::Locked, PrewriteAnswer::Locked]);
    assert_eq!(read(&store, "a").await, None);
    assert_eq!(commit(&store, start, "a").await, CommitAnswer::LockNotFound);
    assert_eq!(read(&store, "z").await, None);
}

#[tokio::test]
async fn what_the_primary_has_committed_is_committed_everywhere() {
    let Some((store, ())) = super::open().await else { return };
    let start = now(&store).await;
    prewrite(&store, start, &["a", "z"]).await;
    assert_eq!(commit(&store, start, "a").await, CommitAnswer::Committed);
    assert_eq!(read(&store, "z").await, Some(key("new")));
    assert_eq!(commit(&store, start, "a").await, CommitAnswer::Committed, "a repeated commit is no other");
}

#[tokio::test]
async fn a_writer_gets_past_the_lock_of_the_dead() {
    let Some((store, ())) = super::open().await else { return };
    prewrite(&store, now(&store).await, &["z"]).await;
    let writes = vec![(key("z"), Some(key("mine")))];
    let commit = tandem_store::Commit { primary: key("z"), writes, ..Default::default() };
    let begin = Instant::now();
    let result = store.commit(commit).await.expect("the store answers");
    assert!(matches!(result, CommitResult::Committed(_)), "{result:?}");
    assert!(begin.elapsed() < PATIENCE, "it took {:?}", begin.elapsed());
    assert_eq!(read(&store, "z").await, Some(key("mine")));
}

#[tokio::test]
async fn a_transaction_that_was_asked_for_cannot_begin_any_more() {
    let Some((store, ())) = super::open().await else { return };
    let start = now(&store).await;
    let question = |roll_back_if_absent| CheckTransaction {
        primary: key("a"),
        start,
        found: FoundLock::RollBack,
        roll_back_if_absent,
    };
    let region = store.cluster().region_of(&key("a")).await.expect("PD answers");
    let ask = async |absent| store.cluster().check_transaction(region, question(absent)).await;
    assert_eq!(ask(false).await, Ok(TransactionStatus::Unknown));
    assert_eq!(ask(true).await, Ok(TransactionStatus::RolledBack));
    let one_phase = Some(OnePhase { commit_at_most: Timestamp::at_unix_ms(start.unix_ms() + 60_000) });
    let request = Prewrite {
        start,
        primary: key("a"),
        mutations: vec![(key("a"), Some(key("late")))],
        lives_ms: LIVES_MS,
        transaction_keys: 1,
        one_phase,
        repeated: false,
    };
    let late = store.cluster().prewrite(region, request).await.expect("the store answers");
    assert!(matches!(late, PrewriteAnswer::Refused(_)), "{late:?}");
    assert_eq!(read(&store, "a").await, None);
}

#[tokio::test]
async fn one_phase_does_not_commit_above_its_limit() {
    let Some((store, ())) = super::open().await else { return };
    let start = now(&store).await;
    // Somebody reads that it is not there, after the limit.
    assert_eq!(read(&store, "a").await, None);
    let request = Prewrite {
        start,
        primary: key("a"),
        mutations: vec![(key("a"), Some(key("late")))],
        lives_ms: LIVES_MS,
        transaction_keys: 1,
        one_phase: Some(OnePhase { commit_at_most: Timestamp(start.0 + 1) }),
        repeated: false,
    };
    let region = store.cluster().region_of(&key("a")).await.expect("PD answers");
    let late = store.cluster().prewrite(region, request).await.expect("the store answers");
    assert!(!matches!(late, PrewriteAnswer::Committed(_)), "{late:?}");
    assert_eq!(read(&store, "a").await, None);
}
