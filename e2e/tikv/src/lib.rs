//! A TiKV cluster for tests, benchmarks and people: a real PD and any number of test stores, on loopback.
//!
//! **The test store is not TiKV.** It speaks TiKV's protocol and keeps what it acknowledged through `kill -9`, but there is
//! no Raft: each region is in one place, and gone for as long as its store is. What a figure or a test says of it, it says
//! of this store alone. `TANDEM_PD_ENDPOINTS` points the same tests at a real TiKV.
//!
//! ```no_run
//! # async fn example() -> Result<(), tandem_e2e_tikv::Error> {
//! use tandem_e2e_tikv::{Cluster, Failpoint, Options};
//!
//! let cluster = Cluster::start(Options::default()).await?;
//! let endpoints = cluster.pd_endpoints();
//! cluster.failpoint(0, &Failpoint::new("lose-commit-reply").times(1)).await?;
//! cluster.kill_store(1)?;
//! cluster.restart_store(1).await?;
//! # Ok(()) }
//! ```
//!
//! | module | concept |
//! | --- | --- |
//! | [`cluster`] | a cluster that lives as long as its handle |
//! | [`mod@shared`] | one cluster for all tests of a binary |
//! | [`background`] | a cluster that outlives the command that started it |
//! | [`binaries`] | builds PD and the store, once for each version |
//! | [`go`] | builds programs with Go, here and for other harnesses |
//! | [`processes`] | processes that do not outlive us, here and for other harnesses |
//! | [`control`] | fail points, figures and regions of a store |
//! | [`proxy`] | a network that delays, loses and cuts |
//! | [`slots`] | where to cut the key space into regions |
//! | `plan` | which process listens where, and how it is started |
//!
//! **Invariant:** only processes that were started here are ever signalled, by their ids.

pub mod background;
pub mod binaries;
pub mod cluster;
pub mod control;
mod error;
pub mod go;
mod plan;
pub mod processes;
pub mod proxy;
pub mod shared;
pub mod slots;

pub use cluster::{Cluster, Options};
pub use control::{Failpoint, Figures};
pub use error::Error;
pub use plan::{Tls, free_address};
pub use proxy::Proxy;
pub use shared::{Place, shared};
