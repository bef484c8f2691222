//! Functions that do one thing each, for the runtime of the tests to look at.

use std::collections::HashSet;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use tandem::prelude::*;
use tokio::sync::watch;

/// Flows whose handler was dropped while it hung.
pub(crate) static DROPPED: LazyLock<watch::Sender<HashSet<String>>> =
    LazyLock::new(|| watch::Sender::new(HashSet::new()));

struct SaysWhenDropped(String);

impl Drop for SaysWhenDropped {
    fn drop(&mut self) {
        DROPPED.send_modify(|dropped| {
            dropped.insert(std::mem::take(&mut self.0));
        });
    }
}

#[derive(MapKey, Debug, PartialEq)]
pub(crate) struct Sku(pub(crate) String);

#[derive(State)]
pub(crate) struct ProbeState {
    count: Value<i64>,
    #[state(name = "label-text")]
    label: Value<String>,
    lines: Map<Sku, u32>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Order {
    sku: String,
    quantity: u32,
}

/// A value that JSON has no form for: its keys are no texts.
#[derive(Serialize, Deserialize, Default)]
struct NoJson(std::collections::BTreeMap<Vec<u8>, u32>);

/// Does one thing each.
#[function(name = "probe")]
impl Probe {
    async fn add(ctx: &Ctx<ProbeState>, amount: i64) -> Result<i64> {
        ctx.state.count.update(|count| *count += amount).await?;
        ctx.state.count.get_or_default().await
    }

    async fn relabel(ctx: &Ctx<ProbeState>, label: Option<String>) -> Result<Option<String>> {
        let before = ctx.state.label.get().await?;
        match label {
            Some(label) => ctx.state.label.set(label),
            None => ctx.state.label.delete(),
        }
        Ok(before)
    }

    async fn about(ctx: &Ctx<ProbeState>) -> Result<String> {
        let left_ms = ctx.deadline().saturating_duration_since(std::time::Instant::now()).as_millis();
        let in_time = left_ms > 1_000 && left_ms <= 10_000;
        Ok(format!("{} {} {} {in_time} {:?}", ctx.key(), ctx.flow_id(), ctx.attempt(), ctx.traceparent()))
    }

    async fn buy(ctx: &Ctx<ProbeState>, Order { sku, quantity }: Order) -> Result<u32> {
        ctx.state.count.set(1);
        let total = Self::helper(quantity);
        Echo::at(sku).double(ctx, total).await
    }

    async fn buy_all(ctx: &Ctx<ProbeState>, skus: Vec<String>) -> Result<Vec<u32>> {
        try_join_all(skus.iter().zip(1..).map(|(sku, quantity)| Echo::at(sku).double(ctx, quantity))).await
    }

    async fn buy_or_less(ctx: &Ctx<ProbeState>, quantity: u32) -> Result<u32> {
        match Echo::at("e").double(ctx, quantity).await {
            Err(error) if error.is_rejected_with("too-much") => Ok(0),
            other => other,
        }
    }

    async fn release(ctx: &Ctx<ProbeState>) -> Result<()> {
        let echo = Echo::at("e");
        echo.double(ctx, 1).spawn();
        echo.double(ctx, 2).send();
        echo.greet(ctx).send_after(Duration::from_mins(30));
        ctx.call_raw("elsewhere", 7, "take", "bytes").send();
        ctx.emit("events", serde_json::json!({"n": 1}));
        drop(echo.greet(ctx));
        Ok(())
    }

    async fn forget_a_call(ctx: &Ctx<ProbeState>) -> Result<u32> {
        let mut call = Echo::at("e").double(ctx, 1);
        assert!(futures_util::poll!(&mut call).is_pending());
        drop(call);
        Ok(1)
    }

    async fn by_name(ctx: &Ctx<ProbeState>) -> Result<Vec<String>> {
        let text: String = ctx.call("elsewhere", "x", "take", &[1, 2]).await?;
        let bytes = ctx.call_raw("elsewhere", "x", "take", "raw").await?;
        Ok(vec![text, String::from_utf8_lossy(&bytes).into_owned()])
    }

