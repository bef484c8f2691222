//! The pod: takes requests, runs their flows, commits them together.
//!
//! ```text
//! client ─HTTP─▶ ingress ─request─▶ runtime ─▶ partition: one turn an instance ─▶ flow ⇄ host ⇄ user code
//!                finished flows ─▶ commit group: one store transaction ─durable─▶ outcome, reply, egress, sends
//! ```

pub mod admin;
pub mod ingress;
pub mod metrics;
pub mod problem;
pub mod runtime;
pub mod telemetry;
