//! Fault runs: real runtimes, workers, PD and stores, of which some are killed, frozen or cut off at chosen moments.
//!
//! ```text
//! case ─▶ script ─▶ processes, fail points, proxies       what goes wrong, and a look whether it did
//!         load ───▶ runtimes (all of them, in turn)       what is asked meanwhile, until it is known what came of it
//!                   samples of snapshots ─▶ invariants    at any time
//!         judge ◀── rows, at the end                      against what clients were told
//! ```
//!
//! A run counts only if each of its faults happened, if at least 80 % of the operations that no fault touched succeeded,
//! if everything works again within a minute, and if no lock is left.
//!
//! The stores are test stores that speak TiKV's protocol, not TiKV: see `e2e/tikv/README.md` for what they do not have.
//!
//! | module | concept |
//! | --- | --- |
//! | [`cases`] | the table of runs |
//! | `script` | does what a case says |
//! | `pods` | runtimes and workers as processes |
//! | `clock` | a wall clock that jumps |
//! | [`functions`] | functions with invariants |
//! | `load` | who asks what |
//! | `housekeeping` | what the elected runtime does from time to time |
//! | `judge` | what is stored at the end |

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::Method;
use serde::Serialize;
use tandem_e2e_tikv::{Cluster, Options, slots};
use tandem_store::KeyRange;
use tandem_store_tikv::cluster::{Cluster as _, ReadFailure};
use tandem_store_tikv::{TikvStore, options};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::process::histories::Histories;
use crate::process::journal::{CALM, CALM_SUCCEEDED, Journal};
use crate::process::site::{Application, Function, SLOTS};
use crate::process::worker::Protocol;

use judge::Stored;
use load::Load;
use pods::{Pods, Shape};
use script::Script;

pub use cases::{CASES, Case};
pub use pods::Launch;

pub mod cases;
mod clock;
pub mod functions;
mod housekeeping;
mod judge;
mod load;
mod pods;
mod script;

/// How long nothing goes wrong, before the faults and after them.
const CALM_TIME: Duration = Duration::from_millis(1_500);
/// Everything has to work again, and each client to know its outcome, within this time.
const LIVENESS_MAX: Duration = Duration::from_mins(1);
/// How often it is looked whether something has happened.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Percent of the operations outside of faults that have to succeed.
const CALM_SUCCEEDED_PERCENT_MIN: u64 = 80;
/// Samples of snapshots that there have to be.
const SAMPLES_MIN: u64 = 5;
/// Clients of histories.
const HISTORIES: usize = 3;
/// Regions of one prefix.
const REGIONS: u16 = 6;
/// Violations that are told.
const TOLD_MAX: usize = 12;

/// What happened in a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The case.
    pub case: &'static str,
    /// Entries of the list of faults that it covers.
    pub covers: &'static [&'static str],
    /// What clients asked follows from it.
    pub seed: u64,
    /// How long it took.
    pub seconds: f64,
    /// From the end of the faults until every runtime did again what it was asked.
    pub recovered_in_seconds: Option<f64>,
    /// How often each thing happened.
    pub counts: BTreeMap<String, u64>,
    /// What must not be. Empty is good.
    pub violations: Vec<String>,
    /// Where the logs are, if something was found.
    pub kept: Option<PathBuf>,
}

impl Report {
    fn new(plan: &Plan, began: Instant, counts: BTreeMap<String, u64>, violations: Vec<String>) -> Self {
        Self {
            case: plan.case.name,
            covers: plan.case.covers,
            seed: plan.seed,
            seconds: began.elapsed().as_secs_f64(),
            recovered_in_seconds: None,
            counts,
            violations,
            kept: None,
        }
    }

    /// Whether nothing was found that must not be.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty()
    }

    /// How often something happened.
    pub fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }
}

/// The options of a cluster on which runs have places of their own, each with regions on all stores. Stores and PD can be
/// reached through proxies if somebody wants to disturb them.
pub fn cluster_options(places: &[&str], disturbed: bool) -> Options {
    let cuts = |place: &&str| slots::cuts(&rows_prefix(&prefix_of(place)), SLOTS, REGIONS);
    let options = Options { splits: places.iter().flat_map(cuts).collect(), ..Options::default() };
    if disturbed { options.proxied() } else { options }
}

/// Where the rows of a run are.
fn prefix_of(place: &str) -> String {
    format!("m/faults/{place}")
}

fn rows_prefix(prefix: &str) -> Vec<u8> {
    slots::rows_behind(format!("{prefix}/").as_bytes())
}

/// What a script acts upon.
struct Site {
    cluster: Arc<Cluster>,
    pods: Pods,
    journal: Arc<Journal>,
    prefix: String,
    url: String,
}

