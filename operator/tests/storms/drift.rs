//! What others do to children, what was missed while the operator stood still, and a namespace that goes.

use std::time::{Duration, Instant};

use anyhow::ensure;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tandem_e2e_kubernetes::control_plane::Options;
use tandem_e2e_operator::{Operator, api, objects};

use super::site::{SOON, Site, Snapshot, apply_patiently};

const NAMESPACES: usize = 3;
const FUNCTIONS: usize = 24;
const ROUTES: usize = 6;
const WRITERS: usize = 8;
/// A function without a route, which is deleted.
const GONE: usize = 7;
/// A function that nobody edits, and whose Deployment is deleted.
const UNTOUCHED: usize = 3;
/// What is done to children.
const DAMAGES: usize = 40;
const LOOK_EVERY: Duration = Duration::from_millis(200);
const DEBUG: &[&str] = &["--log-filter=tandem_operator=debug,info"];

#[tokio::test(flavor = "multi_thread")]
async fn what_others_do_is_set_right_and_what_was_missed_is_made_up_for() -> anyhow::Result<()> {
    let options = Options { collectors: true, ..Options::default() };
    let Some(mut site) = Site::start("drift", NAMESPACES, options).await? else { return Ok(()) };
    let all = objects::shops(FUNCTIONS, ROUTES, NAMESPACES);
    let operator = site.operator(DEBUG).await?;
    apply_patiently(site.client.clone(), all.clone(), WRITERS).await?;
    site.tracker.all_ready(all.len(), SOON).await?;
    site.settle(&operator).await?;
    let before = site.snapshot().await?;
    damage(&site, &before).await?;
    site.is_again(&before).await?;
    site.tracker.all_ready(all.len(), SOON).await?;
    missed(&mut site, &operator, &before).await?;
    namespace_goes(&site, &all).await
}

/// Edits and deletes children at random.
async fn damage(site: &Site, children: &Snapshot) -> anyhow::Result<()> {
    let mut random = SmallRng::seed_from_u64(2);
    let names: Vec<_> = children.keys().collect();
    let (mut edited, mut deleted) = (0, 0);
    while edited + deleted < DAMAGES {
        let (kind, namespace, name) = names[random.random_range(0..names.len())];
        let version = match kind.as_str() {
            "Deployment" | "StatefulSet" => "apps/v1",
            "NetworkPolicy" => "networking.k8s.io/v1",
            "PodDisruptionBudget" => "policy/v1",
            _ => "v1",
        };
        let child = json!({"apiVersion": version, "kind": kind, "metadata": {"namespace": namespace, "name": name}});
        let edit = match (kind.as_str(), random.random_range(0..3)) {
            ("StatefulSet", _) => json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 7}}}}),
            (_, 0) => {
                api::delete(&site.client, &child).await?;
                deleted += 1;
                continue;
            }
            ("Deployment", 1) => json!({"spec": {"replicas": 5}}),
            ("Deployment", _) => json!({"spec": {"template": {"spec": {"enableServiceLinks": true}}}}),
            ("Service", 1) => json!({"spec": {"selector": {"app.kubernetes.io/instance": "other"}}}),
            ("ConfigMap", 1) => json!({"data": {"runtime.yaml": "nonsense"}, "binaryData": {"bundle.json.gz": null}}),
            _ => json!({"metadata": {"labels": {"app.kubernetes.io/part-of": "other"}}}),
        };
        // It may be gone already.
        edited += usize::from(api::merge(&site.client, &child, &edit).await.is_ok());
    }
    ensure!(edited > DAMAGES / 3 && deleted > DAMAGES / 8, "{edited} edited, {deleted} deleted");
    Ok(())
}

/// The operator stands still while things change, and cannot go on from where it was: the history is gone.
async fn missed(site: &mut Site, operator: &Operator, before: &Snapshot) -> anyhow::Result<()> {
    operator.signal("STOP")?;
    let untouched = objects::function_name(UNTOUCHED);
    let is_of = |(kind, _, name): &&(String, String, String)| kind == "Deployment" && name.starts_with(&untouched);
    let deployment = before.keys().find(is_of).map(|(_, space, name)| (space, name));
    let (space, name) = deployment.ok_or_else(|| anyhow::anyhow!("no Deployment"))?;
    let child = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": space, "name": name}});
    api::delete(&site.client, &child).await?;
    let edited = objects::function(&objects::namespace(0), &objects::function_name(0), 2);
    api::apply(&site.client, &edited).await?;
    let gone = objects::function(&objects::namespace(GONE % NAMESPACES), &objects::function_name(GONE), 1);
    api::delete(&site.client, &gone).await?;
    site.control_plane.forget_history()?;
    site.control_plane.restart("kube-apiserver")?;
    operator.signal("CONT")?;
    site.tracker.all_ready(before_count() - 1, SOON).await?;
    let begun = Instant::now();
    loop {
        let now = site.snapshot().await?;
        let of = |function: usize, image: &str| {
            let number = objects::function_name(function);
            now.iter().any(|((kind, _, name), child)| {
                kind == "Deployment" && name.starts_with(&number) && child.to_string().contains(image)
            })
        };
        let is_there = now.contains_key(&("Deployment".to_owned(), space.clone(), name.clone()));
        if is_there && of(0, "function-00000:2") && !of(GONE, "") {
            break;
        }
        ensure!(begun.elapsed() < SOON, "what was missed is not made up for: {:?}", now.keys());
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let log = std::fs::read_to_string(site.log())?;
    ensure!(log.contains("too old resource version"), "no watch was too old");
    Ok(())
}

fn before_count() -> usize {
    FUNCTIONS + ROUTES + NAMESPACES
}

/// A namespace is deleted while its resources are edited; the others do not notice, and it can come back.
async fn namespace_goes(site: &Site, all: &[Value]) -> anyhow::Result<()> {
    let doomed = objects::namespace(2);
    let inside: Vec<Value> = all.iter().filter(|object| object["metadata"]["namespace"] == *doomed).cloned().collect();
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": doomed}});
    for object in inside.iter().filter(|object| object["kind"] == "Function").take(4) {
        api::merge(&site.client, object, &json!({"spec": {"replicas": 3}})).await?;
    }
    api::delete(&site.client, &space).await?;
    let begun = Instant::now();
    while api::get(&site.client, &space).await?.is_some() {
        ensure!(begun.elapsed() < SOON, "the namespace does not go");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    site.tracker.all_ready(before_count() - 1 - inside.len(), SOON).await?;
    api::namespace(&site.client, &doomed).await?;
    apply_patiently(site.client.clone(), inside, WRITERS).await?;
    site.tracker.all_ready(before_count() - 1, SOON).await
}
