//! The commit on TiKV, on a simulated cluster.

use bytes::Bytes;
use tandem_store::conformance::Transaction;
use tandem_store::{Commit, CommitResult, KeyRange, Read, Snapshot, Store};
use tandem_store_tikv::retry::Timeouts;
use tandem_store_tikv::simulated::{Action, Call, Cut, Node, SimulatedCluster};
use tandem_store_tikv::store::ClusterStore;
use tokio::time::Duration;

use crate::claim;
use crate::cluster::{self, Tested, is_committed, is_rejected, now, order, process, put, wait_ms};

/// Long enough for every lock to die.
const LOCKS_DIE_MS: u64 = 5_000;

/// A cluster, in virtual time from now on.
fn cluster(borders: &[&'static str]) -> SimulatedCluster {
    tokio::time::pause();
    cluster::cluster(borders)
}

/// Two transactions that each read what the other one writes, in one region. How many are committed.
async fn mirrored(before: &[(&str, &str)], by_range: bool) -> usize {
    let cluster = cluster(&[]);
    let store = process(&cluster);
    if !before.is_empty() {
        put(&store, before).await.unwrap();
    }
    let (mut one, mut two) = (Transaction::begin(&store).await, Transaction::begin(&store).await);
    if by_range {
        one.scan(KeyRange::prefix(b"a/")).await;
        two.scan(KeyRange::prefix(b"b/")).await;
    } else {
        one.get("a/1").await;
        two.get("b/1").await;
    }
    let (one, two) = (one.put("b/1", "taken").end().await, two.put("a/1", "taken").end().await);
    [one, two].iter().filter(|result| is_committed(result)).count()
}

pub(crate) async fn of_two_who_change_what_the_other_read_one_commits() {
    claim!(mirrored(&[("a/1", "free"), ("b/1", "free")], false).await, 1);
}

pub(crate) async fn of_two_who_saw_nothing_one_commits() {
    claim!(mirrored(&[], false).await, 1);
}

pub(crate) async fn of_two_who_add_to_the_range_of_the_other_one_commits() {
    claim!(mirrored(&[], true).await, 1);
}

pub(crate) async fn one_phase_is_not_for_those_who_only_read_something() {
    claim!(mirrored(&[("a/1", "free"), ("b/1", "free")], false).await, 1);
}

pub(crate) async fn an_update_since_an_old_snapshot_is_not_lost() {
    let cluster = cluster(&[]);
    let store = process(&cluster);
    put(&store, &[("x", "1")]).await.unwrap();
    let mut slow = Transaction::begin(&store).await;
    slow.get("x").await;
    put(&store, &[("x", "11")]).await.unwrap();
    // By now its snapshot is too old to become the start of the transaction.
    wait_ms(60_000).await;
    slow.put("x", "2").end().await.unwrap();
    claim!(now(&store, "x").await, Some("11".to_owned()));
}

pub(crate) async fn two_commits_from_one_snapshot_are_two_transactions() {
    let cluster = cluster(&["m"]);
    let store = process(&cluster);
    let view = store.snapshot().await.unwrap();
    let key = Bytes::from_static(b"x");
    let read = Read { key: key.clone(), seen_at: view.timestamp(), value: view.get(&key).await.unwrap() };
    let mut committed = 0;
    for primary in [Bytes::from_static(b"a/1"), Bytes::from_static(b"a/2")] {
        let writes = vec![(primary.clone(), Some(primary.clone())), (key.clone(), Some(primary.clone()))];
        let commit = Commit { primary, reads: vec![read.clone()], ranges: Vec::new(), writes };
        committed += usize::from(matches!(store.commit(commit).await, Ok(CommitResult::Committed(_))));
    }
    claim!(committed, 1);
}

pub(crate) async fn a_commit_is_true_at_its_own_time() {
    let cluster = cluster(&[]);
    let (store, other) = (process(&cluster), process(&cluster));
    put(&other, &[("x", "old"), ("y", "old")]).await.unwrap();
    let mut one = Transaction::begin(&store).await;
    let seen = one.get("x").await;
    // If it asks for one more timestamp after the one at which it validates, others go in between.
    order(&store, Call::Timestamp, 2, Action::Slow(100));
    let later = async {
        wait_ms(50).await;
        put(&other, &[("x", "new")]).await.unwrap();
        let view = other.snapshot().await.unwrap();
        let keys = [Bytes::from_static(b"x"), Bytes::from_static(b"y")];
        view.batch_get(&keys).await.unwrap()
    };
    let (one, later) = tokio::join!(one.put("y", "new").end(), later);
    assert!(is_committed(&one) && seen.as_deref() == Some("old"), "{one:?}");
    let later: Vec<&[u8]> = later.iter().flatten().map(|value| &value[..]).collect();
    // Whoever sees the later change of x also sees the change of y that was made without it.
    claim!(later, [b"new", b"new"]);
}

pub(crate) async fn what_has_to_commit_later_is_validated_again() {
    let cluster = cluster(&[]);
    let (store, other) = (process(&cluster), process(&cluster));
    put(&other, &[("x", "old"), ("y", "old")]).await.unwrap();
    let mut one = Transaction::begin(&store).await;
    one.get("x").await;
    order(&store, Call::Commit, 0, Action::Push);
    order(&store, Call::Timestamp, 2, Action::Slow(100));
    let later = async {
        wait_ms(50).await;
        put(&other, &[("x", "new")]).await.unwrap()
    };
    let (one, _) = tokio::join!(one.put("y", "new").end(), later);
    assert_eq!(cluster.ordered_left(), 0);
    claim!(is_committed(&one), false);
}

pub(crate) async fn a_lost_commit_is_not_called_rejected() {
    let cluster = cluster(&["m"]);
    let (store, other) = (process(&cluster), process(&cluster));
    // The answer never comes, and then the store cannot be reached.
    order(&store, Call::Commit, 0, Action::AnswerSlow(60_000));
    let cut = async {
        wait_ms(1_000).await;
        (0..2).for_each(|node| cluster.cut(store.cluster().process(), Node::Store(node), Some(Cut::Both)));
    };
    let (result, ()) = tokio::join!(put(&store, &[("a", "record"), ("x", "effect")]), cut);
    wait_ms(LOCKS_DIE_MS).await;
    let there = now(&other, "a").await.is_some();
    assert!(there, "the commit had arrived");
    claim!(is_rejected(&result), false);
}

pub(crate) async fn a_late_commit_in_one_phase_does_not_come_after_the_answer() {
    let cluster = cluster(&[]);
    let store = process(&cluster);
    order(&store, Call::Prewrite, 0, Action::Late(1_000));
    let result = put(&store, &[("a", "record")]).await;
    wait_ms(LOCKS_DIE_MS).await;
    assert_eq!(cluster.ordered_left(), 0);
    let there = now(&store, "a").await.is_some();
    claim!(there, !is_rejected(&result));
}

pub(crate) async fn what_was_undetermined_stays_as_it_was_found() {
    let cluster = cluster(&[]);
    let store = process(&cluster);
    let own = store.cluster().process();
    // The clock of the cluster was set back: timestamps stand still for a while. And nothing can be asked.
    cluster.lag(6_000);
    cluster.cut(own, Node::Store(0), Some(Cut::Both));
    order(&store, Call::Prewrite, 0, Action::Late(60_000));
    let result = put(&store, &[("a", "record")]).await;
    assert!(matches!(result, Ok(CommitResult::Undetermined(_))), "{result:?}");
    cluster.cut(own, Node::Store(0), None);
    let found = now(&store, "a").await;
    wait_ms(60_000 + LOCKS_DIE_MS).await;
    claim!(now(&store, "a").await, found);
}

pub(crate) async fn a_lock_without_its_primary_is_not_just_removed() {
    let cluster = cluster(&["m"]);
    let timeouts = Timeouts { call: Duration::from_secs(10), operation: Duration::from_secs(30) };
    let slow: Tested = ClusterStore::new(cluster.process(), timeouts);
    let other = process(&cluster);
    // The primary is on its way for longer than the lock on the other key lives.
    order(&slow, Call::Prewrite, 0, Action::Slow(4_500));
    let reader = async {
        wait_ms(3_600).await;
        now(&other, "x").await
    };
    let (result, seen) = tokio::join!(put(&slow, &[("a", "record"), ("x", "effect")]), reader);
    assert_eq!((seen, cluster.ordered_left()), (None, 0));
    wait_ms(LOCKS_DIE_MS).await;
    assert!(is_committed(&result), "{result:?}");
    let both = [now(&other, "a").await, now(&other, "x").await].map(|value| value.is_some());
    claim!(both, [true, true]);
}
