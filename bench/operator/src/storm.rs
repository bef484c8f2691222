//! Everything applied at once; and the start over everything.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use tandem_crds::resources::{GROUP, Kind};
use tandem_e2e_operator::tracker::Name;
use tandem_e2e_operator::{Operator, api, objects};

use crate::Arguments;
use crate::results::{ColdStart, Storm, Times, rounded};
use crate::site::{Site, server_cpu, start_operator};

/// Everything must be ready by then.
const READY_WITHIN: Duration = Duration::from_mins(40);
/// Nothing is done for so long: nothing will be.
const QUIET: Duration = Duration::from_secs(4);
const QUIET_WITHIN: Duration = Duration::from_mins(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Applies everything, and waits until all of it is ready.
pub(crate) async fn storm(arguments: &Arguments, site: &Site) -> anyhow::Result<Storm> {
    let all = objects::shops(arguments.resources, arguments.routes, arguments.namespaces);
    let (before, calls_before) = (site.operator.usage()?, api::calls(&site.client).await?);
    let server_before = server_cpu(&site.control_plane)?;
    let begun = Instant::now();
    let applied = stream::iter(&all).map(|object| async move {
        let at = Instant::now();
        api::apply(&site.client, object).await?;
        anyhow::Ok((name_of(object), at))
    });
    let applied: BTreeMap<Name, Instant> = applied.buffer_unordered(arguments.writers).try_collect().await?;
    let applied_seconds = begun.elapsed().as_secs_f64();
    site.tracker.all_ready(all.len(), READY_WITHIN).await?;
    let ready_seconds = begun.elapsed().as_secs_f64();
    let server_cpu_seconds = rounded(server_cpu(&site.control_plane)? - server_before);
    settle(&site.operator).await?;
    let after = site.operator.usage()?;
    let seen = site.tracker.all();
    let times = applied.iter().filter_map(|(name, at)| Some(seen.get(name)?.first_ready?.duration_since(*at)));
    Ok(Storm {
        applied_seconds: rounded(applied_seconds),
        ready_seconds: rounded(ready_seconds),
        ready_ms: Times::of(times.collect()),
        cpu_seconds: rounded(after.cpu_seconds - before.cpu_seconds),
        server_cpu_seconds,
        memory_before_kib: before.memory_kib,
        memory_after_kib: after.memory_kib,
        peak_kib: after.peak_kib,
        calls: calls_since(&calls_before, &api::calls(&site.client).await?),
        pushes: site.stand_in.pushes(),
    })
}

fn name_of(object: &Value) -> Name {
    let kind = Kind::from_name(object["kind"].as_str().unwrap_or_default()).map(Kind::name).unwrap_or_default();
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (kind, text("namespace"), text("name"))
}

/// Waits until the operator does nothing any more but look after pods. Says how long ago that began.
pub(crate) async fn settle(operator: &Operator) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let (mut last, mut since) = (-1.0, Instant::now());
    while begun.elapsed() < QUIET_WITHIN {
        let done = operator.metric("tandem_operator_reconciles_total", &[], &["kind=\"Pods\""])?;
        if (done - last).abs() > f64::EPSILON {
            (last, since) = (done, Instant::now());
        }
        if since.elapsed() > QUIET {
            return Ok(since.elapsed());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    anyhow::bail!("the operator never rests")
}

/// Calls that only the operator makes: it alone writes statuses of ours, and children.
pub(crate) fn calls_since(
    before: &BTreeMap<api::Call, u64>,
    after: &BTreeMap<api::Call, u64>,
) -> BTreeMap<String, u64> {
    let mut calls = BTreeMap::new();
    for (call @ [group, resource, part, verb], count) in after {
        let is_ours = group == GROUP;
        let is_child = ["", "apps", "networking.k8s.io", "policy", "autoscaling", "batch", "events.k8s.io"];
        let is_one = match verb.as_str() {
            "APPLY" | "DELETE" => {
                is_ours && part == "status" || !is_ours && is_child.contains(&group.as_str()) && part.is_empty()
            }
            "POST" => group == "events.k8s.io",
            "GET" => !is_ours && matches!(resource.as_str(), "configmaps" | "statefulsets" | "deployments"),
            _ => false,
        };
        let since = count - before.get(call).copied().unwrap_or_default();
        if is_one && since > 0 {
            let part = if part.is_empty() { String::new() } else { format!("/{part}") };
            *calls.entry(format!("{verb} {resource}{part}")).or_default() += since;
        }
    }
    calls
}

/// Ends the operator, and starts another one over everything.
pub(crate) async fn cold_start(arguments: &Arguments, site: &mut Site) -> anyhow::Result<ColdStart> {
    site.operator.signal("TERM")?;
    while !site.operator.has_ended() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let begun = Instant::now();
    site.operator = start_operator(arguments, &site.control_plane).await?;
    let quiet = settle(&site.operator).await?;
    let usage = site.operator.usage()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let writes = site.operator.writes()? as u64;
    Ok(ColdStart {
        idle_seconds: rounded(begun.elapsed().saturating_sub(quiet).as_secs_f64()),
        writes,
        cpu_seconds: rounded(usage.cpu_seconds),
        memory_kib: usage.memory_kib,
        peak_kib: usage.peak_kib,
    })
}
