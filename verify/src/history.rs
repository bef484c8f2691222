//! List-append histories, and the checker that finds cycles in them.