impl Site {
    /// What runtimes keep their state in, for a look that changes nothing.
    async fn store(&self) -> anyhow::Result<TikvStore> {
        let options: options::Options = format!("{}/", self.url).parse()?;
        Ok(Box::pin(TikvStore::open(&options::Options { housekeeping: false, ..options })).await?)
    }

    /// The sum of a metric over its labels.
    async fn metric(&self, which: usize, name: &str) -> anyhow::Result<f64> {
        let web = self.pods.admin_of(which, &self.journal);
        let answer = web.call(Method::GET, "/metrics", &[], Bytes::new()).await.context("no metrics")?;
        let text = String::from_utf8_lossy(&answer.0.bytes).into_owned();
        let of_name =
            text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        Ok(of_name.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }
}

/// The functions, and who runs them.
fn application(seed: u64) -> Application {
    const STATEMENTS: &[(&str, &str)] =
        &[("transfer", "Serializable"), ("deposit", "Serializable"), ("statement", "ReadOnly"), ("audit", "ReadOnly")];
    const DOCTORS: &[(&str, &str)] =
        &[("leave", "Serializable"), ("come", "Serializable"), ("away", "ReadOnly"), ("audit", "ReadOnly")];
    const PAGES: &[(&str, &str)] =
        &[("print", "Serializable"), ("replace", "Serializable"), ("edition", "ReadOnly"), ("audit", "ReadOnly")];
    const MONEY: &[(&str, &str, &str)] = &[
        ("sent", "Value", "Integer"),
        ("received", "Value", "Integer"),
        ("out", "Map", "Integer"),
        ("into", "Map", "Integer"),
    ];
    let mut application = crate::process::plan::histories(seed);
    application.of_runtime = None;
    application.workers = vec![Protocol::Grpc, Protocol::Grpc];
    application.functions.extend([
        Function { name: "account", handlers: STATEMENTS, states: MONEY, worker: 0 },
        Function {
            name: "receipts",
            handlers: &[("note", "Serializable")],
            states: &[("notes", "Map", "Integer")],
            worker: 1,
        },
        Function { name: "doctor", handlers: DOCTORS, states: &[("away", "Value", "Boolean")], worker: 1 },
        Function { name: "page", handlers: PAGES, states: &[("edition", "Value", "Integer")], worker: 1 },
    ]);
    application
}

/// One run before it begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What goes wrong.
    pub case: Case,
    /// What clients ask follows from it.
    pub seed: u64,
    /// Names the part of the cluster that is its own.
    pub place: String,
    /// The program `tandem-verify`, which is its own worker.
    pub verify: PathBuf,
    /// How runtimes are started.
    pub launch: Launch,
    /// Tells on the terminal what is done.
    pub tells: bool,
}

/// Runs a case. What does not start, or not any more, is a finding like any other.
pub async fn run(plan: &Plan, cluster: &Arc<Cluster>) -> Report {
    let began = Instant::now();
    let journal = Arc::new(Journal::new(plan.tells));
    let mut violations = Vec::new();
    match Run::new(plan, cluster, &journal).await {
        Ok(mut run) => {
            if let Err(problem) = run.play(&plan.case, &mut violations).await {
                violations.push(format!("{problem:#}"));
            }
            run.report(plan, began, violations)
        }
        Err(problem) => {
            violations.push(format!("{problem:#}"));
            Report::new(plan, began, BTreeMap::new(), violations)
        }
    }
}
/// A run that is under way.
struct Run {
    site: Site,
    load: Arc<Load>,
    histories: Arc<Histories>,
    recovered_in: Option<Duration>,
}

impl Run {
    async fn new(plan: &Plan, cluster: &Arc<Cluster>, journal: &Arc<Journal>) -> anyhow::Result<Self> {
        let Plan { case, seed, .. } = plan;
        let prefix = prefix_of(&plan.place);
        let url = format!("tikv://{}/{prefix}", cluster.pd_endpoints().join(","));
        let shape = Shape { runtimes: case.runtimes, strangers: case.strangers, clocks: case.clocks };
        let pods = Pods::start((&plan.verify, &plan.launch), shape, &application(*seed), &url).await?;
        let (cluster, journal) = (Arc::clone(cluster), Arc::clone(journal));
        Ok(Self {
            load: Arc::new(Load::new(pods.web(&journal), *seed, case.pace)),
            histories: Arc::new(Histories::new(*seed, pods.web(&journal))),
            site: Site { cluster, pods, journal, prefix, url },
            recovered_in: None,
        })
    }

