//! List-append histories through the real runtime, and what the checker says of them.
//!
//! Clean where the contract says so; and where something is allowed, or broken on purpose, the checker must see it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]

use std::path::Path;
use std::time::Duration;

use tandem_model::ids::Timestamp;
use tandem_store::embedded::{self, EmbeddedStore};
use tandem_store::memory::MemoryStore;
use tandem_store::{Commit, CommitResult, Error, Store};
use tandem_store_tikv::TikvStore;
use tandem_store_tikv::options::Options;
use tandem_verify::history::workload::clients::{Load, Recorder, ask, read_all, run};
use tandem_verify::history::workload::functions::met;
use tandem_verify::history::workload::site::Site;
use tandem_verify::history::workload::{Action, Handler, Plan, Shape, Step};
use tandem_verify::history::{Isolation, Kind, Level, Report, Status, Transaction, check};
use tokio::time::{sleep, timeout};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(2);

fn embedded_store(directory: &Path) -> EmbeddedStore {
    // A test machine may be nearly full; how much room is left is not what is tested here.
    EmbeddedStore::open(directory, embedded::Options { reserve_bytes: 0, ..embedded::Options::default() }).unwrap()
}

/// Four lists, and everybody at them.
fn contended(seed: u64) -> Load {
    Load { seed, clients: 0..8, requests: 40, shape: Shape::of_keys(4) }
}

/// So many lists that few meet.
fn spread(seed: u64) -> Load {
    Load { seed, clients: 0..16, requests: 30, shape: Shape::of_keys(200) }
}

/// Checks a history, and that it means something: enough of it happened, at each level, and of each end.
fn judge(history: &[Transaction], level: Level) -> Report {
    let of = |status| history.iter().filter(|transaction| transaction.status == status).count();
    println!("{} committed, {} aborted, {} unknown", of(Status::Committed), of(Status::Aborted), of(Status::Unknown));
    let snapshots = history.iter().filter(|transaction| transaction.isolation == Isolation::Snapshot).count();
    assert!(of(Status::Committed) > history.len() / 2 && of(Status::Aborted) > 0, "too little happened");
    assert!(snapshots > 0 && snapshots < history.len() / 2, "{snapshots} of {}", history.len());
    let report = check(history, level).unwrap();
    println!("{report}");
    report
}

/// What clients of these runtimes see, and who reads everything afterwards.
async fn history<S: Store>(site: &Site<S>, load: &Load) -> Vec<Transaction> {
    let recorder = Recorder::default();
    run(&site.runtimes, &recorder, load).await.unwrap();
    read_all(&site.runtimes[0], &recorder, &load.shape).await.unwrap();
    recorder.history().unwrap()
}

