//! Tandem's resources: their types and rules, a reader that knows positions, and the compiler to a topology.
//!
//! ```text
//! YAML files ─load─▶ Resources + problems ─compile─▶ Topology, or all problems at once
//! API server ───────▶ Resources ─────────┘
//! ```
//!
//! | module | concept |
//! | --- | --- |
//! | [`resources`] | the four kinds; the CRD YAML is generated from them |
//! | [`load`] | YAML files to resources: positions, unknown fields, bounds and rules of the schema |
//! | [`compile`] | resources to a [`tandem_model::topology::Topology`]: the checks on the whole graph |
//! | [`check`] | both in one step, as `tandem check`, `tandem dev` and CI use them |
//! | [`bundle`] | what an operator hands to runtimes: resources, and where workers are |
//! | [`problem`] | what is wrong, where, and what to do |
//! | [`codes`] | every problem code with its explanation |
//! | [`mod@reference`] | schemas as tables of the documentation |
//!
//! **Invariant:** nothing here talks to a cluster, and [`compile`] does no I/O at all.

pub mod bundle;
pub mod check;
pub mod codes;
pub mod compile;
pub mod load;
pub mod problem;
pub mod reference;
pub mod resources;
mod suggestion;
