//! What is particular to the embedded store: opening, restarting, a full disk, a failing disk, grouping.

use std::sync::atomic::AtomicBool;

use tempfile::TempDir;

use super::*;
use crate::conformance::Transaction;

fn options() -> Options {
    Options { reserve_bytes: 0, ..Options::default() }
}

fn open(directory: &TempDir) -> EmbeddedStore {
    EmbeddedStore::open(directory.path(), options()).unwrap()
}

fn refused(directory: &TempDir) -> Error {
    EmbeddedStore::open(directory.path(), options()).map(drop).expect_err("must be refused")
}

async fn value(store: &EmbeddedStore, key: &'static str) -> Option<Bytes> {
    store.snapshot().await.unwrap().get(&Bytes::from_static(key.as_bytes())).await.unwrap()
}

#[tokio::test]
async fn a_restart_keeps_everything_and_timestamps_go_on() {
    let directory = TempDir::new().unwrap();
    let mut last = Timestamp::ZERO;
    for round in 0..3 {
        // A clock that stands still, so that only what was stored can keep the timestamps growing.
        let options = Options { unix_ms: Arc::new(|| 1), ..options() };
        let store = EmbeddedStore::open(directory.path(), options).unwrap();
        let snapshot = store.snapshot().await.unwrap();
        assert_eq!(snapshot.timestamp(), last);
        let rows = snapshot.scan(&KeyRange::prefix(b""), usize::MAX, false).await.unwrap();
        assert_eq!(rows.len(), round, "the store's own rows must not show");
        drop(snapshot);
        let at = Transaction::begin(&store).await.put(&format!("key {round}"), "v").must_commit().await;
        assert!(at > last);
        last = at;
    }
}

#[tokio::test]
async fn a_view_from_before_a_restart_conflicts() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory);
    let seen_at = store.snapshot().await.unwrap().timestamp();
    Transaction::begin(&store).await.put("a", "1").must_commit().await;
    drop(store);
    let store = open(&directory);
    let read = crate::Read { key: Bytes::from_static(b"b"), seen_at, value: None };
    let commit = Commit { reads: vec![read], ..Commit::default() };
    assert!(matches!(store.commit(commit).await, Ok(CommitResult::Conflict(_))), "what changed before is not known");
}

#[test]
fn a_directory_has_one_user_at_a_time() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory);
    let error = refused(&directory);
    assert!(matches!(&error, Error::InUse(path) if path.contains(&*directory.path().to_string_lossy())), "{error}");
    let clone = store.clone();
    drop(store);
    assert!(matches!(refused(&directory), Error::InUse(_)), "a clone still uses it");
    drop(clone);
    open(&directory);
}

#[tokio::test]
async fn a_snapshot_outlives_its_store() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory);
    Transaction::begin(&store).await.put("a", "1").must_commit().await;
    let snapshot = store.snapshot().await.unwrap();
    drop(store);
    assert_eq!(snapshot.get(&Bytes::from_static(b"a")).await.unwrap(), Some(Bytes::from_static(b"1")));
    assert!(matches!(refused(&directory), Error::InUse(_)));
    drop(snapshot);
    open(&directory);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let directory = TempDir::new().unwrap();
    drop(open(&directory));
    let format = directory.path().join("format");
    let text = std::fs::read_to_string(&format).unwrap();
    assert_eq!(text, "tandem embedded store, format 1\n");
    std::fs::write(&format, text.replace('1', "2")).unwrap();
    let error = refused(&directory);
    assert!(matches!(error, Error::NewerFormat { found: 2, known: 1, .. }), "{error}");
    std::fs::write(&format, "something else").unwrap();
    let error = refused(&directory);
    assert!(matches!(&error, Error::Damaged(text) if text.contains("does not name a format")), "{error}");
    std::fs::remove_file(&format).unwrap();
    let error = refused(&directory);
    assert!(matches!(&error, Error::Damaged(text) if text.contains("no file \"format\"")), "{error}");
    std::fs::write(&format, text).unwrap();
    open(&directory);
}

#[test]
fn a_start_that_was_cut_off_is_done_again() {
    let directory = TempDir::new().unwrap();
    let new = directory.path().join("data.new");
    std::fs::create_dir_all(new.join("keyspaces")).unwrap();
    std::fs::write(new.join("0.jnl"), "half").unwrap();
    std::fs::write(directory.path().join("format"), "tandem embedded store, format 1\n").unwrap();
    open(&directory);
    assert!(!new.exists());
}

