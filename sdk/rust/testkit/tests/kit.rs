//! A small shop in the kit: what commits, what does not, and what leaves afterwards.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::ops::Bound;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tandem::prelude::*;
use tandem_testkit::{Error, Limits, Outcome, TestKit};

#[derive(State)]
struct Stock {
    available: Value<u32>,
    reserved: Map<String, u32>,
}

#[derive(State)]
struct OrderState {
    status: Value<String>,
    ticks: Map<i64, u32>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    sku: String,
    quantity: u32,
}

#[function(name = "inventory")]
impl Inventory {
    async fn reserve(ctx: &Ctx<Stock>, (order, quantity): (String, u32)) -> Result<u32> {
        let available = ctx.state.available.get_or_default().await?;
        let Some(left) = available.checked_sub(quantity) else {
            return reject("out-of-stock", format!("{quantity} wanted, {available} left"));
        };
        ctx.state.available.set(left);
        ctx.state.reserved.insert(order, quantity);
        Ok(left)
    }

    async fn note(ctx: &Ctx<Stock>, order: String) -> Result<()> {
        ctx.state.reserved.insert(order, 0);
        Ok(())
    }

    async fn add(ctx: &Ctx<Stock>, quantity: u32) -> Result<u32> {
        ctx.state.available.update(|available| *available += quantity).await?;
        ctx.state.available.get_or_default().await
    }
}

#[function(name = "order")]
impl Order {
    async fn place(ctx: &Ctx<OrderState>, lines: Vec<Line>) -> Result<usize> {
        if ctx.state.status.get().await?.is_some() {
            return reject("already-placed", format!("order {} exists", ctx.key()));
        }
        let key = || ctx.key().to_owned();
        let reserved = lines.iter().map(|line| Inventory::at(&line.sku).reserve(ctx, (key(), line.quantity)));
        let reserved = try_join_all(reserved).await?;
        Inventory::at("audit").note(ctx, key()).spawn();
        Inventory::at("sent").note(ctx, key()).send();
        Inventory::at("late").note(ctx, key()).send_after(Duration::from_hours(1));
        ctx.emit("placed", ctx.key());
        ctx.state.status.set("placed".to_owned());
        Ok(reserved.len())
    }

    async fn place_what_is_there(ctx: &Ctx<OrderState>, lines: Vec<Line>) -> Result<u32> {
        let mut missing = 0;
        for line in lines {
            match Inventory::at(line.sku).reserve(ctx, (ctx.key().to_owned(), line.quantity)).await {
                Err(error) if error.is_rejected_with("out-of-stock") => missing += line.quantity,
                other => drop(other?),
            }
        }
        ctx.state.status.set("partly".to_owned());
        Ok(missing)
    }

    async fn tick(ctx: &Ctx<OrderState>, ticks: Vec<(i64, u32)>) -> Result<()> {
        for (at, count) in ticks {
            ctx.state.ticks.insert(at, count);
        }
        Ok(())
    }

    async fn ticks(ctx: &Ctx<OrderState>) -> Result<[Vec<(i64, u32)>; 4]> {
        ctx.state.ticks.remove(&-3);
        ctx.state.ticks.insert(1, 100);
        let all = ctx.state.ticks.scan(..).await?;
        let between = ctx.state.ticks.scan((Bound::Excluded(-5), Bound::Included(1))).await?;
        let first = ctx.state.ticks.first(-3.., 2).await?;
        let last = ctx.state.ticks.last(..0, 3).await?;
        Ok([all, between, first, last])
    }

    #[handler(read_only)]
    async fn status(ctx: &Ctx<OrderState>) -> Result<Option<String>> {
        ctx.state.status.get().await
    }
}

async fn shop() -> TestKit {
    let kit = TestKit::builder((Order, Inventory)).egress("placed").start().await.unwrap();
    kit.seed("inventory", "sku-1", "available", &5).await.unwrap();
    kit.seed("inventory", "sku-2", "available", &1).await.unwrap();
    kit
}

fn lines(quantities: [u32; 2]) -> Vec<Line> {
    let line = |(sku, quantity): (&str, u32)| Line { sku: sku.to_owned(), quantity };
    ["sku-1", "sku-2"].into_iter().zip(quantities).map(line).collect()
}

async fn available(kit: &TestKit) -> [Option<u32>; 2] {
    let of = async |sku| kit.state("inventory", sku).await.unwrap().value("available").unwrap();
    [of("sku-1").await, of("sku-2").await]
}

