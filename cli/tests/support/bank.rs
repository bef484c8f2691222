//! The example `transfers` under test: accounts, transfers between them, and books that must balance to the cent.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::{Answer, Request};
use super::process::{Dev, application};

/// What each account begins with.
const OPENING: i64 = 1_000;

/// A copy of the example with its workers.
pub(crate) fn bank() -> TempDir {
    application("transfers", "account")
}

/// The wish to pay.
#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    debtor: String,
    creditors: Vec<String>,
    amount: i64,
    /// How it is asked for, with a request id of its own.
    pub(crate) request: Request,
}

impl Transfer {
    /// The `number`th of many between `accounts` accounts, each of which pays one or two others.
    pub(crate) fn number(number: usize, accounts: usize) -> Self {
        let debtor = number % accounts;
        let creditors: Vec<String> = (0..=number % 2)
            .map(|more| name((debtor + 1 + more + (number / accounts) % (accounts - 2)) % accounts))
            .collect();
        // Some are more than an account ever has.
        let amount = if number.is_multiple_of(11) { 1_000_000 } else { i64::try_from(number % 37).unwrap() + 1 };
        let body = json!({"to": creditors, "amount": amount}).to_string();
        let request = Request::new("POST", &format!("/accounts/{}/transfers", name(debtor)));
        Self { debtor: name(debtor), creditors, amount, request: request.json(&body).id(&format!("t-{number}")) }
    }
}

fn name(account: usize) -> String {
    format!("a-{account}")
}

/// Opens so many accounts.
pub(crate) fn open_accounts(dev: &Dev, count: usize) {
    for account in 0..count {
        let body = json!({"amount": OPENING}).to_string();
        let request = Request::new("PUT", &format!("/accounts/{}", name(account))).json(&body);
        let answer = request.id(&format!("open-{account}")).settle(&dev.http);
        assert!(answer.committed(), "{answer:?}");
    }
}

/// What is stored of each account, by its key.
pub(crate) fn accounts(dev: &Dev) -> BTreeMap<String, Value> {
    let answer = Request::new("GET", "/state/account?values=true&limit=1000").settle(&dev.admin);
    let page = answer.json();
    assert!(page["next"].is_null(), "{page}");
    let instances = page["instances"].as_array().unwrap().iter();
    instances.map(|instance| (instance["key"].as_str().unwrap().to_owned(), instance["values"].clone())).collect()
}

/// Checks that no cent was lost or made, and that exactly the transfers that were acknowledged have happened, once each.
pub(crate) fn check_books(dev: &Dev, transfers: &[(Transfer, Answer)]) {
    let mut sent: BTreeMap<&str, i64> = BTreeMap::new();
    let mut received: BTreeMap<&str, i64> = BTreeMap::new();
    for (transfer, answer) in transfers.iter().filter(|(_, answer)| answer.committed()) {
        assert_eq!(answer.status, 200, "{answer:?}");
        for creditor in &transfer.creditors {
            *sent.entry(&transfer.debtor).or_default() += transfer.amount;
            *received.entry(creditor).or_default() += transfer.amount;
        }
    }
    let accounts = accounts(dev);
    let mut total = 0;
    for (account, stored) in &accounts {
        let value = |state: &str| stored[state].as_i64().unwrap_or(0);
        assert_eq!(value("opened"), OPENING, "{account}");
        assert_eq!(value("sent"), sent.get(account.as_str()).copied().unwrap_or(0), "{account} sent");
        assert_eq!(value("received"), received.get(account.as_str()).copied().unwrap_or(0), "{account} received");
        assert_eq!(value("balance"), OPENING + value("received") - value("sent"), "{account}");
        assert!(value("balance") >= 0, "{account}: {stored}");
        total += value("balance");
    }
    assert_eq!(total, OPENING * i64::try_from(accounts.len()).unwrap());
}
