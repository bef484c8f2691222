//! Committers on a simulated TiKV cluster, in one deterministic thread: the commit of `tandem-store-tikv` with faults
//! from a seed.
//!
//! ```text
//! committers ─transactions─▶ ClusterStore (one a process) ─▶ SimulatedClient ─messages─▶ SimulatedCluster
//!     └─ attempts ─▶ judge ◀─ rows at the end
//! ```
//!
//! | module | concept |
//! | --- | --- |
//! | [`plan`] | what a world is made of, from a seed |
//! | [`hosts`] | processes that die, stand still, and are cut off |
//! | [`work`] | transfers, lists, tables and pairs: what committers do |
//! | [`judge`] | whether what they were told fits together with what is stored |
//!
//! The same seed gives the same trace. While committers work, a looker checks in snapshots that money neither comes nor goes,
//! and that of each pair at most one is there. In the end nothing goes wrong any more: then everything must come to its end
//! within a minute, nothing may stay locked, and what was decided must still be so.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use tandem_store::{KeyRange, Snapshot, Store};
use tandem_store_tikv::simulated::SimulatedCluster;
use tokio::time::{Instant, sleep, timeout};

use crate::world::alarms::Alarms;

use hosts::Host;
use judge::Rows;
use plan::Plan;
use work::{BALANCE, Board, Ended, account_key, balance_of, committer, pair_key};

pub mod hosts;
pub mod judge;
pub mod plan;
pub mod work;

/// How often something is looked at that should come to an end.
const POLL: Duration = Duration::from_millis(20);
/// The longest wait between two looks.
const LOOK_MS_MAX: u64 = 200;
/// Sets what chance decides among committers apart from what it decides in the cluster.
const COMMITTERS: u64 = 1 << 42;
/// How long a world may take at most, beyond its plan. A world that takes longer is stuck.
const WORLD_MAX: Duration = Duration::from_mins(30);

/// What happened in a world.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The seed that it followed from.
    pub seed: u64,
    /// Digest of everything that happened.
    pub trace: u64,
    /// How many things happened.
    pub events: u64,
    /// How long it took, in virtual milliseconds.
    pub virtual_ms: u64,
    /// How often each thing really happened, faults among them.
    pub counts: BTreeMap<String, u64>,
    /// What was found.
    pub violations: Vec<String>,
    /// The trace, if it was asked for.
    #[serde(skip)]
    pub lines: Vec<String>,
}

impl Report {
    /// Whether nothing was found that must not be.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty()
    }

    /// The command that does it all again.
    pub fn replay(&self) -> String {
        format!("cargo run --release -p tandem-verify -- commits --seed {}", self.seed)
    }
}

/// Runs the world of a seed to its end, and judges it.
pub fn run(plan: &Plan) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let violations = vec![format!("no tokio runtime: {error}")];
            return Report { seed: plan.seed, violations, ..Report::default() };
        }
    };
    let alarms = Alarms::default();
    let mut report = alarms.watch(|| {
        runtime.block_on(async {
            let cluster = SimulatedCluster::new(plan.seed, &plan.shape);
            if plan.keep_lines {
                cluster.keep_lines();
            }
            let board = Board::new(plan, &cluster);
            let problem = timeout(WORLD_MAX, Box::pin(world(&board))).await;
            report(&board, problem.unwrap_or_else(|_| Err("the world is stuck".to_owned())))
        })
    });
    report.violations.extend(alarms.take());
    report
}