    async fn lines(ctx: &Ctx<ProbeState>, changes: Vec<(String, Option<u32>)>) -> Result<Vec<(String, u32)>> {
        for (sku, quantity) in changes {
            match quantity {
                Some(quantity) => ctx.state.lines.insert(Sku(sku), quantity),
                None => ctx.state.lines.remove(&Sku(sku)),
            }
        }
        let range = Sku("b".into())..Sku("y".into());
        let lines = ctx.state.lines.scan(range).await?;
        Ok(lines.into_iter().map(|(sku, quantity)| (sku.0, quantity)).collect())
    }

    async fn ends(ctx: &Ctx<ProbeState>, removed: String) -> Result<Vec<(String, u32)>> {
        ctx.state.lines.remove(&Sku(removed));
        let mut found = ctx.state.lines.first(.., 1).await?;
        found.extend(ctx.state.lines.last(..=Sku("m".into()), 2).await?);
        Ok(found.into_iter().map(|(sku, quantity)| (sku.0, quantity)).collect())
    }

    async fn line(ctx: &Ctx<ProbeState>, sku: String) -> Result<[Option<u32>; 3]> {
        let sku = Sku(sku);
        let stored = ctx.state.lines.get(&sku).await?;
        ctx.state.lines.insert(Sku(sku.0.clone()), 9);
        let written = ctx.state.lines.get(&sku).await?;
        ctx.state.lines.remove(&sku);
        assert!(!ctx.state.lines.contains(&sku).await?);
        Ok([stored, written, ctx.state.lines.get(&sku).await?])
    }

    #[handler(read_only)]
    async fn peek_and_write(ctx: &Ctx<ProbeState>) -> Result<i64> {
        ctx.state.count.set(5);
        ctx.emit("events", 1);
        Ok(5)
    }

    #[handler(name = "say-no", snapshot)]
    async fn say_no(ctx: &Ctx<ProbeState>) -> Result<()> {
        ctx.state.count.set(5);
        reject("no-way", format!("{} says no", ctx.key()))
    }

    async fn break_down(ctx: &Ctx<ProbeState>, fatally: bool) -> Result<()> {
        ctx.state.count.set(5);
        if fatally {
            return Err(tandem::Error::fatal("broken for good"));
        }
        "x".parse::<u32>()?;
        Ok(())
    }

    async fn go_mad(ctx: &Ctx<ProbeState>) -> Result<()> {
        ctx.state.count.set(5);
        panic!("lost it: {}", ctx.key());
    }

    async fn hang(ctx: &Ctx<ProbeState>) -> Result<()> {
        let _says = SaysWhenDropped(ctx.flow_id().to_owned());
        Echo::at("hanging").greet(ctx).spawn();
        std::future::pending().await
    }

    async fn emit_nonsense(ctx: &Ctx<ProbeState>) -> Result<()> {
        ctx.emit("events", NoJson([(vec![1], 1)].into()));
        Ok(())
    }

    async fn return_nonsense(_ctx: &Ctx<ProbeState>) -> Result<NoJson> {
        Ok(NoJson([(vec![1], 1)].into()))
    }

    async fn return_too_much(_ctx: &Ctx<ProbeState>) -> Result<Raw> {
        Ok(Raw { content_type: String::new(), bytes: vec![b'x'; tandem_proto::MESSAGE_BYTES_MAX].into() })
    }

    async fn raw(_ctx: &Ctx<ProbeState>, body: Raw) -> Result<Raw> {
        let bytes = body.bytes.iter().rev().copied().collect::<Vec<u8>>().into();
        Ok(Raw { content_type: format!("reversed-{}", body.content_type), bytes })
    }

    /// Not a handler.
    fn helper(quantity: u32) -> u32 {
        quantity * 10
    }

    #[handler(skip)]
    #[allow(dead_code)]
    async fn no_handler(ctx: &Ctx<ProbeState>, _one: u32, _two: u32) -> Result<()> {
        ctx.state.count.delete();
        Ok(())
    }
}

/// Has no state.
#[derive(Clone, Copy)]
pub(crate) struct Echo;

#[function(declare = false)]
impl Echo {
    #[handler(serializable)]
    async fn double(_ctx: &Ctx, number: u32) -> Result<u32> {
        Ok(number * 2)
    }

    async fn greet(_ctx: &Ctx<()>) -> Result<String, std::fmt::Error> {
        Ok("hello".to_owned())
    }
}
