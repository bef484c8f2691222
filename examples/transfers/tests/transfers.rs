//! Transfers on the test kit: no cent is lost or made, whoever pays whom at the same time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use tandem_testkit::{Answer, Outcome, TestKit};
use tokio::task::JoinSet;
use transfers::{Account, Balance, Cents, Opening, Transfer};

const OPENED: Cents = 1_000;

async fn bank(accounts: usize) -> TestKit {
    let kit = TestKit::start(Account).await.unwrap();
    for account in 0..accounts {
        kit.call("account", &name(account), "open", &Opening { amount: OPENED }).await.unwrap();
    }
    kit
}

fn name(account: usize) -> String {
    format!("a-{account}")
}

async fn pay(kit: &TestKit, from: usize, to: &[usize], amount: Cents) -> Answer {
    let to = to.iter().map(|account| name(*account)).collect();
    kit.call("account", &name(from), "transfer", &Transfer { to, amount }).await.unwrap()
}

async fn balances(kit: &TestKit, accounts: usize) -> Vec<Balance> {
    let mut balances = Vec::new();
    for account in 0..accounts {
        balances.push(kit.call("account", &name(account), "get", &()).await.unwrap().result::<Balance>().unwrap());
    }
    balances
}

async fn amounts(kit: &TestKit, accounts: usize) -> Vec<Cents> {
    balances(kit, accounts).await.into_iter().map(|balance| balance.balance).collect()
}

#[tokio::test]
async fn money_goes_to_one_or_to_several() {
    let kit = bank(8).await;
    pay(&kit, 0, &[1], 100).await.result::<Balance>().unwrap();
    pay(&kit, 0, &[1, 2, 3], 100).await.result::<Balance>().unwrap();
    pay(&kit, 1, &[0, 2, 3, 4, 5, 6, 7], 100).await.result::<Balance>().unwrap();
    assert_eq!(amounts(&kit, 8).await, [700, 500, 1_200, 1_200, 1_100, 1_100, 1_100, 1_100]);
}

#[tokio::test]
async fn a_creditor_that_does_not_exist_undoes_all_of_it() {
    let kit = bank(3).await;
    let answer = pay(&kit, 0, &[1, 2, 9], 100).await;
    assert_eq!((answer.outcome, answer.reason()), (Outcome::Rejected, "no-account"));
    assert_eq!(amounts(&kit, 3).await, [OPENED; 3]);
}

#[tokio::test]
async fn what_cannot_be_paid_is_refused() {
    let kit = bank(3).await;
    let check = async |to: &[usize], amount: Cents, reason: &str| {
        let answer = pay(&kit, 0, to, amount).await;
        assert_eq!((answer.outcome, answer.reason()), (Outcome::Rejected, reason));
        assert_eq!(amounts(&kit, 3).await, [OPENED; 3]);
    };
    check(&[1], OPENED + 1, "insufficient-funds").await;
    check(&[1, 2], OPENED / 2 + 1, "insufficient-funds").await;
    check(&[1], 0, "bad-amount").await;
    check(&[1], -1, "bad-amount").await;
    check(&[0], 1, "same-account").await;
    check(&[], 1, "bad-creditors").await;
    pay(&kit, 0, &[1], OPENED).await.result::<Balance>().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sum_stays_the_same_while_everybody_pays_everybody() {
    const ACCOUNTS: usize = 7; // a prime, so that no step below leads back to the payer
    const PAYERS: usize = 8;
    const PAYMENTS: usize = 25;
    let kit = std::sync::Arc::new(bank(ACCOUNTS).await);
    let mut payers = JoinSet::new();
    for payer in 0..PAYERS {
        let kit = std::sync::Arc::clone(&kit);
        payers.spawn(async move {
            let mut unexpected = Vec::new();
            for payment in 0..PAYMENTS {
                // Two payers pay one another at the same time again and again, so rings of waits occur.
                let from = (payer + payment) % ACCOUNTS;
                let to: Vec<usize> =
                    (1..=1 + payer % 3).map(|step| (from + step * (1 + payment % 2)) % ACCOUNTS).collect();
                let answer = pay(&kit, from, &to, 190).await;
                let expected = answer.outcome == Outcome::Committed || answer.reason() == "insufficient-funds";
                if !expected {
                    unexpected.push(answer.record);
                }
            }
            unexpected
        });
    }
    let unexpected: Vec<_> = payers.join_all().await.into_iter().flatten().collect();
    // A ring that is met too often may end as CONFLICT; whatever the outcome, the sums hold.
    assert!(unexpected.iter().all(|record| record.outcome == Outcome::Conflict), "{unexpected:?}");
    let balances = balances(&kit, ACCOUNTS).await;
    assert_eq!(balances.iter().map(|balance| balance.balance).sum::<Cents>(), OPENED * 7);
    for balance in balances {
        assert!(balance.balance >= 0);
        assert_eq!(balance.balance, balance.opened + balance.received - balance.sent);
    }
}
