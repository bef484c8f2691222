//! Kills, restarts, freezes, networks, TLS: each test with a cluster of its own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tandem_e2e_tikv::shared::alone;
use tandem_e2e_tikv::{Failpoint, Options};
use tonic::Code;

use super::raw::{Row, now};

/// How long it is looked whether nobody answers.
const SILENCE: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn options() -> Options {
    Options::default().slots_behind(b"t/")
}

/// Asks PD's own HTTP interface.
fn ask_pd(endpoint: &str, path: &str) -> Result<serde_json::Value> {
    let mut stream = TcpStream::connect(endpoint)?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {endpoint}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
    Ok(serde_json::from_str(body)?)
}

#[tokio::test]
async fn pd_knows_regions_spread_over_all_stores_and_all_ends_with_the_handle() -> Result<()> {
    let Some(cluster) = alone(options()).await? else { return Ok(()) };
    let endpoint = cluster.pd_endpoints().remove(0);
    let known = ask_pd(&endpoint, "/pd/api/v1/regions")?;
    assert_eq!(known["count"], 14, "12 for the slots, and one on each side");
    for region in known["regions"].as_array().context("regions")? {
        assert!(region["leader"]["store_id"].as_u64() > Some(0), "{region}");
    }
    for store in 0..3 {
        assert!(cluster.regions(store).await?.regions.len() >= 4);
    }
    let directory = cluster.directory().context("ours")?.to_owned();
    assert!(directory.join("pd.log").exists());
    drop(cluster);
    assert!(!directory.exists());
    assert!(TcpStream::connect(&endpoint).is_err());
    Ok(())
}

/// A value that was prewritten is nowhere but in its lock: when the primary was committed, it has been acknowledged.
#[tokio::test]
async fn locks_and_commits_survive_a_kill_of_all_stores() -> Result<()> {
    let Some(cluster) = alone(options()).await? else { return Ok(()) };
    let primary = Row::find(&cluster, b"t/\x00\x00p").await;
    let secondary = Row::find(&cluster, b"t/\x02\x00s").await;
    let start = now();
    primary.prewrite(b"1", &primary.key, start, false).await?;
    secondary.prewrite(b"2", &primary.key, start, false).await?;
    primary.commit(start, start + 1).await?;
    for store in 0..3 {
        cluster.kill_store(store)?;
    }
    assert!(primary.get(now()).await.is_err());
    for store in 0..3 {
        cluster.restart_store(store).await?;
    }
    let primary = Row::find(&cluster, &primary.key).await;
    let secondary = Row::find(&cluster, &secondary.key).await;
    assert_eq!(primary.get(now()).await?.value, b"1");
    assert!(secondary.get(now()).await?.error.is_some(), "its lock is still there");
    assert_eq!(secondary.commit(start, start + 1).await?.error, None);
    assert_eq!(secondary.get(now()).await?.value, b"2");
    Ok(())
}

#[tokio::test]
async fn a_store_exits_at_a_fail_point_with_the_commit_done() -> Result<()> {
    let Some(cluster) = alone(options().stores(1)).await? else { return Ok(()) };
    let row = Row::find(&cluster, b"t/a").await;
    let empty = Row::find(&cluster, b"t/b").await;
    empty.put(b"").await;
    cluster.failpoint(0, &Failpoint::new("exit-after-commit")).await?;
    let start = now();
    row.prewrite(b"v", &row.key, start, false).await?;
    assert!(row.commit(start, start + 1).await.is_err());
    cluster.restart_store(0).await?;
    let row = Row::find(&cluster, &row.key).await;
    assert_eq!(row.get(now()).await?.value, b"v");
    let empty = Row::find(&cluster, &empty.key).await.get(now()).await?;
    assert_eq!((empty.value, empty.not_found), (Vec::new(), false), "an empty value is a value");
    assert!(Row::find(&cluster, b"t/c").await.get(now()).await?.not_found);
    Ok(())
}

