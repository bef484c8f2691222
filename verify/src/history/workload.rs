//! Functions that append and read, and what clients ask of them.
