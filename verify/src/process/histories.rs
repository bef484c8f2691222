//! List-append histories over HTTP, with kills: what was under way is asked for again until its outcome is known.

use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use super::web::Web;
use crate::history::workload::clients::Recorder;
use crate::history::workload::{Answer, Handler, Plan, Plans, Shape, Step};
use crate::history::{Level, Status, check};

/// Wait before a plan is sent again.
const SEND_AGAIN: Duration = Duration::from_millis(30);
/// Most plans of one run.
const PLANS_MAX: usize = 20_000;
/// Anomalies that are told.
const TOLD_MAX: usize = 10;
/// Lists: few of them are fought over.
const LISTS: Range<usize> = 4..24;
/// Clients.
const CLIENTS: Range<u32> = 6..20;

/// Clients of lists, and what they saw.
pub(crate) struct Histories {
    web: Web,
    recorder: Recorder,
    shape: Shape,
    seed: u64,
    clients: u32,
}

/// What was found in a history.
pub(crate) struct Found {
    pub(crate) violations: Vec<String>,
    pub(crate) problems: usize,
    pub(crate) counts: Vec<(&'static str, usize)>,
}

impl Histories {
    /// What follows from a seed.
    pub(crate) fn new(seed: u64, web: Web) -> Self {
        let random = &mut SmallRng::seed_from_u64(seed);
        let shape = Shape::of_keys(random.random_range(LISTS));
        let clients = random.random_range(CLIENTS);
        Self { web, recorder: Recorder::default(), shape, seed, clients }
    }

    pub(crate) fn count(&self) -> usize {
        self.clients as usize
    }

    /// One client: asks until it is time, and learns how everything ended.
    pub(crate) async fn run(&self, client: usize, until: Instant) {
        let process = self.recorder.process();
        let number = u32::try_from(client).unwrap_or(u32::MAX);
        let plans = Plans::new(self.seed, number, self.shape.clone()).take(PLANS_MAX / self.count());
        for plan in plans {
            if Instant::now() >= until || self.web.journal.is_over() {
                return;
            }
            self.ask(process, &plan).await;
        }
    }

    /// Asks one plan until its outcome is known. Whether it committed.
    async fn ask(&self, process: u32, plan: &Plan) -> bool {
        let number = self.recorder.asked(process, plan);
        let path = format!("/{}/{}/{}", plan.function, plan.handler.name(), plan.entry);
        let (id, payload) = (format!("h-{number}"), Bytes::from(plan.payload()));
        self.web.journal.begin(&id);
        let answer = loop {
            if let Some(answer) = self.web.plan(&path, &id, payload.clone()).await {
                break answer;
            }
            self.web.journal.count("sent-again");
            sleep(SEND_AGAIN).await;
        };
        self.web.journal.end(&id);
        let committed = matches!(answer, Answer::Committed(_));
        if let Err(problem) = plan.transactions(process, (0, 0), &answer) {
            self.web.journal.alarm(format!("{id}: {problem}: {plan:?} was answered with {answer:?}"));
        }
        self.recorder.answered(number, answer);
        committed
    }

    /// Reads a list of each kind.
    pub(crate) async fn probe(&self) -> bool {
        let reads = ["list-0", "log-1"].map(|name| Step::new(name, crate::history::workload::Action::Read));
        let plan = Plan::new("probe", Handler::Look, vec![reads.into()]);
        self.ask(self.recorder.process(), &plan).await
    }

    /// Reads everything once more, and looks for anomalies.
    pub(crate) async fn judge(&self) -> Found {
        let everything = Plans::read_all(&self.shape, "last");
        let process = self.recorder.process();
        let mut violations = Vec::new();
        if !self.ask(process, &everything).await {
            violations.push("the lists cannot be read at the end".to_owned());
        }
        let history = match self.recorder.history() {
            Ok(history) => history,
            Err(error) => {
                violations.push(error.to_string());
                Vec::new()
            }
        };
        let of = |status| history.iter().filter(|transaction| transaction.status == status).count();
        let mut counts = vec![
            ("transactions-committed", of(Status::Committed)),
            ("transactions-aborted", of(Status::Aborted)),
            ("transactions-unknown", of(Status::Unknown)),
        ];
        match check(&history, Level::Declared) {
            Ok(report) => {
                counts.push(("relations", report.relations));
                let anomalies = report.anomalies.iter();
                violations.extend(anomalies.map(|anomaly| format!("{}: {}", anomaly.kind, anomaly.explanation)));
            }
            Err(error) => violations.push(error.to_string()),
        }
        let problems = violations.len();
        violations.truncate(TOLD_MAX);
        Found { violations, problems, counts }
    }
}
