//! Deleting and applying again, upgrading and uninstalling the operator, and an operator for one namespace alone.

use std::collections::BTreeMap;

use anyhow::ensure;
use serde_json::Value;

use crate::kube::{Namespace, eventually, test};
use crate::load;
use crate::site::{self, Keeps, START_WITHIN};

#[test]
fn what_is_deleted_and_applied_again_finds_its_state() -> anyhow::Result<()> {
    test("again", &[], |namespace| {
        site::operator()?;
        site::orders(namespace, &Keeps::Volume)?;
        load::begin(namespace, 300)?.finish()?;
        let read = || stock(namespace);
        let before = eventually("stock", START_WITHIN, read)?;
        namespace.kubectl(&["delete", "functionruntime/orders", "--wait"])?;
        eventually("no pods", START_WITHIN, || {
            let left = namespace.kubectl(&["get", "pods", "--selector", site::RUNTIME_PODS, "--output", "name"])?;
            ensure!(left.is_empty(), "{left}");
            Ok(())
        })?;
        site::orders(namespace, &Keeps::Volume)?;
        let after = eventually("stock", START_WITHIN, read)?;
        ensure!(!before.is_empty(), "nothing was stored");
        for (sku, shelf) in &before {
            ensure!(after.get(sku) == Some(shelf), "{sku} was {shelf:?}, and is {:?}", after.get(sku));
        }
        ensure!(before.len() == after.len(), "there were {} shelves, and are {}", before.len(), after.len());
        Ok(())
    })
}

/// Deletes a runtime whose state goes with it, and applies it again: it begins with nothing. Then the other way round.
fn is_purged(namespace: &Namespace, keeps: &Keeps) -> anyhow::Result<()> {
    site::orders(namespace, keeps)?;
    load::begin(namespace, 300)?.finish()?;
    ensure!(!eventually("stock", START_WITHIN, || stock(namespace))?.is_empty(), "nothing was stored");
    let policy = |policy: &str| {
        let patch = format!(r#"{{"spec": {{"deletionPolicy": "{policy}"}}}}"#);
        namespace.kubectl(&["patch", "functionruntime/orders", "--type", "merge", "--patch", &patch])
    };
    policy("Delete")?;
    eventually("the finalizer", START_WITHIN, || {
        let runtime = namespace.get(&["functionruntime", "orders"])?;
        let finalizers = runtime["metadata"]["finalizers"].to_string();
        ensure!(finalizers.contains("tandem.dev/state"), "{finalizers}");
        Ok(())
    })?;
    let longest = format!("--timeout={}s", START_WITHIN.as_secs());
    namespace.kubectl(&["delete", "functionruntime/orders", "--wait", &longest])?;
    site::orders(namespace, keeps)?;
    let after = eventually("stock", START_WITHIN, || stock(namespace))?;
    ensure!(after.is_empty(), "{} shelves are there still", after.len());
    // It is whole, and used from then on.
    load::begin(namespace, 300)?.finish().map(drop)
}

#[test]
fn state_on_a_volume_goes_with_its_runtime_if_its_policy_says_so() -> anyhow::Result<()> {
    test("purge-volume", &[], |namespace| {
        site::operator()?;
        is_purged(namespace, &Keeps::Volume)
    })
}

#[test]
fn state_in_tikv_goes_with_its_runtime_if_its_policy_says_so() -> anyhow::Result<()> {
    test("purge-tikv", &[], |namespace| {
        site::operator()?;
        if site::pd_endpoints().is_none() {
            eprintln!("skipped: there is no TiKV: set TANDEM_PD_ENDPOINTS");
            return Ok(());
        }
        is_purged(namespace, &Keeps::Tikv(2))
    })
}

/// What is on each shelf, as the admin port tells it, through the API server.
fn stock(namespace: &Namespace) -> anyhow::Result<BTreeMap<String, (Value, Value)>> {
    let service = format!("/api/v1/namespaces/{}/services/orders-admin:9090", namespace.name);
    let text =
        namespace.kubectl(&["get", "--raw", &format!("{service}/proxy/state/inventory?values=true&limit=1000")])?;
    let page: Value = serde_json::from_str(&text)?;
    let instances = page["instances"].as_array().cloned().unwrap_or_default();
    let shelf = |one: Value| (one["key"].to_string(), (one["values"].clone(), one["entries"].clone()));
    Ok(instances.into_iter().map(shelf).collect())
}

#[test]
fn upgrade_and_uninstall_of_the_operator_leave_what_runs_alone() -> anyhow::Result<()> {
    test("uninstall", &[], |namespace| {
        site::operator()?;
        site::orders(namespace, &Keeps::Pod)?;
        let pods = || namespace.kubectl(&["get", "pods", "--output", "jsonpath={.items[*].metadata.uid}"]);
        let before = pods()?;
        site::install_with(site::NAMESPACE, &["logFilter=debug"])?;
        site::await_orders(namespace)?;
        ensure!(pods()? == before, "an upgrade that changes nothing of the pods has replaced them");
        site::helm(&["uninstall", "tandem", "--namespace", site::NAMESPACE, "--wait"])?;
        let served = load::begin(namespace, 300)?.finish();
        ensure!(pods()? == before, "without the operator, pods have gone");
        site::install_with(site::NAMESPACE, &[])?;
        served?;
        site::await_orders(namespace)?;
        ensure!(pods()? == before, "an operator that comes back has replaced pods");
        Ok(())
    })
}

#[test]
fn an_operator_of_one_namespace_has_rights_there_alone() -> anyhow::Result<()> {
    test("namespaced", &[], |namespace| {
        site::operator()?;
        // Two operators must not look after the same namespace.
        site::helm(&["uninstall", "tandem", "--namespace", site::NAMESPACE, "--wait"])?;
        let own = format!("namespaces={{{}}}", namespace.name);
        let done = site::install_with(site::NAMESPACE, &[&own]).and_then(|()| {
            let rights = crate::kube::output(
                crate::kube::kubectl().args([
                    "get",
                    "clusterrolebindings",
                    "--output",
                    "name",
                    "--selector",
                    "app.kubernetes.io/instance=tandem",
                ]),
                None,
            )?;
            ensure!(rights.is_empty(), "it has rights on the whole cluster: {rights}");
            site::orders(namespace, &Keeps::Pod)?;
            load::begin(namespace, 300)?.finish()
        });
        site::helm(&["uninstall", "tandem", "--namespace", site::NAMESPACE, "--wait"])?;
        site::install_with(site::NAMESPACE, &[])?;
        done.map(drop)
    })
}
