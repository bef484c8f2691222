//! Workers that are killed and clients that go away, in the middle of requests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::bank::{Transfer, bank, check_books, open_accounts};
use super::http::{Answer, send_and_go};
use super::process::{Dev, LOOK_EVERY, PATIENCE, signal};

const ACCOUNTS: usize = 8;
/// Clients that send at the same time.
const CLIENTS: usize = 6;
/// As many workers as the example has.
const WORKERS: usize = 2;

/// Sends transfers until each has an outcome; `done` counts them.
fn send(dev: &Dev, count: usize, done: &AtomicUsize) -> Vec<(Transfer, Answer)> {
    let next = AtomicUsize::new(0);
    let client = || {
        let mut answered = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return answered;
            }
            let transfer = Transfer::number(number, ACCOUNTS);
            let answer = transfer.request.settle(&dev.http);
            answered.push((transfer, answer));
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "not so in time: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

#[test]
fn killed_workers_are_replaced_and_every_request_has_one_outcome() {
    const TRANSFERS: usize = 600;
    // Which of the workers are killed, one round after the other.
    const ROUNDS: [&[usize]; 4] = [&[0], &[1], &[0, 1], &[0]];
    let directory = bank();
    let mut dev = Dev::start(directory.path());
    open_accounts(&dev, ACCOUNTS);
    dev.mark();
    let done = AtomicUsize::new(0);
    let answered = std::thread::scope(|scope| {
        let load = scope.spawn(|| send(&dev, TRANSFERS, &done));
        for (round, victims) in ROUNDS.iter().enumerate() {
            wait_until("transfers go on", || {
                done.load(Ordering::Relaxed) >= TRANSFERS * (round + 1) / (ROUNDS.len() + 2)
            });
            wait_until("all workers run", || dev.workers("transfers").len() == WORKERS);
            let workers = dev.workers("transfers");
            victims.iter().for_each(|victim| signal(workers[*victim], "KILL"));
            let replaced = || victims.iter().all(|victim| !dev.workers("transfers").contains(&workers[*victim]));
            wait_until("the worker is gone", replaced);
        }
        load.join().unwrap()
    });
    wait_until("all workers run", || dev.workers("transfers").len() == WORKERS);
    dev.wait_for("it is started again");
    assert_eq!(answered.len(), TRANSFERS);
    let committed = answered.iter().filter(|(_, answer)| answer.committed()).count();
    assert!(committed > TRANSFERS / 2, "only {committed} of {TRANSFERS} transfers were made");
    check_books(&dev, &answered);
    for (transfer, answer) in &answered {
        let again = transfer.request.settle(&dev.http);
        assert_eq!(again.outcome(), answer.outcome(), "{transfer:?}");
    }
    check_books(&dev, &answered);
    dev.stop();
}

#[test]
fn client_that_goes_away_leaves_one_outcome_or_nothing() {
    const TRANSFERS: usize = 240;
    // How it goes away: with the whole request sent, with all but the last byte, in the middle of the header.
    const WAYS: usize = 4;
    let directory = bank();
    let dev = Dev::start(directory.path());
    open_accounts(&dev, ACCOUNTS);
    let transfers: Vec<Transfer> = (0..TRANSFERS).map(|number| Transfer::number(number, ACCOUNTS)).collect();
    for (number, transfer) in transfers.iter().enumerate() {
        let bytes = transfer.request.bytes();
        let sent = match number % WAYS {
            0 | 1 => bytes.len(),
            2 => bytes.len() - 1,
            _ => bytes.len() / 2,
        };
        send_and_go(&dev.http, &bytes[..sent], number % WAYS == 0);
    }
    let settle = |transfer: Transfer| {
        let answer = transfer.request.settle(&dev.http);
        let again = transfer.request.settle(&dev.http);
        assert_eq!(again.outcome(), answer.outcome(), "{transfer:?}");
        assert!(again.header("tandem-repeated").is_some(), "{again:?}");
        (transfer, answer)
    };
    let answered: Vec<(Transfer, Answer)> = transfers.into_iter().map(settle).collect();
    check_books(&dev, &answered);
    let whole = answered.iter().enumerate().filter(|(number, _)| number % WAYS < 2);
    let ran = whole.filter(|(_, (_, answer))| answer.header("tandem-repeated").is_some()).count();
    assert!(ran > 0, "no request of a client that had gone was run, so this has shown nothing");
    dev.stop();
}
