//! Timestamps of snapshots that may still become the start of one transaction.
//!
//! A transaction that starts at the very timestamp at which it read lets TiKV itself compare versions of all keys that
//! it writes, and needs no second timestamp and no second read. But a timestamp must never be the start of two
//! transactions: they would take each other's locks for their own.
//!
//! **Invariant:** a timestamp is given away at most once, and only if it came from PD for a snapshot of this process.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tandem_model::ids::Timestamp;
use tandem_model::mechanism::{Mechanism, works};
use tokio::time::Instant;

/// More snapshots than this are not remembered; those that go first were taken first.
const CLAIMS_MAX: usize = 16_384;
/// Older ones are not given away: TiKV compares versions only as far back as history is kept.
const CLAIM_AGE_MAX: Duration = Duration::from_secs(30);

/// The timestamps of snapshots, each with when it was taken until somebody claims it.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<BTreeMap<Timestamp, Option<Instant>>>);

impl Claims {
    /// A snapshot was taken at `at`.
    pub(crate) fn add(&self, at: Timestamp) {
        let mut claims = self.lock();
        claims.insert(at, Some(Instant::now()));
        if claims.len() > CLAIMS_MAX {
            claims.pop_first();
        }
    }

    /// Claims a timestamp, and gives how long ago it was taken. `None` if it is not, or no longer, to be had.
    pub(crate) fn take(&self, at: Timestamp) -> Option<Duration> {
        let age = self.lock().get_mut(&at)?.take()?.elapsed();
        if !works(Mechanism::TikvStartOnce) {
            self.add(at);
        }
        (age <= CLAIM_AGE_MAX).then_some(age)
    }

    /// Claims the first of these timestamps, which are in order, that is to be had. Of those behind it, all have to be of
    /// snapshots: what was seen at the moment of a commit has changed just then.
    pub(crate) fn take_first(&self, seen_at: &[Timestamp]) -> Option<(Timestamp, Duration)> {
        let first = {
            let claims = self.lock();
            seen_at.iter().rposition(|at| !claims.contains_key(at)).map_or(0, |last| last + 1)
        };
        seen_at[first..].iter().find_map(|at| Some((*at, self.take(*at)?)))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Timestamp, Option<Instant>>> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_timestamp_is_given_away_once() {
        let claims = Claims::default();
        assert_eq!(claims.take(Timestamp(7)), None);
        claims.add(Timestamp(7));
        tokio::time::advance(Duration::from_millis(20)).await;
        assert_eq!(claims.take(Timestamp(7)), Some(Duration::from_millis(20)));
        assert_eq!(claims.take(Timestamp(7)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_that_is_to_be_had_lies_behind_all_commits() {
        let claims = Claims::default();
        let take = |seen_at: &[u64]| {
            let seen_at: Vec<Timestamp> = seen_at.iter().map(|at| Timestamp(*at)).collect();
            claims.take_first(&seen_at).map(|(at, _)| at.0)
        };
        for at in [3, 5, 7] {
            claims.add(Timestamp(at));
        }
        assert_eq!(take(&[3, 4, 5, 7]), Some(5), "4 is of a commit");
        assert_eq!(take(&[3, 5, 7]), Some(3));
        assert_eq!(take(&[3, 5, 7]), Some(7));
        assert_eq!(take(&[3, 5, 7]), None);
        assert_eq!(take(&[7, 9]), None);
        assert_eq!(take(&[]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_timestamp_is_not_given_away() {
        let claims = Claims::default();
        claims.add(Timestamp(7));
        tokio::time::advance(CLAIM_AGE_MAX + Duration::from_millis(1)).await;
        assert_eq!(claims.take(Timestamp(7)), None);
    }

    #[tokio::test]
    async fn the_oldest_are_forgotten() {
        let claims = Claims::default();
        for at in 0..=CLAIMS_MAX as u64 {
            claims.add(Timestamp(at));
        }
        assert_eq!(claims.take(Timestamp(0)), None);
        assert!(claims.take(Timestamp(1)).is_some());
    }
}