#[tokio::test]
async fn a_frozen_store_is_silent_and_goes_on_and_pd_comes_back_after_a_kill() -> Result<()> {
    let Some(cluster) = alone(options().stores(1)).await? else { return Ok(()) };
    let row = Row::find(&cluster, b"t/a").await;
    let written = row.put(b"v").await;
    cluster.pause_store(0)?;
    assert!(row.get_within(now(), SILENCE).await.is_err());
    cluster.resume_store(0)?;
    assert_eq!(row.get(now()).await?.value, b"v");
    cluster.kill_pd()?;
    assert_eq!(row.get(now()).await?.value, b"v", "a store needs no PD to read");
    cluster.restart_pd().await?;
    // One phase takes its timestamp from PD.
    assert!(row.prewrite(b"w", &row.key, written + 1, true).await?.one_phase_commit > 0);
    Ok(())
}

#[tokio::test]
async fn clients_of_a_cluster_with_proxies_go_through_them() -> Result<()> {
    let Some(cluster) = alone(options().stores(1).proxied()).await? else { return Ok(()) };
    let proxy = cluster.store_proxy(0).context("it has proxies")?;
    let row = Row::find(&cluster, b"t/a").await;
    row.put(b"v").await;
    assert!(proxy.passed().to_server > 0, "the address that PD tells is the proxy's");
    proxy.hold();
    assert!(row.get_within(now(), SILENCE).await.is_err());
    proxy.mend();
    assert_eq!(row.get(now()).await?.value, b"v");
    let endpoint = cluster.pd_endpoints().remove(0);
    assert_eq!(cluster.pd_proxy().context("it has proxies")?.address().to_string(), endpoint);
    // PD names the proxy to clients that ask for its members.
    let members = ask_pd(&endpoint, "/pd/api/v1/members")?.to_string();
    assert!(members.contains(&format!("http://{endpoint}")), "{members}");
    Ok(())
}

#[tokio::test]
async fn with_tls_nobody_gets_in_without_a_certificate() -> Result<()> {
    let Some(cluster) = alone(options().stores(1).tls()).await? else { return Ok(()) };
    // That it started shows that store and PD understand each other.
    let tls = cluster.tls().context("it has certificates")?;
    assert!(tls.ca.is_file() && tls.certificate.is_file() && tls.key.is_file());
    assert!(tls.ca.with_file_name("expired-cert.pem").is_file() && tls.ca.with_file_name("stranger-key.pem").is_file());
    let row = Row::find(&cluster, b"t/a").await;
    let error = row.get(now()).await.unwrap_err();
    assert!(matches!(error.code(), Code::Unavailable | Code::Unknown | Code::Internal), "{error:?}");
    assert!(ask_pd(&cluster.pd_endpoints()[0], "/pd/api/v1/regions").is_err());
    Ok(())
}

#[tokio::test]
async fn a_store_that_cannot_start_is_named_with_the_end_of_its_log() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let Some(cluster) = alone(Options { directory: Some(scratch.path().to_owned()), ..options().stores(1) }).await?
    else {
        return Ok(());
    };
    cluster.kill_store(0)?;
    let identity = scratch.path().join("store-0").join("identity.json");
    std::fs::write(&identity, "not JSON")?;
    let error = cluster.restart_store(0).await.unwrap_err().to_string();
    assert!(error.starts_with("store 0 has ended (exit status: 1)") && error.contains("invalid character"), "{error}");
    drop(cluster);
    assert!(scratch.path().exists(), "a directory that was named is not removed");
    Ok(())
}

#[tokio::test]
async fn a_store_that_comes_back_after_pd_serves_what_it_had() -> Result<()> {
    let Some(cluster) = alone(options().stores(1)).await? else { return Ok(()) };
    let row = Row::find(&cluster, b"t/a").await;
    row.put(b"1").await;
    cluster.kill_store(0)?;
    cluster.restart_pd().await?;
    cluster.restart_store(0).await?;
    let begun = Instant::now();
    let row = Row::find(&cluster, b"t/a").await;
    while row.get(now()).await.map_or(true, |answer| answer.value != b"1") {
        anyhow::ensure!(begun.elapsed() < LONG, "the value is gone");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
