//! Ranges over several regions: whatever the limit and wherever regions end, their rows come in order, and all of them.

use bytes::Bytes;
use tandem_store::{Commit, CommitResult, KeyRange, Snapshot as _, Store as _};
use tandem_store_tikv::TikvStore;

/// More than one page.
const ROWS: usize = 300;
/// What the store puts before the keys of its users, behind the prefix of the installation.
const ROWS_PREFIX: &[u8] = b"d";

fn row(number: usize) -> (Bytes, Bytes) {
    (Bytes::from(format!("row-{number:03}")), Bytes::from(number.to_string()))
}

async fn filled(store: &TikvStore) {
    let writes: Vec<_> = (0..ROWS).map(row).map(|(key, value)| (key, Some(value))).collect();
    let commit = Commit { primary: row(0).0, reads: Vec::new(), ranges: Vec::new(), writes };
    let committed = store.commit(commit).await.expect("the stores answer");
    assert!(matches!(committed, CommitResult::Committed(_)), "{committed:?}");
}

async fn check(store: &TikvStore) {
    let snapshot = store.snapshot().await.expect("PD answers");
    for (from, to) in [(0, ROWS), (99, 201), (100, 200), (150, 151), (200, 200)] {
        let range = KeyRange { start: row(from).0, end: Some(row(to).0) };
        for limit in [1, 50, 127, 128, 129, ROWS, usize::MAX] {
            let found = snapshot.scan(&range, limit, false).await.expect("the stores answer");
            let expected: Vec<_> = (from..to).map(row).take(limit).collect();
            assert_eq!(found, expected, "{from} to {to}, {limit} at most");
            let found = snapshot.scan(&range, limit, true).await.expect("the stores answer");
            let expected: Vec<_> = (from..to).rev().map(row).take(limit).collect();
            assert_eq!(found, expected, "{from} to {to} from the end, {limit} at most");
        }
    }
    let all = KeyRange { start: Bytes::new(), end: None };
    assert_eq!(snapshot.scan(&all, usize::MAX, false).await.expect("the stores answer").len(), ROWS);
}

/// The second time, the store still believes that there is one region.
#[tokio::test]
async fn rows_of_several_regions_come_in_order() {
    let Some(place) = tandem_e2e_tikv::shared().await.expect("the cluster starts") else { return };
    let options = super::options().await.expect("there is a cluster");
    let store = TikvStore::open(&options).await.expect("the cluster answers");
    filled(&store).await;
    check(&store).await;
    if place.cluster.is_outside() {
        return;
    }
    for border in [100, 200] {
        let key = [options.prefix.as_bytes(), ROWS_PREFIX, &row(border).0].concat();
        place.cluster.split(&key).await.expect("the store splits");
    }
    check(&store).await;
}
