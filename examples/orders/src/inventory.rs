//! Stock and price of one disc.

use serde::{Deserialize, Serialize};
use tandem::prelude::*;

use crate::Cents;

/// Most discs of one kind that one line may ask for, or one delivery bring.
pub const QUANTITY_MAX: i64 = 100_000;

/// Highest price. Low enough that no total can overflow.
pub const PRICE_CENTS_MAX: Cents = 100_000_000;

/// What is stored for a disc.
#[derive(State)]
pub struct InventoryState {
    /// All that was ever put on the shelf.
    initial: Value<i64>,
    /// What is left of it.
    available: Value<i64>,
    /// What one costs. A disc without a price is not in the catalogue.
    price: Value<Cents>,
    /// What went to which line of which order: `o-00001/0`.
    movements: Map<String, i64>,
}

/// New stock.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restock {
    /// How many are added.
    pub quantity: i64,
    /// What one costs from now on.
    pub price: Cents,
}

/// What one line of an order needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// Names the movement: the order and the number of the line in it.
    pub movement: String,
    /// How many.
    pub quantity: i64,
}

/// What there is of a disc.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    /// How many are left.
    pub available: i64,
    /// What one costs.
    pub price: Cents,
}

/// The function `inventory`. Its key is a disc's stock keeping unit.
#[function(name = "inventory")]
impl Inventory {
    /// Adds stock and sets the price.
    async fn restock(ctx: &Ctx<InventoryState>, more: Restock) -> Result<Stock> {
        if !(0..=QUANTITY_MAX).contains(&more.quantity) || !(0..=PRICE_CENTS_MAX).contains(&more.price) {
            let detail = format!("{}: 0 to {QUANTITY_MAX} pieces for 0 to {PRICE_CENTS_MAX} cents each", ctx.key());
            return reject("bad-quantity", detail);
        }
        let initial = ctx.state.initial.get_or_default().await? + more.quantity;
        let available = ctx.state.available.get_or_default().await? + more.quantity;
        ctx.state.initial.set(initial);
        ctx.state.available.set(available);
        ctx.state.price.set(more.price);
        Ok(Stock { available, price: more.price })
    }

    /// Takes stock for one line of an order; returns what one of them costs.
    async fn reserve(ctx: &Ctx<InventoryState>, wanted: Reserve) -> Result<Cents> {
        if !(1..=QUANTITY_MAX).contains(&wanted.quantity) {
            return reject("bad-quantity", format!("{}: {} wanted", ctx.key(), wanted.quantity));
        }
        let Some(price) = ctx.state.price.get().await? else {
            return reject("unknown-item", format!("{} is not in the catalogue", ctx.key()));
        };
        let available = ctx.state.available.get_or_default().await?;
        if available < wanted.quantity {
            let detail = format!("{}: {} wanted, {available} left", ctx.key(), wanted.quantity);
            return reject("out-of-stock", detail);
        }
        ctx.state.available.set(available - wanted.quantity);
        ctx.state.movements.insert(wanted.movement, wanted.quantity);
        Ok(price)
    }

    /// What is left, and what it costs.
    #[handler(read_only)]
    async fn get(ctx: &Ctx<InventoryState>) -> Result<Stock> {
        let Some(price) = ctx.state.price.get().await? else {
            return reject("unknown-item", format!("{} is not in the catalogue", ctx.key()));
        };
        Ok(Stock { available: ctx.state.available.get_or_default().await?, price })
    }
}
