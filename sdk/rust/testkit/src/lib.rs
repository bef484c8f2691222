//! sdk/rust/testkit
