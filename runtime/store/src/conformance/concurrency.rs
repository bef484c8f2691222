//! Laws of many clients at once. What is checked does not depend on how they interleave.

use std::collections::BTreeSet;
use std::future::Future;

use tandem_model::ids::Timestamp;
use tokio::task::JoinSet;

use super::{MUST_ANSWER, Transaction, bytes, committed, everything, now, prefix, text, write};
use crate::{CommitResult, Snapshot, Store};

const TASKS: usize = 16;
const ROUNDS: usize = 25;
/// Somebody always gets through, so that nobody loses this often.
const ATTEMPTS: usize = 10_000;

/// Runs the task that `make` makes for each number below `count`, and gives what they return.
async fn together<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    count: usize,
    make: impl Fn(usize) -> F,
) -> Vec<T> {
    let mut tasks = JoinSet::new();
    for number in 0..count {
        tasks.spawn(make(number));
    }
    tasks.join_all().await
}

/// Adds `amount` to a number, again and again until it does not conflict. Gives how often it conflicted.
async fn add<S: Store>(store: &S, key: &str, amount: i64) -> usize {
    for conflicts in 0..ATTEMPTS {
        let mut transaction = Transaction::begin(store).await;
        let before: i64 = number(transaction.get(key).await);
        let result = transaction.put(key, &(before + amount).to_string()).end().await.expect(MUST_ANSWER);
        if committed(&result).is_some() {
            return conflicts;
        }
        tokio::task::yield_now().await;
    }
    unreachable!("{ATTEMPTS} attempts conflicted")
}

fn number(value: Option<String>) -> i64 {
    value.map_or(0, |value| value.parse().expect("the law writes numbers"))
}

/// Many add to one number at once: in the end it is what was acknowledged.
pub async fn increments_lose_nothing<S: Store>(store: S) {
    let all = together(TASKS, |_| {
        let store = store.clone();
        async move {
            for _ in 0..ROUNDS {
                add(&store, "counter", 1).await;
            }
        }
    });
    all.await;
    assert_eq!(now(&store, "counter").await, Some((TASKS * ROUNDS).to_string()));
}

/// Many who write keys of their own, and read one that nobody writes, never conflict.
pub async fn disjoint_commits_all_succeed<S: Store>(store: S) {
    write(&store, &[("shared", "1")]).await;
    let all = together(4 * TASKS, |task| {
        let store = store.clone();
        async move {
            let own = format!("own/{task}");
            for _ in 0..ROUNDS / 5 {
                let mut transaction = Transaction::begin(&store).await;
                transaction.get("shared").await;
                let before = number(transaction.get(&own).await);
                transaction.put(&own, &(before + 1).to_string()).must_commit().await;
            }
        }
    });
    all.await;
    let snapshot = store.snapshot().await.expect(MUST_ANSWER);
    let rows = snapshot.scan(&prefix("own/"), usize::MAX, false).await.expect(MUST_ANSWER);
    assert_eq!(rows.len(), 4 * TASKS);
    assert!(rows.iter().all(|(_, value)| *value == bytes(&(ROUNDS / 5).to_string())));
}

/// Many commits that were all made from one snapshot and read and write one key: at most one succeeds, though all are
/// under way at once and may be written together.
pub async fn of_equal_commits_at_once_at_most_one_succeeds<S: Store>(store: S) {
    for round in 0..ROUNDS {
        let key = format!("key/{round}");
        let mut transactions = Vec::new();
        for _ in 0..TASKS {
            let mut transaction = Transaction::begin(&store).await;
            assert_eq!(transaction.get(&key).await, None);
            transactions.push(transaction);
        }
        let mut tasks = JoinSet::new();
        for (task, transaction) in transactions.into_iter().enumerate() {
            let transaction = transaction.put(&key, &task.to_string());
            tasks.spawn(async move { (task, transaction.end().await.expect(MUST_ANSWER)) });
        }
        let results = tasks.join_all().await;
        let won = results.iter().filter(|(_, result)| committed(result).is_some()).map(|(task, _)| task.to_string());
        let won: Vec<String> = won.collect();
        assert!(won.len() <= 1, "{won:?} all won");
        assert_eq!(now(&store, &key).await.as_ref(), won.first());
    }
}

