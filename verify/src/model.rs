//! What each outcome of a program may have left.
//!
//! [`run`] is the runtime as it should be: a few lines that run a program on a state, one flow at a time, with none of
//! the machinery that makes the real one fast. [`judge`] holds what really happened against it.
//!
//! | module | concept |
//! | --- | --- |
//! | [`run`] | what a program sees and does on a state |
//! | [`observed`] | what is in a store |
//! | [`judge`] | whether what happened is one of the things that may happen |

use std::collections::BTreeMap;

pub mod judge;
pub mod observed;
pub mod run;

/// A row of state: an instance (`node/l0-1`), and which entry of its map, or its value.
pub type Row = (String, Option<String>);

/// All rows of state that there are.
pub type State = BTreeMap<Row, i64>;

/// Rows that a flow sets or removes.
pub type Writes = BTreeMap<Row, Option<i64>>;

/// Applies what a flow wrote.
pub fn apply(state: &mut State, writes: &Writes) {
    for (row, value) in writes {
        match value {
            Some(value) => drop(state.insert(row.clone(), *value)),
            None => drop(state.remove(row)),
        }
    }
}
