//! What somebody has to do from time to time: one process of an installation, elected through a row of its own.
//!
//! - **Locks of the dead.** A transaction whose owner died between the prewrites of a secondary and of its primary leaves a
//!   lock whose primary shows no trace. Whoever meets such a lock clears it; nobody may ever meet it. The sweeper finds it.
//! - **History.** A TiKV without TiDB has nobody who says up to where history may be removed. This does, and keeps what
//!   was declared.
//! - **Certificates** are read again by every process, elected or not.
//!
//! **The election** needs no clocks that agree: the elected one counts a row up. Who sees the same count several times in a
//! row, over a time that he measures himself, replaces it by his own name in a transaction; of two who do, one conflicts.
//! Two who both believe to be elected do no harm: everything done here may be done twice.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustls::pki_types::UnixTime;
use tandem_model::ids::Timestamp;
use tandem_store::{Commit, CommitResult, Error, Read, Snapshot as _};
use tikv_client::TimestampExt as _;
use tikv_client::transaction::ResolveLocksOptions;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::cluster::Cluster as _;
use crate::open::TikvStore;
use crate::options::{Options, TlsFiles};
use crate::remote::Remote;
use crate::remote::channels::Dialer;
use crate::stats::Stats;
use crate::tls;

/// How often everything here is done.
const INTERVAL: Duration = Duration::from_secs(10);
/// An elected process that does not count for so many intervals is taken for dead.
const SILENT_INTERVALS: u32 = 3;
/// The own row of the election.
pub(crate) const ELECTED_ROW: &[u8] = b"housekeeper";
/// Locks are cleared by force once they are so old. No transaction of ours is under way for as long as that.
const LOCK_AGE: Duration = Duration::from_secs(90);
/// Locks are asked for in batches of this size.
const LOCKS_AT_ONCE: u32 = 1024;
/// The safe point is moved in steps that are not smaller.
const SAFE_POINT_STEP: Duration = Duration::from_mins(1);
/// A sweep, or a move of the safe point, takes no longer.
const TIME_MAX: Duration = Duration::from_mins(1);

/// Who does it, and what it needs.
pub(crate) struct Housekeeping {
    pub(crate) own: TikvStore,
    pub(crate) everything: Remote,
    pub(crate) dialer: Dialer,
    pub(crate) options: Options,
    pub(crate) stats: Arc<Stats>,
}

impl Housekeeping {
    /// Goes on until the other end of `stopped` is dropped.
    pub(crate) async fn run(self, mut stopped: watch::Receiver<()>) {
        let mut election = Election::new();
        loop {
            tokio::select! {
                _ = stopped.changed() => return,
                () = sleep(INTERVAL) => {}
            }
            if let Some(files) = &self.options.tls {
                self.read_certificates(files).await;
            }
            if self.options.housekeeping {
                self.once(&mut election).await;
            }
        }
    }

    async fn once(&self, election: &mut Election) {
        let done = async {
            if election.take_part(&self.own).await? {
                self.sweep().await?;
                self.move_safe_point().await?;
            }
            Ok::<(), Error>(())
        };
        if let Err(error) = done.await {
            self.stats.housekeeping_failures.add_one();
            tracing::warn!(%error, "housekeeping failed; it is tried again");
        }
    }

    /// Clears all old locks of the installation.
    async fn sweep(&self) -> Result<(), Error> {
        let now = self.now().await?;
        let until = back(now, LOCK_AGE);
        let (start, end) = self.everything.all_keys();
        let options = ResolveLocksOptions { async_commit_only: false, batch_size: LOCKS_AT_ONCE };
        let client = self.everything.client().current();
        let until = tikv_client::Timestamp::from_version(until.0);
        let swept = limited(client.cleanup_locks(start..end, &until, options)).await?;
        self.stats.sweeps.add_one();
        self.stats.locks_swept.add(swept.resolved_locks as u64);
        if swept.resolved_locks > 0 {
            tracing::info!(locks = swept.resolved_locks, "cleared locks of transactions whose owner is gone");
        }
        Ok(())
    }

    /// Lets the cluster remove what is older than the declared window.
    async fn move_safe_point(&self) -> Result<(), Error> {
        let now = self.now().await?;
        let wanted = back(now, self.options.history);
        let current = self.everything.safe_point().await.map_err(crate::commit::failed)?;
        if wanted <= forward(current, SAFE_POINT_STEP) {
            return Ok(());
        }
        let client = self.everything.client().current();
        limited(client.gc(tikv_client::Timestamp::from_version(wanted.0))).await?;
        self.stats.safe_point_moves.add_one();
        Ok(())
    }

