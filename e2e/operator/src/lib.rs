//! What an operator meets on a real API server where no node is: load, something that plays kubelets and runtime pods, and the
//! operator itself as a process that can be killed, frozen and measured.
//!
//! | module | concept |
//! | --- | --- |
//! | [`api`] | a client, the definitions, namespaces, what the API server has counted |
//! | [`objects`] | resources of the load |
//! | [`operator`] | `tandem-operator` as a process |
//! | [`stand_in`] | makes workloads ready, and answers as the pods of runtimes |
//! | [`tracker`] | which resources are ready, and since when |
//!
//! **Invariant:** nothing here knows the code of the operator.

pub mod api;
pub mod objects;
pub mod operator;
pub mod stand_in;
pub mod tracker;

pub use operator::Operator;
pub use stand_in::StandIn;
pub use tracker::Tracker;
