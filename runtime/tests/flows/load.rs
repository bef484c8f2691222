//! Many clients on one instance, and on one instance further down.

use futures_util::future::join_all;
use tandem_model::outcome::Outcome;

use crate::script::{Step, node};
use crate::stage::{Stage, embedded_stage, end_of, ended, result};

const CLIENTS: usize = 64;
const ROUNDS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_instance_serves_all_of_its_clients_at_the_first_attempt() {
    let (stage, _directory) = embedded_stage().await;
    let client = async |_| {
        let mut seen = Vec::new();
        for _ in 0..ROUNDS {
            let record = stage.run("hot", vec![Step::Add(1), Step::Read]).await;
            assert_eq!(record.attempts, 1);
            seen.push(result(&record));
        }
        assert!(seen.is_sorted_by(|one, next| one < next), "{seen:?}");
        seen
    };
    let mut all: Vec<i64> = join_all((0..CLIENTS).map(client)).await.into_iter().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, (1..=i64::try_from(CLIENTS * ROUNDS).unwrap()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_instance_further_down_makes_nobody_give_up() {
    let stage = Stage::memory().await;
    let client = async |number: usize| {
        for round in 0..ROUNDS {
            let hot = node("hot", vec![Step::Read, Step::Add(1)]);
            let record = stage.run(&format!("client-{number}"), vec![Step::Call(hot), Step::Add(1)]).await;
            assert_eq!(end_of(&record), (Outcome::Committed, ""), "client {number} round {round}");
        }
    };
    join_all((0..CLIENTS).map(client)).await;
    assert_eq!(stage.value("hot").await, Some(i64::try_from(CLIENTS * ROUNDS).unwrap()));
}

// To see it fail: take the place in line when the flow's task starts, not when the request is accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_on_one_instance_run_in_the_order_they_were_accepted() {
    let stage = Stage::memory().await;
    let mut accepted = Vec::new();
    for number in 0..200_i64 {
        // Each results in how many came before it.
        let to = node("line", vec![Step::Add(1), Step::Read]);
        accepted.push((number, stage.submit(&format!("in-line-{number}"), &to).await.unwrap()));
    }
    for (number, accepted) in accepted {
        assert_eq!(result(&ended(accepted).await.record), number + 1);
    }
}
