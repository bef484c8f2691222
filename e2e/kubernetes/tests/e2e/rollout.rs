//! New images: of a function and of the runtime, good ones under load, and one that does not exist.

use anyhow::ensure;

use crate::kube::{eventually, test};
use crate::load::{self, FEW};
use crate::site::{self, Keeps, RUNTIME_PODS, START_WITHIN};

#[test]
fn a_new_revision_of_a_function_takes_over_under_load() -> anyhow::Result<()> {
    test("revision", &[], |namespace| {
        site::operator()?;
        site::orders(namespace, &Keeps::Pod)?;
        let before = namespace.ready_pods("tandem.dev/function=payment")?;
        let mut load = load::begin(namespace, FEW)?;
        load.await_fifths(1)?;
        // Another environment is another revision.
        let patch = r#"{"spec":{"env":[{"name":"REVISION","value":"2"}]}}"#;
        namespace.kubectl(&["patch", "function/payment", "--type=merge", "--patch", patch])?;
        eventually("new pods of payment alone", START_WITHIN, || {
            let now = namespace.ready_pods("tandem.dev/function=payment")?;
            ensure!(!now.is_empty() && now.iter().all(|pod| !before.contains(pod)), "{now:?}");
            Ok(())
        })?;
        namespace.await_ready("function/payment", START_WITHIN)?;
        load.finish()?;
        Ok(())
    })
}

#[test]
fn an_image_that_does_not_exist_is_named_and_the_last_revision_serves() -> anyhow::Result<()> {
    test("bad-image", &[], |namespace| {
        site::operator()?;
        site::orders(namespace, &Keeps::Pod)?;
        let patch = r#"{"spec":{"image":"localhost/tandem-nothing:dev"}}"#;
        namespace.kubectl(&["patch", "function/payment", "--type=merge", "--patch", patch])?;
        eventually("reason for the image", START_WITHIN, || {
            let (_, ready, _) = namespace.condition("function/payment", "Ready")?;
            let (_, moves, message) = namespace.condition("function/payment", "Reconciling")?;
            ensure!(ready == "PreviousRevision" && moves == "ImageUnavailable", "{ready}, {moves}: {message}");
            Ok(())
        })?;
        load::begin(namespace, 300)?.finish()?;
        let patch = serde_json::json!({"spec": {"image": site::image("orders")}}).to_string();
        namespace.kubectl(&["patch", "function/payment", "--type=merge", "--patch", &patch])?;
        namespace.await_ready("function/payment", START_WITHIN)
    })
}

#[test]
fn runtimes_are_replaced_one_by_one_under_load() -> anyhow::Result<()> {
    test("upgrade", &[], |namespace| {
        site::operator()?;
        site::orders(namespace, &Keeps::Tikv(2))?;
        let uids = || -> anyhow::Result<Vec<String>> {
            let pods = namespace.get(&["pods", "--selector", RUNTIME_PODS])?;
            let all = pods["items"].as_array().cloned().unwrap_or_default();
            Ok(all.iter().map(|pod| pod["metadata"]["uid"].to_string()).collect())
        };
        let before = uids()?;
        let mut load = load::begin(namespace, FEW)?;
        load.await_fifths(1)?;
        let patch = r#"{"spec":{"podTemplate":{"annotations":{"tandem.dev/test":"2"}}}}"#;
        namespace.kubectl(&["patch", "functionruntime/orders", "--type=merge", "--patch", patch])?;
        eventually("new runtimes alone", START_WITHIN, || {
            let now = uids()?;
            ensure!(now.len() == 2 && now.iter().all(|uid| !before.contains(uid)), "{now:?}");
            Ok(())
        })?;
        namespace.await_ready("functionruntime/orders", START_WITHIN)?;
        load.finish()?;
        Ok(())
    })
}

/// A function of its own, whose revisions are told to fail by their environment.
const FICKLE: &str = "apiVersion: tandem.dev/v1alpha1
kind: Function
metadata: {name: fickle}
spec:
  image: IMAGE
  retry: {attempts: 1}
  rollout: {steps: [50], stepDuration: 5m, failurePercentMax: 5, requestsMin: 10}
  env: []
---
apiVersion: tandem.dev/v1alpha1
kind: FunctionRoute
metadata: {name: ask}
spec:
  http: {method: POST, path: \"/fickle/{key}\"}
  to: {function: fickle, handler: ask}
  key: request.path.key
";
/// Requests that prove that nothing fails any more: with half of the flows on a bad revision, all of them succeed once in a
/// million millions.
const PROOF: usize = 40;

#[test]
fn a_revision_that_fails_goes_back_by_itself() -> anyhow::Result<()> {
    test("fails", &[], |namespace| {
        site::operator()?;
        namespace.apply(&site::runtime(namespace, &Keeps::Pod)?)?;
        namespace.apply(&FICKLE.replace("IMAGE", &site::image("fickle")))?;
        namespace.await_ready("function/fickle", START_WITHIN)?;
        namespace.await_ready("functionroute/ask", START_WITHIN)?;
        let address = load::address(namespace, "orders")?;
        let mut counted = 0;
        let mut ask = || -> anyhow::Result<bool> {
            let status = load::post(&address, "/fickle/one")?;
            ensure!(status == 200 || status == 500, "HTTP status {status}");
            counted += u32::from(status == 200);
            Ok(status == 200)
        };
        for _ in 0..PROOF {
            ensure!(ask()?, "the first revision fails");
        }
        let patch = r#"{"spec":{"env":[{"name":"FICKLE_FAILS","value":"1"}]}}"#;
        namespace.kubectl(&["patch", "function/fickle", "--type=merge", "--patch", patch])?;
        let mut failed = 0;
        eventually("roll back", START_WITHIN, || {
            for _ in 0..PROOF {
                failed += u32::from(!ask()?);
            }
            let (status, reason, message) = namespace.condition("function/fickle", "Stalled")?;
            ensure!(status == "True" && reason == "RolloutFailed", "{status}, {reason}: {message}");
            Ok(())
        })?;
        ensure!(failed > 0, "the bad revision was never asked");
        eventually("only successes", START_WITHIN, || {
            for number in 0..PROOF {
                ensure!(ask()?, "request {number} failed after the roll back");
            }
            Ok(())
        })?;
        let (status, reason, _) = namespace.condition("function/fickle", "Ready")?;
        ensure!(status == "True" && reason == "PreviousRevision", "{status}, {reason}");
        // A good one again: the very one that serves.
        namespace.kubectl(&["patch", "function/fickle", "--type=merge", "--patch", r#"{"spec":{"env":[]}}"#])?;
        eventually("end of the stall", START_WITHIN, || {
            let (status, reason, _) = namespace.condition("function/fickle", "Ready")?;
            ensure!(status == "True" && reason != "PreviousRevision", "{status}, {reason}");
            Ok(())
        })?;
        ensure!(ask()?, "the first revision fails");
        // Failures have left nothing, and successes all of it.
        let answer = load::post_for_text(&address, "/fickle/one")?;
        ensure!(
            answer.trim() == (counted + 1).to_string(),
            "{answer} requests are counted, and {counted} succeeded before"
        );
        Ok(())
    })
}
