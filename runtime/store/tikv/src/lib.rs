//! State in TiKV: snapshots, and a commit that validates what was read at the commit timestamp.
//!
//! ```text
//! tandem_store::Store ◀─ store ─ commit ─ prewrite, validate, finish ─▶ Cluster (the seam) ◀─ remote: stores and PD
//! ```
//!
//! | module | concept |
//! | --- | --- |
//! | [`cluster`] | what a cluster can be asked, in types of our own |
//! | [`store`] | snapshots and commits over any cluster |
//! | `commit` | one commit: what is known when, and what is answered |
//! | `plan` | what a commit has to do, sorted by how each part is protected |
//! | `prewrite`, `validate`, `finish` | its steps |
//! | `read`, `resolve` | reads, and the locks that they meet |
//! | `together` | one timestamp and one read for those who ask at once |
//! | `claims`, `pending`, `batches`, [`retry`] | timestamps to start at, keys being cleared, requests, limits |
//! | [`TikvStore`], `open` | the store on a real cluster, and what is checked first |
//! | [`purge`] | removes an installation |
//! | [`Remote`] | the real cluster |
//! | `bare` | plain transactions of the crate, for benchmarks to compare with |
//! | `housekeeping`, `tls` | locks of the dead, old history, certificates |
//! | [`options`] | how to reach it, and which part of it is ours |
//! | [`stats`] | what was done, in numbers |
//! | `simulated` | a cluster in memory with faults from a seed; a feature, for tests |
//!
//! `docs/design/0009-commit-on-tikv.md` says why it is like this.

mod batches;
mod claims;
pub mod cluster;
mod commit;
mod finish;
mod housekeeping;
mod open;
pub mod options;
mod pending;
mod plan;
mod prewrite;
pub mod purge;
mod read;
mod remote;
mod resolve;
pub mod retry;
#[cfg(feature = "simulated")]
pub mod simulated;
pub mod stats;
pub mod store;
mod tls;
mod together;
mod validate;

pub use open::TikvStore;
pub use remote::Remote;
#[cfg(feature = "bare")]
pub use remote::bare;
