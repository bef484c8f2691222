//! Many runtimes on one store: who owns what, where requests run, and what happens when one goes.
//!
//! Nothing here may depend on who owns what, except how fast it is. Above each test stands what to break to see it fail.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]
#![allow(dead_code, reason = "the support modules are shared by several tests")]

#[path = "pods/contention.rs"]
mod contention;
#[path = "pods/ends.rs"]
mod ends;
#[path = "support/far.rs"]
mod far;
#[path = "pods/messages.rs"]
mod messages;
#[path = "support/pods.rs"]
mod pods;
#[path = "pods/routing.rs"]
mod routing;
#[path = "pods/scaling.rs"]
mod scaling;
#[path = "support/script.rs"]
mod script;
#[path = "support/stage.rs"]
mod stage;