#[test]
fn what_cannot_be_opened_says_why() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = EmbeddedStore::open(&file, options()).map(drop).unwrap_err();
    assert!(matches!(&error, Error::Unavailable(text) if text.contains("file")), "{error}");

    drop(open(&directory));
    std::fs::write(directory.path().join("data/version"), "nonsense").unwrap();
    let error = refused(&directory);
    let shown = directory.path().to_string_lossy().into_owned();
    assert!(matches!(&error, Error::Damaged(text) if text.contains(&shown)), "{error}");
}

#[tokio::test]
async fn a_torn_end_of_the_journal_loses_nothing_before_it() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory);
    Transaction::begin(&store).await.put("a", "whole").put("b", "whole").must_commit().await;
    let journal = directory.path().join("data/0.jnl");
    let whole = journal_end(&journal);
    Transaction::begin(&store).await.put("a", "torn").put("b", "torn").must_commit().await;
    let torn = journal_end(&journal);
    drop(store);
    let bytes = std::fs::read(&journal).unwrap();
    // As a crash in the middle of the last write leaves it: cut at every place of that write.
    for cut in (whole..torn).step_by(2) {
        let mut cut_off = bytes[..cut].to_vec();
        cut_off.resize(bytes.len(), 0);
        std::fs::write(&journal, cut_off).unwrap();
        let store = open(&directory);
        for key in ["a", "b"] {
            assert_eq!(value(&store, key).await, Some(Bytes::from_static(b"whole")), "cut at {cut} of {whole}..{torn}");
        }
    }
}

/// Flips one bit of a table file at a time. What the reader gets is the row or an error, never another row.
#[tokio::test]
async fn a_damaged_table_is_noticed() {
    const ROWS: usize = 50;
    let directory = TempDir::new().unwrap();
    let store = open(&directory);
    let text = |row: usize| format!("value {row} {}", "x".repeat(row));
    let mut transaction = Transaction::begin(&store).await;
    for row in 0..ROWS {
        transaction = transaction.put(&format!("key {row:02}"), &text(row));
    }
    transaction.must_commit().await;
    store.handle.shared.current().engine.rows.rotate_memtable_and_wait().unwrap();
    drop(store);
    let journal = directory.path().join("data/0.jnl");
    std::fs::write(&journal, vec![0; std::fs::read(&journal).unwrap().len()]).unwrap();
    let tables: Vec<_> = std::fs::read_dir(directory.path().join("data/keyspaces/1/tables")).unwrap().collect();
    let [Ok(table)] = &tables[..] else { panic!("{tables:?}") };
    let whole = std::fs::read(table.path()).unwrap();
    let mut damaged = 0;
    for position in (0..whole.len()).step_by(whole.len() / 40) {
        let mut bytes = whole.clone();
        bytes[position] ^= 1;
        std::fs::write(table.path(), bytes).unwrap();
        match read_all(&directory).await {
            Ok(rows) => {
                assert!(rows.iter().map(|(_, value)| &value[..]).eq((0..ROWS).map(text).map(String::into_bytes)));
            }
            Err(Error::Damaged(_) | Error::Unavailable(_)) => damaged += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(damaged > 0);
    std::fs::write(table.path(), whole).unwrap();
    assert_eq!(read_all(&directory).await.unwrap().len(), ROWS);
}

async fn read_all(directory: &TempDir) -> Result<Vec<(Bytes, Bytes)>, Error> {
    let store = EmbeddedStore::open(directory.path(), options())?;
    store.snapshot().await?.scan(&KeyRange::prefix(b""), usize::MAX, false).await
}

/// Where the zeroes begin that the journal was made with.
fn journal_end(journal: &Path) -> usize {
    std::fs::read(journal).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1
}

#[tokio::test]
async fn a_full_disk_refuses_commits_until_there_is_room() {
    let directory = TempDir::new().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let free_space: FreeSpace = {
        let full = Arc::clone(&full);
        Arc::new(move || Ok(if full.load(Ordering::SeqCst) { 1_000 } else { 1 << 40 }))
    };
    let options = Options { reserve_bytes: 1_001, free_space: Some(free_space), ..options() };
    let store = EmbeddedStore::open(directory.path(), options).unwrap();
    Transaction::begin(&store).await.put("a", "1").must_commit().await;

    full.store(true, Ordering::SeqCst);
    let error = Transaction::begin(&store).await.put("a", "2").end().await.unwrap_err();
    assert!(matches!(&error, Error::Full(text) if text.contains("1000 bytes are free")), "{error}");
    assert_eq!(value(&store, "a").await, Some(Bytes::from_static(b"1")), "reads go on");
    let mut reader = Transaction::begin(&store).await;
    reader.get("a").await;
    reader.must_commit().await;

    full.store(false, Ordering::SeqCst);
    let mut transaction = Transaction::begin(&store).await;
    transaction.get("a").await;
    transaction.put("a", "3").must_commit().await;
    assert_eq!(value(&store, "a").await, Some(Bytes::from_static(b"3")));
    let statistics = store.statistics();
    assert_eq!((statistics.commits, statistics.refused_full, statistics.syncs), (2, 1, 2));
}

#[tokio::test]
async fn a_file_system_that_does_not_answer_is_not_a_full_one() {
    let directory = TempDir::new().unwrap();
    let free_space: FreeSpace = Arc::new(|| Err(io::Error::other("gone")));
    let options = Options { free_space: Some(free_space), ..options() };
    let store = EmbeddedStore::open(directory.path(), options).unwrap();
    let error = Transaction::begin(&store).await.put("a", "1").end().await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable(text) if text.contains("gone")), "{error}");
}

