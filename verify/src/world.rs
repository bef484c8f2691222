//! A whole runtime in one deterministic thread, with faults and crashes from a seed.
