//! Functions that do what a request tells them: the payload is a list of steps.
//!
//! With them a test says in one place what user code does, and when: a step can reach a named point of the test, or
//! wait until others have reached it, so that flows overlap exactly as the test wants and not as the clock likes.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};

use serde::{Deserialize, Serialize};
use tandem::prelude::*;
use tokio::sync::watch;

/// Far more than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What a handler does. Each step may leave a result for the next one; the last one is what the handler returns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Adds to the value.
    Add(i64),
    /// Replaces the value.
    Set(i64),
    /// Adds a fresh random number as an entry, its attempt as the value. Results in the number.
    PutRandom,
    /// Sets an entry of the map.
    Put(String, i64),
    /// Removes an entry of the map.
    Remove(String),
    /// Adds 1 to the value, and sets an entry to it: the order in which the entries came.
    Note(String),
    /// Results in the value, 0 if there is none.
    Read,
    /// Results in an entry, -1 if there is none.
    Entry(String),
    /// Results in the number of entries.
    Count,
    /// Results in the value of the entry with the smallest key, -1 if there is none; looks at no other entry.
    First,
    /// Results in the value of the entry with the greatest key, -1 if there is none; looks at no other entry.
    Last,
    /// Results in the attempt's number.
    Attempt,
    /// Results in what the callee returned.
    Call(To),
    /// Puts what the callee returned behind the result, as a decimal digit.
    Digit(To),
    /// Results in the sum of what `run` of `node` returned on all instances that the keys of the entries name.
    Each(Vec<Self>),
    /// Results in the sum of what the callees returned. They run at the same time.
    Together(Vec<To>),
    /// Results in what the callee returned, -1 if it said no.
    Handle(To),
    /// The same call so many times, one after the other.
    Repeat(usize, To),
    Spawn(To),
    /// With a delay in milliseconds.
    Send(To, u64),
    Emit(String, i64),
    /// Emits a text of so many bytes.
    EmitBytes(String, usize),
    /// Rejects with `too-little` if value and result together are less.
    Need(i64),
    /// Rejects with `too-many` if the result is more.
    AtMost(i64),
    /// Rejects with `no`.
    Reject,
    /// Breaks for good.
    Fail,
    /// Breaks, and may be run again.
    Break,
    Panic,
    /// Counts at a point.
    Reach(String),
    /// Waits until a point was reached so often. Reaches the point that [`gone`] names if it is cancelled meanwhile.
    Await(String, u64),
    /// Only on this attempt.
    OnAttempt(u32, Vec<Self>),
    /// Only if the result is this.
    When(i64, Vec<Self>),
}

/// Whom to call, and what it should do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct To {
    pub(crate) function: String,
    pub(crate) key: String,
    pub(crate) handler: String,
    pub(crate) steps: Vec<Step>,
}

impl To {
    pub(crate) fn of(function: &str, key: &str, handler: &str, steps: Vec<Step>) -> Self {
        Self { function: function.to_owned(), key: key.to_owned(), handler: handler.to_owned(), steps }
    }
}

/// `run` of the function `node`.
pub(crate) fn node(key: &str, steps: Vec<Step>) -> To {
    To::of("node", key, "run", steps)
}

/// `run` of the function `other`.
pub(crate) fn other(key: &str, steps: Vec<Step>) -> To {
    To::of("other", key, "run", steps)
}

/// On the first attempt waits until so many have come here.
pub(crate) fn meet(name: &str, parties: u64) -> Step {
    Step::OnAttempt(1, vec![Step::Reach(name.to_owned()), Step::Await(name.to_owned(), parties)])
}

#[derive(State)]
pub(crate) struct Cells {
    value: Value<i64>,
    entries: Map<String, i64>,
}

#[function(name = "node")]
impl Node {
    async fn run(ctx: &Ctx<Cells>, steps: Vec<Step>) -> Result<i64> {
        play(ctx, steps, 0).await
    }

    #[handler(snapshot)]
    async fn snapshot(ctx: &Ctx<Cells>, steps: Vec<Step>) -> Result<i64> {
        play(ctx, steps, 0).await
    }

    #[handler(read_only)]
    async fn look(ctx: &Ctx<Cells>, steps: Vec<Step>) -> Result<i64> {
        play(ctx, steps, 0).await
    }
}

#[function(name = "other")]
impl Other {
    async fn run(ctx: &Ctx<Cells>, steps: Vec<Step>) -> Result<i64> {
        play(ctx, steps, 0).await
    }
}

type Playing<'a> = Pin<Box<dyn Future<Output = Result<i64>> + Send + 'a>>;

/// Boxed, since steps can hold steps.
fn play(ctx: &Ctx<Cells>, steps: Vec<Step>, first: i64) -> Playing<'_> {
    Box::pin(async move {
        let mut result = first;
        for step in steps {
            result = one(ctx, step, result).await?;
        }
        Ok(result)
    })
}

