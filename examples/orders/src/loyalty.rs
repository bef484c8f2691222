//! Points and vouchers of one customer.

use serde::{Deserialize, Serialize};
use tandem::prelude::*;

/// What is stored for a customer's loyalty.
#[derive(State)]
pub struct LoyaltyState {
    /// One for each whole dollar of each order.
    points: Value<i64>,
    /// How many vouchers came for which order. More than one would mean that a message was delivered twice.
    vouchers: Map<String, i64>,
}

/// What a customer has earned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Points {
    /// The sum.
    pub points: i64,
}

/// The function `loyalty`. Its key is a customer.
#[function(name = "loyalty")]
impl Loyalty {
    /// Adds the points of an order.
    async fn add_points(ctx: &Ctx<LoyaltyState>, points: i64) -> Result<()> {
        let before = ctx.state.points.get_or_default().await?;
        ctx.state.points.set(before + points);
        Ok(())
    }

    /// Sends a voucher for a large order.
    async fn thank(ctx: &Ctx<LoyaltyState>, order: String) -> Result<()> {
        let before = ctx.state.vouchers.get(&order).await?.unwrap_or(0);
        ctx.state.vouchers.insert(order, before + 1);
        Ok(())
    }

    /// The points so far.
    #[handler(read_only)]
    async fn get(ctx: &Ctx<LoyaltyState>) -> Result<Points> {
        Ok(Points { points: ctx.state.points.get_or_default().await? })
    }
}
