//! What one of several runtimes does from time to time for all: locks of the dead, and history.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use tandem_store_tikv::cluster::{Cluster as _, Prewrite, PrewriteAnswer, ReadFailure};
use tokio::time::sleep;

use super::Site;

/// Locks are cleared by force at this age, by whoever is elected at the time; an election takes some rounds of ten seconds.
const SWEPT_WITHIN: Duration = Duration::from_mins(3);
/// The first one to be elected moves the safe point at once.
const MOVED_WITHIN: Duration = Duration::from_mins(1);
/// How long a counter may take to be seen once what it counts has happened.
const COUNTED_WITHIN: Duration = Duration::from_secs(5);
/// How far back the past can be read unless something else is configured.
const HISTORY: Duration = Duration::from_hours(1);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Behind all rows of all slots, so that nobody ever meets it.
const ORPHAN: &[u8] = b"\xff\xff orphan";
const ITS_PRIMARY: &[u8] = b"\xff\xff primary";
/// What its owner promised to need at most.
const LIVES_MS: u64 = 3_000;

/// Does what a process has done that dies between the prewrite of a secondary and that of its primary.
pub(super) async fn leave_orphan(site: &Site) -> anyhow::Result<()> {
    let store = site.store().await?;
    let cluster = store.cluster();
    let key = Bytes::from_static(ORPHAN);
    let request = Prewrite {
        start: cluster.timestamp().await?,
        primary: Bytes::from_static(ITS_PRIMARY),
        mutations: vec![(key.clone(), Some(Bytes::from_static(b"never")))],
        lives_ms: LIVES_MS,
        transaction_keys: 2,
        one_phase: None,
        repeated: false,
    };
    let region = cluster.region_of(&key).await?;
    let answer = cluster.prewrite(region, request).await?;
    ensure!(answer == PrewriteAnswer::Locked, "{answer:?}");
    ensure!(is_locked(site).await?, "there is no lock");
    site.journal.count("orphans");
    Ok(())
}

/// A look that clears nothing.
async fn is_locked(site: &Site) -> anyhow::Result<bool> {
    let store = site.store().await?;
    let now = store.cluster().timestamp().await?;
    match store.cluster().batch_get(now, &[Bytes::from_static(ORPHAN)]).await {
        Ok(_) => Ok(false),
        Err(ReadFailure::Locked(_)) => Ok(true),
        Err(other) => Err(other.into()),
    }
}

/// Waits until one of the runtimes counts something.
async fn await_counted(site: &Site, metric: &str, within: Duration) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        for which in 0..site.pods.runtimes() {
            if site.metric(which, metric).await? > 0.0 {
                return Ok(());
            }
        }
        ensure!(began.elapsed() < within, "no runtime has counted {metric} within {within:?}");
        sleep(LOOK_EVERY).await;
    }
}

/// Waits until the lock is gone, and sees to it that a runtime says it was the one who cleared it.
pub(super) async fn await_sweep(site: &Site) -> anyhow::Result<()> {
    let began = Instant::now();
    while is_locked(site).await? {
        ensure!(began.elapsed() < SWEPT_WITHIN, "nobody has cleared the lock within {SWEPT_WITHIN:?}");
        sleep(LOOK_EVERY).await;
    }
    await_counted(site, "tandem_store_locks_swept_total", COUNTED_WITHIN).await
}

/// Waits until history has been let go, and asks for some that is not there.
pub(super) async fn await_safe_point(site: &Site) -> anyhow::Result<()> {
    await_counted(site, "tandem_store_safe_point_moves_total", MOVED_WITHIN).await?;
    let store = site.store().await?;
    let (safe, now) = (store.cluster().safe_point().await?, store.cluster().timestamp().await?);
    let kept = Duration::from_millis(now.unix_ms().saturating_sub(safe.unix_ms()));
    ensure!(safe.unix_ms() > 0 && kept >= HISTORY, "only {kept:?} of history is kept");
    let web = site.pods.web_of(0, &site.journal);
    let headers = [("tandem-as-of", "2020-01-01T00:00:00Z".to_owned())];
    let answer = web.call(Method::POST, "/doctor/away/left-0", &headers, Bytes::from_static(b"null")).await;
    let (raw, _) = answer.context("no answer")?;
    let is_clear = raw.status == StatusCode::BAD_REQUEST && raw.text().contains("history-not-kept");
    ensure!(is_clear, "a read of what is not kept was answered with {}", raw.text());
    Ok(())
}