#[tokio::test]
async fn an_order_takes_all_of_its_stock_or_none() {
    let kit = shop().await;
    let answer = kit.call("order", "o-1", "place", &lines([2, 2])).await.unwrap();
    assert_eq!((answer.outcome, answer.reason()), (Outcome::Rejected, "out-of-stock"));
    let instance = answer.cause.as_ref().unwrap().instance.as_ref().unwrap();
    assert_eq!(instance.to_string(), "inventory/sku-2");
    assert!(matches!(answer.result::<usize>(), Err(Error::NotCommitted { outcome: Outcome::Rejected, .. })));
    kit.rest().await.unwrap();
    assert_eq!(available(&kit).await, [Some(5), Some(1)]);
    assert!(kit.state("order", "o-1").await.unwrap().is_empty());
    assert!(kit.state("inventory", "audit").await.unwrap().is_empty());
    assert!(kit.state("inventory", "sent").await.unwrap().is_empty());
    assert_eq!(kit.emitted::<String>("placed").await.unwrap(), [""; 0]);

    let answer = kit.call("order", "o-1", "place", &lines([2, 1])).await.unwrap();
    assert_eq!(answer.result::<usize>().unwrap(), 2);
    assert_eq!(available(&kit).await, [Some(3), Some(0)]);
    let reserved = kit.state("inventory", "sku-1").await.unwrap().entries::<String, u32>("reserved").unwrap();
    assert_eq!(reserved, [("o-1".to_owned(), 2)]);
}

#[tokio::test]
async fn spawns_sends_and_emits_leave_with_the_commit() {
    let kit = shop().await;
    kit.call("order", "o-1", "place", &lines([1, 1])).await.unwrap().result::<usize>().unwrap();
    let noted = async |key| {
        let state = kit.state("inventory", key).await.unwrap();
        state.entries::<String, u32>("reserved").unwrap().len()
    };
    assert_eq!(noted("audit").await, 1);
    assert_eq!(kit.emitted::<String>("placed").await.unwrap(), ["o-1"]);
    kit.rest().await.unwrap();
    assert_eq!(noted("sent").await, 1);
    assert_eq!(noted("late").await, 0);
}

#[tokio::test]
async fn a_rejection_that_is_handled_undoes_only_the_callee() {
    let kit = shop().await;
    let answer = kit.call("order", "o-1", "place_what_is_there", &lines([2, 7])).await.unwrap();
    assert_eq!(answer.result::<u32>().unwrap(), 7);
    assert_eq!(available(&kit).await, [Some(3), Some(1)]);
    let answer = kit.call("order", "o-1", "status", &()).await.unwrap();
    assert_eq!(answer.result::<Option<String>>().unwrap().as_deref(), Some("partly"));
}

#[tokio::test]
async fn the_same_request_runs_once() {
    let kit = shop().await;
    let first = kit.call_as("r-1", "inventory", "sku-1", "add", &2).await.unwrap();
    let again = kit.call_as("r-1", "inventory", "sku-1", "add", &2).await.unwrap();
    assert_eq!((first.repeated, again.repeated), (false, true));
    assert_eq!((first.result::<u32>().unwrap(), again.result::<u32>().unwrap()), (7, 7));
    let other = kit.call_as("r-1", "inventory", "sku-1", "add", &3).await;
    assert!(matches!(other, Err(Error::NotAccepted(_))), "{other:?}");
}

#[tokio::test]
async fn no_update_is_lost() {
    const COUNT: u32 = 50;
    let kit = shop().await;
    let calls = (0..COUNT).map(|_| kit.call("inventory", "counter", "add", &1));
    let mut results: Vec<u32> =
        join_all(calls).await.into_iter().map(|answer| answer.unwrap().result().unwrap()).collect();
    results.sort_unstable();
    assert_eq!(results, (1..=COUNT).collect::<Vec<_>>());
}

#[tokio::test]
async fn maps_are_scanned_in_order_page_by_page() {
    let limits = Limits { scan_entries_max: 2, ..Limits::default() };
    let kit = TestKit::builder(Order).limits(limits).start().await.unwrap();
    let ticks = [(5_i64, 5_u32), (-5, 1), (-3, 2), (0, 4), (-1, 3), (7, 6)];
    kit.call("order", "o", "tick", &ticks).await.unwrap().result::<()>().unwrap();
    kit.seed_entry("order", "o", "ticks", (&9_i64, &7)).await.unwrap();
    let [all, between, first, last] =
        kit.call("order", "o", "ticks", &()).await.unwrap().result::<[Vec<(i64, u32)>; 4]>().unwrap();
    assert_eq!(all, [(-5, 1), (-1, 3), (0, 4), (1, 100), (5, 5), (7, 6), (9, 7)]);
    assert_eq!(between, [(-1, 3), (0, 4), (1, 100)]);
    assert_eq!(first, [(-1, 3), (0, 4)]);
    assert_eq!(last, [(-1, 3), (-5, 1)]);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let kit = shop().await;
    assert!(matches!(kit.call("order", "o", "plaec", &()).await, Err(Error::NotAccepted(_))));
    assert!(matches!(kit.call("Order", "o", "place", &()).await, Err(Error::Name(_))));
    assert!(matches!(kit.state("order", "").await, Err(Error::Name(_))));
}
