//! sdk/rust/macros
