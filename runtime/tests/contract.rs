//! The contract, clause by clause, on the embedded store. Above each test stands what to break to see it fail.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]
#![allow(dead_code, reason = "the support modules are shared by several tests")]

#[path = "contract/atomic.rs"]
mod atomic;
#[path = "contract/durable.rs"]
mod durable;
#[path = "support/held.rs"]
mod held;
#[path = "contract/isolation.rs"]
mod isolation;
#[path = "contract/liveness.rs"]
mod liveness;
#[path = "contract/once.rs"]
mod once;
#[path = "contract/ownership.rs"]
mod ownership;
#[path = "support/script.rs"]
mod script;
#[path = "support/stage.rs"]
mod stage;
#[path = "support/web.rs"]
mod web;
