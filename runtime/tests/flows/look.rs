//! Looking: flows, their states, instances.

use std::collections::BTreeSet;
use std::time::Duration;

use tandem_model::ids::Key;
use tandem_model::outcome::Outcome;
use tandem_runtime::runtime::{FlowFilter, FlowState, Options};
use tandem_store::memory::MemoryStore;

use crate::script::{PATIENCE, Step, node, other, point, reach, until};
use crate::stage::{Stage, end_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_can_be_followed_from_running_to_ended() {
    let stage = Stage::memory().await;
    let (began, go) = (point("began"), point("go"));
    let steps = vec![Step::Reach(began.clone()), Step::Await(go.clone(), 1), Step::Read];
    let accepted = stage.submit("r-1", &node("a", steps)).await.unwrap();
    until(&began, 1).await;
    let running = stage.runtime.wait(accepted.flow, Duration::from_millis(1)).await.unwrap();
    assert!(matches!(&running, FlowState::Running(flow) if flow.attempt == 1), "{running:?}");
    let (listed, _) = stage.runtime.flows(&FlowFilter { limit: 10, ..FlowFilter::default() }).await.unwrap();
    assert_eq!(listed.iter().map(|flow| flow.flow).collect::<Vec<_>>(), [accepted.flow]);
    let (runtime, flow) = (stage.runtime.clone(), accepted.flow);
    let waits = tokio::spawn(async move { runtime.wait(flow, PATIENCE).await.unwrap() });
    reach(&go);
    let ended = waits.await.unwrap();
    assert!(matches!(&ended, FlowState::Ended(record) if record.outcome == Outcome::Committed), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_are_listed_by_outcome_and_function_also_after_a_restart() {
    let store = MemoryStore::new();
    let stage = Stage::start(store.clone()).await;
    for number in 0..6 {
        stage.run(&format!("k-{number}"), vec![Step::Set(1)]).await;
        stage.ask(other(&format!("k-{number}"), vec![Step::Reject])).await;
    }
    let list = async |stage: &Stage<MemoryStore>, filter: FlowFilter| {
        let (_, records) = stage.runtime.flows(&filter).await.unwrap();
        assert!(records.is_sorted_by(|one, next| one.accepted_unix_ms >= next.accepted_unix_ms));
        records
    };
    stage.runtime.shut_down(PATIENCE).await;
    for stage in [Stage::start(store).await, stage] {
        let all = list(&stage, FlowFilter { limit: 100, ..FlowFilter::default() }).await;
        assert_eq!(all.len(), 12);
        let rejected = FlowFilter { outcomes: vec![Outcome::Rejected], limit: 100, ..FlowFilter::default() };
        let rejected = list(&stage, rejected).await;
        assert_eq!(rejected.len(), 6);
        assert!(rejected.iter().all(|record| end_of(record) == (Outcome::Rejected, "no")));
        let of_node = FlowFilter { function: Some("node".parse().unwrap()), limit: 4, ..FlowFilter::default() };
        let of_node = list(&stage, of_node).await;
        assert_eq!(of_node.len(), 4);
        assert!(of_node.iter().all(|record| record.instance.function.as_str() == "node"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_are_listed_page_by_page_each_once() {
    let stage = Stage::start_with(MemoryStore::new(), Options::default(), |_| {}).await;
    let mut expected = BTreeSet::new();
    for number in 0..40 {
        let key = format!("k-{number}");
        // Some have only a value, some only entries, some both; one has more rows than a page of the store.
        let mut steps = Vec::new();
        if number % 3 != 0 {
            steps.push(Step::Set(1));
        }
        if number % 3 != 1 {
            steps.extend((0..if number == 0 { 900 } else { 2 }).map(|entry| Step::Put(format!("e-{entry}"), 1)));
        }
        let record = stage.run(&key, steps).await;
        assert_eq!(end_of(&record), (Outcome::Committed, ""));
        expected.insert(key);
    }
    stage.ask(other("not-this-one", vec![Step::Set(1)])).await;
    stage.run("k-1", vec![Step::Read]).await;
    let mut found: Vec<Key> = Vec::new();
    loop {
        let page = stage.runtime.instances(&"node".parse().unwrap(), found.last(), 7).await.unwrap();
        assert!(page.len() <= 7);
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    assert_eq!(found.len(), expected.len());
    assert_eq!(found.iter().map(|key| key.as_str().to_owned()).collect::<BTreeSet<_>>(), expected);
}
