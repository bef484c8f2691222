//! Removes an installation from a cluster: every row of it, and nothing else that lies below its prefix.
//!
//! Rows are removed in transactions of bounded size. A range of a cluster can be destroyed faster, but past its
//! transactions: what is read at that moment is damaged, and a row of another installation whose prefix lies within this
//! one would go, too.
//!
//! **Invariant:** before the first row is removed, the format row says that a purge has begun, so that nobody takes half of
//! an installation for a whole one. It is the last row to go.

use bytes::Bytes;
use tandem_store::{Commit, CommitResult, Error, KeyRange, Read, Snapshot as _, Store as _};

use crate::housekeeping::ELECTED_ROW;
use crate::open::{self, FORMAT_ROW, OPEN_TIME, TikvStore, connect, foreign, format_row, judge, purge_row};
use crate::options::Options;
use crate::remote::OWN;
use crate::store::ClusterStore;

/// Rows that one transaction removes.
const ROWS_AT_ONCE: usize = 256;
/// How often one transaction is tried. Nobody else writes here, so that only lost answers make it necessary.
const ATTEMPTS_MAX: usize = 8;
/// How often everything is gone through, until a pass finds nothing: what was on its way may have come behind the first one.
const PASSES_MAX: usize = 4;

/// An installation that is to be removed.
pub struct Purge {
    own: TikvStore,
    rows: TikvStore,
    everything: TikvStore,
    options: Options,
}

/// What is below a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// An installation.
    Installation,
    /// What an earlier purge has left.
    Remains,
}

/// What a purge has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// How many rows it removed.
    pub rows: u64,
    /// A key below the prefix that is none of ours, and is still there.
    pub foreign: Option<Bytes>,
}

impl Purge {
    /// Connects. Writes nothing, and takes part in no election.
    pub async fn connect(options: &Options) -> Result<Self, Error> {
        options.check()?;
        let Ok(parts) = tokio::time::timeout(OPEN_TIME, connect(options)).await else {
            let seconds = OPEN_TIME.as_secs();
            return Err(Error::Unavailable(format!("{} could not be reached within {seconds} s", options.shown())));
        };
        let open::Parts { own, rows, everything, dialer: _, stats } = parts?;
        let everything = ClusterStore::with_stats(everything, options.timeouts, stats);
        Ok(Self { own, rows, everything, options: options.clone() })
    }

    /// The rows of users: for a look at who works on them.
    pub fn rows(&self) -> &TikvStore {
        &self.rows
    }

    /// What is there. Refuses what is none of ours, or was written by a newer version.
    pub async fn found(&self) -> Result<Found, Error> {
        let snapshot = self.own.snapshot().await?;
        match snapshot.get(&Bytes::from_static(FORMAT_ROW)).await? {
            Some(row) if row == purge_row() => Ok(Found::Remains),
            Some(row) => judge(&row, &self.options).map(|()| Found::Installation),
            None => match self.others(0).await? {
                Some(key) => Err(foreign(&key, &self.options)),
                None => Ok(Found::Nothing),
            },
        }
    }

    /// Nobody opens the installation from now on.
    pub async fn close(&self) -> Result<(), Error> {
        self.exchange(&purge_row()).await
    }

    /// It can be opened again. Only as long as nothing was removed.
    pub async fn reopen(&self) -> Result<(), Error> {
        self.exchange(&format_row()).await
    }

    /// Removes everything that `is_ours` says yes to, and tells `progress` how many rows that were so far. After
    /// [`Purge::close`] only. Repeated after an error, it goes on.
    pub async fn remove(
        &self,
        is_ours: impl Fn(&[u8]) -> bool,
        mut progress: impl FnMut(u64),
    ) -> Result<Purged, Error> {
        let mut rows = 0;
        for _ in 0..PASSES_MAX {
            let before = rows;
            // One range for each first byte: a scan over everything would pass by all that was removed, in one call.
            for first in 0..=u8::MAX {
                rows += self.remove_range(&KeyRange::prefix(&[first]), &is_ours).await?;
                if rows > before && first % PROGRESS_EVERY == 0 {
                    progress(rows);
                }
            }
            if rows == before {
                break;
            }
        }
        progress(rows);
        let own = [FORMAT_ROW, ELECTED_ROW].len();
        let foreign = self.others(own).await?;
        self.remove_own(foreign.is_some()).await?;
        Ok(Purged { rows, foreign })
    }

    async fn remove_range(&self, range: &KeyRange, is_ours: impl Fn(&[u8]) -> bool) -> Result<u64, Error> {
        let (mut range, mut removed) = (range.clone(), 0);
        loop {
            let page = self.rows.snapshot().await?.scan(&range, ROWS_AT_ONCE, false).await?;
            let Some((last, _)) = page.last() else { return Ok(removed) };
            range.start = [last, &[0][..]].concat().into();
            let is_last = page.len() < ROWS_AT_ONCE;
            let writes: Vec<_> = page.into_iter().filter(|(key, _)| is_ours(key)).map(|(key, _)| (key, None)).collect();
            removed += u64::try_from(writes.len()).unwrap_or(u64::MAX);
            commit(&self.rows, writes, Vec::new()).await?;
            if is_last {
                return Ok(removed);
            }
        }
    }

    /// A key below the prefix that is not one of the store's own rows, of which there are at most so many.
    async fn others(&self, own: usize) -> Result<Option<Bytes>, Error> {
        let any = KeyRange { start: Bytes::new(), end: None };
        let is_own = |key: &[u8]| key.strip_prefix(OWN).is_some_and(|name| name == FORMAT_ROW || name == ELECTED_ROW);
        let found = self.everything.snapshot().await?.scan(&any, own + 1, false).await?;
        Ok(found.into_iter().map(|(key, _)| key).find(|key| !is_own(key)))
    }

    /// Where keys of others lie below the prefix, the format row stays: without it, a new installation would be refused.
    async fn remove_own(&self, has_others: bool) -> Result<(), Error> {
        let format = has_others.then(format_row);
        let writes = vec![(Bytes::from_static(FORMAT_ROW), format), (Bytes::from_static(ELECTED_ROW), None)];
        commit(&self.own, writes, Vec::new()).await
    }

    /// Puts another format row in the place of what is there.
    async fn exchange(&self, row: &Bytes) -> Result<(), Error> {
        let key = Bytes::from_static(FORMAT_ROW);
        let snapshot = self.own.snapshot().await?;
        let found = snapshot.get(&key).await?;
        if found.as_ref() == Some(row) {
            return Ok(());
        }
        let read = Read { key: key.clone(), seen_at: snapshot.timestamp(), value: found };
        commit(&self.own, vec![(key, Some(row.clone()))], vec![read]).await
    }
}

/// How many of the 256 first bytes are gone through between two words about it.
const PROGRESS_EVERY: u8 = 16;

/// Writes, once or several times: the same again does no harm.
async fn commit(store: &TikvStore, writes: Vec<(Bytes, Option<Bytes>)>, reads: Vec<Read>) -> Result<(), Error> {
    let Some((primary, _)) = writes.first().cloned() else { return Ok(()) };
    let commit = Commit { primary, reads, ranges: Vec::new(), writes };
    for _ in 0..ATTEMPTS_MAX {
        match store.commit(commit.clone()).await? {
            CommitResult::Committed(_) => return Ok(()),
            CommitResult::Conflict(_) | CommitResult::Undetermined(_) => {}
        }
    }
    Err(Error::Unavailable("somebody else writes the rows that are to be removed".to_owned()))
}
