//! Random programs and histories against real processes, with kill -9.
//!
//! ```text
//! clients ─HTTP─▶ tandem dev ⇄ embedded store, TiKV killed at random moments, and just after a write
//!                     ⇅ gRPC, HTTP profile
//!                 tandem-verify worker, twice        killed, frozen
//! ```
//!
//! What is sent, and what goes wrong, follows from a seed; when it happens does not, since the clock is that of the
//! wall. So a seed that failed may not fail again, but its directory is kept.
//!
//! Random programs are judged by [`crate::model::judge`]: the whole store is looked at after each kill, and at the end.
//! Histories are judged by [`crate::history::check`].
//!
//! A kill of a process does not take from it what the operating system has; that a sync is needed before an answer is
//! shown in the tests of the mechanisms.
//!
//! | module | concept |
//! | --- | --- |
//! | `site` | the runtime and its workers, in a directory of their own |
//! | `place` | where its state is |
//! | `child` | processes that do not outlive us |
//! | [`worker`] | what a worker process runs |
//! | `profile` | the functions that run programs, for the HTTP profile |
//! | `plan` | what follows from a seed |
//! | `client`, `histories` | who sends what, until it is known what came of it |
//! | `web` | HTTP, to a runtime that may be gone |
//! | `faults` | what goes wrong |
//! | `journal` | what happened |

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::model::judge::{History, Sample, judge};

use client::Clients;
use histories::Histories;
use journal::{CALM, CALM_SUCCEEDED, Journal};
use plan::Cast;
use site::Site;

pub use plan::Plan;
pub use site::Programs;

pub(crate) mod child;
mod client;
mod faults;
pub(crate) mod histories;
pub(crate) mod journal;
pub(crate) mod place;
pub(crate) mod plan;
mod profile;
pub(crate) mod site;
pub(crate) mod web;
pub mod worker;

/// Everything has to work again so long after the last fault.
const MENDED_WITHIN: Duration = Duration::from_secs(30);
/// Some client has to learn something in any such time once faults have stopped, and messages have to drain.
const CONVERGENCE_MAX: Duration = Duration::from_mins(1);
/// How often it is looked whether clients are done.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// First wait between two looks at messages that have yet to end: each costs a restart.
const DRAIN_FIRST: Duration = Duration::from_millis(500);
/// Percent of the operations outside of faults that have to succeed.
const CALM_SUCCEEDED_PERCENT_MIN: u64 = 80;
/// A run of so many seconds must have had kills.
const KILLS_AFTER_SECONDS: u64 = 5;
/// What all kinds of kills of the runtime begin with.
const RUNTIME_KILLED: &str = "runtime-killed";

/// What was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Random programs.
    Processes,
    /// List-append histories.
    Histories,
}

impl Kind {
    /// Its command.
    pub fn command(self) -> &'static str {
        match self {
            Self::Processes => "processes",
            Self::Histories => "processes --histories",
        }
    }
}

/// What happened in a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was run.
    pub kind: Kind,
    /// The seed.
    pub seed: u64,
    /// How long faults went on.
    pub seconds: u64,
    /// How often each thing happened, faults among them.
    pub counts: BTreeMap<String, u64>,
    /// What must not be. Empty is good.
    pub violations: Vec<String>,
    /// How many there were; not all are told.
    pub violations_found: usize,
    /// Where the data is, if something was found.
    pub kept: Option<PathBuf>,
}

impl Report {
    /// Whether nothing was found that must not be.
    pub fn is_good(&self) -> bool {
        self.violations_found == 0
    }

    /// The command that does the same again.
    pub fn replay(&self) -> String {
        let (command, seed, seconds) = (self.kind.command(), self.seed, self.seconds);
        format!("cargo run --release -p tandem-verify -- {command} --seed {seed} --seconds {seconds}")
    }

    /// How often something happened.
    pub fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    /// How often the runtime was killed, at whatever moment.
    pub fn runtime_kills(&self) -> u64 {
        runtime_kills(&self.counts)
    }
}

/// How often the runtime was killed, at whatever moment, by the counts of a report.
pub fn runtime_kills(counts: &BTreeMap<String, u64>) -> u64 {
    counts.iter().filter(|(name, _)| name.starts_with(RUNTIME_KILLED)).map(|(_, count)| count).sum()
}

