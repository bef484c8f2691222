//! Definitions that are removed while the operator runs, and come back.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tandem_crds::resources::Kind;
use tandem_e2e_kubernetes::control_plane::Options;
use tandem_e2e_operator::{Operator, api, objects};

use super::site::{SOON, Site, apply_patiently};

const FUNCTIONS: usize = 6;
const ROUTES: usize = 2;
const WRITERS: usize = 4;
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_go_are_named_and_all_is_well_when_they_are_back() -> anyhow::Result<()> {
    let options = Options { collectors: true, ..Options::default() };
    let Some(site) = Site::start("definitions", 1, options).await? else { return Ok(()) };
    let all = objects::shops(FUNCTIONS, ROUTES, 1);
    let mut operator = site.operator(&[]).await?;
    apply_patiently(site.client.clone(), all.clone(), WRITERS).await?;
    site.tracker.all_ready(all.len(), SOON).await?;
    site.settle(&operator).await?;
    let (before, pods) = (site.snapshot().await?, stateful_set(&site).await?);
    remove(&site, &operator, &[Kind::Function, Kind::Route]).await?;
    // The runtime is as it was: nothing of it hangs on what is gone.
    ensure!(stateful_set(&site).await? == pods, "the StatefulSet of the runtime is another one");
    come_back(&site, &operator, &all).await?;
    site.is_again(&before).await?;
    ensure!(stateful_set(&site).await? == pods, "the StatefulSet of the runtime is another one");
    remove(&site, &operator, &Kind::ALL).await?;
    come_back(&site, &operator, &all).await?;
    site.is_again(&before).await?;
    ensure!(!operator.has_ended(), "the operator has ended");
    let log = std::fs::read_to_string(site.log())?;
    ensure!(!log.contains("panicked"), "{log}");
    Ok(())
}

/// The `uid` of the runtime's StatefulSet.
async fn stateful_set(site: &Site) -> anyhow::Result<Option<String>> {
    let metadata = json!({"name": "default", "namespace": objects::namespace(0)});
    let object = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata});
    let found = api::get(&site.client, &object).await?.context("there is no StatefulSet")?;
    Ok(found.metadata.uid)
}

fn plural(kind: Kind) -> String {
    kind.definition().spec.names.plural
}

/// Removes definitions, and with them all resources of these kinds; waits until the operator says so, and rests.
async fn remove(site: &Site, operator: &Operator, kinds: &[Kind]) -> anyhow::Result<()> {
    for kind in kinds {
        let name = format!("{}.tandem.dev", plural(*kind));
        let metadata = json!({"name": name});
        let definition =
            json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": metadata});
        api::delete(&site.client, &definition).await?;
        let begun = Instant::now();
        while api::get(&site.client, &definition).await?.is_some() {
            ensure!(begun.elapsed() < SOON, "{name} does not go");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    let begun = Instant::now();
    loop {
        let said = operator.readiness();
        let is_named =
            |kind: &Kind| said.contains(&format!("{}.tandem.dev: the cluster has no such definition", plural(*kind)));
        if kinds.iter().all(is_named) {
            break;
        }
        ensure!(begun.elapsed() < SOON, "it does not say what is missing: {said}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    site.settle(operator).await
}

async fn come_back(site: &Site, operator: &Operator, all: &[Value]) -> anyhow::Result<()> {
    api::define(&site.client).await?;
    apply_patiently(site.client.clone(), all.to_vec(), WRITERS).await?;
    let begun = Instant::now();
    while !operator.is_ready() {
        ensure!(begun.elapsed() < SOON, "{}", operator.readiness());
        tokio::time::sleep(LOOK_EVERY).await;
    }
    site.tracker.all_ready(all.len(), SOON).await?;
    site.settle(operator).await
}
