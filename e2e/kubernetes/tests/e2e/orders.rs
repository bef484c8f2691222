//! The orders application from `helm install` on, and what may happen to it under load.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use tandem_e2e_kubernetes::stores::{Certificates, Channel};

use crate::kube::{eventually, test};
use crate::load::{self, FEW};
use crate::site::{self, Keeps, RUNTIME_PODS, START_WITHIN};

/// Longer than a commit tries by itself.
const STORE_IS_GONE: Duration = Duration::from_secs(5);
const RESTRICTED: &str = "pod-security.kubernetes.io/enforce=restricted";

#[test]
fn orders_through_the_service_keep_every_invariant() -> anyhow::Result<()> {
    test("orders", &[RESTRICTED], |namespace| {
        site::operator()?;
        site::orders(namespace, &Keeps::Pod)?;
        load::begin(namespace, 2_000)?.finish()?;
        Ok(())
    })
}

#[test]
fn state_in_a_volume_outlives_the_pod_that_wrote_it_under_load() -> anyhow::Result<()> {
    test("volume", &[RESTRICTED], |namespace| {
        site::operator()?;
        site::orders(namespace, &Keeps::Volume)?;
        let mut load = load::begin(namespace, 2_000)?;
        load.await_fifths(2)?;
        namespace.kubectl(&["delete", "pod", "orders-0", "--grace-period=0", "--force"])?;
        namespace.await_pods(RUNTIME_PODS, 1, START_WITHIN)?;
        load.finish()?;
        Ok(())
    })
}

#[test]
fn runtimes_scale_from_one_to_three_and_back_under_load() -> anyhow::Result<()> {
    test("scale", &[RESTRICTED], |namespace| {
        site::operator()?;
        site::orders(namespace, &Keeps::Tikv(1))?;
        let mut load = load::begin(namespace, FEW)?;
        load.await_fifths(1)?;
        namespace.kubectl(&["scale", "functionruntime/orders", "--replicas=3"])?;
        namespace.await_pods(RUNTIME_PODS, 3, START_WITHIN)?;
        load.await_fifths(3)?;
        namespace.kubectl(&["scale", "functionruntime/orders", "--replicas=1"])?;
        load.finish()?;
        namespace.await_pods(RUNTIME_PODS, 1, START_WITHIN)?;
        namespace.await_ready("functionruntime/orders", START_WITHIN)
    })
}

#[test]
fn killed_pods_of_runtime_functions_and_operator_lose_nothing() -> anyhow::Result<()> {
    test("kill", &[RESTRICTED], |namespace| {
        site::operator()?;
        site::orders(namespace, &Keeps::Tikv(2))?;
        let mut load = load::begin(namespace, FEW)?;
        load.await_fifths(1)?;
        namespace.kubectl(&["delete", "pod", "orders-0", "--grace-period=0", "--force"])?;
        load.await_fifths(2)?;
        let workers = namespace.ready_pods("tandem.dev/function=payment")?;
        ensure!(!workers.is_empty(), "payment has no pods");
        namespace.kubectl(&["delete", "pod", &workers[0], "--grace-period=0", "--force"])?;
        load.await_fifths(3)?;
        let operator = crate::kube::Namespace { name: site::NAMESPACE.to_owned() };
        let pods = operator.ready_pods("app.kubernetes.io/name=tandem-operator")?;
        ensure!(!pods.is_empty(), "the operator has no pods");
        operator.kubectl(&["delete", "pod", &pods[0], "--grace-period=0", "--force"])?;
        load.finish()?;
        site::await_orders(namespace)
    })
}

/// The store comes back with what it has acknowledged; requests wait for it, or are answered that they did not happen.
#[test]
fn a_store_that_is_killed_under_load_takes_nothing_with_it() -> anyhow::Result<()> {
    let Some(node) = site::own_node()? else {
        println!("skipped: the stores of another cluster are not ours to kill");
        return Ok(());
    };
    let stores: u8 = std::env::var("TANDEM_E2E_STORES")?.parse()?;
    test("store", &[RESTRICTED], |namespace| {
        site::operator()?;
        site::orders(namespace, &Keeps::Tikv(2))?;
        let mut load = load::begin(namespace, FEW)?;
        load.await_fifths(1)?;
        Channel::Plain.kill(&node.place, 1)?;
        std::thread::sleep(STORE_IS_GONE);
        Channel::Plain.restart(&node.place, 1, stores)?;
        load.finish()?;
        site::await_orders(namespace)
    })
}

/// Certificates are in a Secret; without it the runtime says what is missing.
#[test]
fn state_goes_to_stores_over_tls() -> anyhow::Result<()> {
    const SECRET: &str = "stores";
    let Some(node) = site::own_node()? else {
        println!("skipped: this test starts stores beside the node");
        return Ok(());
    };
    test("tls", &[RESTRICTED], |namespace| {
        site::operator()?;
        Channel::Tls.start(&node.place, 1)?;
        site::apply_orders(namespace, &Keeps::TikvOverTls(Channel::Tls.pd_endpoint(&node.place), SECRET))?;
        eventually("word of the Secret", START_WITHIN, || {
            let (status, reason, message) = namespace.condition("functionruntime/orders", "Ready")?;
            ensure!(status == "False" && message.contains(SECRET), "{status}, {reason}: {message}");
            Ok(())
        })?;
        let files = Certificates::of(&node.place);
        let file = |name: &str, path: &Path| format!("--from-file={name}={}", path.display());
        namespace.kubectl(&[
            "create",
            "secret",
            "generic",
            SECRET,
            &file("ca.crt", &files.authority),
            &file("tls.crt", &files.certificate),
            &file("tls.key", &files.key),
        ])?;
        site::await_orders(namespace)?;
        load::begin(namespace, 300)?.finish()?;
        Ok(())
    })
}