/// Who sends what.
#[derive(Clone)]
enum Load {
    Programs(Arc<Clients>),
    Histories(Arc<Histories>),
}

impl Load {
    fn count(&self) -> usize {
        match self {
            Self::Programs(clients) => clients.count(),
            Self::Histories(histories) => histories.count(),
        }
    }

    async fn run(self, client: usize, until: Instant) {
        match self {
            Self::Programs(clients) => clients.run(client, until).await,
            Self::Histories(histories) => histories.run(client, until).await,
        }
    }

    /// Whether all functions do what they are asked.
    async fn probe(&self) -> anyhow::Result<bool> {
        match self {
            Self::Programs(clients) => clients.probe().await,
            Self::Histories(histories) => Ok(histories.probe().await),
        }
    }
}

/// A run that is under way.
struct Run {
    site: Site,
    journal: Arc<Journal>,
    load: Load,
    forgets: bool,
    kills: bool,
    samples: Vec<Sample>,
}

/// What a run ended with.
#[derive(Default)]
struct Verdict {
    violations: Vec<String>,
    violations_found: usize,
    counts: Vec<(String, u64)>,
}

/// Runs programs or histories, and judges them. `Err` means that there was nothing to judge.
pub async fn run(programs: &Programs, kind: Kind, plan: &Plan) -> anyhow::Result<Report> {
    let journal = Arc::new(Journal::new(plan.tells));
    let mut random = SmallRng::seed_from_u64(plan.seed ^ 0x70_72_6f_63);
    let (site, load) = match kind {
        Kind::Processes => {
            let cast = Cast::of(plan.seed, plan.seconds);
            journal.note(&format!("{cast:?}"));
            let site = Site::new(programs, &cast.application, &journal)?;
            let clients = Clients::new(&cast.habits, site.web(), SmallRng::from_rng(&mut random))?;
            (site, Load::Programs(Arc::new(clients)))
        }
        Kind::Histories => {
            let site = Site::new(programs, &plan::histories(plan.seed), &journal)?;
            let histories = Histories::new(plan.seed, site.web());
            (site, Load::Histories(Arc::new(histories)))
        }
    };
    let mut run = Run { site, journal, load, forgets: plan.forgets, kills: plan.kills, samples: Vec::new() };
    let mut verdict = Verdict::default();
    // What does not start, or not any more, is a finding like any other.
    if let Err(problem) = run.play(plan, random, &mut verdict).await {
        verdict.violations.push(format!("{problem:#}"));
        verdict.violations_found += 1;
    }
    if verdict.violations_found == 0 {
        run.site.clean().await?;
    }
    Ok(run.report(kind, plan, verdict))
}

impl Run {
    async fn play(&mut self, plan: &Plan, random: SmallRng, verdict: &mut Verdict) -> anyhow::Result<()> {
        self.site.launch()?;
        self.site.ready().await?;
        let until = Instant::now() + Duration::from_secs(plan.seconds);
        let mut clients = JoinSet::new();
        for client in 0..self.load.count() {
            clients.spawn(self.load.clone().run(client, until));
        }
        self.trouble(random, until).await?;
        self.converge(&mut clients).await?;
        match self.load.clone() {
            Load::Programs(clients) => self.judge_programs(&clients, verdict).await,
            Load::Histories(histories) => {
                let found = histories.judge().await;
                verdict.violations = found.violations;
                verdict.violations_found = found.problems;
                verdict.counts =
                    found.counts.into_iter().map(|(name, count)| (name.to_owned(), count as u64)).collect();
                self.site.stop().await
            }
        }
    }

    /// Asks until everything works again.
    async fn mended(&self) -> anyhow::Result<()> {
        let probing = async {
            while !self.load.probe().await? {
                sleep(LOOK_EVERY).await;
            }
            anyhow::Ok(())
        };
        let probed = tokio::time::timeout(MENDED_WITHIN, probing).await;
        probed.with_context(|| format!("it does not work again within {MENDED_WITHIN:?}"))??;
        self.journal.mended();
        Ok(())
    }

