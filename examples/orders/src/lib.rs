//! Orders, stock, payments, carts and points that commit together.
//!
//! | module | function | an instance is |
//! | --- | --- | --- |
//! | [`inventory`] | stock and price | one disc, by its stock keeping unit |
//! | [`payment`] | wallet and payments | one customer |
//! | [`cart`] | what a customer wants to buy | one customer |
//! | [`loyalty`] | points and vouchers | one customer |
//! | [`order`] | what was bought | one order |
//!
//! **Invariant:** no code here undoes anything. An order is there with its payment, its stock movements and its points, or
//! there is none of them, because one request is one transaction.

use serde::{Deserialize, Serialize};

pub mod cart;
pub mod inventory;
pub mod loyalty;
pub mod order;
pub mod payment;

/// Money, in whole cents.
pub type Cents = i64;

/// Some discs of one kind, as wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Which disc.
    pub sku: String,
    /// How many. At least 1.
    pub quantity: i64,
}

/// Some discs of one kind, as sold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoldLine {
    /// Which disc.
    pub sku: String,
    /// How many.
    pub quantity: i64,
    /// What one of them cost.
    pub price: Cents,
}
