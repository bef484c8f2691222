//! The functions that run programs. They know nothing of who asks them: a simulation or a real runtime.

use std::future::Future;
use std::pin::Pin;

use tandem::prelude::*;

use super::{AS_TOLD, ORDER, OUT, Program, Scan, Seen, Step, To};

/// What each instance keeps.
#[derive(State)]
pub struct Cells {
    value: Value<i64>,
    entries: Map<String, i64>,
}

/// The function of most instances.
#[function(name = "node")]
impl Node {
    /// Runs a program in a flow that is serializable.
    async fn run(ctx: &Ctx<Cells>, program: Program) -> Result<Vec<Seen>> {
        play(ctx, program).await
    }

    /// Runs a program in a flow that has a snapshot.
    #[handler(snapshot)]
    async fn snapshot(ctx: &Ctx<Cells>, program: Program) -> Result<Vec<Seen>> {
        play(ctx, program).await
    }

    /// Runs a program that only reads.
    #[handler(read_only)]
    async fn look(ctx: &Ctx<Cells>, program: Program) -> Result<Vec<Seen>> {
        play(ctx, program).await
    }
}

/// A second function, so that flows span functions.
#[function(name = "leaf")]
impl Leaf {
    /// Runs a program in a flow that is serializable.
    async fn run(ctx: &Ctx<Cells>, program: Program) -> Result<Vec<Seen>> {
        play(ctx, program).await
    }
}

type Playing<'a> = Pin<Box<dyn Future<Output = Result<Vec<Seen>>> + Send + 'a>>;

/// Boxed, since it is run by handlers whose futures are kept small.
fn play(ctx: &Ctx<Cells>, program: Program) -> Playing<'_> {
    Box::pin(async move {
        let mut log = Vec::new();
        for step in program.steps {
            one(ctx, step, &mut log).await?;
        }
        if program.notes_order {
            ctx.emit(ORDER, program.tag);
        }
        Ok(log)
    })
}

async fn one(ctx: &Ctx<Cells>, step: Step, log: &mut Vec<Seen>) -> Result<()> {
    let state = &ctx.state;
    match step {
        Step::Read => log.push(Seen::Value(state.value.get().await?)),
        Step::Add(amount) => {
            let value = state.value.get().await?;
            log.push(Seen::Value(value));
            state.value.set(value.unwrap_or_default() + amount);
        }
        Step::Set(value) => state.value.set(value),
        Step::Clear => state.value.delete(),
        Step::Entry(key) => log.push(Seen::Entry(state.entries.get(&key).await?)),
        Step::Bump(key, amount) => {
            let entry = state.entries.get(&key).await?;
            log.push(Seen::Entry(entry));
            state.entries.insert(key, entry.unwrap_or_default() + amount);
        }
        Step::Put(key, value) => state.entries.insert(key, value),
        Step::Remove(key) => state.entries.remove(&key),
        Step::Scan(scan) => log.push(Seen::Entries(entries(ctx, scan).await?)),
        Step::Need(least) => {
            let value = state.value.get().await?;
            log.push(Seen::Value(value));
            if value.unwrap_or_default() < least {
                return reject("too-little", format!("{value:?} of {least}"));
            }
        }
        Step::Reject(reason) => return reject(reason, AS_TOLD),
        Step::Emit(number) => ctx.emit(OUT, number),
        Step::Sleep(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        Step::Fail => return Err(tandem::Error::fatal(AS_TOLD)),
        Step::Break(until) if ctx.attempt() < until => return Err(tandem::Error::retryable(AS_TOLD)),
        #[expect(clippy::panic, reason = "user code that panics is what is tested")]
        Step::Panic(until) if ctx.attempt() < until => panic!("{AS_TOLD}"),
        Step::Hang(until) if ctx.attempt() < until => std::future::pending().await,
        Step::Break(_) | Step::Panic(_) | Step::Hang(_) => {}
        Step::Call(to) => log.push(Seen::Called(call(ctx, &to).await?)),
        Step::Handle(to) => log.push(handled(call(ctx, &to).await)?),
        Step::Together(all) => {
            for returned in join_all(all.iter().map(|to| call(ctx, to))).await {
                log.push(handled(returned)?);
            }
        }
        Step::Spawn(to) => call(ctx, &to).spawn(),
        Step::Send(to, delay_ms) => call(ctx, &to).send_after(Duration::from_millis(delay_ms)),
    }
    Ok(())
}

async fn entries(ctx: &Ctx<Cells>, scan: Scan) -> Result<Vec<(String, i64)>> {
    use std::ops::Bound;

    let map = &ctx.state.entries;
    let start = scan.from.map_or(Bound::Unbounded, Bound::Included);
    let end = scan.to.map_or(Bound::Unbounded, Bound::Excluded);
    match (scan.limit, scan.reverse) {
        (None, _) => map.scan((start, end)).await,
        (Some(limit), false) => map.first((start, end), limit).await,
        (Some(limit), true) => map.last((start, end), limit).await,
    }
}

fn call<'ctx>(ctx: &'ctx Ctx<Cells>, to: &To) -> Call<'ctx, Vec<Seen>> {
    ctx.call(&to.function, &to.key, &to.handler, &to.program)
}

/// A "no" of the callee is something that was seen; anything else that went wrong is passed on.
fn handled(returned: Result<Vec<Seen>>) -> Result<Seen> {
    match returned {
        Ok(log) => Ok(Seen::Called(log)),
        Err(error) => match error.rejection() {
            Some(rejection) => Ok(Seen::No(rejection.reason.clone())),
            None => Err(error),
        },
    }
}