    /// Looks at the store while no runtime runs.
    async fn sample(&mut self) -> anyhow::Result<()> {
        if let Load::Programs(_) = self.load {
            let rows = self.site.observe().await.context("failed to look at the store after a kill")?;
            self.samples.push(Sample { at: self.journal.tick(), rows });
        }
        Ok(())
    }

    /// Waits until clients know everything.
    async fn converge(&mut self, clients: &mut JoinSet<()>) -> anyhow::Result<()> {
        let mut last = (self.journal.known(), Instant::now());
        loop {
            while let Some(ended) = clients.try_join_next() {
                ended.context("a client failed")?;
            }
            if clients.is_empty() {
                return Ok(());
            }
            self.site.check()?;
            if self.journal.known() != last.0 {
                last = (self.journal.known(), Instant::now());
            }
            if last.1.elapsed() > CONVERGENCE_MAX {
                let waiting = self.journal.waiting();
                bail!("no client learned anything for {CONVERGENCE_MAX:?}; they wait for {waiting:?}");
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until all messages have ended, and judges everything.
    async fn judge_programs(&mut self, clients: &Clients, verdict: &mut Verdict) -> anyhow::Result<()> {
        let (began, mut pause) = (Instant::now(), DRAIN_FIRST);
        let end = loop {
            sleep(pause).await;
            self.site.stop().await?;
            let end = self.site.observe().await.context("failed to look at the store at the end")?;
            if end.waiting.is_empty() {
                break end;
            }
            if began.elapsed() > CONVERGENCE_MAX {
                let which: Vec<String> = end.waiting.iter().map(|message| message.to.to_string()).collect();
                bail!("messages still wait after {CONVERGENCE_MAX:?}: {which:?}");
            }
            pause *= 2;
            self.site.launch()?;
            self.site.ready().await?;
        };
        let (asked, samples) = (clients.asked(self.site.lives()), std::mem::take(&mut self.samples));
        let history = History { asked, samples, end, workers_lost: true, had_rivals: false, keeps_lanes: true };
        let judged = tokio::task::spawn_blocking(move || judge(&history)).await.context("the judge failed")?;
        verdict.violations = judged.violations;
        verdict.violations_found = judged.violations_found;
        let counts = [
            ("flows-replayed", judged.replayed),
            ("messages", judged.messages),
            ("refusals", judged.refusals),
            ("looks", judged.looks),
            ("samples", judged.samples),
            ("ran-again", judged.ran_again),
            ("undecided", judged.undecided),
        ];
        verdict.counts = counts.into_iter().map(|(name, count)| (name.to_owned(), count as u64)).collect();
        verdict.counts.extend(judged.outcomes.into_iter().map(|(name, count)| (name, count as u64)));
        Ok(())
    }

    fn report(self, kind: Kind, plan: &Plan, verdict: Verdict) -> Report {
        let Self { site, journal, .. } = self;
        let (mut counts, alarms) = journal.take();
        counts.extend(verdict.counts);
        let Plan { seed, seconds, .. } = *plan;
        let (violations, violations_found) = (verdict.violations, verdict.violations_found);
        let mut report = Report { kind, seed, seconds, counts, violations, violations_found, kept: None };
        let faithful = report.unfaithful(plan.kills);
        let more: Vec<String> = alarms.into_iter().chain(site.complaints()).chain(faithful).collect();
        report.violations_found += more.len();
        report.violations.extend(more);
        if !report.is_good() {
            report.kept = Some(site.keep());
        }
        report
    }
}

impl Report {
    /// A run that shows nothing is no good one: faults must have happened, and most of the rest must have worked.
    fn unfaithful(&self, kills: bool) -> Vec<String> {
        let mut problems = Vec::new();
        if kills && self.seconds >= KILLS_AFTER_SECONDS && self.runtime_kills() == 0 {
            problems.push("the runtime was never killed".to_owned());
        }
        let (calm, succeeded) = (self.count(CALM), self.count(CALM_SUCCEEDED));
        if calm == 0 || succeeded * 100 < calm * CALM_SUCCEEDED_PERCENT_MIN {
            problems.push(format!("of {calm} operations that no fault touched only {succeeded} succeeded"));
        }
        problems
    }
}
