//! Calls that nobody waits for any more, and state that is larger than one message.

use std::future::Future;
use std::task::Poll;

use tandem::prelude::*;
use tandem_model::limits::Limits;
use tandem_model::outcome::Outcome;
use tandem_testkit::TestKit;

const MEBIBYTE: usize = 1 << 20;

#[derive(State)]
struct Cells {
    left: Value<String>,
    right: Value<String>,
    many: Map<u64, String>,
}

#[function(name = "cell")]
impl Cell {
    /// Begins a call that says no, drops it, and returns at once or only after another call.
    async fn leave_behind(ctx: &Ctx<Cells>, linger: bool) -> Result<()> {
        ctx.state.left.set("done".to_owned());
        {
            let mut refused = Box::pin(Self::at("refusing").refuse(ctx));
            // It begins with its first poll, and is dropped before its second.
            let begun = std::future::poll_fn(|context| Poll::Ready(refused.as_mut().poll(context).is_pending()));
            assert!(begun.await, "an answer cannot be there yet");
        }
        if linger {
            // The answer of the call above is there before this one has returned.
            Self::at("refusing").fill(ctx, 1).await?;
        }
        Ok(())
    }

    async fn refuse(ctx: &Ctx<Cells>) -> Result<()> {
        ctx.state.right.set("nothing of this may stay".to_owned());
        reject("never", "this one always refuses")
    }

    async fn fill(ctx: &Ctx<Cells>, bytes: usize) -> Result<()> {
        let text = "x".repeat(bytes);
        if ctx.state.left.get().await?.is_none() {
            ctx.state.left.set(text);
        } else {
            ctx.state.right.set(text);
        }
        Ok(())
    }

    async fn add(ctx: &Ctx<Cells>, number: u64) -> Result<()> {
        ctx.state.many.insert(number, "x".repeat(MEBIBYTE / 2));
        Ok(())
    }

    async fn count(ctx: &Ctx<Cells>) -> Result<usize> {
        Ok(ctx.state.many.scan(..).await?.len())
    }
}

/// Whether the "no" comes before the handler has returned or after must not matter.
#[tokio::test(flavor = "multi_thread")]
async fn the_no_of_a_call_that_is_left_behind_undoes_that_call_alone() {
    let kit = TestKit::start(Cell).await.unwrap();
    for linger in [false, true] {
        let key = format!("linger-{linger}");
        let answer = kit.call("cell", &key, "leave_behind", &linger).await.unwrap();
        assert_eq!(answer.outcome, Outcome::Committed, "{linger}: {:?}", answer.cause);
        let state = kit.state("cell", &key).await.unwrap();
        assert_eq!(state.value::<String>("left").unwrap().as_deref(), Some("done"));
        let refusing = kit.state("cell", "refusing").await.unwrap();
        assert_eq!(refusing.value::<String>("right").unwrap(), None, "{linger}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn states_that_do_not_fit_into_a_message_fail_by_name_and_disturb_nobody() {
    let limits = Limits { value_bytes_max: 8 * MEBIBYTE, write_bytes_max: 16 * MEBIBYTE, ..Limits::default() };
    let kit = TestKit::builder(Cell).limits(limits).start().await.unwrap();
    for _ in 0..2 {
        let answer = kit.call("cell", "large", "fill", &(8 * MEBIBYTE - 2)).await.unwrap();
        assert_eq!(answer.outcome, Outcome::Committed, "{:?}", answer.cause);
    }
    let answer = kit.call("cell", "large", "fill", &1).await.unwrap();
    assert_eq!((answer.outcome, answer.reason()), (Outcome::Failed, "states-too-large"));
    assert_eq!(answer.record.attempts, 1, "running it again cannot help");
    let answer = kit.call("cell", "small", "fill", &1).await.unwrap();
    assert_eq!((answer.outcome, answer.record.attempts), (Outcome::Committed, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_that_is_larger_than_a_message_is_scanned_in_parts() {
    let kit = TestKit::start(Cell).await.unwrap();
    for number in 0..40_u64 {
        kit.call("cell", "wide", "add", &number).await.unwrap();
    }
    let answer = kit.call("cell", "wide", "count", &()).await.unwrap();
    assert_eq!(answer.outcome, Outcome::Committed, "{:?}", answer.cause);
    assert_eq!(answer.result::<usize>().unwrap(), 40);
}
