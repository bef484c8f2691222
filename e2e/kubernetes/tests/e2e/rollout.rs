//! New images: of a function and of the runtime, good ones under load, and one that does not exist.

use anyhow::ensure;

use crate::kube::{eventually, test};
use crate::load::{self, FEW};
use crate::site::{self, Keeps, RUNTIME_PODS, START_WITHIN};

#[test]
fn a_new_revision_of_a_function_takes_over_under_load() -> anyhow::Result<()> {
    test("revision", &[], |namespace| {
        site::operator()?;
        site::orders(namespace, Keeps::Pod)?;
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
        site::orders(namespace, Keeps::Pod)?;
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
        site::orders(namespace, Keeps::Tikv(2))?;
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
