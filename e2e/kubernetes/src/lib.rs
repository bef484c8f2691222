//! A real Kubernetes for tests and people: etcd, the API server and all else that makes a node, built from published Go
//! modules, on one machine without a container engine or an image registry.
//!
//! | module | concept |
//! | --- | --- |
//! | [`cluster`] | a cluster of one node that outlives the command that started it |
//! | [`control_plane`] | only etcd and the API server, for tests, ending with their handle |
//! | [`binaries`] | builds everything, once for each version |
//! | [`image`] | packs programs into images |
//! | [`place`] | names, addresses and paths of a cluster |
//! | [`stores`] | PD and test stores beside the node |
//! | [`volumes`] | volumes for claims |
//! | `node` | brings a node up, step by step |
//! | `servers` | the arguments of each process |
//! | `certificates` | an authority, certificates and kubeconfigs |
//! | `network` | the network namespace of a node |
//! | `processes` | processes of a cluster, found by a mark |
//!
//! **Invariant:** only what carries the mark, the cgroup or the path of a cluster is ever ended, unmounted or removed.

pub mod binaries;
mod certificates;
pub mod cluster;
mod commands;
pub mod control_plane;
mod error;
pub mod image;
mod network;
mod node;
mod packages;
pub mod place;
mod processes;
mod servers;
pub mod stores;
pub mod volumes;

pub use cluster::{Cluster, Options, Status};
pub use control_plane::ControlPlane;
pub use error::Error;
pub use node::POD_IMAGE;
pub use processes::Process;
