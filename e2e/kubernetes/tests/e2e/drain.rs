//! What a drain of a node does: it evicts pods, which disruption budgets slow down. One pod after the other here, because
//! the only node cannot be cordoned off and run what comes in their place.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::kube::{Namespace, eventually, kubectl, output, test};
use crate::load::{self, FEW};
use crate::site::{self, Keeps, RUNTIME_PODS, START_WITHIN};

const RESTRICTED: &str = "pod-security.kubernetes.io/enforce=restricted";
const WORKERS: &str = "tandem.dev/function=payment";
/// Two drains last longer than a few orders.
const ORDERS: usize = 3 * FEW;

#[test]
fn a_drain_under_load_takes_one_pod_at_a_time_and_no_order() -> anyhow::Result<()> {
    test("drain", &[RESTRICTED], |namespace| {
        site::operator()?;
        site::orders(namespace, &Keeps::Tikv(2))?;
        namespace.kubectl(&["scale", "function/payment", "--replicas=2"])?;
        let mut load = load::begin(namespace, ORDERS)?;
        load.await_fifths(1)?;
        for labels in [RUNTIME_PODS, WORKERS] {
            drain(namespace, labels).with_context(|| format!("failed to drain {labels}"))?;
            ensure!(load.is_running()?, "the load ended before the drain of {labels}: {}", load.printed());
        }
        load.finish()?;
        site::await_orders(namespace)
    })
}

/// Evicts both pods with these labels, and waits for what comes in their place.
fn drain(namespace: &Namespace, labels: &str) -> anyhow::Result<()> {
    let before = uids(namespace, labels, 2)?;
    eventually("budget for one pod", START_WITHIN, || {
        let allowed = disruptions_allowed(namespace, labels)?;
        ensure!(allowed == 1, "{allowed} pods may go");
        Ok(())
    })?;
    let pods = namespace.ready_pods(labels)?;
    let [first, second] = pods.as_slice() else { anyhow::bail!("{pods:?} are ready") };
    evict(namespace, first)?;
    let Err(refusal) = evict(namespace, second) else { anyhow::bail!("{second} was let go beside {first}") };
    ensure!(format!("{refusal:#}").contains("disruption budget"), "{refusal:#}");
    eventually("eviction of the second pod", START_WITHIN, || evict(namespace, second))?;
    eventually("others in their place", START_WITHIN, || {
        let now = uids(namespace, labels, 2)?;
        ensure!(now.iter().all(|uid| !before.contains(uid)), "{now:?} are not all new");
        Ok(())
    })?;
    namespace.await_pods(labels, 2, START_WITHIN).map(drop)
}

/// Asks for a pod to be ended, as a drain does.
fn evict(namespace: &Namespace, pod: &str) -> anyhow::Result<()> {
    let name = &namespace.name;
    let path = format!("/api/v1/namespaces/{name}/pods/{pod}/eviction");
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": name}});
    output(kubectl().args(["create", "--raw", &path, "--filename", "-"]), Some(&eviction.to_string())).map(drop)
}

fn uids(namespace: &Namespace, labels: &str, count: usize) -> anyhow::Result<Vec<Value>> {
    eventually(&format!("{count} pods {labels}"), START_WITHIN, || {
        let pods = namespace.get(&["pods", "--selector", labels])?;
        let all = pods["items"].as_array().context("no list of pods")?;
        ensure!(all.len() == count, "there are {} pods", all.len());
        Ok(all.iter().map(|pod| pod["metadata"]["uid"].clone()).collect())
    })
}

/// What the budget of these pods says.
fn disruptions_allowed(namespace: &Namespace, labels: &str) -> anyhow::Result<i64> {
    let owner = labels.split(',').next().context("no label")?;
    let budgets = namespace.get(&["poddisruptionbudgets", "--selector", owner])?;
    let [budget] = budgets["items"].as_array().context("no list of budgets")?.as_slice() else {
        anyhow::bail!("not one budget: {budgets}")
    };
    let is_seen = budget["status"]["observedGeneration"] == budget["metadata"]["generation"];
    ensure!(is_seen, "the budget is new: {budget}");
    budget["status"]["disruptionsAllowed"].as_i64().context("the budget says nothing")
}
