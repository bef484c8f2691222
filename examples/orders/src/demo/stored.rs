//! The state as it is stored, in the shop's own words. The checks know nothing else of it.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use orders::order::{OrderPlaced, Placed};
use orders::payment::Payment;
use orders::{Cents, Line};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// All that five functions store, and what they emitted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    /// By disc.
    pub(crate) inventory: BTreeMap<String, Shelf>,
    /// By customer.
    pub(crate) payment: BTreeMap<String, Wallet>,
    /// By order.
    pub(crate) order: BTreeMap<String, Placed>,
    /// By customer.
    pub(crate) cart: BTreeMap<String, Basket>,
    /// By customer.
    pub(crate) loyalty: BTreeMap<String, Earned>,
    /// Records of the egress, in their order.
    pub(crate) events: Vec<OrderPlaced>,
}

/// What `inventory` stores for a disc.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf {
    /// All that was ever put there.
    pub(crate) initial: i64,
    /// What is left.
    pub(crate) available: i64,
    /// Quantity by `order/line`.
    pub(crate) movements: BTreeMap<String, i64>,
}

/// What `payment` stores for a customer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wallet {
    /// All that was ever paid in.
    pub(crate) initial: Cents,
    /// What is left.
    pub(crate) balance: Cents,
    /// How many orders were paid.
    pub(crate) orders: i64,
    /// By order.
    pub(crate) payments: BTreeMap<String, Payment>,
}

/// What `cart` stores for a customer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Basket {
    /// What is in it.
    pub(crate) lines: Vec<Line>,
    /// How often an order emptied it.
    pub(crate) checkouts: i64,
}

/// What `loyalty` stores for a customer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Earned {
    /// One a dollar.
    pub(crate) points: i64,
    /// How many by order.
    pub(crate) vouchers: BTreeMap<String, i64>,
}

/// One instance as the admin port shows it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Instance {
    /// Its key.
    pub(crate) key: String,
    /// States of kind value.
    #[serde(default)]
    values: BTreeMap<String, Value>,
    /// States of kind map, entry by entry.
    #[serde(default)]
    entries: BTreeMap<String, BTreeMap<String, Value>>,
    /// Not all entries are here.
    #[serde(default)]
    pub(crate) more: bool,
}

impl Instance {
    fn value<T: DeserializeOwned>(&self, state: &str) -> anyhow::Result<Option<T>> {
        let Some(value) = self.values.get(state) else { return Ok(None) };
        serde_json::from_value(value.clone()).with_context(|| format!("state {state} of {} is {value}", self.key))
    }

    fn entries<T: DeserializeOwned>(&self, state: &str) -> anyhow::Result<BTreeMap<String, T>> {
        if self.more {
            bail!("{} has more entries than the admin port shows at once", self.key);
        }
        let entries = self.entries.get(state).into_iter().flatten();
        let decoded = entries.map(|(key, value)| {
            let decoded = serde_json::from_value(value.clone());
            Ok((key.clone(), decoded.with_context(|| format!("entry {key} of {state} of {} is {value}", self.key))?))
        });
        decoded.collect()
    }
}

impl Stored {
    /// Takes in the instances of one function.
    pub(crate) fn add(&mut self, function: &str, instances: &[Instance]) -> anyhow::Result<()> {
        for instance in instances {
            let key = instance.key.clone();
            match function {
                "inventory" => drop(self.inventory.insert(key, shelf(instance)?)),
                "payment" => drop(self.payment.insert(key, wallet(instance)?)),
                "cart" => drop(self.cart.insert(key, basket(instance)?)),
                "loyalty" => drop(self.loyalty.insert(key, earned(instance)?)),
                "order" => {
                    if let Some(placed) = instance.value("placed")? {
                        self.order.insert(key, placed);
                    }
                }
                other => bail!("function {other} is not one of this shop's"),
            }
        }
        Ok(())
    }
}

fn shelf(instance: &Instance) -> anyhow::Result<Shelf> {
    Ok(Shelf {
        initial: instance.value("initial")?.unwrap_or(0),
        available: instance.value("available")?.unwrap_or(0),
        movements: instance.entries("movements")?,
    })
}

fn wallet(instance: &Instance) -> anyhow::Result<Wallet> {
    Ok(Wallet {
        initial: instance.value("initial")?.unwrap_or(0),
        balance: instance.value("balance")?.unwrap_or(0),
        orders: instance.value("orders")?.unwrap_or(0),
        payments: instance.entries("payments")?,
    })
}

fn basket(instance: &Instance) -> anyhow::Result<Basket> {
    Ok(Basket {
        lines: instance.value("lines")?.unwrap_or_default(),
        checkouts: instance.value("checkouts")?.unwrap_or(0),
    })
}

fn earned(instance: &Instance) -> anyhow::Result<Earned> {
    Ok(Earned { points: instance.value("points")?.unwrap_or(0), vouchers: instance.entries("vouchers")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(json: Value) -> Instance {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn an_instance_becomes_a_shelf() {
        let json = serde_json::json!({
            "key": "sku-1",
            "values": {"initial": 5, "available": 3, "price": 100},
            "entries": {"movements": {"o-1/0": 2}},
        });
        let mut stored = Stored::default();
        stored.add("inventory", &[instance(json)]).unwrap();
        let shelf = &stored.inventory["sku-1"];
        assert_eq!((shelf.initial, shelf.available, shelf.movements["o-1/0"]), (5, 3, 2));
    }

    #[test]
    fn an_order_that_was_only_looked_at_is_none() {
        let mut stored = Stored::default();
        stored.add("order", &[instance(serde_json::json!({"key": "o-1", "values": {}}))]).unwrap();
        assert!(stored.order.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let mut stored = Stored::default();
        let wrong_type = instance(serde_json::json!({"key": "c-1", "values": {"balance": "much"}}));
        assert!(stored.add("payment", &[wrong_type]).unwrap_err().to_string().contains("balance"));
        let cut = instance(serde_json::json!({"key": "c-1", "more": true}));
        assert!(stored.add("payment", &[cut]).unwrap_err().to_string().contains("more entries"));
    }
}
