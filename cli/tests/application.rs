//! Whole applications as processes: real workers, real ports, real files; killed, cut off, fed with nonsense.
//!
//! | module | what happens to the application |
//! | --- | --- |
//! | [`demo`] | the runtime is killed under load, and the shop's invariants are checked |
//! | [`faults`] | workers are killed, and clients go away |
//! | [`input`] | requests that make no sense |
//! | [`data`] | a data directory that is in use, of another version, or on a full disk |
//! | [`reload`] | the files change while it runs |
//! | [`scaffold`] | the first steps: `tandem new`, `dev`, `invoke`, `flows`, `state` |
//! | [`traces`] | a collector is there |

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]

#[path = "support/bank.rs"]
mod bank;
#[path = "application/data.rs"]
mod data;
#[path = "application/demo.rs"]
mod demo;
#[cfg(target_os = "linux")]
#[path = "application/faults.rs"]
mod faults;
#[path = "support/http.rs"]
mod http;
#[path = "application/input.rs"]
mod input;
#[path = "support/process.rs"]
mod process;
#[path = "application/reload.rs"]
mod reload;
#[path = "application/scaffold.rs"]
mod scaffold;
#[path = "application/traces.rs"]
mod traces;
