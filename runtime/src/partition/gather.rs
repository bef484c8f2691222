//! How long a commit group waits for flows that are about to join it.
//!
//! To a store elsewhere, a commit costs about as much for one flow as for many: a request to each region, and a sync. Flows
//! that are answered together come back together, so that a group which waits for those under way finds them together the
//! next time, too. A flow that takes long must not hold up all others: whoever has waited in vain does not wait for a while.

use std::time::Duration;

/// Waiting was worth it if one joins for so many flows that were there.
const WORTH_ONE_FOR: usize = 4;
/// Waits in vain are followed by so many groups without one, as a power of two.
const SKIPPED_EXPONENT_MAX: u32 = 6;

/// What was learned from groups before.
#[derive(Debug)]
pub(super) struct Gathering {
    max: Duration,
    /// How long the last commit took. Nobody waits for longer than that.
    last_commit: Duration,
    in_vain: u32,
    skipped: u32,
}

impl Gathering {
    /// Groups never wait for longer than `max`.
    pub(super) fn new(max: Duration) -> Self {
        Self { max, last_commit: Duration::ZERO, in_vain: 0, skipped: 0 }
    }

    /// How long the next group may wait. Only if it is at all, [`Gathering::waited`] has to be told.
    pub(super) fn patience(&mut self) -> Duration {
        if self.skipped > 0 {
            self.skipped -= 1;
            return Duration::ZERO;
        }
        self.max.min(self.last_commit)
    }

    /// A group has waited until there was nobody to wait for, or (`in_full`) for as long as it might.
    pub(super) fn waited(&mut self, flows_before: usize, flows_after: usize, in_full: bool) {
        let joined = flows_after.saturating_sub(flows_before);
        if in_full && joined * WORTH_ONE_FOR < flows_before {
            self.in_vain = (self.in_vain + 1).min(SKIPPED_EXPONENT_MAX);
            self.skipped = 1 << self.in_vain;
        } else {
            self.in_vain = 0;
        }
    }

    /// A commit took so long.
    pub(super) fn committed(&mut self, took: Duration) {
        self.last_commit = took;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_millis(8);

    #[test]
    fn nobody_waits_longer_than_a_commit_takes_nor_than_the_store_allows() {
        let mut gathering = Gathering::new(MAX);
        assert_eq!(gathering.patience(), Duration::ZERO);
        gathering.committed(MAX / 2);
        assert_eq!(gathering.patience(), MAX / 2);
        gathering.committed(MAX * 2);
        assert_eq!(gathering.patience(), MAX);
        let mut never = Gathering::new(Duration::ZERO);
        never.committed(MAX);
        assert_eq!(never.patience(), Duration::ZERO);
    }

    #[test]
    fn whoever_waited_in_vain_waits_less_and_less_often() {
        let mut gathering = Gathering::new(MAX);
        gathering.committed(MAX);
        let mut waits = |groups: usize| {
            let waited = |_: &usize| {
                let waited = !gathering.patience().is_zero();
                if waited {
                    gathering.waited(4, 4, true);
                }
                waited
            };
            (0..groups).filter(waited).count()
        };
        assert_eq!(waits(1), 1);
        assert_eq!(waits(2), 0);
        assert_eq!(waits(1), 1);
        assert_eq!(waits(4), 0);
        assert_eq!(waits(1_000), 18);
        gathering.skipped = 0;
        gathering.waited(4, 5, true);
        assert_eq!(gathering.patience(), MAX, "it was worth it");
        gathering.waited(4, 4, false);
        assert_eq!(gathering.patience(), MAX, "there was nobody left to wait for");
    }
}