#[tokio::test]
async fn a_store_that_has_stopped_answers_nothing_any_more() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory);
    Transaction::begin(&store).await.put("a", "1").must_commit().await;
    let transaction = Transaction::begin(&store).await.put("a", "2");
    store.handle.shared.stop("the disk has failed".to_owned());
    let error = transaction.end().await.unwrap_err();
    assert!(matches!(&error, Error::Stopped(text) if text == "the disk has failed"), "{error}");
    assert!(matches!(store.snapshot().await, Err(Error::Stopped(_))), "what is durable is not known any more");
    drop(store);
    assert_eq!(value(&open(&directory), "a").await, Some(Bytes::from_static(b"1")), "the restart tells");
}

#[tokio::test]
async fn a_commit_thread_that_panics_stops_the_store() {
    let directory = TempDir::new().unwrap();
    let options = Options { unix_ms: Arc::new(|| panic!("ordered by the test")), ..options() };
    let store = EmbeddedStore::open(directory.path(), options).unwrap();
    let transaction = Transaction::begin(&store).await.put("a", "1");
    let again = Transaction::begin(&store).await.put("a", "1");
    assert!(matches!(transaction.end().await, Err(Error::Stopped(_))));
    assert!(matches!(again.end().await, Err(Error::Stopped(_))));
}

#[tokio::test]
async fn keys_that_the_engine_cannot_store_are_refused() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory);
    for bad in [String::new(), "x".repeat(65_536)] {
        let error = Transaction::begin(&store).await.put(&bad, "1").end().await.unwrap_err();
        assert!(error.to_string().contains("1 to 65535 bytes"), "{error}");
    }
    let longest = "x".repeat(65_535);
    Transaction::begin(&store).await.put(&longest, "1").must_commit().await;
    assert_eq!(store.snapshot().await.unwrap().get(&Bytes::new()).await.unwrap(), None);
    assert_eq!(store.snapshot().await.unwrap().get(&longest.into()).await.unwrap(), Some(Bytes::from_static(b"1")));
}

#[tokio::test]
async fn a_view_that_is_older_than_the_window_conflicts() {
    let directory = TempDir::new().unwrap();
    let store = EmbeddedStore::open(directory.path(), Options { window_keys: 8, ..options() }).unwrap();
    let mut old = Transaction::begin(&store).await;
    old.get("untouched").await;
    let mut young = None;
    for round in 0..20 {
        Transaction::begin(&store).await.put(&format!("key {round}"), "v").must_commit().await;
        if round == 15 {
            let mut transaction = Transaction::begin(&store).await;
            transaction.get("untouched").await;
            young = Some(transaction);
        }
    }
    old.put("x", "1").must_conflict("untouched").await;
    young.unwrap().put("x", "2").must_commit().await;
}

