//! An API server in memory, runtime pods in memory, and an operator between them.

pub(crate) mod harness;
pub(crate) mod objects;
pub(crate) mod pods;
pub(crate) mod server;
pub(crate) mod watching;

pub(crate) use harness::Harness;
pub(crate) use server::ApiServer;