/// Money that moves between accounts is neither made nor lost, in no snapshot.
pub async fn transfers_keep_the_total<S: Store>(store: S) {
    const ACCOUNTS: usize = 5;
    const START: i64 = 100;
    let accounts: Vec<String> = (0..ACCOUNTS).map(|account| format!("account/{account}")).collect();
    let start = START.to_string();
    let rows: Vec<(&str, &str)> = accounts.iter().map(|account| (&account[..], &start[..])).collect();
    write(&store, &rows).await;
    let mover = store.clone();
    let transfers = together(TASKS, move |task| {
        let (store, accounts) = (mover.clone(), accounts.clone());
        async move {
            for round in 0..ROUNDS {
                let from = &accounts[(task + round) % ACCOUNTS];
                let to = &accounts[(task * 3 + round * 2 + 1) % ACCOUNTS];
                if from != to {
                    transfer(&store, from, to).await;
                }
            }
        }
    });
    let transfers = tokio::spawn(transfers);
    let mut last_look = false;
    while !last_look {
        last_look = transfers.is_finished();
        let rows = everything(&store).await;
        let total: i64 = rows.into_iter().map(|(_, value)| number(Some(value))).sum();
        assert_eq!(total, START * i64::try_from(ACCOUNTS).expect("it is small"));
        tokio::task::yield_now().await;
    }
    transfers.await.expect("no transfer must fail");
}

async fn transfer<S: Store>(store: &S, from: &str, to: &str) {
    for _ in 0..ATTEMPTS {
        let mut transaction = Transaction::begin(store).await;
        let (of_from, of_to) = (number(transaction.get(from).await), number(transaction.get(to).await));
        let transaction = transaction.put(from, &(of_from - 1).to_string()).put(to, &(of_to + 1).to_string());
        if committed(&transaction.end().await.expect(MUST_ANSWER)).is_some() {
            return;
        }
        tokio::task::yield_now().await;
    }
    unreachable!("{ATTEMPTS} attempts conflicted")
}

/// Two rows of which one at least must be 1, each set to 0 only by those who saw the other at 1: never both are 0.
pub async fn guarded_pairs_stay_guarded<S: Store>(store: S) {
    for round in 0..ROUNDS {
        let keys = [format!("pair/{round}/a"), format!("pair/{round}/b")];
        write(&store, &[(&keys[0], "1"), (&keys[1], "1")]).await;
        let results = together(TASKS, |task| {
            let (store, keys) = (store.clone(), keys.clone());
            async move {
                let (own, other) = (&keys[task % 2], &keys[(task + 1) % 2]);
                let mut transaction = Transaction::begin(&store).await;
                transaction.get(own).await;
                if transaction.get(other).await.as_deref() == Some("0") {
                    return None;
                }
                committed(&transaction.put(own, "0").end().await.expect(MUST_ANSWER))
            }
        });
        results.await;
        let snapshot = store.snapshot().await.expect(MUST_ANSWER);
        let values = snapshot.batch_get(&keys.map(|key| bytes(&key))).await.expect(MUST_ANSWER);
        assert!(values.contains(&Some(bytes("1"))), "round {round}: {values:?}");
    }
}

/// Many scan a range and append after its last row: no place is given twice and none is left out.
pub async fn unique_inserts_stay_unique<S: Store>(store: S) {
    const APPENDS: usize = 5;
    let places = together(TASKS, |task| {
        let store = store.clone();
        async move {
            let mut places = Vec::new();
            while places.len() < APPENDS {
                let mut transaction = Transaction::begin(&store).await;
                let place = transaction.scan(prefix("log/")).await.len();
                let transaction = transaction.put(&format!("log/{place:06}"), &task.to_string());
                match transaction.end().await.expect(MUST_ANSWER) {
                    CommitResult::Committed(_) => places.push(place),
                    CommitResult::Conflict(_) => tokio::task::yield_now().await,
                    CommitResult::Undetermined(why) => unreachable!("{why}"),
                }
            }
            places
        }
    });
    let places: Vec<usize> = places.await.concat();
    assert_eq!(places.iter().copied().collect::<BTreeSet<_>>(), (0..TASKS * APPENDS).collect());
    assert_eq!(places.len(), TASKS * APPENDS);
    assert_eq!(everything(&store).await.len(), TASKS * APPENDS);
}

/// No two commits have the same timestamp, and the row shows the write of the greatest.
pub async fn commits_at_once_have_different_timestamps<S: Store>(store: S) {
    let commits = together(TASKS, |task| {
        let store = store.clone();
        async move {
            let mut commits = Vec::new();
            for round in 0..ROUNDS {
                let value = format!("{task}/{round}");
                let transaction = Transaction::begin(&store).await;
                let seen = transaction.timestamp();
                let at = transaction.put("contended", &value).must_commit().await;
                assert!(at > seen, "a commit must come after what it saw");
                commits.push((at, value));
            }
            assert!(commits.is_sorted(), "one client's commits must be in order");
            commits
        }
    });
    let mut commits: Vec<(Timestamp, String)> = commits.await.concat();
    commits.sort();
    assert!(commits.windows(2).all(|pair| pair[0].0 < pair[1].0));
    let snapshot = store.snapshot().await.expect(MUST_ANSWER);
    let value = snapshot.get(&bytes("contended")).await.expect(MUST_ANSWER);
    assert_eq!(value.map(|value| text(&value)), commits.pop().map(|(_, value)| value));
}
