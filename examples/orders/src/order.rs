//! Takes orders. One request, one transaction.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tandem::prelude::*;

use crate::cart::Cart;
use crate::inventory::{Inventory, Reserve};
use crate::loyalty::Loyalty;
use crate::payment::{Charge, Wallets};
use crate::{Cents, Line, SoldLine};

/// Most lines of one order.
pub const LINES_MAX: usize = 100;
/// Cents that earn one point.
pub const POINT_CENTS: Cents = 100;
/// From this total on, the customer gets a voucher.
pub const VOUCHER_FROM_CENTS: Cents = 10_000;
/// The voucher leaves a little after the order.
const VOUCHER_DELAY: Duration = Duration::from_secs(1);
/// Where a record of every order goes.
const ORDER_EVENTS: &str = "order-events";

/// What is stored for an order.
#[derive(State)]
pub struct OrderState {
    /// Absent until it is placed.
    placed: Value<Placed>,
}

/// An order, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// How far it is.
    pub status: Status,
    /// Who pays.
    pub customer: String,
    /// What was sold.
    pub lines: Vec<SoldLine>,
    /// What it cost.
    pub total: Cents,
    /// Which payment paid it.
    pub payment: String,
    /// Which order of the customer it is.
    pub number: i64,
    /// Whether its lines came out of the customer's cart.
    pub from_cart: bool,
}

/// How far an order is. It is stored only when stock and money are certain, so there is no "pending".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Paid, and its discs are set aside.
    Confirmed,
    /// On its way.
    Shipped,
}

/// What a customer asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Who pays.
    pub customer: String,
    /// What to buy. Without lines, what is in the customer's cart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<Vec<Line>>,
}

/// What a customer gets back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Which payment paid it.
    pub payment: String,
    /// Which order of the customer it is.
    pub number: i64,
    /// What it cost.
    pub total: Cents,
}

/// What others learn about an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderPlaced {
    /// Which order.
    pub order: String,
    /// Who paid.
    pub customer: String,
    /// What it cost.
    pub total: Cents,
}

/// The function `order`. Its key is the order's id.
#[function(name = "order")]
impl Order {
    /// Places the order: all of it or nothing.
    async fn place(ctx: &Ctx<OrderState>, wanted: Wanted) -> Result<Receipt> {
        if ctx.state.placed.get().await?.is_some() {
            return reject("already-placed", format!("order {} exists", ctx.key()));
        }
        let customer = wanted.customer;
        let from_cart = wanted.lines.is_none();
        let lines = match wanted.lines {
            Some(lines) => lines,
            None => Cart::at(&customer).check_out(ctx).await?,
        };
        if lines.is_empty() || lines.len() > LINES_MAX {
            return reject("bad-lines", format!("{} lines; an order has 1 to {LINES_MAX}", lines.len()));
        }

        let reserved = lines.iter().enumerate().map(|(number, line)| {
            let movement = format!("{}/{number}", ctx.key());
            Inventory::at(&line.sku).reserve(ctx, Reserve { movement, quantity: line.quantity })
        });
        let prices = try_join_all(reserved).await?; // in parallel, in this transaction
        let sold = sold(lines, prices);
        let total = sold.iter().map(|line| line.price * line.quantity).sum::<Cents>();
        let charge = Charge { order: ctx.key().to_string(), amount: total };
        let paid = Wallets::at(&customer).charge(ctx, charge).await?; // a rejection here undoes the stock

        Loyalty::at(&customer).add_points(ctx, total / POINT_CENTS).spawn(); // joins the transaction, nobody waits
        if total >= VOUCHER_FROM_CENTS {
            Loyalty::at(&customer).thank(ctx, ctx.key().to_string()).send_after(VOUCHER_DELAY); // leaves only if this commits
        }
        ctx.emit(ORDER_EVENTS, &OrderPlaced { order: ctx.key().to_string(), customer: customer.clone(), total });
        let receipt = Receipt { payment: paid.payment.clone(), number: paid.number, total };
        let (payment, number, status) = (paid.payment, paid.number, Status::Confirmed);
        ctx.state.placed.set(Placed { status, customer, lines: sold, total, payment, number, from_cart });
        Ok(receipt)
    }

    /// Notes that the order has left the house.
    async fn ship(ctx: &Ctx<OrderState>) -> Result<Placed> {
        let Some(placed) = ctx.state.placed.get().await? else {
            return reject("unknown-order", format!("there is no order {}", ctx.key()));
        };
        let placed = Placed { status: Status::Shipped, ..placed };
        ctx.state.placed.set(placed.clone());
        Ok(placed)
    }

    /// The order as it is.
    #[handler(read_only)]
    async fn get(ctx: &Ctx<OrderState>) -> Result<Placed> {
        match ctx.state.placed.get().await? {
            Some(placed) => Ok(placed),
            None => reject("unknown-order", format!("there is no order {}", ctx.key())),
        }
    }
}

/// Lines with the prices that the shelf asked for them.
fn sold(lines: Vec<Line>, prices: Vec<Cents>) -> Vec<SoldLine> {
    let pairs = lines.into_iter().zip(prices);
    pairs.map(|(line, price)| SoldLine { sku: line.sku, quantity: line.quantity, price }).collect()
}
