//! Numbers of egress records, when several runtimes commit to one store, so that a reader can tell what may still come.
//!
//! A runtime that emits takes a block of numbers, above all that anybody has taken, and says so in a row of its own, which
//! holds the number before the first of the block. Each commit that emits validates that row. When it has emitted, it
//! removes the row soon, and takes another block for what it emits next. So in a snapshot with such rows, nothing will
//! ever be committed at or below the least number in them; and in one without, nothing below what has been taken so far.
//!
//! **Invariant:** a commit of an egress record is valid only while the row says the block that its number is from.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tandem_model::mechanism::{Mechanism, works};
use tandem_store::keys::{self, RowKey};
use tandem_store::{Commit, CommitResult, Error, Read, Snapshot, Store};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Partition, RESERVE_ATTEMPTS_MAX, VERSIONS};

/// Names of the rows begin with it.
const PREFIX: &str = "emits/";
/// Numbers that are taken at a time.
const NUMBERS_TAKEN: u64 = 1 << 20;
/// How long after the first record of a block it is given up, so that readers get to see what was emitted.
const BLOCK_KEPT: Duration = Duration::from_millis(100);
/// How often it is looked whether records are still on their way, and for how long at most.
const DRAIN_POLL: Duration = Duration::from_millis(1);
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);
/// More runtimes than anybody has.
const ROWS_MAX: usize = 10_000;

/// A clone for each flow whose records are on their way.
pub(super) type Emitting = Arc<()>;

/// Numbers that this process has taken.
#[derive(Debug)]
pub(super) struct Block {
    /// What its row says.
    pub(super) value: Bytes,
    pub(super) since: Timestamp,
    pub(super) emitting: Emitting,
    next: u64,
    limit: u64,
}

impl Block {
    pub(super) fn has(&self, count: usize) -> bool {
        self.limit - self.next >= count as u64
    }

    pub(super) fn next(&mut self) -> Option<u64> {
        self.next += 1;
        (self.next <= self.limit).then_some(self.next)
    }
}

/// What a snapshot says of the numbers of egress records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Horizon {
    /// Numbers up to here are taken.
    pub(crate) taken: u64,
    /// Nothing will ever be committed up to here that is not in the snapshot.
    pub(crate) settled: u64,
}

/// What a snapshot says of the numbers of egress records.
pub(crate) async fn horizon<P: Snapshot>(snapshot: &P) -> Result<Horizon, Error> {
    let taken = snapshot.get(&keys::meta(VERSIONS)).await?;
    let taken = taken.as_ref().map(decode).transpose()?.unwrap_or(0);
    let mut settled = taken;
    for (_, value) in rows(snapshot).await? {
        settled = settled.min(decode(&value)?);
    }
    if !works(Mechanism::EgressSettled) {
        settled = u64::MAX;
    }
    Ok(Horizon { taken, settled })
}

/// The rows of all who emit.
pub(crate) async fn rows<P: Snapshot>(snapshot: &P) -> Result<Vec<(Bytes, Bytes)>, Error> {
    snapshot.scan(&keys::metas(PREFIX), ROWS_MAX, false).await
}

/// Whose row it is.
pub(crate) fn holder_of(key: &[u8]) -> Option<u64> {
    let RowKey::Meta { name } = keys::parse(key).ok()? else { return None };
    u64::from_str_radix(name.strip_prefix(PREFIX)?, 16).ok()
}

pub(super) fn row_key(holder: u64) -> Bytes {
    keys::meta(&format!("{PREFIX}{holder:016x}"))
}

pub(super) fn decode(value: &Bytes) -> Result<u64, Error> {
    let number = value.as_ref().try_into().map(u64::from_be_bytes);
    number.map_err(|_| Error::Damaged("a row of numbers is not a number".to_owned()))
}

fn encode(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

impl<S: Store> Partition<S> {
    /// Makes sure that there are numbers for so many egress records, when they are sealed at once.
    pub(crate) async fn number_emissions(&self, count: usize) -> Result<(), Error> {
        if self.lock().lanes.can_emit(count) {
            return Ok(());
        }
        let mut before = self.numbering.lock().await;
        if self.lock().lanes.can_emit(count) {
            return Ok(());
        }
        if let Some(block) = self.lock().lanes.block.take() {
            *before = block.emitting;
        }
        drained(&before).await;
        let (block, key) = (self.take_block().await?, row_key(self.incarnation));
        let Some(block) = block else {
            return Err(Error::Unavailable(format!("others keep taking numbers: {key:?} could not be written")));
        };
        *before = Arc::clone(&block.emitting);
        self.lock().lanes.block = Some(block);
        Ok(())
    }

    async fn take_block(&self) -> Result<Option<Block>, Error> {
        for _ in 0..RESERVE_ATTEMPTS_MAX {
            let (snapshot, counter) = (self.store.snapshot().await?, keys::meta(VERSIONS));
            let found = snapshot.get(&counter).await?;
            let used = found.as_ref().map(decode).transpose()?.unwrap_or(0);
            let (limit, value, key) = (used + NUMBERS_TAKEN, encode(used), row_key(self.incarnation));
            let commit = Commit {
                primary: key.clone(),
                reads: vec![Read { key: counter.clone(), seen_at: snapshot.timestamp(), value: found }],
                ranges: Vec::new(),
                writes: vec![(key, Some(value.clone())), (counter, Some(encode(limit)))],
            };
            // Whatever else came of it, the next block is above this one.
            if let CommitResult::Committed(since) = self.store.commit(commit).await? {
                return Ok(Some(Block { value, since, emitting: Emitting::default(), next: used, limit }));
            }
        }
        Ok(None)
    }

    /// Gives the numbers up that are left, so that readers see everything that was emitted.
    pub(crate) async fn pass_numbers_on(&self) {
        let before = self.numbering.lock().await;
        let Some(block) = self.lock().lanes.block.take() else { return };
        drop(block.emitting);
        drained(&before).await;
        let key = row_key(self.incarnation);
        let read = Read { key: key.clone(), seen_at: block.since, value: Some(block.value) };
        let commit = Commit { primary: key.clone(), reads: vec![read], ranges: Vec::new(), writes: vec![(key, None)] };
        if let Err(error) = self.store.commit(commit).await {
            // The others remove it when this process is gone; until then the next block replaces it.
            warn!(%error, "failed to give numbers of egress records back");
        }
    }

    /// Gives numbers up soon after they were used, until `stop`.
    pub(crate) async fn run_numbers(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.emitted.notified() => {}
            }
            sleep(BLOCK_KEPT).await;
            self.pass_numbers_on().await;
        }
    }
}

/// Waits until no record of a block is on its way. What is still on it after that is run again with other numbers.
async fn drained(emitting: &Emitting) {
    let until = Instant::now() + DRAIN_TIME_MAX;
    while Arc::strong_count(emitting) > 1 && Instant::now() < until {
        sleep(DRAIN_POLL).await;
    }
}
