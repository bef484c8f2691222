//! Edits, drift, rest, and resources that are wrong.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};
use tandem_crds::resources::{FunctionSpec, Kind};
use tandem_e2e_operator::{api, objects};
use tandem_operator::functions::revision::{child_name, revision};

use crate::Arguments;
use crate::results::{Invalid, Reaction, Rest, Times, rounded};
use crate::site::Site;
use crate::storm::settle;

/// The pause between edits.
const PERIOD: Duration = Duration::from_secs(1);
/// An edit must have its effect by then.
const EFFECT_WITHIN: Duration = Duration::from_mins(2);
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Children that are deleted.
const DELETIONS: usize = 20;
/// Edits beside resources that are wrong.
const EDITS_BESIDE: usize = 20;
/// Of a hundred resources one is wrong.
const PERCENT: usize = 100;
/// Numbers of functions that are chosen lie so far apart, so that all namespaces have a turn.
const STRIDE: usize = 37;

/// Edits one function after the other: the number of replicas of one, the image of the next.
pub(crate) async fn edits(site: &Site, count: usize) -> anyhow::Result<Reaction> {
    let [mut child, mut status, mut made, mut active] = [const { Vec::new() }; 4];
    for number in 0..count {
        let begun = Instant::now();
        let (namespace, name) = site.function(number * STRIDE);
        let (change, status_change) = if number % 2 == 0 {
            replicas(site, &namespace, &name, begun).await?
        } else {
            image(site, &namespace, &name, begun).await?
        };
        let lists = if number % 2 == 0 { (&mut child, &mut status) } else { (&mut made, &mut active) };
        lists.0.push(change);
        lists.1.push(status_change);
        tokio::time::sleep(PERIOD.saturating_sub(begun.elapsed())).await;
    }
    Ok(Reaction {
        child_ms: Times::of(child),
        status_ms: Times::of(status),
        revision_ms: Times::of(made),
        active_ms: Times::of(active),
    })
}

fn spec_of(object: &kube::api::DynamicObject) -> anyhow::Result<FunctionSpec> {
    Ok(serde_json::from_value(object.data["spec"].clone())?)
}

async fn replicas(site: &Site, namespace: &str, name: &str, begun: Instant) -> anyhow::Result<(Duration, Duration)> {
    let function = objects::function(namespace, name, 1);
    let known = api::get(&site.client, &function).await?.context("no such function")?;
    let next = i64::from(spec_of(&known)?.replicas) % 3 + 1;
    let begun = begun.max(Instant::now());
    let edited = api::merge(&site.client, &function, &json!({"spec": {"replicas": next}})).await?;
    let generation = edited.metadata.generation.unwrap_or_default();
    let child = child_name(name, &revision(&spec_of(&edited)?).unwrap_or_default());
    let at =
        site.stand_in.deployment(namespace, &child, next, EFFECT_WITHIN).await.context("the child is not changed")?;
    let done = status(site, namespace, name, |seen| seen.generation == generation && seen.is_ready).await?;
    Ok((at.duration_since(begun), done.duration_since(begun)))
}

async fn image(site: &Site, namespace: &str, name: &str, begun: Instant) -> anyhow::Result<(Duration, Duration)> {
    let function = objects::function(namespace, name, 1);
    let known = api::get(&site.client, &function).await?.context("no such function")?;
    let image = format!("{}x", spec_of(&known)?.image.unwrap_or_default());
    let begun = begun.max(Instant::now());
    let edited = api::merge(&site.client, &function, &json!({"spec": {"image": image}})).await?;
    let spec = spec_of(&edited)?;
    let revision = revision(&spec).unwrap_or_default();
    let child = child_name(name, &revision);
    let replicas = i64::from(spec.replicas);
    let at = site.stand_in.deployment(namespace, &child, replicas, EFFECT_WITHIN).await.context("no child is made")?;
    let done = status(site, namespace, name, |seen| seen.active == revision && seen.is_ready).await?;
    Ok((at.duration_since(begun), done.duration_since(begun)))
}

async fn status(
    site: &Site,
    namespace: &str,
    name: &str,
    holds: impl Fn(&tandem_e2e_operator::tracker::Seen) -> bool,
) -> anyhow::Result<Instant> {
    let key = (Kind::Function.name(), namespace.to_owned(), name.to_owned());
    site.tracker.until("the status of an edit", EFFECT_WITHIN, |seen| seen.get(&key).is_some_and(&holds)).await?;
    Ok(site.tracker.get(&key).context("it is gone")?.at)
}