    async fn now(&self) -> Result<Timestamp, Error> {
        self.everything.timestamp().await.map_err(crate::commit::failed)
    }

    /// Uses new certificates from now on, if they are in order.
    async fn read_certificates(&self, files: &TlsFiles) {
        match tls::read(files, unix_time()) {
            Ok(certificates) => {
                if self.dialer.replace(certificates) {
                    tracing::info!("the certificates have changed");
                    self.everything.reconnect().await;
                }
            }
            Err(error) => {
                self.stats.housekeeping_failures.add_one();
                tracing::warn!(%error, "new certificates are not used");
            }
        }
    }
}

async fn limited<T>(call: impl Future<Output = tikv_client::Result<T>>) -> Result<T, Error> {
    match timeout(TIME_MAX, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Error::Unavailable(error.to_string())),
        Err(_) => Err(Error::Unavailable("no answer in time".to_owned())),
    }
}

/// The time of the machine, for certificates.
pub(crate) fn unix_time() -> UnixTime {
    UnixTime::since_unix_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn steps(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX) << Timestamp::COUNTER_BITS
}

fn back(at: Timestamp, time: Duration) -> Timestamp {
    Timestamp(at.0.saturating_sub(steps(time)))
}

fn forward(at: Timestamp, time: Duration) -> Timestamp {
    Timestamp(at.0.saturating_add(steps(time)))
}

/// One process' view of the election.
#[derive(Debug)]
struct Election {
    name: String,
    count: u64,
    seen: Option<Bytes>,
    silent: u32,
}

impl Election {
    fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { name: format!("{}-{:x}", std::process::id(), since.as_nanos()), count: 0, seen: None, silent: 0 }
    }

    /// Whether this process is elected, for this interval.
    async fn take_part<S: tandem_store::Store>(&mut self, own: &S) -> Result<bool, Error> {
        let key = Bytes::from_static(ELECTED_ROW);
        let snapshot = own.snapshot().await?;
        let found = snapshot.get(&key).await?;
        if !self.may_count(found.as_ref()) {
            return Ok(false);
        }
        self.count += 1;
        let row = Bytes::from(format!("{} {}", self.name, self.count));
        let read = Read { key: key.clone(), seen_at: snapshot.timestamp(), value: found };
        let writes = vec![(key.clone(), Some(row))];
        let commit = Commit { primary: key, reads: vec![read], ranges: Vec::new(), writes };
        Ok(matches!(own.commit(commit).await?, CommitResult::Committed(_)))
    }

    /// Whether the row is ours, or nobody's, or has been silent for too long.
    fn may_count(&mut self, found: Option<&Bytes>) -> bool {
        let Some(row) = found else { return true };
        if row.split(|byte| *byte == b' ').next() == Some(self.name.as_bytes()) {
            return true;
        }
        if self.seen.as_ref() == Some(row) {
            self.silent += 1;
        } else {
            self.seen = Some(row.clone());
            self.silent = 0;
        }
        self.silent >= SILENT_INTERVALS
    }
}

#[cfg(test)]
mod tests {
    use tandem_store::memory::MemoryStore;

    use super::*;

    fn election(name: &str) -> Election {
        Election { name: name.to_owned(), ..Election::new() }
    }

    #[tokio::test]
    async fn one_is_elected_and_the_next_follows_when_it_is_silent() {
        let store = MemoryStore::new();
        let (mut one, mut other) = (election("one"), election("other"));
        assert!(one.take_part(&store).await.expect("memory answers"));
        for _ in 0..5 {
            assert!(!other.take_part(&store).await.expect("memory answers"));
            assert!(one.take_part(&store).await.expect("memory answers"));
        }
        // From here on, the first one is silent.
        for _ in 0..SILENT_INTERVALS {
            assert!(!other.take_part(&store).await.expect("memory answers"));
        }
        assert!(other.take_part(&store).await.expect("memory answers"));
        assert!(!one.take_part(&store).await.expect("memory answers"));
    }

    #[test]
    fn times_are_taken_from_timestamps() {
        let at = Timestamp(100_000 << Timestamp::COUNTER_BITS);
        assert_eq!(back(at, Duration::from_secs(90)).unix_ms(), 10_000);
        assert_eq!(back(at, Duration::from_mins(15)), Timestamp::ZERO);
        assert_eq!(forward(at, Duration::from_secs(1)).unix_ms(), 101_000);
    }
}
