//! The protocols of Tandem and the code generated from them.
//!
//! The `.proto` files under `proto/` are the reference; `docs/src/reference/function-protocol.md` explains them.
//! **Invariant:** nothing here decides anything. Generated types stop at the edge of the crates that use this one.

/// Version 1 (alpha) of the protocol between the runtime and functions.
#[allow(missing_docs, unreachable_pub, clippy::pedantic, clippy::use_self, reason = "generated")]
pub mod function {
    pub mod v1alpha1 {
        tonic::include_proto!("tandem.function.v1alpha1");
    }
}

/// Version 1 (alpha) of the protocol between the runtimes of one installation.
#[allow(missing_docs, unreachable_pub, clippy::pedantic, clippy::use_self, reason = "generated")]
pub mod peer {
    pub mod v1alpha1 {
        tonic::include_proto!("tandem.peer.v1alpha1");
    }
}

/// The oldest minor version of `tandem.peer.v1alpha1` that this code speaks.
pub const PEER_PROTOCOL_VERSION_MIN: u32 = 1;

/// The newest minor version of `tandem.peer.v1alpha1` that this code speaks.
pub const PEER_PROTOCOL_VERSION_MAX: u32 = 1;

/// The oldest minor version of `tandem.function.v1alpha1` that this code speaks.
pub const FUNCTION_PROTOCOL_VERSION_MIN: u32 = 1;

/// The newest minor version of `tandem.function.v1alpha1` that this code speaks.
pub const FUNCTION_PROTOCOL_VERSION_MAX: u32 = 1;

/// Largest gRPC message either side accepts, in bytes. A batch of frames stays below it.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
