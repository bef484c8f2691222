//! The pod: takes requests, runs their flows, commits them together.
//!
//! ```text
//! client ─HTTP─▶ ingress ─request─▶ runtime ─▶ turns: one flow an instance ─▶ flow ⇄ host ⇄ user code
//!                finished flows ─▶ partition: one order, commit groups ─durable─▶ outcome, reply, egress, sends
//! ```
//!
//! | module | concept |
//! | --- | --- |
//! | [`runtime`] | the handle: submit, wait, cancel, look |
//! | [`ingress`] | HTTP routes, `/flows`, `/egress` |
//! | [`admin`] | health, metrics, state, flows, on a port of its own |
//! | [`problem`] | every error of HTTP, as problem+json |
//! | `flow` | one request: attempts, the tree of calls, its outcome |
//! | `partition` | the order of flows, sealed rows, commit groups |
//! | `turns` | whose turn it is on an instance |
//! | `host` | connections to workers, invocations |
//! | [`members`], [`peers`] | the other runtimes on the store, and who owns what |
//! | `router` | to the owner, or here |
//! | `courier` | messages: sends that were committed |
//! | `egress` | records that left with commits |
//! | `registry`, `recent` | flows in flight, flows that ended lately |
//! | `sweeper` | removes what is kept only for a time |
//! | [`clock`], [`dial`], [`tasks`], [`metrics`], [`telemetry`] | seams to the outside |

pub mod admin;
mod batch;
pub mod clock;
mod courier;
pub mod dial;
mod egress;
mod engine;
mod flow;
mod host;
pub mod ingress;
pub mod members;
pub mod metrics;
mod partition;
pub mod peers;
pub mod problem;
mod recent;
mod registry;
mod router;
pub mod runtime;
mod sweeper;
pub mod tasks;
pub mod telemetry;
mod turns;

pub use partition::slots_key;
