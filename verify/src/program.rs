//! Random programs: what a request does, and the functions that do it.
