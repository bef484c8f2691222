//! An order through all five functions, on the test kit: what it does when it commits, and that nothing is left when it does not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use orders::cart::{Cart, Contents};
use orders::inventory::{Inventory, Restock, Stock};
use orders::loyalty::{Loyalty, Points};
use orders::order::{Order, OrderPlaced, Placed, Receipt, Status, Wanted};
use orders::payment::{Deposit, Paid, Payment, Wallet, Wallets};
use orders::{Cents, Line};
use serde::de::DeserializeOwned;
use tandem_testkit::{Answer, Outcome, TestKit};

const EVENTS: &str = "order-events";

/// Two discs, five of each, for 15.00 and 60.00, and a customer with so much money.
async fn shop(money: Cents) -> TestKit {
    let kit = TestKit::builder((Inventory, Wallets, Order, Cart, Loyalty)).egress(EVENTS).start().await.unwrap();
    for (sku, price) in [("single", 1_500), ("box", 6_000)] {
        kit.call("inventory", sku, "restock", &Restock { quantity: 5, price }).await.unwrap();
    }
    kit.call("payment", "anna", "deposit", &Deposit { amount: money }).await.unwrap();
    kit
}

fn lines(lines: &[(&str, i64)]) -> Vec<Line> {
    lines.iter().map(|(sku, quantity)| Line { sku: (*sku).to_owned(), quantity: *quantity }).collect()
}

async fn place(kit: &TestKit, order: &str, wanted: &[(&str, i64)]) -> Answer {
    let wanted = Wanted { customer: "anna".to_owned(), lines: Some(lines(wanted)) };
    kit.call("order", order, "place", &wanted).await.unwrap()
}

async fn get<T: DeserializeOwned>(kit: &TestKit, function: &str, key: &str) -> T {
    kit.call(function, key, "get", &()).await.unwrap().result().unwrap()
}

async fn available(kit: &TestKit, sku: &str) -> i64 {
    get::<Stock>(kit, "inventory", sku).await.available
}

/// Nothing of `order` is anywhere, and the shop is as it was at first.
async fn nothing_happened(kit: &TestKit, order: &str, money: Cents) {
    assert!(kit.state("order", order).await.unwrap().is_empty());
    assert_eq!((available(kit, "single").await, available(kit, "box").await), (5, 5));
    for sku in ["single", "box"] {
        let movements = kit.state("inventory", sku).await.unwrap().entries::<String, i64>("movements").unwrap();
        assert_eq!(movements, []);
    }
    assert_eq!(get::<Wallet>(kit, "payment", "anna").await, Wallet { balance: money, orders: 0 });
    assert_eq!(get::<Points>(kit, "loyalty", "anna").await, Points { points: 0 });
    assert_eq!(kit.emitted::<OrderPlaced>(EVENTS).await.unwrap(), []);
}

#[tokio::test]
async fn an_order_takes_stock_and_money_and_earns_points() {
    let kit = shop(10_000).await;
    let receipt: Receipt = place(&kit, "o-1", &[("single", 2), ("box", 1)]).await.result().unwrap();
    assert_eq!(receipt, Receipt { payment: "p-anna-1".to_owned(), number: 1, total: 9_000 });
    assert_eq!((available(&kit, "single").await, available(&kit, "box").await), (3, 4));
    assert_eq!(get::<Wallet>(&kit, "payment", "anna").await, Wallet { balance: 1_000, orders: 1 });
    assert_eq!(get::<Points>(&kit, "loyalty", "anna").await, Points { points: 90 });
    let placed: Placed = get(&kit, "order", "o-1").await;
    assert_eq!((placed.status, placed.total, placed.number), (Status::Confirmed, 9_000, 1));
    let payments = kit.state("payment", "anna").await.unwrap().entries::<String, Payment>("payments").unwrap();
    assert_eq!(payments, [("o-1".to_owned(), Payment { amount: 9_000, number: 1 })]);
    let event = OrderPlaced { order: "o-1".to_owned(), customer: "anna".to_owned(), total: 9_000 };
    assert_eq!(kit.emitted::<OrderPlaced>(EVENTS).await.unwrap(), [event]);
}

#[tokio::test]
async fn the_same_disc_on_two_lines_is_taken_twice() {
    let kit = shop(10_000).await;
    let receipt: Receipt = place(&kit, "o-1", &[("single", 2), ("single", 3)]).await.result().unwrap();
    assert_eq!((receipt.total, available(&kit, "single").await), (7_500, 0));
    let movements = kit.state("inventory", "single").await.unwrap().entries::<String, i64>("movements").unwrap();
    assert_eq!(movements, [("o-1/0".to_owned(), 2), ("o-1/1".to_owned(), 3)]);
}

