//! C4: each request id ends with exactly one outcome.

use futures_util::future::join_all;
use tandem_model::outcome::Outcome;
use tandem_runtime::runtime::{NotAccepted, Options};
use tandem_store::Error;
use tandem_store::embedded::{self, EmbeddedStore};
use tandem_store::memory::MemoryStore;

use crate::held::HeldStore;
use crate::script::{Step, node, point, reach, reached, until};
use crate::stage::{Stage, Worker, embedded_stage, end_of, eventually, topology};
use crate::web::Web;

// To see it fail: let `Registry::begin` join nobody, and look for no record in `Runtime::answered` and in `Flow::open`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_equal_requests_run_once_and_get_equal_answers() {
    let (stage, _directory) = embedded_stage().await;
    let web = Web::start(&stage.runtime).await;
    let ran = point("fifty");
    let steps = vec![Step::Reach(ran.clone()), Step::PutRandom];
    let replies = join_all((0..50).map(|_| web.post("run", "a", "same", &steps))).await;
    assert_eq!(reached(&ran), 1);
    assert_eq!(stage.entries("a").await.len(), 1);
    assert_eq!(replies.iter().filter(|reply| !reply.repeated).count(), 1);
    for reply in &replies {
        assert_eq!((reply.status, reply.outcome.as_str(), &reply.body), (200, "COMMITTED", &replies[0].body));
    }
}

// To see it fail: leave the digest out of `Registry::begin` (while it runs) and of `Runtime::answered` (afterwards).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_id_with_another_body_is_refused() {
    let (stage, _directory) = embedded_stage().await;
    let go = point("go");
    let first = node("a", vec![Step::Await(go.clone(), 1), Step::Add(1), Step::Read]);
    let running = stage.submit("r-1", &first).await.unwrap();
    let another = stage.submit("r-1", &node("a", vec![Step::Add(5)])).await;
    assert!(matches!(another, Err(NotAccepted::Mismatch { .. })), "{another:?}");
    reach(&go);
    assert_eq!(end_of(&crate::stage::ended(running).await.record), (Outcome::Committed, ""));
    let rows = stage.rows().await;
    let another = stage.submit("r-1", &node("a", vec![Step::Add(5)])).await;
    assert!(matches!(another, Err(NotAccepted::Mismatch { .. })), "{another:?}");
    assert_eq!(stage.rows().await, rows);
    assert!(stage.ask_as("r-1", &first).await.repeated);
    // The same id on another instance is another request.
    assert!(!stage.ask_as("r-1", &node("b", first.steps)).await.repeated);
}

// To see it fail: answer `Begun::Mismatch` in `Runtime::accept` without another look at the record.
#[tokio::test]
async fn another_body_on_its_way_does_not_take_the_answer_from_the_right_one() {
    let store = HeldStore::new(MemoryStore::new());
    let stage = Stage::start(store.clone()).await;
    let (go, at) = (point("go"), point("at"));
    let right = node("a", vec![Step::Reach(at.clone()), Step::Await(go.clone(), 1), Step::Add(1)]);
    let first = stage.submit("r-1", &right).await.unwrap();
    until(&at, 1).await;
    // Both look for a record while there is none, and go on when there is one.
    store.hold_snapshots();
    let wrong = node("a", vec![Step::Add(5)]);
    let mut others = Box::pin(futures_util::future::join(stage.submit("r-1", &wrong), stage.submit("r-1", &right)));
    assert!(futures_util::poll!(&mut others).is_pending());
    reach(&go);
    assert_eq!(end_of(&crate::stage::ended(first).await.record), (Outcome::Committed, ""));
    store.let_snapshots_go();
    let (_, again) = others.await;
    assert!(crate::stage::ended(again.unwrap()).await.repeated);
}

/// Opens a directory once whoever had it has let go of it.
async fn reopen(directory: &std::path::Path) -> EmbeddedStore {
    let open =
        || EmbeddedStore::open(directory, embedded::Options { reserve_bytes: 0, ..embedded::Options::default() });
    let opened = tokio::sync::OnceCell::new();
    eventually("the directory is free", async || match open() {
        Ok(store) => opened.set(store).is_ok(),
        Err(Error::InUse(_)) => false,
        Err(error) => panic!("{error}"),
    })
    .await;
    opened.into_inner().unwrap()
}

// To see it fail: look for no record in `Runtime::answered` and in `Flow::open`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_runtime_answers_from_the_record() {
    let directory = tempfile::tempdir().unwrap();
    let worker = Worker::start().await;
    let start = async |store| Stage::of(store, Options::default(), topology(&[&worker])).await;
    let ran = point("ran");
    let yes = node("a", vec![Step::Reach(ran.clone()), Step::PutRandom]);
    let no = node("a", vec![Step::Reach(ran.clone()), Step::Reject]);
    let broken = node("a", vec![Step::Reach(ran.clone()), Step::Fail]);
    let stage = start(reopen(directory.path()).await).await;
    let mut first = Vec::new();
    for (id, to) in [("yes", &yes), ("no", &no), ("broken", &broken)] {
        first.push(stage.ask_as(id, to).await.record);
    }
    stage.runtime.shut_down(crate::script::PATIENCE).await;
    drop(stage);
    let stage = start(reopen(directory.path()).await).await;
    for ((id, to), before) in [("yes", &yes), ("no", &no), ("broken", &broken)].into_iter().zip(first) {
        let again = stage.ask_as(id, to).await;
        assert!(again.repeated, "{id}");
        let of =
            |record: &tandem_model::outcome::FlowRecord| (record.outcome, record.cause.clone(), record.result.clone());
        assert_eq!(of(&again.record), of(&before), "{id}");
    }
    assert_eq!((reached(&ran), stage.entries("a").await.len()), (3, 1));
}

// To see it fail: in `Registry::leave` remove whatever is there under the flow's id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answered_request_can_be_repeated_at_once() {
    const REQUESTS: usize = 300;
    let stage = Stage::start(tandem_store::memory::MemoryStore::new()).await;
    let to = node("a", vec![Step::Add(1), Step::Read]);
    for number in 0..REQUESTS {
        let id = format!("r-{number}");
        let first = stage.ask_as(&id, &to).await;
        let again = stage.ask_as(&id, &to).await;
        assert_eq!((first.repeated, again.repeated), (false, true));
        assert_eq!(first.record.result, again.record.result);
    }
}
