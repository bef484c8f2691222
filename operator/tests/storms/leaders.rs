//! Two operators: one works at a time, and the other takes over.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tandem_e2e_kubernetes::control_plane::Options;
use tandem_e2e_operator::{Operator, objects};

use super::site::{SOON, Site, apply_patiently};

const FUNCTIONS: usize = 40;
const MORE: usize = 60;
const WRITERS: usize = 4;
const LOOK_EVERY: Duration = Duration::from_millis(50);

fn leads(operator: &Operator) -> bool {
    operator.metric("tandem_operator_leader", &[], &[]).is_ok_and(|leader| leader > 0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_operators_one_works_and_the_other_takes_over() -> anyhow::Result<()> {
    let Some(site) = Site::start("leaders", 1, Options::default()).await? else { return Ok(()) };
    let arguments = |name: &'static str| ["--leader-elect", "--pod-namespace=default", name];
    let mut first = site.operator(&arguments("--pod-name=first")).await?;
    let begun = Instant::now();
    while !leads(&first) {
        ensure!(begun.elapsed() < SOON, "nobody leads");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let second = site.operator(&arguments("--pod-name=second")).await?;
    let all = objects::shops(FUNCTIONS, 4, 1);
    apply_patiently(site.client.clone(), all.clone(), WRITERS).await?;
    site.tracker.all_ready(all.len(), SOON).await?;
    ensure!(!leads(&second) && second.writes()?.abs() < f64::EPSILON, "both work");
    // In the middle of a second storm the first one stands still for longer than its lease lasts.
    let all = objects::shops(MORE, 4, 1);
    apply_patiently(site.client.clone(), all.clone(), WRITERS).await?;
    first.signal("STOP")?;
    ensure!(site.tracker.count().0 < all.len(), "nothing is left to be done for the second one");
    site.tracker.all_ready(all.len(), SOON).await?;
    ensure!(leads(&second) && second.writes()? > 0.0, "the second one did not take over");
    site.settle(&second).await?;
    let expected = site.snapshot().await?;
    first.signal("CONT")?;
    let begun = Instant::now();
    while !first.has_ended() {
        ensure!(begun.elapsed() < SOON, "who has lost the lease goes on");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    site.settle(&second).await?;
    // What the first one was writing when it was frozen may still have arrived.
    site.is_again(&expected).await?;
    site.tracker.all_ready(all.len(), SOON).await
}
