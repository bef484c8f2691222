//! Clients of a runtime in this process, and a recorder of what any clients see.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tandem_model::ids::{Instance, InvalidName, Payload};
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
    /// The numbers of the clients, no number twice in one history. Each waits for its answer before it asks again.
    pub clients: Range<u32>,
    /// Requests of each.
    pub requests: usize,
    /// What they ask.
    pub shape: Shape,
}

/// Keeps what was asked and answered, in which order, whatever becomes of who asked. What was never answered counts as
/// unknown.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// One step further with everything that happens, so what happens later has a greater time.
    time: u64,
    processes: u32,
    asked: Vec<Asked>,
}

#[derive(Debug)]
struct Asked {
    process: u32,
    plan: Plan,
    invoked: u64,
    answer: Option<(u64, Answer)>,
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, short of running out of memory.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process that nobody was before. One that was left without an answer must not go on as the same one.
    pub fn process(&self) -> u32 {
        let mut state = self.lock();
        state.processes += 1;
        state.processes
    }

    /// To be called before a plan is sent. Gives the number under which its answer is noted.
    pub fn asked(&self, process: u32, plan: &Plan) -> usize {
        let mut state = self.lock();
        state.time += 1;
        let asked = Asked { process, plan: plan.clone(), invoked: state.time, answer: None };
        state.asked.push(asked);
        state.asked.len() - 1
    }

    /// To be called once the answer is there. Only the first one counts.
    pub fn answered(&self, number: usize, answer: Answer) {
        let mut state = self.lock();
        state.time += 1;
        let time = state.time;
        if let Some(asked) = state.asked.get_mut(number) {
            asked.answer.get_or_insert((time, answer));
        }
    }

    /// How many were answered so far.
    pub fn answers(&self) -> usize {
        self.lock().asked.iter().filter(|asked| asked.answer.is_some()).count()
    }

    /// What the checker reads.
    pub fn history(&self) -> Result<Vec<Transaction>, Nonsense> {
        let mut history = Vec::new();
        for Asked { process, plan, invoked, answer } in &self.lock().asked {
            let unknown = (*invoked, Answer::Unknown);
            let (completed, answer) = answer.as_ref().unwrap_or(&unknown);
            history.extend(plan.transactions(*process, (*invoked, *completed), answer)?);
        }
        Ok(history)
    }
}

/// Asks one plan of a runtime, as this process. Dropped before its end, it stays unknown what came of it.
pub async fn ask<S: Store>(
    runtime: &Runtime<S>,
    recorder: &Recorder,
    process: u32,
    plan: &Plan,
) -> Result<(), InvalidName> {
    let number = recorder.asked(process, plan);
    let id = format!("history-{number}").parse()?;
    let instance = Instance::parse(plan.function, &plan.entry)?;
    let handler = plan.handler.name().parse()?;
    let payload = Payload::json(plan.payload());
    let request = Request::new(SlotCount::DEFAULT, id, instance, handler, payload, DEADLINE);
    match runtime.submit(request).await {
        Err(_) => recorder.answered(number, Answer::Aborted),
        Ok(accepted) => {
            // If the runtime stopped before it knew, nobody knows.
            if let Ok(ended) = accepted.outcome.await {
                recorder.answered(number, Answer::of(&ended.record));
            }
        }
    }
    Ok(())
}

/// Lets all clients ask what they have planned, each of one of the runtimes.
pub async fn run<S: Store>(runtimes: &[Runtime<S>], recorder: &Recorder, load: &Load) -> Result<(), InvalidName> {
    let client = async |number: u32| {
        let runtime = &runtimes[number as usize % runtimes.len()];
        let process = recorder.process();
        for plan in Plans::new(load.seed, number, load.shape.clone()).take(load.requests) {
            ask(runtime, recorder, process, &plan).await?;
        }
        Ok(())
    };
    join_all(load.clients.clone().map(client)).await.into_iter().collect()
}

/// Reads all lists at once: whoever asks it last knows the order of everything.
pub async fn read_all<S: Store>(runtime: &Runtime<S>, recorder: &Recorder, shape: &Shape) -> Result<(), InvalidName> {
    ask(runtime, recorder, recorder.process(), &Plans::read_all(shape, "last")).await
}