#[tokio::test]
async fn whatever_is_refused_leaves_nothing() {
    let money = 8_000;
    let kit = shop(money).await;
    let check = async |wanted: &[(&str, i64)], reason: &str, function: &str| {
        let answer = place(&kit, "o-1", wanted).await;
        assert_eq!((answer.outcome, answer.reason()), (Outcome::Rejected, reason));
        let cause = answer.record.cause.as_ref().unwrap();
        assert_eq!(cause.function().map(ToString::to_string).as_deref(), Some(function));
        nothing_happened(&kit, "o-1", money).await;
    };
    check(&[("single", 1), ("box", 6)], "out-of-stock", "inventory").await;
    check(&[("single", 3), ("single", 3)], "out-of-stock", "inventory").await;
    check(&[("single", 1), ("box", 1), ("ghost", 1)], "unknown-item", "inventory").await;
    check(&[("single", 1), ("box", 0)], "bad-quantity", "inventory").await;
    check(&[("single", 2), ("box", 1)], "insufficient-funds", "payment").await;
    check(&[], "bad-lines", "order").await;
}

#[tokio::test]
async fn a_rejected_order_uses_up_no_number() {
    let kit = shop(10_000).await;
    place(&kit, "o-1", &[("single", 1)]).await.result::<Receipt>().unwrap();
    assert_eq!(place(&kit, "o-2", &[("single", 9)]).await.reason(), "out-of-stock");
    let receipt: Receipt = place(&kit, "o-2", &[("single", 1)]).await.result().unwrap();
    assert_eq!(receipt.number, 2);
}

#[tokio::test]
async fn an_order_is_placed_once() {
    let kit = shop(10_000).await;
    place(&kit, "o-1", &[("single", 1)]).await.result::<Receipt>().unwrap();
    assert_eq!(place(&kit, "o-1", &[("single", 1)]).await.reason(), "already-placed");
    assert_eq!(available(&kit, "single").await, 4);
}

#[tokio::test]
async fn a_cart_is_emptied_exactly_by_an_order_that_commits() {
    let kit = shop(2_000).await;
    let from_cart = Wanted { customer: "anna".to_owned(), lines: None };
    let answer = kit.call("order", "o-1", "place", &from_cart).await.unwrap();
    assert_eq!(answer.reason(), "empty-cart");

    let fill = async |quantity| {
        let contents = Contents { lines: lines(&[("single", quantity)]) };
        kit.call("cart", "anna", "fill", &contents).await.unwrap();
        contents
    };
    let contents = fill(2).await;
    let answer = kit.call("order", "o-1", "place", &from_cart).await.unwrap();
    assert_eq!(answer.reason(), "insufficient-funds");
    assert_eq!(get::<Contents>(&kit, "cart", "anna").await, contents);

    fill(1).await;
    let answer = kit.call("order", "o-1", "place", &from_cart).await.unwrap();
    assert_eq!(answer.result::<Receipt>().unwrap().total, 1_500);
    assert_eq!(get::<Contents>(&kit, "cart", "anna").await, Contents { lines: Vec::new() });
}

#[tokio::test]
async fn a_repeated_request_is_answered_from_its_record() {
    let kit = shop(10_000).await;
    let wanted = Wanted { customer: "anna".to_owned(), lines: Some(lines(&[("single", 1)])) };
    let first = kit.call_as("r-1", "order", "o-1", "place", &wanted).await.unwrap();
    let again = kit.call_as("r-1", "order", "o-1", "place", &wanted).await.unwrap();
    assert_eq!(first.result::<Receipt>().unwrap(), again.result::<Receipt>().unwrap());
    assert_eq!((again.repeated, available(&kit, "single").await), (true, 4));
}

#[tokio::test]
async fn an_order_that_exists_can_be_shipped() {
    let kit = shop(10_000).await;
    assert_eq!(kit.call("order", "o-1", "ship", &()).await.unwrap().reason(), "unknown-order");
    place(&kit, "o-1", &[("single", 1)]).await.result::<Receipt>().unwrap();
    kit.call("order", "o-1", "ship", &()).await.unwrap().result::<Placed>().unwrap();
    assert_eq!(get::<Placed>(&kit, "order", "o-1").await.status, Status::Shipped);
}

#[tokio::test]
async fn nonsense_is_refused() {
    let kit = shop(0).await;
    let check = async |function: &str, handler: &str, argument: serde_json::Value, reason: &str| {
        let answer = kit.call(function, "x", handler, &argument).await.unwrap();
        assert_eq!((answer.outcome, answer.reason()), (Outcome::Rejected, reason), "{function} {handler} {argument}");
    };
    check("inventory", "restock", serde_json::json!({"quantity": -1, "price": 1}), "bad-quantity").await;
    check("inventory", "restock", serde_json::json!({"quantity": 1, "price": i64::MAX}), "bad-quantity").await;
    check("payment", "deposit", serde_json::json!({"amount": -1}), "bad-amount").await;
    check("inventory", "get", serde_json::json!(null), "unknown-item").await;
    let paid = kit.call("payment", "anna", "charge", &serde_json::json!({"order": "o-1", "amount": 1})).await.unwrap();
    assert!(paid.result::<Paid>().is_err());
}
