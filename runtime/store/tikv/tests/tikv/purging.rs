//! What a purge removes, what it leaves, and what can be opened meanwhile.

use bytes::Bytes;
use tandem_store::{Commit, CommitResult, Error, KeyRange, Snapshot as _, Store};
use tandem_store_tikv::TikvStore;
use tandem_store_tikv::options::Options;
use tandem_store_tikv::purge::{Found, Purge};

/// More than one transaction removes.
const ROWS: u32 = 700;

async fn write(store: &TikvStore, keys: impl Iterator<Item = Bytes>) {
    let writes: Vec<_> = keys.map(|key| (key, Some(Bytes::from_static(b"x")))).collect();
    let commit = Commit { primary: writes[0].0.clone(), reads: Vec::new(), ranges: Vec::new(), writes };
    let result = store.commit(commit).await.expect("the cluster answers");
    assert!(matches!(result, CommitResult::Committed(_)), "{result:?}");
}

/// Rows all over the range.
fn keys() -> impl Iterator<Item = Bytes> {
    (0..ROWS).map(|number| Bytes::from(number.reverse_bits().to_be_bytes().to_vec()))
}

async fn rows(store: &TikvStore) -> usize {
    let all = KeyRange { start: Bytes::new(), end: None };
    store
        .snapshot()
        .await
        .expect("the cluster answers")
        .scan(&all, usize::MAX, false)
        .await
        .expect("it can be read")
        .len()
}

async fn purge(options: &Options) -> Purge {
    Purge::connect(options).await.expect("the cluster answers")
}

#[tokio::test]
async fn what_is_purged_is_gone_and_opens_as_empty() {
    let Some(options) = super::options().await else { return };
    assert_eq!(purge(&options).await.found().await.expect("it answers"), Found::Nothing);
    let neighbour = Options { prefix: format!("{}-2/", options.prefix.trim_end_matches('/')), ..options.clone() };
    for options in [&options, &neighbour] {
        write(&TikvStore::open(options).await.expect("it is empty"), keys()).await;
    }
    let purge = purge(&options).await;
    assert_eq!(purge.found().await.expect("it answers"), Found::Installation);
    purge.close().await.expect("it answers");
    let mut told = Vec::new();
    let purged = purge.remove(|_| true, |rows| told.push(rows)).await.expect("it answers");
    assert_eq!((purged.rows, purged.foreign), (u64::from(ROWS), None));
    assert!(told.is_sorted() && told.last() == Some(&u64::from(ROWS)), "{told:?}");
    assert_eq!(purge.found().await.expect("it answers"), Found::Nothing);
    let again = TikvStore::open(&options).await.expect("it is as if nothing had ever been there");
    assert_eq!(rows(&again).await, 0);
    let neighbour = TikvStore::open(&neighbour).await.expect("it is another installation");
    assert_eq!(rows(&neighbour).await, ROWS as usize, "rows of another prefix have gone");
}

#[tokio::test]
async fn half_of_an_installation_cannot_be_opened_and_the_next_purge_ends_it() {
    let Some(options) = super::options().await else { return };
    write(&TikvStore::open(&options).await.expect("it is empty"), keys()).await;
    let first = purge(&options).await;
    first.close().await.expect("it answers");
    // It comes to some of the rows, and then it ends.
    let killed = tokio::spawn(async move { first.remove(|_| true, |_| panic!("killed")).await.map(drop) }).await;
    assert!(killed.is_err_and(|error| error.is_panic()));
    let refused = TikvStore::open(&options).await.expect_err("nobody must take it for whole");
    assert!(matches!(&refused, Error::Refused(why) if why.contains("purge")), "{refused}");
    let second = purge(&options).await;
    assert_eq!(second.found().await.expect("it answers"), Found::Remains);
    second.remove(|_| true, |_| ()).await.expect("it answers");
    assert_eq!(rows(&TikvStore::open(&options).await.expect("it is empty")).await, 0);
}

#[tokio::test]
async fn a_purge_that_is_given_up_leaves_everything() {
    let Some(options) = super::options().await else { return };
    let store = TikvStore::open(&options).await.expect("it is empty");
    write(&store, keys()).await;
    let purge = purge(&options).await;
    purge.close().await.expect("it answers");
    purge.reopen().await.expect("it answers");
    assert_eq!(rows(&TikvStore::open(&options).await.expect("it is open again")).await, ROWS as usize);
}

#[tokio::test]
async fn an_installation_within_the_prefix_is_left_alone() {
    let Some(options) = super::options().await else { return };
    write(&TikvStore::open(&options).await.expect("it is empty"), keys()).await;
    let inner = Options { prefix: format!("{}inner/", options.prefix), ..options.clone() };
    write(&TikvStore::open(&inner).await.expect("it is empty"), keys()).await;
    let purge = purge(&options).await;
    purge.close().await.expect("it answers");
    let purged = purge.remove(|_| true, |_| ()).await.expect("it answers");
    assert!(purged.foreign.is_some_and(|key| key.starts_with(b"inner/")), "it is not said that something is left");
    assert_eq!(rows(&TikvStore::open(&options).await.expect("it can be used again")).await, 0);
    assert_eq!(rows(&TikvStore::open(&inner).await.expect("it is as it was")).await, ROWS as usize);
}

#[tokio::test]
async fn keys_of_somebody_else_are_not_purged() {
    let Some(options) = super::options().await else { return };
    super::opening::put(&options, "users/1", "x").await;
    let refused = purge(&options).await.found().await.expect_err("nobody knows what it is");
    assert!(matches!(&refused, Error::Refused(why) if why.contains("users/1")), "{refused}");
}
