//! The functions that fault runs work with. Each has an invariant that is true at every snapshot, and state by which it
//! can be told afterwards what was done, how often, and for whom.

use serde::{Deserialize, Serialize};
use tandem::prelude::*;

/// What an account has when nobody has paid yet.
pub const OPENING: i64 = 1_000;
/// The function that is told of each transfer.
const RECEIPTS: &str = "receipts";

/// What is stored for an account.
#[derive(State)]
pub struct AccountState {
    /// What went away and came in, all together: absent is none.
    sent: Value<i64>,
    received: Value<i64>,
    /// The same by request. A request that ran twice is there with twice its amount.
    out: Map<String, i64>,
    into: Map<String, i64>,
}

/// A wish to pay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Names the request in the books.
    pub tag: String,
    /// Who is paid: each gets the amount, or nobody does.
    pub to: Vec<String>,
    /// What each of them gets.
    pub amount: i64,
}

/// What one account gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deposit {
    tag: String,
    amount: i64,
}

/// What an account looked like in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// All that went away.
    pub sent: i64,
    /// All that came in.
    pub received: i64,
}

impl Statement {
    /// What is there.
    pub fn balance(self) -> i64 {
        OPENING - self.sent + self.received
    }
}

/// Money. **Invariant:** over all accounts, what was sent is what was received; nobody is below zero.
#[function(name = "account")]
impl Account {
    /// Pays others, and lets them have a receipt if it commits.
    async fn transfer(ctx: &Ctx<AccountState>, wanted: Transfer) -> Result<i64> {
        let total = wanted.amount * wanted.to.iter().map(|_| 1).sum::<i64>();
        let sent = ctx.state.sent.get_or_default().await?;
        let now = Statement { sent, received: ctx.state.received.get_or_default().await? }.balance();
        ctx.call::<()>(RECEIPTS, ctx.key(), "note", &wanted.tag).send();
        // Before it is known whether there is enough, so that a "no" has something to undo.
        let before = ctx.state.out.get(&wanted.tag).await?.unwrap_or_default();
        ctx.state.out.insert(wanted.tag.clone(), before + total);
        ctx.state.sent.set(sent + total);
        let Transfer { tag, to, amount } = wanted;
        let deposits = to.iter().map(|creditor| {
            let deposit = Deposit { tag: tag.clone(), amount };
            ctx.call::<()>("account", creditor, "deposit", &deposit)
        });
        try_join_all(deposits).await?;
        if now < total {
            return reject("insufficient-funds", format!("{total} wanted, {now} there"));
        }
        Ok(now - total)
    }

    /// Takes money in.
    async fn deposit(ctx: &Ctx<AccountState>, deposit: Deposit) -> Result<()> {
        let Deposit { tag, amount } = deposit;
        ctx.state.received.update(|received| *received += amount).await?;
        let before = ctx.state.into.get(&tag).await?.unwrap_or_default();
        ctx.state.into.insert(tag, before + amount);
        Ok(())
    }

    /// What is there.
    #[handler(read_only)]
    async fn statement(ctx: &Ctx<AccountState>) -> Result<Statement> {
        let sent = ctx.state.sent.get_or_default().await?;
        Ok(Statement { sent, received: ctx.state.received.get_or_default().await? })
    }

    /// What is there in all of these, in one snapshot.
    #[handler(read_only)]
    async fn audit(ctx: &Ctx<AccountState>, accounts: Vec<String>) -> Result<Vec<Statement>> {
        try_join_all(accounts.iter().map(|account| ctx.call("account", account, "statement", &()))).await
    }
}

/// What was told.
#[derive(State)]
pub struct ReceiptState {
    notes: Map<String, i64>,
}

/// Receipts, delivered by messages. **Invariant:** one for each transfer that committed, and no other.
#[function(name = "receipts")]
impl Receipts {
    /// Counts how often it was told of a request.
    async fn note(ctx: &Ctx<ReceiptState>, tag: String) -> Result<()> {
        let before = ctx.state.notes.get(&tag).await?.unwrap_or_default();
        ctx.state.notes.insert(tag, before + 1);
        Ok(())
    }
}

/// Whether somebody is on call.
#[derive(State)]
pub struct DoctorState {
    /// Absent: yes.
    away: Value<bool>,
}

/// Doctors in pairs. **Invariant:** of each pair one at least is on call.
#[function(name = "doctor")]
impl Doctor {
    /// Goes, if the other one stays. Reads the other one and writes itself: two at a time would be write skew.
    async fn leave(ctx: &Ctx<DoctorState>, other: String) -> Result<()> {
        if ctx.call::<bool>("doctor", &other, "away", &()).await? {
            return reject("last-one", other);
        }
        ctx.state.away.set(true);
        Ok(())
    }

    /// Comes back. Reads nothing, so that one phase is enough.
    async fn come(ctx: &Ctx<DoctorState>) -> Result<()> {
        ctx.state.away.set(false);
        Ok(())
    }

    /// Whether it is away.
    #[handler(read_only)]
    async fn away(ctx: &Ctx<DoctorState>) -> Result<bool> {
        ctx.state.away.get_or_default().await
    }

    /// The same of all of these, in one snapshot.
    #[handler(read_only)]
    async fn audit(ctx: &Ctx<DoctorState>, doctors: Vec<String>) -> Result<Vec<bool>> {
        try_join_all(doctors.iter().map(|doctor| ctx.call("doctor", doctor, "away", &()))).await
    }
}

/// A page of a book.
#[derive(State)]
pub struct PageState {
    edition: Value<u64>,
}

/// A new edition of all pages.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Edition {
    /// Its number.
    pub number: u64,
    /// The pages.
    pub pages: Vec<String>,
    /// The last page says no.
    pub fails: bool,
}

/// Pages of one book. **Invariant:** all are of one edition.
#[function(name = "page")]
impl Page {
    /// Prints all pages anew, one call for each.
    async fn print(ctx: &Ctx<PageState>, edition: Edition) -> Result<()> {
        let Edition { number, pages, fails } = edition;
        try_join_all(pages.iter().map(|page| ctx.call::<()>("page", page, "replace", &number))).await?;
        if fails { reject("misprint", number.to_string()) } else { Ok(()) }
    }

    /// Prints this page anew.
    async fn replace(ctx: &Ctx<PageState>, number: u64) -> Result<()> {
        ctx.state.edition.set(number);
        Ok(())
    }

    /// The edition of this page.
    #[handler(read_only)]
    async fn edition(ctx: &Ctx<PageState>) -> Result<u64> {
        ctx.state.edition.get_or_default().await
    }

    /// The same of all of these, in one snapshot.
    #[handler(read_only)]
    async fn audit(ctx: &Ctx<PageState>, pages: Vec<String>) -> Result<Vec<u64>> {
        try_join_all(pages.iter().map(|page| ctx.call("page", page, "edition", &()))).await
    }
}