async fn is_clean<S: Store>(store: S, load: &Load) {
    let site = Site::start(store).await.unwrap();
    let history = history(&site, load).await;
    let report = judge(&history, Level::Declared);
    assert!(report.is_clean(), "seed {}: {report}", load.seed);
    assert!(report.relations > report.happened, "hardly anybody saw anything of others: {}", report.relations);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_lists_in_memory_have_one_order() {
    is_clean(MemoryStore::new(), &contended(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_lists_on_disk_have_one_order() {
    let directory = tempfile::tempdir().unwrap();
    is_clean(embedded_store(directory.path()), &contended(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_lists_in_memory_have_one_order() {
    is_clean(MemoryStore::new(), &spread(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_lists_on_disk_have_one_order() {
    let directory = tempfile::tempdir().unwrap();
    is_clean(embedded_store(directory.path()), &spread(4)).await;
}

/// Runtimes that cannot reach each other, on handles to one store.
async fn are_clean<S: Store>(stores: Vec<S>, load: &Load) {
    let site = Site::start_each(stores).await.unwrap();
    let history = history(&site, load).await;
    let report = judge(&history, Level::Declared);
    assert!(report.is_clean(), "seed {}: {report}", load.seed);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runtimes_on_one_store_have_one_order() {
    let store = MemoryStore::new();
    are_clean(vec![store.clone(), store], &contended(5)).await;
}

/// Each with a store of its own on the cluster, as in two processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runtimes_on_tikv_have_one_order() {
    let Some(place) = tandem_e2e_tikv::shared().await.unwrap() else { return };
    let prefix = String::from_utf8(place.prefix).unwrap();
    let url = format!("tikv://{}/{}", place.cluster.pd_endpoints().join(","), prefix.trim_end_matches('/'));
    let options: Options = url.parse().unwrap();
    for (seed, keys) in [(8, 4), (9, 12)] {
        let options = Options { prefix: format!("{}/{seed}", options.prefix), ..options.clone() };
        let stores = vec![TikvStore::open(&options).await.unwrap(), TikvStore::open(&options).await.unwrap()];
        let load = Load { seed, clients: 0..8, requests: 40, shape: Shape::of_keys(keys) };
        are_clean(stores, &load).await;
    }
}

/// Two plans that each read one list and append to the other one, both reads before any append.
async fn skew(handler: Handler, [one, two]: [&str; 2]) -> Vec<Transaction> {
    let site = Site::start(MemoryStore::new()).await.unwrap();
    let (runtime, recorder) = (&site.runtimes[0], Recorder::default());
    let name = format!("skew-{}-{one}-{two}", handler.name());
    let plan = |entry: &str, read: &str, append: &str| {
        let meet = Step::new(&name, Action::Meet(2));
        let groups = [Step::new(read, Action::Read), meet, Step::new(append, Action::Append(1))];
        Plan::new(entry, handler, groups.map(|step| vec![step]).into())
    };
    let (first, second) = (plan("a", one, two), plan("b", two, one));
    let both = tokio::join!(ask(runtime, &recorder, 1, &first), ask(runtime, &recorder, 2, &second));
    assert_eq!((both, met(&name)), ((Ok(()), Ok(())), 2), "they were not at it together");
    ask(runtime, &recorder, 3, &read_both(one, two)).await.unwrap();
    let history = recorder.history().unwrap();
    assert!(history.iter().all(|transaction| transaction.status == Status::Committed), "{history:?}");
    history
}

fn read_both(one: &str, two: &str) -> Plan {
    Plan::new("last", Handler::Look, vec![[one, two].map(|name| Step::new(name, Action::Read)).into()])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_skew_of_snapshots_is_found() {
    for lists in [["list-0", "list-2"], ["log-1", "log-3"], ["list-0", "log-1"]] {
        let history = skew(Handler::Snapshot, lists).await;
        let report = check(&history, Level::StrictSerializable).unwrap();
        assert!(report.has(Kind::G2), "{lists:?}: {report}");
        assert!(check(&history, Level::Declared).unwrap().is_clean(), "it is what was promised");
        let history = skew(Handler::Run, lists).await;
        let report = check(&history, Level::StrictSerializable).unwrap();
        assert!(report.is_clean(), "{lists:?}: {report}");
    }
}

/// Answers of each life before the process is gone.
const LIFE: usize = 60;

/// One life of a process on a data directory: it ends in the middle of whatever it does, with everything in its memory.
fn live(directory: &Path, recorder: &Recorder, load: &Load) {
    let machine = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    machine.block_on(async {
        let store = opened(directory).await;
        let site = Site::start(store).await.unwrap();
        let until = recorder.answers() + LIFE;
        let enough = async {
            while recorder.answers() < until {
                sleep(POLL).await;
            }
        };
        tokio::select! {
            ran = run(&site.runtimes, recorder, load) => panic!("nothing was under way at the end: {ran:?}"),
            waited = timeout(PATIENCE, enough) => waited.expect("hardly anything is answered"),
        }
    });
    machine.shutdown_background();
}

/// Opens a store once the process that had it is gone.
async fn opened(directory: &Path) -> EmbeddedStore {
    let options = || embedded::Options { reserve_bytes: 0, ..embedded::Options::default() };
    let opening = async {
        loop {
            match EmbeddedStore::open(directory, options()) {
                Ok(store) => return store,
                Err(Error::InUse(_)) => sleep(POLL).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(PATIENCE, opening).await.expect("the directory stays in use")
}

#[test]
fn what_nobody_was_told_of_happened_whole_or_not_at_all() {
    const LIVES: u32 = 5;
    const CLIENTS: u32 = 12;
    let directory = tempfile::tempdir().unwrap();
    let recorder = Recorder::default();
    let shape = Shape::of_keys(6);
    for life in 0..LIVES {
        let first = life * CLIENTS;
        let load = Load { seed: 7, clients: first..first + CLIENTS, requests: 1_000, shape: shape.clone() };
        live(directory.path(), &recorder, &load);
    }
    let machine = tokio::runtime::Runtime::new().unwrap();
    machine.block_on(async {
        let site = Site::start(opened(directory.path()).await).await.unwrap();
        read_all(&site.runtimes[0], &recorder, &shape).await.unwrap();
    });
    let history = recorder.history().unwrap();
    let unknown = history.iter().filter(|transaction| transaction.status == Status::Unknown).count();
    assert!(unknown >= 10, "only {unknown} were under way when a process went");
    let report = judge(&history, Level::Declared);
    assert!(report.is_clean(), "{report}");
}

/// A store that believes whatever it is told.
#[derive(Clone, Debug)]
struct Gullible(MemoryStore);

impl Store for Gullible {
    type Snapshot = <MemoryStore as Store>::Snapshot;

    async fn snapshot(&self) -> Result<Self::Snapshot, Error> {
        self.0.snapshot().await
    }

    async fn snapshot_at(&self, at: Timestamp) -> Result<Self::Snapshot, Error> {
        self.0.snapshot_at(at).await
    }

    async fn commit(&self, commit: Commit) -> Result<CommitResult, Error> {
        self.0.commit(Commit { reads: Vec::new(), ranges: Vec::new(), ..commit }).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_validates_nothing_is_found() {
    let store = Gullible(MemoryStore::new());
    let site = Site::start_each(vec![store.clone(), store]).await.unwrap();
    let history = history(&site, &contended(6)).await;
    let report = check(&history, Level::StrictSerializable).unwrap();
    assert!(report.has(Kind::LostUpdate) || report.has(Kind::IncompatibleOrder), "{report}");
}
