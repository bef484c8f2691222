//! The operator as a process: flags, lease, health, metrics, end.

pub mod flags;
pub mod gates;
pub mod lease;
pub mod run;
pub mod serve;
pub mod telemetry;