/// Holds the commit thread in the clock until all commits wait, so that they become one group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_wait_together_share_one_sync_and_are_judged_against_each_other() {
    const COMMITS: u64 = 40;
    let directory = TempDir::new().unwrap();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (entered, is_entered) = std::sync::mpsc::channel::<()>();
    let (released, held) = (Mutex::new(released), AtomicBool::new(false));
    let unix_ms: UnixMillis = Arc::new(move || {
        if !held.swap(true, Ordering::SeqCst) {
            entered.send(()).unwrap();
            released.lock().unwrap().recv().unwrap();
        }
        1
    });
    let store = EmbeddedStore::open(directory.path(), Options { unix_ms, ..options() }).unwrap();
    let first = Transaction::begin(&store).await.put("first", "1");
    let mut waiting = Vec::new();
    for number in 0..COMMITS {
        let mut transaction = Transaction::begin(&store).await;
        transaction.get("contended").await;
        waiting.push(transaction.put("contended", &format!("{number:02}")));
    }
    let first = tokio::spawn(first.must_commit());
    is_entered.recv().unwrap();
    let waiting: Vec<_> = waiting.into_iter().map(|transaction| tokio::spawn(transaction.end())).collect();
    let queued = || QUEUE_COMMITS - store.handle.requests.as_ref().map_or(0, mpsc::Sender::capacity);
    while queued() < waiting.len() {
        tokio::task::yield_now().await;
    }
    release.send(()).unwrap();
    first.await.unwrap();
    let mut committed = 0;
    for task in waiting {
        match task.await.unwrap().unwrap() {
            CommitResult::Committed(_) => committed += 1,
            CommitResult::Conflict(keys) => assert_eq!(keys, [Bytes::from_static(b"contended")]),
            CommitResult::Undetermined(why) => panic!("{why}"),
        }
    }
    assert_eq!(committed, 1, "the first of the group wins, all others have read what it changed");
    let statistics = store.statistics();
    assert_eq!((statistics.groups, statistics.syncs), (2, 2));
    assert_eq!((statistics.commits, statistics.conflicts), (2, COMMITS - 1));
    assert_eq!(statistics.bytes_written, 6 + 11);
}

#[tokio::test]
async fn a_group_of_one_gives_each_commit_a_sync_of_its_own() {
    const COMMITS: u64 = 20;
    let directory = TempDir::new().unwrap();
    let options = Options { group_commits_max: 1, ..options() };
    let store = EmbeddedStore::open(directory.path(), options).unwrap();
    let mut transactions = Vec::new();
    for number in 0..COMMITS {
        transactions.push(Transaction::begin(&store).await.put(&format!("key {number}"), "v"));
    }
    let tasks: Vec<_> = transactions.into_iter().map(|transaction| tokio::spawn(transaction.must_commit())).collect();
    for task in tasks {
        task.await.unwrap();
    }
    let statistics = store.statistics();
    assert_eq!((statistics.commits, statistics.groups, statistics.syncs), (COMMITS, COMMITS, COMMITS));
}

/// Rotates memtables and merges table files under snapshots that are still read.
#[tokio::test]
async fn snapshots_stay_stable_while_the_engine_tidies_up() {
    const ROUNDS: u64 = 30;
    let directory = TempDir::new().unwrap();
    let store = open(&directory);
    let engine = Arc::clone(&store.handle.shared.current().engine);
    let mut snapshots = Vec::new();
    for round in 0..ROUNDS {
        let transaction = Transaction::begin(&store).await.put("hot", &round.to_string());
        let transaction = if round % 2 == 0 { transaction.put("blink", "") } else { transaction.delete("blink") };
        transaction.must_commit().await;
        snapshots.push((round, store.snapshot().await.unwrap()));
        engine.rows.rotate_memtable_and_wait().unwrap();
        if round % 10 == 9 {
            engine.rows.major_compact().unwrap();
        }
    }
    for (round, snapshot) in snapshots {
        let keys = [Bytes::from_static(b"hot"), Bytes::from_static(b"blink")];
        let values = snapshot.batch_get(&keys).await.unwrap();
        assert_eq!(values[0], Some(Bytes::from(round.to_string())));
        assert_eq!(values[1].is_some(), round % 2 == 0);
    }
}