/// Deletes children: how long they are missing.
pub(crate) async fn drift(site: &Site) -> anyhow::Result<Times> {
    let mut times = Vec::new();
    for number in 0..DELETIONS {
        let (namespace, name) = site.function(number * STRIDE + 1);
        let function =
            api::get(&site.client, &objects::function(&namespace, &name, 1)).await?.context("no function")?;
        let child = child_name(&name, &revision(&spec_of(&function)?).unwrap_or_default());
        let service =
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": child}});
        let begun = Instant::now();
        api::delete(&site.client, &service).await?;
        while api::get(&site.client, &service).await?.is_none() {
            anyhow::ensure!(begun.elapsed() < EFFECT_WITHIN, "{child} stays away");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        times.push(begun.elapsed());
    }
    Ok(Times::of(times))
}

/// What is done when there is nothing to do.
pub(crate) async fn rest(site: &Site, seconds: u64) -> anyhow::Result<Rest> {
    const MINUTE: f64 = 60.0;
    const THOUSAND: f64 = 1_000.0;
    /// Old revisions drain for half a minute after the last edit.
    const DRAINED: Duration = Duration::from_secs(35);
    tokio::time::sleep(DRAINED).await;
    settle(&site.operator).await?;
    let total = |calls: &std::collections::BTreeMap<api::Call, u64>| -> u64 {
        let of_operator = |call: &api::Call| call[0] == tandem_crds::resources::GROUP || call[0] == "apps";
        calls.iter().filter(|(call, _)| of_operator(call)).map(|(_, count)| count).sum()
    };
    let (before, calls, writes) =
        (site.operator.usage()?, total(&api::calls(&site.client).await?), site.operator.writes()?);
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (after, elapsed) = (site.operator.usage()?, begun.elapsed().as_secs_f64());
    let made = total(&api::calls(&site.client).await?) - calls;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let writes = (site.operator.writes()? - writes) as u64;
    #[expect(clippy::cast_precision_loss, reason = "counts of this size are exact")]
    let calls_a_minute = rounded(made as f64 * MINUTE / elapsed);
    Ok(Rest {
        calls_a_minute,
        writes,
        millicores: rounded((after.cpu_seconds - before.cpu_seconds) * THOUSAND / elapsed),
        memory_before_kib: before.memory_kib,
        memory_after_kib: after.memory_kib,
    })
}

/// Adds resources that are wrong: half of them cannot be compiled, half miss something.
pub(crate) async fn invalid(arguments: &Arguments, site: &Site) -> anyhow::Result<Invalid> {
    let count = (arguments.resources / PERCENT).max(2);
    let bad: Vec<Value> = (0..count)
        .map(|number| {
            let (namespace, function) = site.function(number);
            let name = format!("wrong-{number:05}");
            if number % 2 == 0 {
                objects::broken_route(&namespace, &name, &function)
            } else {
                objects::route(&namespace, &name, "nothing")
            }
        })
        .collect();
    let before = site.tracker.all();
    let begun = Instant::now();
    api::apply_all(&site.client, &bad, arguments.writers).await?;
    let told = |seen: &tandem_e2e_operator::tracker::Seen| {
        seen.observed == seen.generation && matches!(seen.reason.as_str(), "Invalid" | "FunctionMissing")
    };
    let all = |seen: &std::collections::HashMap<_, tandem_e2e_operator::tracker::Seen>| {
        seen.values().filter(|seen| told(seen)).count() == count
    };
    site.tracker.until("what is wrong", EFFECT_WITHIN, all).await?;
    let told_seconds = rounded(begun.elapsed().as_secs_f64());
    settle(&site.operator).await?;
    let after = site.tracker.all();
    // Runtimes say that something in their namespace is wrong; nobody else may say anything.
    let others = before.iter().filter(|(name, _)| name.0 != Kind::Runtime.name());
    let is_touched =
        |name, times| after.get(name).is_none_or(|now: &tandem_e2e_operator::tracker::Seen| now.times != times);
    let others_touched = others.filter(|(name, seen)| is_touched(name, seen.times)).count();
    let reaction = edits(site, EDITS_BESIDE.min(arguments.edits)).await?;
    Ok(Invalid { count, told_seconds, others_touched, reaction })
}
