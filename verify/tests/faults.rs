//! A short selection of `tandem-verify faults`, and the same with mechanisms turned off: then runs must be bad. On the same
//! cluster, for some seconds, what people run: the demo of the example `orders`, and `tandem verify`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser as _;
use tandem_e2e_tikv::shared::alone;
use tandem_e2e_tikv::{Cluster, slots};
use tandem_model::mechanism::{Mechanism, sabotage};
use tandem_server::flags::Flags;
use tandem_server::settings;
use tandem_verify::faults::{self, Case, Launch, Plan, Report};
use tandem_verify::process::{self, Kind, Programs};
use tokio::sync::OnceCell;

/// Names the mechanism that a runtime has to do without.
const WITHOUT: &str = "TANDEM_VERIFY_WITHOUT";
/// The flags of that runtime.
const FLAGS: &str = "TANDEM_VERIFY_FLAGS";
/// Tries of a run that has to be bad: what meets what is not up to us.
const TRIES: u64 = 8;

/// Parts of one cluster: none of these runs does anything to stores or PD.
const PLACES: &[&str] = &[
    "kill-after-prewrite",
    "kill-before-secondaries",
    "lost-commit-replies",
    "two-owners",
    "no-guards-1",
    "no-guards-2",
    "no-reads-1",
    "no-reads-2",
    "no-messages-1",
    "no-messages-2",
];

/// Where the demo keeps its state, in regions on all stores.
const DEMO: &str = "m/demo";
/// Enough that some are under way when a runtime is killed.
const ORDERS: &str = "60";

static CLUSTER: OnceCell<Option<Arc<Cluster>>> = OnceCell::const_new();

async fn shared() -> Option<&'static Arc<Cluster>> {
    let start = || async {
        let options = faults::cluster_options(PLACES, false);
        let options = options.slots_behind(&slots::rows_behind(format!("{DEMO}/").as_bytes()));
        alone(options).await.unwrap().map(Arc::new)
    };
    CLUSTER.get_or_init(start).await.as_ref()
}

fn verify() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_tandem-verify"))
}

/// `cargo test --workspace` puts all programs beside `tandem-verify`.
fn beside(program: &str, package: &str) -> PathBuf {
    let path = verify().with_file_name(program);
    assert!(path.exists(), "{} is not there; build it with: cargo build -p {package}", path.display());
    path
}

fn runtime() -> Launch {
    let runtime = beside("tandem-runtime", "tandem-server");
    Launch { command: vec![runtime.display().to_string()], environment: Vec::new() }
}

fn plan(name: &str, place: &str, launch: Launch) -> Plan {
    let case = Case::named(name).unwrap();
    Plan { case, seed: 1, place: place.to_owned(), verify: verify(), launch, tells: false }
}

fn assert_good(report: &Report) {
    println!("{report:#?}");
    assert!(report.is_good(), "{:#?}\nlogs: {:?}", report.violations, report.kept);
    assert!(report.count("COMMITTED") > 20, "hardly anything happened");
}

