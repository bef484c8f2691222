//! Random programs and histories against real processes that are killed: a short selection of what `make soak` does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]

use std::path::Path;

use tandem_verify::process::{self, Kind, Plan, Programs, Report};

/// Long enough for several kills.
const SECONDS: u64 = 7;

async fn run(kind: Kind, plan: &Plan) -> Report {
    // `cargo test --workspace` puts `tandem` beside it.
    let programs =
        Programs::beside(Path::new(env!("CARGO_BIN_EXE_tandem-verify"))).unwrap_or_else(|error| panic!("{error:#}"));
    let report = process::run(&programs, kind, plan).await.unwrap();
    println!("{kind:?}, seed {}: {:#?}", plan.seed, report.counts);
    report
}

async fn is_good(kind: Kind, seed: u64) -> Report {
    let report = run(kind, &Plan::of(seed, SECONDS)).await;
    assert!(report.is_good(), "{:#?}\n{}", report.violations, report.replay());
    assert!(report.runtime_kills() > 0, "nothing was killed");
    report
}

/// Let `Site::observe` skip a row, or a client take 503 for an answer, and this fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_keep_the_contract_while_processes_are_killed() {
    let report = is_good(Kind::Processes, 1).await;
    assert!(report.count("flows-replayed") > 50, "hardly anything happened");
    assert!(report.count("samples") > 0, "nobody looked at the store after a kill");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_have_no_anomaly_while_processes_are_killed() {
    let report = is_good(Kind::Histories, 2).await;
    assert!(report.count("transactions-committed") > 50, "hardly anything happened");
    assert_eq!(report.count("transactions-unknown"), 0, "a client gave up");
}

/// A store that loses what it had said was written.
async fn is_noticed(kind: Kind, seed: u64) {
    let report = run(kind, &Plan { forgets: true, ..Plan::of(seed, SECONDS) }).await;
    assert!(report.violations_found > 0, "nobody noticed that commits are gone");
    println!("{:#?}", report.violations);
    if let Some(kept) = report.kept {
        std::fs::remove_dir_all(kept).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_notice_that_commits_are_gone() {
    is_noticed(Kind::Processes, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_notice_that_commits_are_gone() {
    is_noticed(Kind::Histories, 4).await;
}
