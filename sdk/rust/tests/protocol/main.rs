//! The SDK against a runtime that is played by the test: real gRPC over loopback, frame by frame.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]

mod calls;
mod chain;
mod functions;
mod handshake;
mod invocations;
mod runtime;
mod state;
