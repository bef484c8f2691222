//! A storm in which the operator is killed, and the API server stands still and is killed.

use std::time::Duration;

use anyhow::ensure;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tandem_e2e_kubernetes::control_plane::Options;
use tandem_e2e_operator::objects;

use super::site::{SOON, Site, apply_patiently};

const NAMESPACES: usize = 4;
const FUNCTIONS: usize = 180;
const ROUTES: usize = 16;
const WRITERS: usize = 8;
/// How long the API server stands still.
const FROZEN: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_ends_ready_whatever_is_killed_in_the_middle() -> anyhow::Result<()> {
    let Some(mut site) = Site::start("kills", NAMESPACES, Options::default()).await? else { return Ok(()) };
    let mut all = objects::shops(FUNCTIONS, ROUTES, NAMESPACES);
    let mut random = SmallRng::seed_from_u64(1);
    all.shuffle(&mut random);
    let count = all.len();
    let load = tokio::spawn(apply_patiently(site.client.clone(), all, WRITERS));
    let mut operator = site.launch(&[])?;
    for killed in 1..=4_usize {
        site.deployments(killed * FUNCTIONS / 8 + random.random_range(0..FUNCTIONS / 16)).await?;
        ensure!(site.stand_in.deployments() < FUNCTIONS, "nothing is left to be done when it is killed");
        operator.kill();
        operator = site.launch(&[])?;
    }
    site.deployments(FUNCTIONS * 5 / 8).await?;
    site.control_plane.freeze("kube-apiserver")?;
    tokio::time::sleep(FROZEN).await;
    site.control_plane.resume("kube-apiserver")?;
    site.deployments(FUNCTIONS * 3 / 4).await?;
    ensure!(site.stand_in.deployments() < FUNCTIONS, "nothing is left to be done when the API server is killed");
    site.control_plane.restart("kube-apiserver")?;
    load.await??;
    site.tracker.all_ready(count, SOON).await?;
    site.settle(&operator).await?;
    let expected = site.snapshot().await?;
    let deployments = expected.keys().filter(|(kind, ..)| kind == "Deployment").count();
    ensure!(deployments == FUNCTIONS, "{deployments} Deployments of {FUNCTIONS} functions");
    operator.stop()?;
    let operator = site.operator(&[]).await?;
    site.settle(&operator).await?;
    let lines = operator.lines("tandem_operator_writes_total")?;
    ensure!(operator.writes()?.abs() < f64::EPSILON, "a start over everything writes: {lines:?}");
    site.is_again(&expected).await
}