fn report(board: &Board<'_>, rows: Result<Rows, String>) -> Report {
    let cluster = &board.cluster;
    let mut violations = board.problems.take();
    let attempts = board.attempts.take();
    match rows {
        Ok(rows) => violations.extend(judge::judge(board.plan, &attempts, &rows)),
        Err(problem) => violations.push(problem),
    }
    let (trace, events) = cluster.digest();
    let mut counts: BTreeMap<String, u64> =
        cluster.counts().into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    for attempt in &attempts {
        let name = match &attempt.ended {
            Ended::Committed(_) => "committed",
            Ended::Rejected(why) if why.starts_with("conflict") => "conflicts",
            Ended::Rejected(_) => "unavailable",
            Ended::Decided(true) => "undetermined-committed",
            Ended::Decided(false) => "undetermined-absent",
            Ended::Unknown => "unknown",
        };
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    let (seed, virtual_ms, lines) = (board.plan.seed, cluster.now_ms(), cluster.lines());
    Report { seed, trace, events, virtual_ms, counts, violations, lines }
}

/// Everything, to the end. Gives what is stored then.
async fn world(board: &Board<'_>) -> Result<Rows, String> {
    let plan = board.plan;
    let mut random = SmallRng::seed_from_u64(plan.seed.wrapping_add(COMMITTERS));
    board.cluster.set_faults(plan.faults);
    let committers: Vec<_> =
        (0..plan.processes * plan.committers).map(|place| Box::pin(committer(board, place, random.random()))).collect();
    let looker = Box::pin(look(board, SmallRng::from_rng(&mut random)));
    let calm = async {
        sleep(Duration::from_millis(plan.calm_after_ms)).await;
        board.cluster.calm();
        board.cluster.note("calm");
        Instant::now() + plan.convergence
    };
    let trouble = async {
        tokio::select! {
            biased;
            () = sleep(Duration::from_millis(plan.calm_after_ms)) => {}
            () = board.hosts.trouble(plan) => {}
        }
    };
    tokio::select! {
        biased;
        _ = async { tokio::join!(calm, trouble, join_all(committers)) } => {}
        () = looker => {}
    }
    end(board).await
}

/// Looks at money and pairs in snapshots, again and again.
async fn look(board: &Board<'_>, mut random: SmallRng) {
    loop {
        sleep(Duration::from_millis(random.random_range(1..=LOOK_MS_MAX))).await;
        let host = board.hosts.at(random.random_range(0..board.plan.processes));
        let looked = async {
            let Ok(view) = host.store.snapshot().await else { return };
            if random.random() { look_by_key(board, &view).await } else { look_by_range(board, &view).await }
        };
        tokio::select! {
            biased;
            () = host.died() => {}
            () = looked => {}
        }
    }
}

async fn look_by_key<S: Snapshot>(board: &Board<'_>, view: &S) {
    let keys: Vec<Bytes> = (0..board.plan.accounts).map(account_key).collect();
    let Ok(values) = view.batch_get(&keys).await else { return };
    check_sum(board, view, values.iter().map(|value| balance_of(value.as_ref())));
    for pair in 0..board.plan.pairs {
        let Ok(sides) = view.batch_get(&[pair_key(pair, 0), pair_key(pair, 1)]).await else { return };
        if sides.iter().all(Option::is_some) {
            board.problem(format!("both of pair {pair} are there at {}", view.timestamp()));
        }
    }
}

async fn look_by_range<S: Snapshot>(board: &Board<'_>, view: &S) {
    let range = KeyRange::prefix(b"a/");
    let (reverse, all) = (view.timestamp().0.is_multiple_of(2), usize::MAX);
    let Ok(rows) = view.scan(&range, all, reverse).await else { return };
    let missing = board.plan.accounts.saturating_sub(rows.len());
    let balances = rows.iter().map(|(_, value)| balance_of(Some(value)));
    check_sum(board, view, balances.chain(std::iter::repeat_n(Some(BALANCE), missing)));
}

fn check_sum<S: Snapshot>(board: &Board<'_>, view: &S, balances: impl Iterator<Item = Option<i64>>) {
    let sum: Option<i64> = balances.sum();
    let expected = BALANCE * i64::try_from(board.plan.accounts).unwrap_or(0);
    board.cluster.note(&format!("a look at {}: {sum:?}", view.timestamp()));
    if sum != Some(expected) {
        board.problem(format!("there is {sum:?} instead of {expected} at {}", view.timestamp()));
    }
}

/// When all committers are done: late messages arrive, locks go, and what is stored is what can be read.
async fn end(board: &Board<'_>) -> Result<Rows, String> {
    board.cluster.note("all committers are done");
    // Late requests may take their time; nothing waits for them but we.
    while board.cluster.in_flight() > 0 {
        sleep(POLL).await;
    }
    let host = Host::new(&board.cluster, board.plan.timeouts);
    let until = Instant::now() + board.plan.convergence;
    let everything = KeyRange { start: Bytes::new(), end: None };
    loop {
        let read = async {
            let view = host.store.snapshot().await?;
            view.scan(&everything, usize::MAX, false).await
        };
        let read = read.await;
        let idle = board.cluster.in_flight() == 0 && board.cluster.locks().is_empty();
        match read {
            Ok(rows) if idle => return stored(board, &rows),
            _ if Instant::now() > until => {
                return Err(format!("not at rest after {:?}: {:?}", board.plan.convergence, board.cluster.locks()));
            }
            _ => sleep(POLL).await,
        }
    }
}

fn stored(board: &Board<'_>, read: &[(Bytes, Bytes)]) -> Result<Rows, String> {
    let rows = board.cluster.rows();
    let same = rows.iter().map(|(_, key, value)| (key, value)).eq(read.iter().map(|(key, value)| (key, value)));
    if !same {
        return Err("what is read at the end is not what is stored".to_owned());
    }
    Ok(rows.into_iter().map(|(at, key, value)| (key, (at, value))).collect())
}
