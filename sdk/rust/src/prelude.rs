//! What a file with functions uses: `use tandem::prelude::*;`

pub use std::time::Duration;

pub use futures_util::future::{join_all, try_join_all};

pub use crate::{Call, Ctx, Map, MapKey, Raw, Result, State, Value, function, reject};
