//! What a worker process runs: all functions of this crate, by the function protocol or by the HTTP profile.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::post;
use tandem::ADDRESS_VARIABLE;

use super::profile;
use crate::faults::functions::{Account, Doctor, Page, Receipts};
use crate::history::workload::functions::{List, Log, Session};
use crate::program::functions::{Leaf, Node};

/// How a worker is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The SDK, over gRPC.
    Grpc,
    /// JSON over plain HTTP. Only the functions of random programs.
    Http,
}

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody said where to listen.
    #[error(
        "a worker listens where the variable {ADDRESS_VARIABLE} says, as 127.0.0.1:9090; it is not set, or no address"
    )]
    NoAddress,
    /// The SDK's server failed.
    #[error("{0}")]
    Sdk(tandem::Error),
    /// The HTTP server failed.
    #[error("failed to serve the HTTP profile")]
    Http(#[from] std::io::Error),
}

/// Serves until the process is told to stop, or is killed.
pub async fn serve(protocol: Protocol) -> Result<(), Error> {
    match protocol {
        Protocol::Grpc => {
            tandem::serve((Node, Leaf, Session, List, Log, Account, Receipts, Doctor, Page)).await.map_err(Error::Sdk)
        }
        Protocol::Http => {
            let address = std::env::var(ADDRESS_VARIABLE).ok().and_then(|address| address.parse::<SocketAddr>().ok());
            let listener = tokio::net::TcpListener::bind(address.ok_or(Error::NoAddress)?).await?;
            let router = Router::new().route("/", post(profile::answer));
            Ok(axum::serve(listener, router).await?)
        }
    }
}
