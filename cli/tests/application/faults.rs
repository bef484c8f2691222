//! Workers that are killed and clients that go away, in the middle of requests.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::bank::{Transfer, bank, check_books, open_accounts};
use super::http::{Answer, send_and_go};
use super::process::{Dev, LOOK_EVERY, PATIENCE, signal};

const ACCOUNTS: usize = 8;
/// Clients that send at the same time.
const CLIENTS: usize = 6;
/// How long a transfer may take, as its route says.
const DEADLINE: &str = "5s";
/// As many workers as the example has.
const WORKERS: usize = 2;

/// Sends transfers to wherever the runtime is until each has an outcome; `done` counts them.
fn send(address: &Mutex<String>, numbers: Range<usize>, deadline: &str, done: &AtomicUsize) -> Vec<(Transfer, Answer)> {
    let next = AtomicUsize::new(numbers.start);
    let client = || {
        let mut answered = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= numbers.end {
                return answered;
            }
            let transfer = Transfer::number(number, ACCOUNTS);
            let request = transfer.request.clone().header("tandem-deadline", deadline);
            let answer = request.settle_at(|| address.lock().unwrap().clone());
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
    let (done, address) = (AtomicUsize::new(0), Mutex::new(dev.http.clone()));
    let answered = std::thread::scope(|scope| {
        let load = scope.spawn(|| send(&address, 0..TRANSFERS, DEADLINE, &done));
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
    repeat_all(&dev, &answered);
    check_books(&dev, &answered);
    dev.stop();
}

/// Sends what has an outcome once more.
fn repeat_all(dev: &Dev, answered: &[(Transfer, Answer)]) {
    for (transfer, answer) in answered {
        let again = transfer.request.settle(&dev.http);
        assert_eq!(again.outcome(), answer.outcome(), "{transfer:?}");
    }
}

/// How a runtime goes.
#[derive(Clone, Copy)]
enum Exit {
    /// Without a word.
    Killed,
    /// Asked to, in good order.
    Stopped,
}

#[test]
fn runtime_that_goes_again_and_again_keeps_all_that_it_acknowledged() {
    const TRANSFERS: usize = 500;
    const EXITS: [Exit; 5] = [Exit::Killed, Exit::Stopped, Exit::Killed, Exit::Killed, Exit::Stopped];
    let directory = bank();
    let mut dev = Dev::start(directory.path());
    open_accounts(&dev, ACCOUNTS);
    let (done, address) = (AtomicUsize::new(0), Mutex::new(dev.http.clone()));
    let (dev, answered) = std::thread::scope(|scope| {
        let load = scope.spawn(|| send(&address, 0..TRANSFERS, DEADLINE, &done));
        for (round, exit) in EXITS.iter().enumerate() {
            let enough = TRANSFERS * (round + 1) / (EXITS.len() + 2);
            wait_until("transfers go on", || done.load(Ordering::Relaxed) >= enough);
            match exit {
                Exit::Killed => drop(dev),
                Exit::Stopped => dev.stop(),
            }
            dev = Dev::start(directory.path());
            address.lock().unwrap().clone_from(&dev.http);
        }
        (dev, load.join().unwrap())
    });
    check_books(&dev, &answered);
    repeat_all(&dev, &answered);
    check_books(&dev, &answered);
    dev.stop();
}

/// Longest time until a process that was told to stop stands still.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// A process that stands still. Dropped, it goes on.
struct Frozen(u32);

impl Frozen {
    fn new(process: u32) -> Self {
        signal(process, "STOP");
        // A thread that was running when the signal came may go on for a moment.
        let until = Instant::now() + STOPPED_WITHIN;
        while !is_stopped(process) {
            assert!(Instant::now() < until, "process {process} does not stop");
            std::thread::yield_now();
        }
        Self(process)
    }
}

/// Whether all threads of a process stand still.
fn is_stopped(process: u32) -> bool {
    std::fs::read_dir(format!("/proc/{process}/task")).unwrap().all(|thread| {
        let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|state| state.starts_with('T'))
    })
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal(self.0, "CONT");
    }
}

/// What they were sent before is answered when nobody waits for it any more.
#[test]
fn workers_that_wake_up_too_late_change_nothing() {
    const LATE: usize = 3 * CLIENTS;
    let directory = bank();
    let dev = Dev::start(directory.path());
    open_accounts(&dev, ACCOUNTS);
    let (done, address) = (AtomicUsize::new(0), Mutex::new(dev.http.clone()));
    let frozen: Vec<Frozen> = dev.workers("transfers").into_iter().map(Frozen::new).collect();
    assert_eq!(frozen.len(), WORKERS);
    let mut answered = send(&address, 0..LATE, "300ms", &done);
    for (transfer, answer) in &answered {
        let outcome = (answer.status, answer.header("tandem-outcome"));
        assert_eq!(outcome, (504, Some("TIMED_OUT")), "{transfer:?}: {}", answer.text());
    }
    drop(frozen);
    answered.extend(send(&address, LATE..10 * LATE, DEADLINE, &done));
    let ended = answered.iter().filter(|(_, answer)| matches!(answer.status, 200 | 409)).count();
    assert_eq!(ended, 9 * LATE, "those that were sent later do not suffer");
    check_books(&dev, &answered);
    repeat_all(&dev, &answered);
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