async fn is_good(name: &str) {
    let Some(cluster) = shared().await else { return };
    assert_good(&faults::run(&plan(name, name, runtime()), cluster).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_is_killed_after_its_prewrites_leaves_nothing() {
    is_good("kill-after-prewrite").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_is_killed_after_its_primary_leaves_all() {
    is_good("kill-before-secondaries").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_of_commits_are_decided() {
    is_good("lost-commit-replies").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_who_own_everything_cannot_both_commit() {
    is_good("two-owners").await;
}

/// Killed with all its proxies between: a cluster of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_killed_takes_nothing_with_it() {
    let case = Case::named("store-killed").unwrap();
    let options = faults::cluster_options(&[case.name], case.disturbs());
    let Some(cluster) = alone(options).await.unwrap() else { return };
    assert_good(&faults::run(&plan(case.name, case.name, runtime()), &Arc::new(cluster)).await);
}

/// This program again, as a runtime that lacks a mechanism: see `saboteur`. The shell makes one variable of all flags.
fn without(mechanism: Mechanism) -> Launch {
    let this = std::env::current_exe().unwrap();
    let script = format!("{FLAGS}=\"$*\" exec {} --exact saboteur --nocapture", this.display());
    let command = ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
    Launch { command, environment: vec![(WITHOUT.to_owned(), mechanism.name().to_owned())] }
}

#[test]
fn saboteur() {
    let (Ok(without), Ok(flags)) = (std::env::var(WITHOUT), std::env::var(FLAGS)) else { return };
    let mechanism = Mechanism::all().iter().find(|mechanism| mechanism.name() == without).unwrap();
    let _without = sabotage::without(*mechanism);
    let flags = Flags::parse_from(std::iter::once("tandem-runtime").chain(flags.split_whitespace()));
    let settings = settings::read(&flags).unwrap();
    // On one thread, the one that lacks it.
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    executor.block_on(tandem_server::process::run(&settings, &flags)).unwrap();
}

/// A run that has to be bad, and why.
async fn is_noticed(mechanism: Mechanism, name: &str, place: &str, why: &[&str]) {
    let Some(cluster) = shared().await else { return };
    let mut last = Vec::new();
    for seed in 1..=TRIES {
        let place = format!("{place}-{seed}");
        let report = faults::run(&Plan { seed, ..plan(name, &place, without(mechanism)) }, cluster).await;
        if let Some(kept) = &report.kept {
            std::fs::remove_dir_all(kept).unwrap();
        }
        println!("{:#?}", report.violations);
        if report.violations.iter().any(|violation| why.iter().any(|why| violation.contains(why))) {
            return;
        }
        last = report.violations;
    }
    panic!("without {mechanism:?}, nothing of {why:?} is noticed, but {last:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_guarded_writes_updates_are_lost() {
    // Of a list, or of an account.
    is_noticed(Mechanism::TikvGuards, "two-owners", "no-guards", &["a circle", "does not add up"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_validated_reads_nobody_is_on_call_or_updates_are_lost() {
    // Which of the two is seen first depends on who meets whom.
    is_noticed(Mechanism::TikvReads, "two-owners", "no-reads", &["nobody is on call", "a circle"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_messages_in_the_transaction_receipts_are_missing() {
    is_noticed(Mechanism::MessagesWritten, "kill-before-secondaries", "no-messages", &["receipts/"]).await;
}

/// What `make demo STORE=tikv` runs: three runtimes, one of which is killed, and all invariants of the shop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_keeps_its_invariants() {
    let Some(cluster) = shared().await else { return };
    let (demo, _) = (beside("orders-demo", "orders"), runtime());
    let data = tempfile::tempdir().unwrap();
    let store = format!("tikv://{}/{DEMO}", cluster.pd_endpoints().join(","));
    let mut command = tokio::process::Command::new(demo);
    command.args(["--orders", ORDERS, "--store", &store, "--data"]).arg(data.path().join("demo"));
    command.arg("--application").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/orders"));
    let ended = command.kill_on_drop(true).output().await.unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(ended.status.success(), "{said}");
    for expected in ["killed runtime 2 of 3", ": 0 orders lost, 0 doubled", "all 13 invariants hold"] {
        assert!(said.contains(expected), "no {expected:?} in:\n{said}");
    }
}

/// What `tandem verify --store tikv://... --kill` runs, in turn with histories.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_programs_keep_the_contract_on_tikv() {
    const SECONDS: u64 = 5;
    let Some(cluster) = shared().await else { return };
    let programs = Programs::beside(&verify()).unwrap();
    let store = format!("tikv://{}/m", cluster.pd_endpoints().join(","));
    let programs = Programs { store: Some(store), ..programs };
    let report = process::run(&programs, Kind::Processes, &process::Plan::of(1, SECONDS)).await.unwrap();
    assert!(report.is_good(), "{:#?}\n{}", report.violations, report.replay());
    assert!(report.count("flows-replayed") > 20, "hardly anything happened");
}
