//! Wall time, for people and for due times of messages. Waiting is done on tokio's monotonic clock, and the order of
//! flows comes from the store.

use std::time::{SystemTime, UNIX_EPOCH};

/// Where wall time comes from, so that a test can own it.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970.
    fn unix_ms(&self) -> u64;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
