//! Tries to break the contract in every way that one machine allows.
//!
//! | module | concept |
//! | --- | --- |
//! | [`history`] | list-append histories, and the checker that finds cycles in them |
//! | [`program`] | random programs: what a request does, and the functions that do it |
//! | [`model`] | what each outcome of a program may have left |
//! | `jobs` | what clients do with each request, and what they make of the answers |
//! | [`world`] | a whole runtime in one deterministic thread, with faults and crashes from a seed |
//! | [`commits`] | committers on a simulated TiKV cluster, with faults from a seed |
//! | [`pods`] | one to three runtimes on a simulated TiKV cluster |
//! | [`process`] | the same programs against real processes, with kill -9 |
//! | [`faults`] | named faults of real runtimes on real stores of TiKV's protocol |

pub mod commits;
pub mod faults;
pub mod history;
mod jobs;
pub mod model;
pub mod pods;
pub mod process;
pub mod program;
pub mod world;
