//! The pure core of Tandem: ids, slots, requests, outcomes, topology, and the rules of a flow.
//!
//! | module | concept |
//! | --- | --- |
//! | [`ids`] | names, instances, request and flow ids, timestamps |
//! | [`slot`] | the hash from an instance's key to its slot |
//! | [`expression`] | CEL expressions of routes |
//! | [`topology`] | what the resources compile to, and the runtime runs |
//! | [`request`] | what an entry turns into |
//! | [`outcome`] | the one record every request ends with |
//! | [`limits`] | every bound, by name |
//! | [`mechanism`] | what upholds the contract, with switches for tests |
//! | [`flow`] | the tree of calls of one request: overlays, read set, who may run when |
//!
//! **Invariant:** no `async`, no clock, no randomness, no I/O. Time comes in as a value.

pub mod expression;
pub mod flow;
pub mod ids;
pub mod limits;
pub mod mechanism;
pub mod outcome;
pub mod request;
pub mod slot;
pub mod topology;