async fn one(ctx: &Ctx<Cells>, step: Step, result: i64) -> Result<i64> {
    let state = &ctx.state;
    match step {
        Step::Add(amount) => state.value.update(|value| *value += amount).await?,
        Step::Set(value) => state.value.set(value),
        Step::PutRandom => {
            let number = i64::from(rand::random::<u32>());
            state.entries.insert(number.to_string(), i64::from(ctx.attempt()));
            return Ok(number);
        }
        Step::Put(key, value) => state.entries.insert(key, value),
        Step::Note(key) => {
            let place = state.value.get_or_default().await? + 1;
            state.value.set(place);
            state.entries.insert(key, place);
        }
        Step::Remove(key) => state.entries.remove(&key),
        Step::Read => return state.value.get_or_default().await,
        Step::Entry(key) => return Ok(state.entries.get(&key).await?.unwrap_or(-1)),
        Step::Count => return Ok(i64::try_from(state.entries.scan(..).await?.len())?),
        Step::First => return Ok(state.entries.first(.., 1).await?.first().map_or(-1, |(_, value)| *value)),
        Step::Last => return Ok(state.entries.last(.., 1).await?.first().map_or(-1, |(_, value)| *value)),
        Step::Attempt => return Ok(i64::from(ctx.attempt())),
        Step::Need(least) => {
            let total = state.value.get_or_default().await? + result;
            if total < least {
                return reject("too-little", format!("{total} of {least}"));
            }
        }
        Step::AtMost(most) if result > most => return reject("too-many", format!("{result} of {most}")),
        Step::Reject => return reject("no", "as told"),
        Step::Fail => return Err(tandem::Error::fatal("as told")),
        Step::Break => return Err(tandem::Error::retryable("as told")),
        Step::Panic => panic!("as told"),
        Step::Reach(name) => reach(&name),
        Step::Await(name, count) => {
            let mut leaving = Leaving(Some(gone(&name)));
            wait_at(&name, count).await;
            leaving.0 = None;
        }
        Step::OnAttempt(attempt, steps) if ctx.attempt() == attempt => return play(ctx, steps, result).await,
        Step::When(expected, steps) if result == expected => return play(ctx, steps, result).await,
        Step::AtMost(_) | Step::OnAttempt(..) | Step::When(..) => {}
        Step::Emit(egress, number) => ctx.emit(egress, number),
        Step::EmitBytes(egress, bytes) => ctx.emit(egress, "x".repeat(bytes)),
        call => return others(ctx, call, result).await,
    }
    Ok(result)
}

/// Steps that have to do with other instances.
async fn others(ctx: &Ctx<Cells>, step: Step, result: i64) -> Result<i64> {
    match step {
        Step::Call(to) => call(ctx, &to).await,
        Step::Digit(to) => Ok(10 * result + call(ctx, &to).await?),
        Step::Each(steps) => {
            let entries = ctx.state.entries.scan(..).await?;
            let all: Vec<To> = entries.iter().map(|(key, _)| node(key, steps.clone())).collect();
            Ok(try_join_all(all.iter().map(|to| call(ctx, to))).await?.into_iter().sum())
        }
        Step::Together(all) => Ok(try_join_all(all.iter().map(|to| call(ctx, to))).await?.into_iter().sum()),
        Step::Handle(to) => match call(ctx, &to).await {
            Err(error) if error.rejection().is_some() => Ok(-1),
            returned => returned,
        },
        Step::Repeat(times, to) => {
            for _ in 0..times {
                call(ctx, &to).await?;
            }
            Ok(0)
        }
        Step::Spawn(to) => {
            call(ctx, &to).spawn();
            Ok(0)
        }
        Step::Send(to, delay_ms) => {
            call(ctx, &to).send_after(Duration::from_millis(delay_ms));
            Ok(0)
        }
        step => Err(tandem::Error::fatal(format!("{step:?} is not known"))),
    }
}

fn call<'ctx>(ctx: &'ctx Ctx<Cells>, to: &To) -> Call<'ctx, i64> {
    ctx.call(&to.function, &to.key, &to.handler, &to.steps)
}

/// How often each point was reached. Tests of one process share them, so each makes names of its own: [`point`].
static POINTS: LazyLock<Mutex<HashMap<String, watch::Sender<u64>>>> = LazyLock::new(Mutex::default);

/// A name that no other test has.
pub(crate) fn point(what: &str) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("{what}-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Where it shows that a handler which waited at a point was cancelled.
pub(crate) fn gone(name: &str) -> String {
    format!("{name}-gone")
}

struct Leaving(Option<String>);

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(name) = &self.0 {
            reach(name);
        }
    }
}

fn sender(name: &str) -> watch::Sender<u64> {
    POINTS.lock().unwrap().entry(name.to_owned()).or_insert_with(|| watch::Sender::new(0)).clone()
}

pub(crate) fn reach(name: &str) {
    sender(name).send_modify(|count| *count += 1);
}

pub(crate) fn reached(name: &str) -> u64 {
    *sender(name).borrow()
}

/// Waits until a point was reached so often, as a handler does: for ever, unless it is cancelled by its flow.
async fn wait_at(name: &str, count: u64) {
    let mut changed = sender(name).subscribe();
    changed.wait_for(|reached| *reached >= count).await.expect("the points are kept for ever");
}

/// The same, as a test does: it fails if it takes too long.
pub(crate) async fn until(name: &str, count: u64) {
    let waited = tokio::time::timeout(PATIENCE, wait_at(name, count)).await;
    assert!(waited.is_ok(), "{name} was reached {} times, not {count}", reached(name));
}
