//! What one flow can be: its tree of calls, its limits, its ends, its messages, and how it looks from outside.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]
#![allow(dead_code, reason = "the support modules are shared by several tests")]

#[path = "flows/ends.rs"]
mod ends;
#[path = "support/held.rs"]
mod held;
#[path = "flows/limits.rs"]
mod limits;
#[path = "flows/load.rs"]
mod load;
#[path = "flows/look.rs"]
mod look;
#[path = "flows/messages.rs"]
mod messages;
#[path = "flows/model.rs"]
mod model;
#[path = "support/script.rs"]
mod script;
#[path = "support/stage.rs"]
mod stage;
#[path = "flows/tree.rs"]
mod tree;
