//! The whole operator against an API server in memory: no sockets, no clock of its own, nothing left to chance.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod scenarios {
    pub(crate) mod support;

    mod crashes;
    mod faults;
    mod lifecycle;
    mod orders;
    mod purges;
    mod rollouts;
    mod stale;
    mod stuck;
}
