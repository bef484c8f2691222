//! The worker: user code of all workloads.

use serde::{Deserialize, Serialize};
use tandem::prelude::*;
use tokio::net::TcpListener;

use crate::padded::Padded;
use crate::serve::{Ready, say, until_abandoned};
use crate::workload::{points, price};

#[derive(State)]
struct Number {
    value: Value<Padded>,
}

/// Adds to a number, and returns what it is then. `None` if it would fall below zero.
async fn change(ctx: &Ctx<Number>, by: i64) -> Result<Option<u64>> {
    let before = ctx.state.value.get_or_default().await?;
    let after = before.0.checked_add_signed(by);
    if let Some(after) = after {
        ctx.state.value.set(Padded(after));
    }
    Ok(after)
}

#[function(name = "counter")]
impl Counter {
    /// Adds to the counter and returns its new value.
    async fn add(ctx: &Ctx<Number>, amount: i64) -> Result<Option<u64>> {
        change(ctx, amount).await
    }

    /// Adds one, if there is a tariff of that name.
    async fn add_priced(ctx: &Ctx<Number>, tariff: String) -> Result<Option<u64>> {
        if Tariff::at(&tariff).look(ctx).await?.is_none() {
            return reject("unknown-tariff", format!("there is no tariff {tariff}"));
        }
        change(ctx, 1).await
    }
}

#[function(name = "tariff")]
impl Tariff {
    /// What it says.
    async fn look(ctx: &Ctx<Number>) -> Result<Option<u64>> {
        Ok(ctx.state.value.get().await?.map(|price| price.0))
    }
}

#[derive(Deserialize, Serialize)]
struct Transfer {
    to: Vec<String>,
    amount: i64,
}

#[function(name = "account")]
impl Account {
    /// Pays other accounts: all of them or none.
    async fn transfer(ctx: &Ctx<Number>, wanted: Transfer) -> Result<u64> {
        let total = wanted.to.iter().map(|_| wanted.amount).sum::<i64>();
        let Some(left) = change(ctx, -total).await? else {
            return reject("insufficient-funds", format!("{}: {total} wanted", ctx.key()));
        };
        try_join_all(wanted.to.iter().map(|creditor| Self::at(creditor).deposit(ctx, wanted.amount))).await?;
        Ok(left)
    }

    async fn deposit(ctx: &Ctx<Number>, amount: i64) -> Result<()> {
        change(ctx, amount).await?;
        Ok(())
    }
}

#[function(name = "step")]
impl Step {
    /// Counts here, then goes on to the first of the others.
    async fn run(ctx: &Ctx<Number>, others: Vec<String>) -> Result<()> {
        change(ctx, 1).await?;
        if let Some((next, others)) = others.split_first() {
            Self::at(next).run(ctx, others.to_vec()).await?;
        }
        Ok(())
    }
}

/// What is bought: which item, how many.
type Lines = Vec<(String, i64)>;

#[derive(Deserialize, Serialize)]
struct Purchase {
    order: String,
    payer: String,
    lines: Lines,
}

#[function(name = "cart")]
impl Cart {
    /// Buys what is in the cart: all of it or nothing.
    async fn checkout(ctx: &Ctx<Number>, purchase: Purchase) -> Result<u64> {
        change(ctx, 1).await?;
        let customer = ctx.key().to_owned();
        Order::at(&purchase.order).place(ctx, (customer, purchase.payer, purchase.lines)).await
    }
}

#[function(name = "order")]
impl Order {
    /// Takes the stock, charges the payer, credits the points.
    async fn place(ctx: &Ctx<Number>, placed: (String, String, Lines)) -> Result<u64> {
        let (customer, payer, lines) = placed;
        if ctx.state.value.get().await?.is_some() {
            return reject("already-placed", format!("order {} exists", ctx.key()));
        }
        let taken = lines.iter().map(|(item, quantity)| Stock::at(item).take(ctx, *quantity));
        let total = try_join_all(taken).await?.into_iter().sum::<i64>();
        Payment::at(&payer).charge(ctx, total).await?;
        Loyalty::at(&customer).credit(ctx, points(total)).await?;
        ctx.state.value.set(Padded(total.unsigned_abs()));
        Ok(total.unsigned_abs())
    }
}

#[function(name = "stock")]
impl Stock {
    /// Takes so many pieces, and returns what they cost.
    async fn take(ctx: &Ctx<Number>, quantity: i64) -> Result<i64> {
        if ctx.state.value.get().await?.is_none() {
            return reject("unknown-item", format!("there is no item {}", ctx.key()));
        }
        let item = ctx.key().trim_start_matches('k').parse().unwrap_or_default();
        match change(ctx, -quantity).await? {
            Some(_) => Ok(price(item) * quantity),
            None => reject("out-of-stock", format!("{}: {quantity} wanted", ctx.key())),
        }
    }
}

#[function(name = "payment")]
impl Payment {
    /// Takes money out of a wallet.
    async fn charge(ctx: &Ctx<Number>, total: i64) -> Result<()> {
        match change(ctx, -total).await? {
            Some(_) => Ok(()),
            None => reject("insufficient-funds", format!("{}: {total} wanted", ctx.key())),
        }
    }
}

#[function(name = "loyalty")]
impl Loyalty {
    /// Adds points.
    async fn credit(ctx: &Ctx<Number>, points: i64) -> Result<()> {
        change(ctx, points).await?;
        Ok(())
    }
}

/// The functions of all workloads, and so many counters under other names.
struct All;

/// How many further counters there are. Names are static in the SDK, so they are made once, at start.
static FURTHER: std::sync::OnceLock<u32> = std::sync::OnceLock::new();

impl tandem::Functions for All {
    fn descriptors() -> Vec<tandem::generated::Descriptor> {
        use tandem::Function as _;

        let usual = <(Counter, Account, Step, Cart, Order, Stock, Payment, Loyalty, Tariff)>::descriptors();
        let further = (0..FURTHER.get().copied().unwrap_or(0)).map(|number| {
            let name: &'static str = Box::leak(format!("counter-{number}").into_boxed_str());
            tandem::generated::Descriptor { name, ..Counter::descriptor() }
        });
        usual.into_iter().chain(further).collect()
    }
}

/// Serves the functions until nobody needs them any more.
pub(crate) async fn serve(functions: u32) -> anyhow::Result<()> {
    let broken = |error: tandem::Error| anyhow::anyhow!("{error:?}");
    FURTHER.get_or_init(|| functions);
    let server = tandem::Server::new(All).bind(TcpListener::bind("127.0.0.1:0").await?).map_err(broken)?;
    say(&Ready { address: server.address().to_string() })?;
    server.run_until(until_abandoned()).await.map_err(broken)
}
