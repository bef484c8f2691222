//! What the store has done, in numbers that only grow.

use std::sync::atomic::{AtomicU64, Ordering};

/// One number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub(crate) fn add_one(&self) {
        self.add(1);
    }

    /// So many more.
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// All counters of one store. They begin at zero with the process.
        #[derive(Debug, Default)]
        pub struct Stats {
            $($(#[doc = $doc])* pub $name: Counter,)*
        }

        impl Stats {
            /// Name, meaning and value of each counter, for metrics.
            pub fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($doc),*).trim_ascii(), self.$name.get()),)*]
            }
        }
    };
}

counters! {
    /// Commits that took one phase.
    commits_one_phase,
    /// Commits that took two phases.
    commits_two_phases,
    /// Commits of which nothing is written.
    commits_read_only,
    /// Transactions that started at the timestamp of their snapshot.
    starts_claimed,
    /// Transactions that took a timestamp of their own to start.
    starts_fresh,
    /// One phase was asked for and refused.
    one_phase_refused,
    /// Conflicts that were answered.
    conflicts,
    /// Commits that began again with a new start, unseen by the caller.
    restarts,
    /// Answers that were lost and found out about by asking for the fate of the transaction.
    lost_answers_decided,
    /// Commits that were answered as undetermined.
    undetermined,
    /// Transactions that were rolled back by their owner.
    rollbacks,
    /// Timestamps at which a transaction could not commit because somebody had read later.
    commits_too_early,
    /// Snapshots that were taken.
    snapshots,
    /// Reads that were made for several snapshots of one timestamp.
    reads_together,
    /// Regions that were looked up at PD.
    region_lookups,
    /// Answers of stores that a region is elsewhere, has changed or is not ready.
    region_errors,
    /// Runs of the lock sweeper in this process.
    sweeps,
    /// Locks that the sweeper met and cleared.
    locks_swept,
    /// Times that this process moved the point up to which history is removed.
    safe_point_moves,
    /// Failures of the sweeper and of the garbage collection.
    housekeeping_failures,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_has_a_name_and_a_meaning() {
        let stats = Stats::default();
        stats.snapshots.add_one();
        let all = stats.all();
        assert!(all.contains(&("snapshots", "Snapshots that were taken.", 1)));
        assert!(all.iter().all(|(name, meaning, _)| !name.is_empty() && meaning.ends_with('.')));
    }
}
