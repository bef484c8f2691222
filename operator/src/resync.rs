//! How often everything is looked at without a reason, should a watch have missed something.

use std::time::Duration;

use rand::Rng;

/// Shortest and longest pause, in seconds.
const PAUSE_SECONDS: std::ops::Range<u64> = 540..660;

/// The pause before an object is looked at again: a little different each time, so that they do not come together.
pub fn pause() -> Duration {
    Duration::from_secs(rand::rng().random_range(PAUSE_SECONDS))
}
