//! Random programs against real processes, with kill -9.
