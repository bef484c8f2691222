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
use tokio::time::Instant;

/// More snapshots than this are not remembered; those that go first were taken first.
const CLAIMS_MAX: usize = 16_384;
/// Older ones are not given away: TiKV compares versions only as far back as history is kept.
const CLAIM_AGE_MAX: Duration = Duration::from_secs(30);

/// The timestamps that nobody has claimed yet.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<BTreeMap<Timestamp, Instant>>);

impl Claims {
    /// A snapshot was taken at `at`.
    pub(crate) fn add(&self, at: Timestamp) {
        let mut claims = self.lock();
        claims.insert(at, Instant::now());
        if claims.len() > CLAIMS_MAX {
            claims.pop_first();
        }
    }

    /// Claims a timestamp, and gives how long ago it was taken. `None` if it is not, or no longer, to be had.
    pub(crate) fn take(&self, at: Timestamp) -> Option<Duration> {
        let age = self.lock().remove(&at)?.elapsed();
        (age <= CLAIM_AGE_MAX).then_some(age)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Timestamp, Instant>> {
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
