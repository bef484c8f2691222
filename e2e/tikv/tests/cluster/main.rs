//! Clusters as they are started here: they serve, fail as they are told, and keep what they acknowledged.

#![allow(clippy::panic, reason = "a test says what went wrong by panicking")]

mod command;
mod crash;
mod faults;
mod life;
mod raw;
