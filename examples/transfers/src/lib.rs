//! Bank transfers: whatever is sent, refused, repeated or killed, no cent is lost and none is made.
//!
//! One function, `account`. A transfer runs on the account that pays and calls the accounts that are paid, all in one
//! transaction. **Invariant:** over all accounts, the balances add up to what was paid in at the counter; and for each account
//! `balance = opened + received - sent`, never below zero.

use serde::{Deserialize, Serialize};
use tandem::prelude::*;

/// Money, in whole cents.
pub type Cents = i64;

/// Most accounts that one transfer may pay.
pub const CREDITORS_MAX: usize = 64;
/// Largest amount of one payment. Low enough that no balance can overflow in practice.
pub const AMOUNT_CENTS_MAX: Cents = 100_000_000_000;

/// What is stored for an account.
#[derive(State)]
pub struct AccountState {
    /// What is there now.
    balance: Value<Cents>,
    /// What was paid in when it was opened.
    opened: Value<Cents>,
    /// All that ever went to other accounts.
    sent: Value<Cents>,
    /// All that ever came from other accounts.
    received: Value<Cents>,
}

/// A new account.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// What is paid in.
    pub amount: Cents,
}

/// A wish to pay.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// Who is paid. One account, or several: then each gets the amount, or nobody does.
    pub to: Vec<String>,
    /// What each of them gets.
    pub amount: Cents,
}

/// What an account has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// What is there now.
    pub balance: Cents,
    /// What was paid in when it was opened.
    pub opened: Cents,
    /// All that ever went to other accounts.
    pub sent: Cents,
    /// All that ever came from other accounts.
    pub received: Cents,
}

/// The function `account`. Its key is the account's number.
#[function(name = "account")]
impl Account {
    /// Opens the account.
    async fn open(ctx: &Ctx<AccountState>, opening: Opening) -> Result<Balance> {
        if ctx.state.balance.get().await?.is_some() {
            return reject("already-open", format!("account {} is open", ctx.key()));
        }
        if !(0..=AMOUNT_CENTS_MAX).contains(&opening.amount) {
            return reject("bad-amount", format!("{} cents", opening.amount));
        }
        ctx.state.balance.set(opening.amount);
        ctx.state.opened.set(opening.amount);
        Ok(Balance { balance: opening.amount, opened: opening.amount, sent: 0, received: 0 })
    }

    /// Pays one or several other accounts: all of them or none.
    async fn transfer(ctx: &Ctx<AccountState>, wanted: Transfer) -> Result<Balance> {
        let Some(balance) = ctx.state.balance.get().await? else {
            return reject("no-account", format!("there is no account {}", ctx.key()));
        };
        check(&wanted, ctx.key())?;
        let total = wanted.to.iter().map(|_| wanted.amount).sum::<Cents>();
        if balance < total {
            return reject("insufficient-funds", format!("{}: {total} wanted, {balance} there", ctx.key()));
        }
        let sent = ctx.state.sent.get_or_default().await? + total;
        ctx.state.balance.set(balance - total);
        ctx.state.sent.set(sent);
        let deposits = wanted.to.iter().map(|creditor| Self::at(creditor).deposit(ctx, wanted.amount));
        try_join_all(deposits).await?; // a creditor that does not exist undoes the whole transfer
        let (opened, received) = (ctx.state.opened.get_or_default().await?, ctx.state.received.get_or_default().await?);
        Ok(Balance { balance: balance - total, opened, sent, received })
    }

    /// Takes money in from another account.
    async fn deposit(ctx: &Ctx<AccountState>, amount: Cents) -> Result<()> {
        let Some(balance) = ctx.state.balance.get().await? else {
            return reject("no-account", format!("there is no account {}", ctx.key()));
        };
        let received = ctx.state.received.get_or_default().await? + amount;
        ctx.state.balance.set(balance + amount);
        ctx.state.received.set(received);
        Ok(())
    }

    /// What is there.
    #[handler(read_only)]
    async fn get(ctx: &Ctx<AccountState>) -> Result<Balance> {
        let Some(balance) = ctx.state.balance.get().await? else {
            return reject("no-account", format!("there is no account {}", ctx.key()));
        };
        Ok(Balance {
            balance,
            opened: ctx.state.opened.get_or_default().await?,
            sent: ctx.state.sent.get_or_default().await?,
            received: ctx.state.received.get_or_default().await?,
        })
    }
}

/// Refuses what makes no sense.
fn check(wanted: &Transfer, debtor: &str) -> Result<()> {
    if !(1..=AMOUNT_CENTS_MAX).contains(&wanted.amount) {
        return reject("bad-amount", format!("{} cents", wanted.amount));
    }
    if wanted.to.is_empty() || wanted.to.len() > CREDITORS_MAX {
        return reject(
            "bad-creditors",
            format!("{} accounts; one transfer pays 1 to {CREDITORS_MAX}", wanted.to.len()),
        );
    }
    if wanted.to.iter().any(|creditor| creditor == debtor) {
        return reject("same-account", format!("{debtor} cannot pay itself"));
    }
    Ok(())
}
