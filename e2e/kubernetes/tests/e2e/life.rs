//! Deleting and applying again, upgrading and uninstalling the operator, and an operator for one namespace alone.

use anyhow::ensure;

use crate::kube::{eventually, test};
use crate::load;
use crate::site::{self, Keeps, START_WITHIN};

#[test]
fn what_is_deleted_and_applied_again_finds_its_state() -> anyhow::Result<()> {
    test("again", &[], |namespace| {
        site::operator()?;
        site::orders(namespace, Keeps::Volume)?;
        load::begin(namespace, 300)?.finish()?;
        let read = || namespace.kubectl(&["get", "--raw", &stock(&namespace.name)]);
        let before = eventually("stock", START_WITHIN, read)?;
        namespace.kubectl(&["delete", "functionruntime/orders", "--wait"])?;
        eventually("no pods", START_WITHIN, || {
            let left = namespace.kubectl(&["get", "pods", "--selector", site::RUNTIME_PODS, "--output", "name"])?;
            ensure!(left.is_empty(), "{left}");
            Ok(())
        })?;
        site::orders(namespace, Keeps::Volume)?;
        let after = eventually("stock", START_WITHIN, read)?;
        ensure!(before == after, "the state is another: {before}, {after}");
        Ok(())
    })
}

/// Instances of a function as the admin port tells them, through the API server.
fn stock(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/services/orders-admin:9090/proxy/state/inventory?values=true&limit=1000")
}

#[test]
fn upgrade_and_uninstall_of_the_operator_leave_what_runs_alone() -> anyhow::Result<()> {
    test("uninstall", &[], |namespace| {
        site::operator()?;
        site::orders(namespace, Keeps::Pod)?;
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
            site::orders(namespace, Keeps::Pod)?;
            load::begin(namespace, 300)?.finish()
        });
        site::helm(&["uninstall", "tandem", "--namespace", site::NAMESPACE, "--wait"])?;
        site::install_with(site::NAMESPACE, &[])?;
        done.map(drop)
    })
}
