//! The wallet of one customer, and what was paid from it.

use serde::{Deserialize, Serialize};
use tandem::prelude::*;

use crate::Cents;

/// Largest deposit. Low enough that no balance can overflow in practice.
pub const DEPOSIT_CENTS_MAX: Cents = 100_000_000_000;

/// What is stored for a customer's money.
#[derive(State)]
pub struct PaymentState {
    /// All that was ever paid in.
    initial: Value<Cents>,
    /// What is left of it.
    balance: Value<Cents>,
    /// How many orders were paid; the last one's number.
    orders: Value<i64>,
    /// What was paid, by order.
    payments: Map<String, Payment>,
}

/// One payment, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// How much.
    pub amount: Cents,
    /// The first order of a customer has number 1, the next one 2, without a gap.
    pub number: i64,
}

/// Money that comes in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deposit {
    /// How much.
    pub amount: Cents,
}

/// Money that an order needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charge {
    /// Which order.
    pub order: String,
    /// How much.
    pub amount: Cents,
}

/// That an order was paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paid {
    /// Names the payment: `p-c-0004-1`.
    pub payment: String,
    /// Which order of this customer it is.
    pub number: i64,
}

/// What a customer has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wallet {
    /// What is left.
    pub balance: Cents,
    /// How many orders were paid.
    pub orders: i64,
}

/// The function `payment`. Its key is a customer.
#[function(name = "payment")]
impl Wallets {
    /// Pays money in.
    async fn deposit(ctx: &Ctx<PaymentState>, money: Deposit) -> Result<Wallet> {
        if !(0..=DEPOSIT_CENTS_MAX).contains(&money.amount) {
            return reject("bad-amount", format!("{} cents; a deposit has 0 to {DEPOSIT_CENTS_MAX}", money.amount));
        }
        let initial = ctx.state.initial.get_or_default().await? + money.amount;
        let balance = ctx.state.balance.get_or_default().await? + money.amount;
        ctx.state.initial.set(initial);
        ctx.state.balance.set(balance);
        Ok(Wallet { balance, orders: ctx.state.orders.get_or_default().await? })
    }

    /// Pays an order.
    async fn charge(ctx: &Ctx<PaymentState>, due: Charge) -> Result<Paid> {
        let balance = ctx.state.balance.get_or_default().await?;
        if balance < due.amount {
            let detail = format!("{}: {} cents due, {balance} in the wallet", ctx.key(), due.amount);
            return reject("insufficient-funds", detail);
        }
        let number = ctx.state.orders.get_or_default().await? + 1;
        ctx.state.balance.set(balance - due.amount);
        ctx.state.orders.set(number);
        ctx.state.payments.insert(due.order, Payment { amount: due.amount, number });
        Ok(Paid { payment: format!("p-{}-{number}", ctx.key()), number })
    }

    /// What is left.
    #[handler(read_only)]
    async fn get(ctx: &Ctx<PaymentState>) -> Result<Wallet> {
        let balance = ctx.state.balance.get_or_default().await?;
        Ok(Wallet { balance, orders: ctx.state.orders.get_or_default().await? })
    }
}
