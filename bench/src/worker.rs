//! The counter function.

use tandem::prelude::*;

#[derive(State)]
struct CounterState {
    count: Value<i64>,
}

#[function(name = "counter")]
impl Counter {
    /// Adds to the counter and returns its new value.
    async fn add(ctx: &Ctx<CounterState>, amount: i64) -> Result<i64> {
        let count = ctx.state.count.get().await?.unwrap_or_default() + amount;
        ctx.state.count.set(count);
        Ok(count)
    }
}

/// Serves it where the benchmark says.
pub(crate) async fn serve() -> anyhow::Result<()> {
    tandem::serve(Counter).await.map_err(|error| anyhow::anyhow!("{error:?}"))
}
