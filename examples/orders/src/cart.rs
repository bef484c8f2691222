//! What one customer wants to buy.

use serde::{Deserialize, Serialize};
use tandem::prelude::*;

use crate::Line;

/// What is stored for a cart.
#[derive(State)]
pub struct CartState {
    /// What is in it. Absent when it is empty.
    lines: Value<Vec<Line>>,
    /// How often an order emptied it.
    checkouts: Value<i64>,
}

/// A cart as a customer sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// What is in it.
    pub lines: Vec<Line>,
}

/// The function `cart`. Its key is a customer.
#[function(name = "cart")]
impl Cart {
    /// Puts these lines into the cart, instead of what was in it.
    async fn fill(ctx: &Ctx<CartState>, contents: Contents) -> Result<Contents> {
        ctx.state.lines.set(contents.lines.clone());
        Ok(contents)
    }

    /// Empties the cart, and returns what was in it. If the order comes to nothing, so does this.
    async fn check_out(ctx: &Ctx<CartState>) -> Result<Vec<Line>> {
        let lines = ctx.state.lines.get_or_default().await?;
        if lines.is_empty() {
            return reject("empty-cart", format!("the cart of {} is empty", ctx.key()));
        }
        let checkouts = ctx.state.checkouts.get_or_default().await?;
        ctx.state.lines.delete();
        ctx.state.checkouts.set(checkouts + 1);
        Ok(lines)
    }

    /// What is in it.
    #[handler(read_only)]
    async fn get(ctx: &Ctx<CartState>) -> Result<Contents> {
        Ok(Contents { lines: ctx.state.lines.get_or_default().await? })
    }
}
