//! Sends everything that is planned, from many clients at once, and keeps what they are told.
//!
//! The orders of one customer are sent one after the other, as one person would; different customers order at the same time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use http::Method;
use orders::cart::Contents;
use orders::inventory::Restock;
use orders::order::Wanted;
use orders::payment::Deposit;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::answer::{Answer, Told};
use crate::client::Client;
use crate::plan::{Plan, Planned, Twist};

/// What became of one planned order.
#[derive(Debug)]
pub(crate) struct Done {
    /// Which one, as an index of the plan's orders.
    pub(crate) index: usize,
    /// What clients were told.
    pub(crate) told: Told,
    /// From sending it to its outcome, repetitions after lost answers included.
    pub(crate) latency: Duration,
}

/// Puts stock on the shelves and money into the wallets.
pub(crate) async fn set_up(client: &Arc<Client>, plan: &Plan, connections: usize) -> anyhow::Result<()> {
    let shelves = plan.items.iter().map(|item| {
        let restock = Restock { quantity: item.stock, price: item.price };
        Ok::<_, anyhow::Error>((format!("/stock/{}", item.sku), serde_json::to_value(restock)?))
    });
    let wallets = plan.wallets.iter().map(|(customer, amount)| {
        Ok((format!("/wallets/{customer}"), serde_json::to_value(Deposit { amount: *amount })?))
    });
    let requests: Vec<_> = shelves.chain(wallets).collect::<Result<_, _>>()?;
    let mut tasks = JoinSet::new();
    for share in shares(requests, connections) {
        let client = Arc::clone(client);
        tasks.spawn(async move {
            for (path, body) in share {
                send_plain(&client, Method::POST, &path, "set-up", &body).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a client broke")??;
    }
    Ok(())
}

/// Sends a request that cannot be rejected.
async fn send_plain(
    client: &Client,
    method: Method,
    path: &str,
    id: &str,
    body: &impl Serialize,
) -> anyhow::Result<()> {
    let reply = client.send(method, path, id, body).await?;
    anyhow::ensure!(reply.status.is_success(), "{path}: {}: {}", reply.status, String::from_utf8_lossy(&reply.body));
    Ok(())
}

/// Deals things out to so many hands, one to each in turn.
fn shares<T>(things: Vec<T>, hands: usize) -> Vec<Vec<T>> {
    let hands = hands.max(1);
    let mut shares: Vec<Vec<T>> = (0..hands).map(|_| Vec::new()).collect();
    for (index, thing) in things.into_iter().enumerate() {
        shares[index % hands].push(thing);
    }
    shares
}

/// Sends all orders; counts on `progress` as they end. Gives what became of each, in the order of the plan.
pub(crate) async fn send_orders(
    client: &Arc<Client>,
    plan: &Arc<Plan>,
    connections: usize,
    progress: &watch::Sender<usize>,
) -> anyhow::Result<Vec<Done>> {
    let mut tasks = JoinSet::new();
    for share in by_customer(plan, connections) {
        let (client, plan, progress) = (Arc::clone(client), Arc::clone(plan), progress.clone());
        tasks.spawn(async move {
            let mut all = Vec::with_capacity(share.len());
            for index in share {
                all.push(send_order(&client, index, &plan.orders[index]).await?);
                progress.send_modify(|count| *count += 1);
            }
            Ok::<_, anyhow::Error>(all)
        });
    }
    let mut all = Vec::with_capacity(plan.orders.len());
    while let Some(ended) = tasks.join_next().await {
        all.extend(ended.context("a client broke")??);
    }
    all.sort_by_key(|done| done.index);
    Ok(all)
}

/// Shares of the orders such that all of one customer are in the same share, in the plan's order.
fn by_customer(plan: &Plan, connections: usize) -> Vec<Vec<usize>> {
    let customers: Vec<&String> = plan.wallets.keys().collect();
    let mut shares: Vec<Vec<usize>> = (0..connections.max(1)).map(|_| Vec::new()).collect();
    let hands = shares.len();
    for (index, planned) in plan.orders.iter().enumerate() {
        let customer = customers.binary_search(&&planned.customer).unwrap_or(0);
        shares[customer % hands].push(index);
    }
    shares
}

/// Sends one order with everything that belongs to it.
async fn send_order(client: &Client, index: usize, planned: &Planned) -> anyhow::Result<Done> {
    if planned.from_cart {
        let contents = Contents { lines: planned.lines.clone() };
        let path = format!("/carts/{}", planned.customer);
        send_plain(client, Method::PUT, &path, &format!("fill-{}", planned.id), &contents).await?;
    }
    let (path, id, body) = (format!("/orders/{}", planned.id), planned.request_id(), planned.body());
    let began = Instant::now();
    if planned.twist == Twist::SentAgain {
        let (first, second) = tokio::join!(place(client, &path, &id, &body), place(client, &path, &id, &body));
        let latency = began.elapsed();
        let third = place(client, &path, &id, &body).await?;
        let told = Told { first: Some(first?), again: vec![second?, third], ..Told::default() };
        return Ok(Done { index, told, latency });
    }
    let first = place(client, &path, &id, &body).await?;
    let latency = began.elapsed();
    let mut told = Told { first: Some(first), ..Told::default() };
    if planned.twist == Twist::OtherBody {
        let other = Wanted { lines: None, ..body.clone() };
        told.other_body = Some(place(client, &path, &id, &other).await?);
    }
    if planned.twist == Twist::PlacedTwice && told.receipt().is_some() {
        told.placed_twice = Some(place(client, &path, &format!("{id}-twice"), &body).await?);
    }
    Ok(Done { index, told, latency })
}

async fn place(client: &Client, path: &str, id: &str, body: &Wanted) -> anyhow::Result<Answer> {
    client.send(Method::POST, path, id, body).await?.answer()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::parse_purchases;

    #[test]
    fn a_customer_has_one_client_and_keeps_the_order() {
        let purchases = parse_purchases(include_str!("../../data/cdnow-sample.txt")).unwrap();
        let plan = Plan::new(purchases, 1);
        let shares = by_customer(&plan, 7);
        let mut seen = std::collections::BTreeMap::new();
        for (hand, share) in shares.iter().enumerate() {
            assert!(share.is_sorted());
            for index in share {
                let first = *seen.entry(&plan.orders[*index].customer).or_insert(hand);
                assert_eq!(first, hand);
            }
        }
        assert_eq!(shares.iter().map(Vec::len).sum::<usize>(), plan.orders.len());
    }
}
