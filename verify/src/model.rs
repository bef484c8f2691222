//! What each outcome of a program may have left.
