//! C2: as if flows ran one after the other, through HTTP; snapshot isolation and read-only flows by choice.

use std::future::Future;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tandem_model::outcome::Outcome;

use crate::script::{Step, To, meet, node, point};
use crate::stage::{embedded_stage, end_of, result};
use crate::web::{Reply, Web};

/// Posts two requests at once, and returns how they ended, in no particular order.
async fn both(first: impl Future<Output = Reply>, second: impl Future<Output = Reply>) -> [(u16, String); 2] {
    let (first, second) = tokio::join!(first, second);
    let mut ends = [(first.status, first.outcome), (second.status, second.outcome)];
    ends.sort();
    ends
}

fn ends(first: (u16, &str), second: (u16, &str)) -> [(u16, String); 2] {
    [(first.0, first.1.to_owned()), (second.0, second.1.to_owned())]
}

/// Goes off call if the other stays, both seen before either is gone.
fn go_off_call(other: &str, met: &str) -> Vec<Step> {
    vec![Step::Call(node(other, vec![Step::Read])), meet(met, 2), Step::Need(2), Step::Set(0)]
}

// To see it fail: in `Flow::choose_reads` drop the early return, so that only what is written is validated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_skew_is_prevented() {
    let (stage, _directory) = embedded_stage().await;
    let web = Web::start(&stage.runtime).await;
    stage.run("alice", vec![Step::Set(1)]).await;
    stage.run("bob", vec![Step::Set(1)]).await;
    let met = point("skew");
    let alice = go_off_call("bob", &met);
    let bob = go_off_call("alice", &met);
    let ended = both(web.post("run", "alice", "s-1", &alice), web.post("run", "bob", "s-2", &bob)).await;
    assert_eq!(ended, ends((200, "COMMITTED"), (409, "REJECTED")));
    let on_call = stage.value("alice").await.unwrap() + stage.value("bob").await.unwrap();
    assert_eq!(on_call, 1);
}

// To see it fail: in `Flow::choose_reads` return always, so that snapshot isolation is serializable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_skew_is_what_snapshot_isolation_allows() {
    let (stage, _directory) = embedded_stage().await;
    let web = Web::start(&stage.runtime).await;
    stage.run("alice", vec![Step::Set(1)]).await;
    stage.run("bob", vec![Step::Set(1)]).await;
    let met = point("skew");
    let alice = go_off_call("bob", &met);
    let bob = go_off_call("alice", &met);
    let ended = both(web.post("snapshot", "alice", "s-1", &alice), web.post("snapshot", "bob", "s-2", &bob)).await;
    assert_eq!(ended, ends((200, "COMMITTED"), (200, "COMMITTED")));
    assert_eq!((stage.value("alice").await, stage.value("bob").await), (Some(0), Some(0)));
}

// To see it fail: return no rows from `ReadSet::changed_since`, and validate nothing in the store (`Inner::commit_of`
// without reads). For snapshot isolation: keep no reads at all in `Flow::choose_reads`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_update_is_lost() {
    for handler in ["run", "snapshot"] {
        let (stage, _directory) = embedded_stage().await;
        let web = Web::start(&stage.runtime).await;
        let met = point("lost");
        let add = vec![Step::Call(node("counter", vec![Step::Read, meet(&met, 2), Step::Add(1)]))];
        let ended = both(web.post(handler, "one", "l-1", &add), web.post(handler, "two", "l-2", &add)).await;
        assert_eq!(ended, ends((200, "COMMITTED"), (200, "COMMITTED")), "{handler}");
        assert_eq!(stage.value("counter").await, Some(2), "{handler}");
    }
}

// To see it fail: note no range in `ReadSet::add_range`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_phantom_gets_a_place_that_is_taken() {
    const PLACES: i64 = 3;
    let (stage, _directory) = embedded_stage().await;
    let web = Web::start(&stage.runtime).await;
    stage.run("slot", vec![Step::Put("first".into(), 1), Step::Put("second".into(), 1)]).await;
    let met = point("phantom");
    let book = |who: &str| {
        vec![
            Step::Call(node("slot", vec![Step::Count])),
            meet(&met, 2),
            Step::AtMost(PLACES - 1),
            Step::Call(node("slot", vec![Step::Put(who.to_owned(), 1)])),
        ]
    };
    let (one, two) = (book("one"), book("two"));
    let ended = both(web.post("run", "b-1", "p-1", &one), web.post("run", "b-2", "p-2", &two)).await;
    assert_eq!(ended, ends((200, "COMMITTED"), (409, "REJECTED")));
    assert_eq!(stage.entries("slot").await.len(), 3);
}

const ACCOUNTS: i64 = 8;
const MONEY: i64 = 100;

fn account(number: i64) -> String {
    format!("account-{number}")
}

/// Takes money from one account to another, if it is there.
pub(crate) fn transfer(from: i64, to: i64, amount: i64) -> To {
    let pay = Step::Call(node(&account(to), vec![Step::Add(amount)]));
    node(&account(from), vec![Step::Need(amount), Step::Add(-amount), pay])
}

fn total() -> Step {
    Step::Together((0..ACCOUNTS).map(|number| node(&account(number), vec![Step::Read])).collect())
}

// To see it fail: make the view of read-only flows live (`Partition::durable_view`, with the current version), or
// take one snapshot for each call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_flow_sees_no_half_of_a_transfer_and_never_conflicts() {
    const TRANSFERS: u64 = 150;
    let (stage, _directory) = embedded_stage().await;
    for number in 0..ACCOUNTS {
        stage.run(&account(number), vec![Step::Set(MONEY)]).await;
    }
    let transfers = async {
        let one = async |seed: u64| {
            let mut random = SmallRng::seed_from_u64(seed);
            for _ in 0..TRANSFERS / 3 {
                let from = random.random_range(0..ACCOUNTS);
                let to = (from + random.random_range(1..ACCOUNTS)) % ACCOUNTS;
                let record = stage.ask(transfer(from, to, random.random_range(1..MONEY))).await;
                assert!(matches!(end_of(&record), (Outcome::Committed, "") | (Outcome::Rejected, "too-little")));
            }
        };
        tokio::join!(one(1), one(2), one(3));
    };
    tokio::pin!(transfers);
    let mut looks = 0_u32;
    loop {
        let look = stage.ask(To::of("node", "auditor", "look", vec![total()]));
        let record = tokio::select! {
            biased;
            () = &mut transfers => break,
            record = look => record,
        };
        assert_eq!((result(&record), record.attempts), (ACCOUNTS * MONEY, 1));
        looks += 1;
    }
    assert!(looks > 0, "no look was between the transfers");
    let last = stage.run("auditor", vec![total()]).await;
    assert_eq!(result(&last), ACCOUNTS * MONEY);
}
