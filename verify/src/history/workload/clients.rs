//! Clients of a runtime in this process, and the history of what they saw.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tandem_model::ids::{Instance, Payload};
use tandem_model::request::Request;
use tandem_model::slot::SlotCount;
use tandem_runtime::runtime::Runtime;
use tandem_store::Store;

use super::{Answer, Nonsense, Plan, Plans, Shape};
use crate::history::Transaction;

/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// How many clients ask how much.
#[derive(Clone, Debug)]
pub struct Load {
    /// What everything follows from, but the order in which it happens.
    pub seed: u64,
    /// Clients at the same time; each waits for its answer before it asks again.
    pub clients: u32,
    /// Requests of each.
    pub requests: usize,
    /// What they ask.
    pub shape: Shape,
}

/// A clock that goes one step further whenever somebody looks at it: what was looked at later has a greater time.
#[derive(Debug, Default)]
pub struct Steps(AtomicU64);

impl Steps {
    /// The next time.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// What went wrong while a history was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name in a plan is none.
    #[error("a plan names something that cannot be")]
    Name(#[from] tandem_model::ids::InvalidName),
    /// An answer makes no sense.
    #[error("an answer makes no sense")]
    Nonsense(#[from] Nonsense),
}

/// Asks one plan of a runtime, as this process, and adds what came of it to a history.
pub async fn ask<S: Store>(
    runtime: &Runtime<S>,
    time: &Steps,
    process: u32,
    plan: &Plan,
) -> Result<Vec<Transaction>, Error> {
    let invoked = time.next();
    let id = format!("history-{process}-{invoked}").parse()?;
    let instance = Instance::parse("session", &plan.entry)?;
    let handler = plan.handler.name().parse()?;
    let payload = Payload::json(plan.payload());
    let request = Request::new(SlotCount::DEFAULT, id, instance, handler, payload, DEADLINE);
    let answer = match runtime.submit(request).await {
        Err(_) => Answer::Aborted,
        Ok(accepted) => accepted.outcome.await.map_or(Answer::Unknown, |ended| Answer::of(&ended.record)),
    };
    Ok(plan.transactions(process, (invoked, time.next()), &answer)?)
}

/// Lets all clients ask what they have planned, each of one of the runtimes; then somebody reads all lists.
pub async fn run<S: Store>(runtimes: &[Runtime<S>], load: &Load) -> Result<Vec<Transaction>, Error> {
    let time = Steps::default();
    let client = async |number: u32| {
        let runtime = &runtimes[number as usize % runtimes.len()];
        let mut seen = Vec::new();
        for plan in Plans::new(load.seed, number, load.shape.clone()).take(load.requests) {
            seen.extend(ask(runtime, &time, number, &plan).await?);
        }
        Ok::<_, Error>(seen)
    };
    let histories = join_all((0..load.clients).map(client)).await;
    let mut history = Vec::new();
    for part in histories {
        history.extend(part?);
    }
    let last = Plans::read_all(&load.shape, "last");
    history.extend(ask(&runtimes[0], &time, load.clients, &last).await?);
    Ok(history)
}
