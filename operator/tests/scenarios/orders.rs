//! Any order of arrival comes to the same.

use super::support::{Harness, objects};

async fn in_order(order: &[usize], pause: bool) -> Vec<serde_json::Value> {
    let harness = Harness::new();
    let objects = objects::shop();
    for index in order {
        harness.apply(&objects[*index]);
        if pause {
            harness.settle().await;
        }
    }
    harness.settle().await;
    harness.snapshot()
}

fn permutations(of: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for next in 0..of {
        let grown = all.iter().flat_map(|order: &Vec<usize>| {
            (0..=order.len()).map(move |at| {
                let mut order = order.clone();
                order.insert(at, next);
                order
            })
        });
        all = grown.collect();
    }
    all
}

#[tokio::test(start_paused = true)]
async fn every_order_of_arrival_comes_to_the_same() {
    let objects = objects::shop().len();
    let expected = in_order(&(0..objects).collect::<Vec<_>>(), false).await;
    for (index, order) in permutations(objects).into_iter().enumerate() {
        // With a pause in between, each step is taken before the next object comes; that is dear, so not in every order.
        let pause = index % 24 == 0;
        if index % 6 == 0 {
            assert_eq!(in_order(&order, pause).await, expected, "{order:?}, pause: {pause}");
        }
    }
}
