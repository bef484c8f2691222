//! What was acknowledged survives `kill -9`, whole, whenever it comes.
//!
//! The test starts itself again as a child that writes and reports each acknowledged commit, kills the child after a
//! pseudo-random number of reports, opens the directory, and compares. To see it fail: answer before `write` in the
//! committer, or write a group in two batches.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of a test that cannot go on fails the test")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tandem_model::ids::Timestamp;
use tandem_store::conformance::Transaction;
use tandem_store::embedded::{EmbeddedStore, Options};
use tandem_store::{CommitResult, Snapshot, Store};
use tempfile::TempDir;

/// Where the child finds the directory; its presence makes a process the child.
const DIRECTORY: &str = "TANDEM_CRASH_TEST_DIRECTORY";
const CHILD: &str = "child_that_writes_until_it_is_killed";
const KILLS: u64 = 10;
const WRITERS: u64 = 4;
/// A writer touches the row that all share in each such round.
const SHARED_EVERY: u64 = 4;
/// Large enough that the journal is written in many pieces, between which the kill can fall.
const PADDING_BYTES: usize = 9_000;

/// Small memtables, so that files are written, merged and removed while the process is killed.
fn open(path: &Path) -> EmbeddedStore {
    let options = Options { reserve_bytes: 0, memtable_bytes: 256 << 10, ..Options::default() };
    EmbeddedStore::open(path, options).unwrap()
}

/// `n`, followed by bytes that depend on it, so that a torn value cannot pass.
fn padded(n: u64) -> String {
    let mark = format!("{n}/");
    let padding = mark.repeat(PADDING_BYTES / mark.len());
    format!("{n}:{padding}")
}

fn number(value: Option<String>) -> u64 {
    let Some(value) = value else { return 0 };
    let n = value.split(':').next().unwrap().parse().unwrap();
    assert!(!value.contains(':') || value == padded(n), "the value of {n} is torn");
    n
}

/// Not a test of its own: what the other test starts as a process.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(DIRECTORY) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let store = open(Path::new(&path));
        let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(write(store.clone(), writer))).collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

async fn write(store: EmbeddedStore, writer: u64) {
    loop {
        let mut transaction = Transaction::begin(&store).await;
        let n = number(transaction.get(&format!("counter/{writer}")).await) + 1;
        let mut shared = None;
        if n.is_multiple_of(SHARED_EVERY) {
            shared = Some(number(transaction.get("shared").await) + SHARED_EVERY);
        }
        let transaction = transaction.put(&format!("counter/{writer}"), &padded(n));
        let mut transaction = transaction.put(&format!("mirror/{writer}"), &padded(n));
        if let Some(shared) = shared {
            transaction = transaction.put("shared", &shared.to_string());
        }
        match transaction.end().await.unwrap() {
            CommitResult::Committed(at) => report(writer, n, at),
            CommitResult::Conflict(keys) => assert_eq!(keys, ["shared"]),
            CommitResult::Undetermined(why) => panic!("{why}"),
        }
    }
}

/// One write to the pipe, so that a report is there or is not.
fn report(writer: u64, n: u64, at: Timestamp) {
    let line = format!("\nack {writer} {n} {at}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

#[derive(Default)]
struct Acknowledged {
    /// The last number of each writer.
    counters: BTreeMap<u64, u64>,
    last: Timestamp,
    reports: u64,
}

impl Acknowledged {
    fn take(&mut self, line: &str, before: Timestamp) {
        let Some(report) = line.strip_prefix("ack ") else { return };
        let parts: Vec<u64> = report.split(' ').map(|part| part.parse().unwrap()).collect();
        let [writer, n, at] = parts[..] else { panic!("{line:?}") };
        assert!(Timestamp(at) > before, "{at} must be after {before}, which was acknowledged before the restart");
        self.counters.insert(writer, n);
        self.last = self.last.max(Timestamp(at));
        self.reports += 1;
    }
}

fn start_child(directory: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", CHILD, "--nocapture"]).env(DIRECTORY, directory);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Runs a child, kills it when it has made so many reports, and takes the reports that were under way too.
fn run_and_kill(directory: &Path, acknowledged: &mut Acknowledged, reports: u64) {
    let before = acknowledged.last;
    let mut child = start_child(directory);
    let until = acknowledged.reports + reports;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        acknowledged.take(&line.unwrap(), before);
        if acknowledged.reports == until {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(acknowledged.reports >= until && status.code().is_none(), "the child ended by itself: {status}");
}

#[tokio::test]
async fn acknowledged_commits_survive_kill_9() {
    let directory = TempDir::new().unwrap();
    let mut acknowledged = Acknowledged::default();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for kill in 0..KILLS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        run_and_kill(directory.path(), &mut acknowledged, 1 + (random >> 33) % 300);

        let store = open(directory.path());
        let snapshot = store.snapshot().await.unwrap();
        assert!(snapshot.timestamp() >= acknowledged.last, "kill {kill}: a timestamp was lost");
        let mut transaction = Transaction::begin(&store).await;
        let mut shared = 0;
        for writer in 0..WRITERS {
            let n = number(transaction.get(&format!("counter/{writer}")).await);
            let reported = acknowledged.counters.get(&writer).copied().unwrap_or(0);
            // One commit of each writer may have been under way when the kill came.
            assert!((reported..=reported + 1).contains(&n), "kill {kill}: {reported} was acknowledged, {n} is there");
            assert_eq!(number(transaction.get(&format!("mirror/{writer}")).await), n, "kill {kill}: a commit is torn");
            shared += n - n % SHARED_EVERY;
            acknowledged.counters.insert(writer, n);
        }
        assert_eq!(number(transaction.get("shared").await), shared, "kill {kill}: a commit is torn");
        acknowledged.last = acknowledged.last.max(snapshot.timestamp());
    }
}
