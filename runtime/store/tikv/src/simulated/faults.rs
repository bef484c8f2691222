//! Which faults may happen to requests, and how often.

/// Probabilities are out of this many.
pub const OUT_OF: u16 = 10_000;

/// How often each fault happens: so many times out of [`OUT_OF`] requests that it can happen to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Longest way of a request, and of an answer, in virtual milliseconds, when all is well.
    pub latency_ms_max: u64,
    /// A request or an answer takes longer.
    pub delay: u16,
    /// How long at most, in virtual milliseconds.
    pub delay_ms_max: u64,
    /// A request is lost before it has an effect. Half of the callers are told that nobody knows, the others nothing.
    pub request_lost: u16,
    /// A request has its effect, and its answer is lost.
    pub answer_lost: u16,
    /// A request arrives long after its caller has been told that nobody knows.
    pub late: u16,
    /// How late at most, in virtual milliseconds.
    pub late_ms_max: u64,
    /// A store refuses for a reason of its own: busy, not leader, another epoch.
    pub region_error: u16,
    /// A one-phase commit is refused; its locks are there or not.
    pub one_phase_refused: u16,
    /// A commit meets locks that somebody else has read past.
    pub commit_pushed: u16,
    /// A region is split, merged, moved to another leader, or changes its members.
    pub region_change: u16,
    /// A store is down for a while. Its regions move, or wait for it.
    pub store_restart: u16,
    /// The placement driver is gone for a while; its timestamps make a leap afterwards.
    pub oracle_restart: u16,
    /// How long a store or the placement driver is gone at most, in virtual milliseconds.
    pub restart_ms_max: u64,
}

impl Faults {
    /// None at all, and no time passes on the way.
    pub fn none() -> Self {
        Self::default()
    }

    /// Only the time on the way, at most this long.
    pub fn latency(latency_ms_max: u64) -> Self {
        Self { latency_ms_max, ..Self::none() }
    }

    /// A bit of everything.
    pub fn all() -> Self {
        Self {
            latency_ms_max: 2,
            delay: 500,
            delay_ms_max: 100,
            request_lost: 100,
            answer_lost: 100,
            late: 100,
            late_ms_max: 10_000,
            region_error: 300,
            one_phase_refused: 1_000,
            commit_pushed: 300,
            region_change: 200,
            store_restart: 20,
            oracle_restart: 10,
            restart_ms_max: 2_000,
        }
    }

    /// So much of everything that little goes right the first time.
    pub fn storm() -> Self {
        Self {
            latency_ms_max: 5,
            delay: 2_000,
            delay_ms_max: 500,
            request_lost: 300,
            answer_lost: 400,
            late: 500,
            late_ms_max: 60_000,
            region_error: 1_000,
            one_phase_refused: 3_000,
            commit_pushed: 1_500,
            region_change: 500,
            store_restart: 50,
            oracle_restart: 30,
            restart_ms_max: 8_000,
        }
    }
}
