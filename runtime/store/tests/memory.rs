//! The memory store holds every law, and its test hooks do what they say.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tandem_model::ids::Timestamp;
use tandem_store::conformance::Transaction;
use tandem_store::memory::{Fault, MemoryStore};
use tandem_store::{Error, Store};

fn open() -> Ready<(MemoryStore, ())> {
    ready((MemoryStore::new(), ()))
}

tandem_store::store_laws!(open);
tandem_store::history_laws!(open);
tandem_store::fault_laws!(open);

#[tokio::test]
async fn timestamps_come_from_the_injected_clock_and_never_go_back() {
    let now = Arc::new(AtomicU64::new(7));
    let store = MemoryStore::with_clock({
        let now = Arc::clone(&now);
        Arc::new(move || now.load(Ordering::Relaxed))
    });
    let commit = async || Transaction::begin(&store).await.put("a", "1").must_commit().await;
    assert_eq!(commit().await, Timestamp(7 << 18));
    assert_eq!(commit().await, Timestamp((7 << 18) + 1));
    now.store(3, Ordering::Relaxed);
    assert_eq!(commit().await, Timestamp((7 << 18) + 2));
    now.store(9, Ordering::Relaxed);
    assert_eq!(commit().await, Timestamp(9 << 18));
    assert_eq!(store.last_commit(), Timestamp(9 << 18));
}

#[tokio::test]
async fn history_ends_where_the_window_ends() {
    let store = MemoryStore::with_clock(Arc::new(|| 100_000));
    store.keep_history_for(Some(Duration::from_secs(10)));
    assert!(store.snapshot_at(Timestamp::at_unix_ms(90_000)).await.is_ok());
    let refused = store.snapshot_at(Timestamp::at_unix_ms(89_999)).await;
    assert!(matches!(refused, Err(Error::HistoryNotKept { .. })), "{refused:?}");
    store.keep_history_for(None);
    assert!(store.snapshot_at(Timestamp::ZERO).await.is_ok());
}

#[tokio::test]
async fn faults_happen_in_the_order_they_were_ordered() {
    let store = MemoryStore::new();
    store.fail_next_commit(Fault::Unavailable);
    store.fail_next_commit(Fault::UndeterminedAfter);
    assert!(Transaction::begin(&store).await.put("a", "1").end().await.is_err());
    assert_eq!((store.faults_left(), store.rows().len()), (1, 0));
    assert!(Transaction::begin(&store).await.put("a", "1").end().await.is_ok());
    assert_eq!((store.faults_left(), store.rows().len()), (0, 1));
}
