//! State in TiKV.

pub mod cluster;
