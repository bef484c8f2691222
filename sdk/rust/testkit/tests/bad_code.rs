//! Code that breaks, hangs or asks for too much: each has its own outcome, leaves nothing, and disturbs nobody else.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]

use tandem::prelude::*;
use tandem_testkit::{Answer, Outcome, TestKit};

#[derive(State)]
struct Written {
    by: Value<String>,
}

#[function(name = "bad")]
impl Bad {
    async fn panics(ctx: &Ctx<Written>) -> Result<()> {
        ctx.state.by.set("panics".to_owned());
        panic!("on purpose");
    }

    async fn hangs(ctx: &Ctx<Written>) -> Result<()> {
        ctx.state.by.set("hangs".to_owned());
        std::future::pending().await
    }

    async fn calls(ctx: &Ctx<Written>, count: usize) -> Result<usize> {
        ctx.state.by.set("calls".to_owned());
        let calls = (0..count).map(|number| Bad::at(number).writes(ctx));
        Ok(try_join_all(calls).await?.len())
    }

    async fn calls_itself(ctx: &Ctx<Written>) -> Result<()> {
        ctx.state.by.set("calls_itself".to_owned());
        Bad::at(ctx.key()).writes(ctx).await
    }

    async fn spawns_one_that_says_no(ctx: &Ctx<Written>) -> Result<()> {
        ctx.state.by.set("spawns".to_owned());
        Bad::at("other").says_no(ctx).spawn();
        Ok(())
    }

    async fn says_no(_ctx: &Ctx<Written>) -> Result<()> {
        reject("no", "never")
    }

    async fn fails_at_first(ctx: &Ctx<Written>) -> Result<u32> {
        if ctx.attempt() < 3 { Err(tandem::Error::retryable("not yet")) } else { Ok(ctx.attempt()) }
    }

    async fn writes_too_much(ctx: &Ctx<Written>) -> Result<()> {
        ctx.state.by.set("x".repeat(2 << 20));
        Ok(())
    }

    #[handler(read_only)]
    async fn writes_read_only(ctx: &Ctx<Written>) -> Result<()> {
        ctx.state.by.set("writes_read_only".to_owned());
        Ok(())
    }

    async fn emits_nowhere(ctx: &Ctx<Written>) -> Result<()> {
        ctx.emit("nowhere", ctx.key());
        Ok(())
    }

    async fn sends_to_nobody(ctx: &Ctx<Written>) -> Result<()> {
        ctx.call_raw("nobody", "x", "y", "null").send();
        Ok(())
    }

    async fn writes(ctx: &Ctx<Written>) -> Result<()> {
        ctx.state.by.set("writes".to_owned());
        Ok(())
    }
}

async fn check_with(kit: &TestKit, handler: &str, argument: &impl serde::Serialize) -> Answer {
    let answer = kit.call("bad", "b", handler, argument).await.unwrap();
    for key in ["b", "0", "other"] {
        assert!(kit.state("bad", key).await.unwrap().is_empty(), "{handler} left something in {key}");
    }
    let good = kit.call("bad", "good", "writes", &()).await.unwrap();
    assert_eq!(good.outcome, Outcome::Committed, "after {handler}");
    answer
}

#[tokio::test]
async fn bad_code_has_its_own_outcome_and_leaves_nothing() {
    let kit = TestKit::builder(Bad).deadline(Duration::from_secs(2)).start().await.unwrap();
    let check = async |handler: &str, outcome: Outcome, reason: &str| {
        let answer = check_with(&kit, handler, &()).await;
        assert_eq!((answer.outcome, answer.reason()), (outcome, reason), "{handler}");
    };
    check("panics", Outcome::Failed, "function-failed").await;
    check("hangs", Outcome::TimedOut, "deadline").await;
    check("calls_itself", Outcome::Failed, "call-cycle").await;
    check("spawns_one_that_says_no", Outcome::Rejected, "no").await;
    check("writes_too_much", Outcome::Failed, "value-too-large").await;
    check("writes_read_only", Outcome::Failed, "function-failed").await;
    check("emits_nowhere", Outcome::Failed, "unknown-egress").await;
    check("sends_to_nobody", Outcome::Failed, "unknown-function").await;
    let answer = check_with(&kit, "calls", &10_000).await;
    assert_eq!((answer.outcome, answer.reason()), (Outcome::Failed, "fan-out"));
}

#[tokio::test]
async fn a_failure_that_passes_is_not_seen() {
    let kit = TestKit::start(Bad).await.unwrap();
    let answer = kit.call("bad", "b", "fails_at_first", &()).await.unwrap();
    assert_eq!((answer.result::<u32>().unwrap(), answer.record.attempts), (3, 3));
}