    async fn play(&mut self, case: &Case, violations: &mut Vec<String>) -> anyhow::Result<()> {
        self.recover().await.context("before anything went wrong")?;
        let mut clients = self.begin();
        sleep(CALM_TIME).await;
        let is_calm = case.steps.iter().all(|step| matches!(step, cases::Step::Wait(_) | cases::Step::AllHaveRun));
        if !is_calm {
            self.site.journal.fault("faults");
        }
        Script::new(&mut self.site).play(case.steps).await?;
        let ended = Instant::now();
        self.recover().await.context("after the faults")?;
        self.recovered_in = Some(ended.elapsed());
        sleep(CALM_TIME).await;
        self.site.pods.check()?;
        self.site.journal.end_all();
        self.join(&mut clients).await?;
        self.load.ask_again().await;
        let found = self.histories.judge().await;
        violations.extend(found.violations);
        for (name, count) in found.counts {
            self.site.journal.count_many(name, count as u64);
        }
        let stored = self.settle().await?;
        violations.extend(judge::judge(&self.load.take(), &stored));
        self.site.pods.stop().await?;
        self.locks().await
    }

    fn begin(&self) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        for client in 0..self.load.count() {
            let load = Arc::clone(&self.load);
            clients.spawn(async move { load.run(client).await });
        }
        for client in 0..self.histories.count().min(HISTORIES) {
            let histories = Arc::clone(&self.histories);
            // Until it is over.
            let until = Instant::now() + Duration::from_hours(1);
            clients.spawn(async move { histories.run(client, until).await });
        }
        clients
    }

    /// Waits until each runtime does what it is asked.
    async fn recover(&self) -> anyhow::Result<()> {
        let pods = &self.site.pods;
        for which in 0..pods.runtimes() {
            let web = pods.web_of(which, &self.site.journal);
            let probing = async {
                while !self.load.probe(&web).await {
                    sleep(LOOK_EVERY).await;
                }
            };
            let probed = timeout(LIVENESS_MAX, probing).await;
            probed.with_context(|| format!("runtime {which} does not work within {LIVENESS_MAX:?}"))?;
        }
        self.site.journal.mended();
        Ok(())
    }

    /// Waits until each client knows what came of its last request.
    async fn join(&self, clients: &mut JoinSet<()>) -> anyhow::Result<()> {
        let ending = async {
            while let Some(ended) = clients.join_next().await {
                ended.context("a client failed")?;
            }
            anyhow::Ok(())
        };
        match timeout(LIVENESS_MAX, ending).await {
            Ok(ended) => ended,
            Err(_) => bail!("after {LIVENESS_MAX:?} nobody knows what came of {:?}", self.site.journal.waiting()),
        }
    }

    /// Waits until all messages have been delivered, and gives all that is stored.
    async fn settle(&self) -> anyhow::Result<Stored> {
        let began = Instant::now();
        loop {
            let rows = self.site.pods.state().rows(&std::env::temp_dir()).await?;
            let stored = Stored::of(rows).map_err(anyhow::Error::msg)?;
            if stored.waiting == 0 {
                return Ok(stored);
            }
            let waiting = stored.waiting;
            ensure!(began.elapsed() < LIVENESS_MAX, "{waiting} messages are not delivered after {LIVENESS_MAX:?}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// Whoever reads everything clears the locks of the dead. After that there are none.
    async fn locks(&self) -> anyhow::Result<()> {
        let store = self.site.store().await?;
        let everything = KeyRange { start: Bytes::new(), end: None };
        let look = async || {
            let now = store.cluster().timestamp().await?;
            match store.cluster().scan(now, &everything, usize::MAX, false).await {
                Ok(_) => Ok(Vec::new()),
                Err(ReadFailure::Locked(locks)) => Ok(locks),
                Err(other) => Err(anyhow::Error::from(other)),
            }
        };
        if !look().await?.is_empty() {
            self.site.journal.count("locks-left-to-readers");
            self.site.pods.state().rows(&std::env::temp_dir()).await?;
        }
        let left = look().await?;
        ensure!(left.is_empty(), "locks are left behind: {left:?}");
        Ok(())
    }

    fn report(self, plan: &Plan, began: Instant, mut violations: Vec<String>) -> Report {
        let (counts, alarms) = self.site.journal.take();
        let count = |what: &str| counts.get(what).copied().unwrap_or_default();
        let (calm, succeeded) = (count(CALM), count(CALM_SUCCEEDED));
        if violations.is_empty() && (calm == 0 || succeeded * 100 < calm * CALM_SUCCEEDED_PERCENT_MIN) {
            violations.push(format!("of {calm} operations that no fault touched only {succeeded} succeeded"));
        }
        let samples = count("samples") + count("samples-in-faults");
        if violations.is_empty() && samples < SAMPLES_MIN {
            violations.push(format!("only {samples} snapshots were looked at"));
        }
        violations.extend(alarms);
        violations.extend(self.site.pods.complaints());
        let kept = (!violations.is_empty()).then(|| self.site.pods.keep());
        violations.truncate(TOLD_MAX);
        let recovered_in_seconds = self.recovered_in.map(|time| time.as_secs_f64());
        Report { recovered_in_seconds, kept, ..Report::new(plan, began, counts, violations) }
    }
}
