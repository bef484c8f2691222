//! What was acknowledged is there after kills, whole, and at its own point in time.
//!
//! To see it fail: keep locks in memory alone (`lockWriter.Write` without lock rows), or write two batches in one
//! transaction of badger.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tandem_e2e_tikv::Options;
use tandem_e2e_tikv::shared::alone;
use tokio::time::sleep;

use super::raw::{Row, now};

const WRITERS: usize = 8;
const KILLS: usize = 3;
/// How much is written between two kills.
const BETWEEN_KILLS: u64 = 60;
const AGAIN_AFTER: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(20);

/// A transaction whose primary was committed, so that its client was told so.
struct Acknowledged {
    rows: [Row; 2],
    value: Vec<u8>,
    start: u64,
    commit: u64,
}

#[derive(Default)]
struct Shared {
    ended: AtomicBool,
    /// Every timestamp is given once.
    given: AtomicU64,
    acknowledged: AtomicU64,
}

impl Shared {
    fn timestamp(&self) -> u64 {
        self.given.fetch_max(now(), Ordering::SeqCst);
        self.given.fetch_add(1, Ordering::SeqCst)
    }
}

/// Writes one pair of rows on two stores after the other, as a client that knows of no locks of others: keys are its own.
async fn write(writer: usize, beside: [Row; 2], shared: Arc<Shared>) -> Vec<Acknowledged> {
    let mut all = Vec::new();
    for number in 0_u32.. {
        if shared.ended.load(Ordering::SeqCst) {
            break;
        }
        let value = format!("{writer}-{number}").into_bytes();
        let rows = beside.clone().map(|row| row.beside([&row.key[..], &value].concat()));
        let start = shared.timestamp();
        let primary = &rows[0].key;
        let (first, second) = tokio::join!(
            rows[0].prewrite(&value, primary, start, false),
            rows[1].prewrite(&value, primary, start, false)
        );
        let prewritten = [first, second].iter().all(|one| one.as_ref().is_ok_and(|answer| answer.errors.is_empty()));
        let commit = shared.timestamp();
        if !prewritten || !rows[0].commit(start, commit).await.is_ok_and(|answer| answer.error.is_none()) {
            sleep(AGAIN_AFTER).await;
            continue;
        }
        shared.acknowledged.fetch_add(1, Ordering::SeqCst);
        // Only every other one, so that there are always locks of committed transactions.
        if number % 2 == 0 {
            let _ = rows[1].commit(start, commit).await;
        }
        all.push(Acknowledged { rows, value, start, commit });
    }
    all
}

async fn until_written(shared: &Shared, count: u64) -> Result<()> {
    let begun = std::time::Instant::now();
    while shared.acknowledged.load(Ordering::SeqCst) < count {
        ensure!(begun.elapsed() < LONG, "nothing is written any more");
        sleep(AGAIN_AFTER).await;
    }
    Ok(())
}

#[tokio::test]
async fn what_was_acknowledged_survives_kills_whole_and_at_its_point_in_time() -> Result<()> {
    let Some(cluster) = alone(Options::default().slots_behind(b"t/").stores(2)).await? else { return Ok(()) };
    let beside = [Row::find(&cluster, b"t/\x00\x00").await, Row::find(&cluster, b"t/\x00\x60").await];
    ensure!(beside[0].store != beside[1].store, "the rows are on two stores");
    let shared = Arc::new(Shared::default());
    let writers: Vec<_> =
        (0..WRITERS).map(|writer| tokio::spawn(write(writer, beside.clone(), shared.clone()))).collect();
    for kill in 0..KILLS {
        let written = shared.acknowledged.load(Ordering::SeqCst);
        until_written(&shared, written + BETWEEN_KILLS).await?;
        cluster.restart_store(kill % 2).await?;
    }
    shared.ended.store(true, Ordering::SeqCst);
    for writer in writers {
        for one in writer.await? {
            check(&one).await.with_context(|| String::from_utf8_lossy(&one.value).into_owned())?;
        }
    }
    Ok(())
}

async fn check(one: &Acknowledged) -> Result<()> {
    // What a reader does who finds the lock: the primary says that it is committed. Done before, it changes nothing.
    let committed = one.rows[1].commit(one.start, one.commit).await?;
    ensure!(committed.error.is_none(), "the secondary is neither locked nor committed");
    for row in &one.rows {
        let after = row.get(one.commit).await?;
        ensure!(after.value == one.value, "lost: {after:?}");
        let before = row.get(one.commit - 1).await?;
        ensure!(before.not_found && before.error.is_none(), "committed before its time: {before:?}");
    }
    Ok(())
}
