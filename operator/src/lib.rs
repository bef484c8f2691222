//! The operator: turns Tandem's resources into pods that serve them, and says how they are.
//!
//! ```text
//! API server ─watches─▶ World ─▶ Queue ─▶ reconcile ─▶ Writer ─▶ API server
//!                                             │
//!                                             └─ Link ─▶ runtime pods (topology, reports)
//! ```
//!
//! | module | concept |
//! | --- | --- |
//! | [`world`] | what is known of the cluster |
//! | [`watches`] | fills it, and says what has changed |
//! | [`queue`], [`controller`] | what is to be done, and who does it |
//! | [`graph`] | all resources of a namespace, compiled together |
//! | [`runtimes`], [`functions`], [`routes`], [`egresses`] | one folder a kind: dereference, validate, build, apply, prune, status |
//! | [`admission`] | what is said before resources are let in |
//! | [`pods`] | talks to runtime pods |
//! | [`diagnosis`] | why pods do not become ready |
//! | [`kubeapi`] | the only writer |
//! | [`reasons`], [`conditions`] | what is said about resources |
//! | [`process`] | flags, lease, health, metrics |
//! | [`probe`] | asks addresses until they answer, for `helm test` |
//!
//! **Invariant:** builders and statuses are pure; only [`kubeapi`] writes to the cluster; nothing depends on why it was called.

pub mod admission;
pub mod child;
pub mod conditions;
pub mod context;
pub mod controller;
pub mod diagnosis;
pub mod egresses;
pub mod events;
pub mod failure;
pub mod functions;
pub mod graph;
pub mod key;
pub mod kubeapi;
pub mod metrics;
pub mod names;
pub mod pod_template;
pub mod pods;
pub mod probe;
pub mod process;
pub mod queue;
pub mod reasons;
pub mod resync;
pub mod rivals;
pub mod routes;
pub mod runtimes;
#[cfg(test)]
mod testing;
pub mod watches;
pub mod world;
