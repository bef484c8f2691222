//! The orders application from `helm install` on, and what may happen to it under load.

use anyhow::ensure;

use crate::kube::test;
use crate::load::{self, FEW};
use crate::site::{self, Keeps, RUNTIME_PODS, START_WITHIN};

const RESTRICTED: &str = "pod-security.kubernetes.io/enforce=restricted";

#[test]
fn orders_through_the_service_keep_every_invariant() -> anyhow::Result<()> {
    test("orders", &[RESTRICTED], |namespace| {
        site::operator()?;
        site::orders(namespace, Keeps::Pod)?;
        load::begin(namespace, 2_000)?.finish()?;
        Ok(())
    })
}

#[test]
fn state_in_a_volume_outlives_the_pod_that_wrote_it_under_load() -> anyhow::Result<()> {
    test("volume", &[RESTRICTED], |namespace| {
        site::operator()?;
        site::orders(namespace, Keeps::Volume)?;
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
        site::orders(namespace, Keeps::Tikv(1))?;
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
        site::orders(namespace, Keeps::Tikv(2))?;
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
