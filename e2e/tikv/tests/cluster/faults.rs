//! Fail points of a store, in the cluster that all tests of this binary share.

use std::time::{Duration, Instant};

use anyhow::Result;
use tandem_e2e_tikv::shared::own;
use tandem_e2e_tikv::slots::rows_behind;
use tandem_e2e_tikv::{Cluster, Failpoint};
use tonic::Code;

use super::raw::{Row, now};

const LONG: Duration = Duration::from_secs(10);
/// Long before PD's time.
const ONCE: u64 = 1 << 18;
const LOOK_EVERY: Duration = Duration::from_millis(10);

async fn until_held(cluster: &Cluster, store: usize, failpoint: &Failpoint) -> Result<()> {
    let begun = Instant::now();
    while !cluster.failpoints(store).await?.iter().any(|one| one.name == failpoint.name() && one.holds == 1) {
        anyhow::ensure!(begun.elapsed() < LONG, "{} holds nothing", failpoint.name());
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_lost_commit_reply_hides_a_commit_and_meets_only_its_prefix() -> Result<()> {
    let Some(place) = own().await? else { return Ok(()) };
    let row = Row::find(place.cluster, &[&place.prefix[..], b"a"].concat()).await;
    let other = Row::find(place.cluster, b"tother").await;
    let lose = Failpoint::new("lose-commit-reply").times(1).prefix(&place.prefix);
    place.cluster.failpoint_everywhere(&lose).await?;
    other.put(b"1").await;
    let start = now();
    row.prewrite(b"v", &row.key, start, false).await?;
    assert_eq!(row.commit(start, start + 1).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(row.get(now()).await?.value, b"v");
    assert_eq!(place.cluster.clear_failpoint_everywhere(&lose).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_lost_commit_request_leaves_the_lock() -> Result<()> {
    let Some(place) = own().await? else { return Ok(()) };
    let row = Row::find(place.cluster, &place.prefix).await;
    let lose = Failpoint::new("lose-commit-request").times(1).prefix(&place.prefix);
    place.cluster.failpoint(row.store, &lose).await?;
    let start = now();
    row.prewrite(b"v", &row.key, start, false).await?;
    assert_eq!(row.commit(start, start + 1).await.unwrap_err().code(), Code::Unavailable);
    assert!(row.get(now()).await?.error.is_some(), "the lock is in the way");
    row.commit(start, start + 1).await?;
    assert_eq!(row.get(now()).await?.value, b"v");
    place.cluster.clear_failpoint(row.store, &lose).await?;
    Ok(())
}

#[tokio::test]
async fn one_phase_commit_is_refused_as_tikv_does() -> Result<()> {
    let Some(place) = own().await? else { return Ok(()) };
    let row = Row::find(place.cluster, &place.prefix).await;
    let first = row.prewrite(b"1", &row.key, ONCE, true).await?.one_phase_commit;
    assert!(first > ONCE);
    let refuse = Failpoint::new("refuse-one-pc").prefix(&place.prefix);
    place.cluster.failpoint(row.store, &refuse).await?;
    let start = first + 1;
    let refused = row.prewrite(b"2", &row.key, start, true).await?;
    assert_eq!((refused.one_phase_commit, refused.errors), (0, Vec::new()));
    assert!(row.get(start + 1).await?.error.is_some(), "it left a lock");
    row.commit(start, start + 1).await?;
    assert_eq!(row.get(start + 1).await?.value, b"2");
    place.cluster.clear_failpoint(row.store, &refuse).await?;
    Ok(())
}

#[tokio::test]
async fn region_errors_come_as_often_as_they_were_ordered() -> Result<()> {
    let Some(place) = own().await? else { return Ok(()) };
    let row = Row::find(place.cluster, &place.prefix).await;
    for (name, message) in [
        ("server-is-busy", "server is busy"),
        ("epoch-not-match", "epoch not match"),
        ("not-leader", "not leader"),
        ("region-not-found", "region not found"),
        ("stale-command", "stale command"),
    ] {
        let busy = Failpoint::new(name).times(2).prefix(&place.prefix);
        place.cluster.failpoint(row.store, &busy).await?;
        for _ in 0..2 {
            let error = row.get(now()).await?.region_error.expect(name);
            assert!(error.message.starts_with(message), "{}", error.message);
        }
        assert_eq!(row.get(now()).await?.region_error, None);
        let met = place.cluster.clear_failpoint(row.store, &busy).await?.expect("it was set");
        assert_eq!((met.met, met.fired), (3, 2));
    }
    Ok(())
}

#[tokio::test]
async fn a_percentage_is_spread_evenly() -> Result<()> {
    let Some(place) = own().await? else { return Ok(()) };
    let row = Row::find(place.cluster, &place.prefix).await;
    let busy = Failpoint::new("server-is-busy").percent(10).prefix(&place.prefix);
    place.cluster.failpoint(row.store, &busy).await?;
    let mut refused = 0;
    for _ in 0..100 {
        refused += usize::from(row.get(now()).await?.region_error.is_some());
    }
    assert_eq!(refused, 10);
    place.cluster.clear_failpoint(row.store, &busy).await?;
    Ok(())
}

#[tokio::test]
async fn a_pause_tells_secondaries_from_the_primary_and_ends_when_it_is_taken_away() -> Result<()> {
    let Some(place) = own().await? else { return Ok(()) };
    let primary = Row::find(place.cluster, &[&rows_behind(&place.prefix)[..], b"\x00\x00p"].concat()).await;
    let secondary = Row::find(place.cluster, &[&rows_behind(&place.prefix)[..], b"\x03\xffs"].concat()).await;
    assert_ne!(primary.store, secondary.store, "slots lie on several stores");
    let pause = Failpoint::new("pause-before-secondary-prewrite").prefix(&place.prefix);
    place.cluster.failpoint_everywhere(&pause).await?;
    let start = now();
    assert_eq!(primary.prewrite(b"1", &primary.key, start, false).await?.errors, Vec::<Vec<u8>>::new());
    let (row, of) = (secondary.clone(), primary.key.clone());
    let held = tokio::spawn(async move { row.prewrite(b"2", &of, start, false).await });
    until_held(place.cluster, secondary.store, &pause).await?;
    assert!(!held.is_finished());
    assert_eq!(place.cluster.clear_failpoint_everywhere(&pause).await?, 1);
    assert_eq!(held.await??.errors, Vec::<Vec<u8>>::new());
    primary.commit(start, start + 1).await?;
    secondary.commit(start, start + 1).await?;
    assert_eq!(secondary.get(now()).await?.value, b"2");
    Ok(())
}

#[tokio::test]
async fn a_split_changes_epochs_and_both_parts_serve() -> Result<()> {
    let Some(place) = own().await? else { return Ok(()) };
    let left = Row::find(place.cluster, &[&place.prefix[..], b"a"].concat()).await;
    let right = Row::find(place.cluster, &[&place.prefix[..], b"c"].concat()).await;
    assert_eq!(left.region, right.region);
    left.put(b"1").await;
    right.put(b"2").await;
    place.cluster.split(&[&place.prefix[..], b"b"].concat()).await?;
    let stale = left.get(now()).await?.region_error.expect("the epoch is another");
    assert!(stale.message.starts_with("region not found") || stale.message.starts_with("epoch not match"), "{stale:?}");
    let left = Row::find(place.cluster, &left.key).await;
    let right = Row::find(place.cluster, &right.key).await;
    assert_ne!(left.region.id, right.region.id);
    assert_eq!((left.get(now()).await?.value, right.get(now()).await?.value), (b"1".to_vec(), b"2".to_vec()));
    Ok(())
}

#[tokio::test]
async fn figures_count_requests_and_what_was_written() -> Result<()> {
    let Some(place) = own().await? else { return Ok(()) };
    let row = Row::find(place.cluster, &place.prefix).await;
    let before = place.cluster.figures(row.store).await?;
    row.put(&[7; 10_000]).await;
    row.get(now()).await?;
    let after = place.cluster.figures(row.store).await?;
    for kind in ["KvPrewrite", "KvCommit", "KvGet"] {
        let count = |figures: &tandem_e2e_tikv::Figures| figures.requests.get(kind).copied().unwrap_or(0);
        assert!(count(&after) > count(&before), "{kind}: {before:?} {after:?}");
    }
    // Once in the lock, once as a version of the row.
    assert!(after.batch_bytes >= before.batch_bytes + 20_000, "{before:?} {after:?}");
    assert!(after.batches >= before.batches + 2 && after.log_writes >= before.log_writes + 2, "{before:?} {after:?}");
    Ok(())
}

#[tokio::test]
async fn unknown_fail_points_and_stores_are_named_in_the_error() -> Result<()> {
    let Some(place) = own().await? else { return Ok(()) };
    let error = place.cluster.failpoint(0, &Failpoint::new("lose-everything")).await.unwrap_err().to_string();
    assert!(error.contains("store 0 refused POST /failpoints") && error.contains("lose-everything"), "{error}");
    let error = place.cluster.failpoint(9, &Failpoint::new("delay-get")).await.unwrap_err().to_string();
    assert_eq!(error, "there is no store 9: the cluster has 3, counted from 0");
    assert!(place.cluster.failpoint_names().await?.contains(&"withhold-commit-reply".to_owned()));
    Ok(())
}
