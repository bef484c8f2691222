//! A worker that counts, and whose revision with `FICKLE_FAILS=1` in its environment fails in everything it is asked: for the
//! test of a rollout that has to go back.

use tandem::prelude::*;

/// What is stored for a counter.
#[derive(State)]
struct Count {
    /// How often it was asked.
    asked: Value<i64>,
}

/// The function `fickle`.
#[function(name = "fickle")]
impl Fickle {
    /// One more, or a failure.
    async fn ask(ctx: &Ctx<Count>) -> Result<i64> {
        let asked = ctx.state.asked.get_or_default().await? + 1;
        ctx.state.asked.set(asked);
        if std::env::var_os("FICKLE_FAILS").is_some() {
            return Err(tandem::Error::fatal("this revision was told to fail"));
        }
        Ok(asked)
    }
}

#[tokio::main]
async fn main() -> tandem::Result<()> {
    tandem::serve(Fickle).await
}
