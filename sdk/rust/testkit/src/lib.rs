//! Runs functions in process against the in-memory store: whole flows, real commits, no cluster and no files.
//!
//! A [`TestKit`] is the runtime itself with the store in memory, and the functions under test served to it over
//! loopback, so what holds here holds there: atomicity, isolation, outcomes, sends, egress.
//!
//! ```
//! use tandem::prelude::*;
//! use tandem_testkit::{Outcome, TestKit};
//!
//! #[derive(State)]
//! struct Stock {
//!     available: Value<u32>,
//! }
//!
//! #[function(name = "inventory")]
//! impl Inventory {
//!     async fn reserve(ctx: &Ctx<Stock>, quantity: u32) -> Result<u32> {
//!         let available = ctx.state.available.get_or_default().await?;
//!         let Some(left) = available.checked_sub(quantity) else {
//!             return reject("out-of-stock", format!("{available} left"));
//!         };
//!         ctx.state.available.set(left);
//!         Ok(left)
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let kit = TestKit::start(Inventory).await?;
//! kit.seed("inventory", "sku-7", "available", &5).await?;
//!
//! let answer = kit.call("inventory", "sku-7", "reserve", &2).await?;
//! assert_eq!(answer.result::<u32>()?, 3);
//!
//! let answer = kit.call("inventory", "sku-7", "reserve", &9).await?;
//! assert_eq!((answer.outcome, answer.reason()), (Outcome::Rejected, "out-of-stock"));
//! assert_eq!(kit.state("inventory", "sku-7").await?.value::<u32>("available")?, Some(3));
//! # Ok(())
//! # }
//! ```
//!
//! **Invariant:** nothing here decides about flows; it only starts, asks and looks.

mod answer;
#[cfg(doctest)]
mod book;
mod kit;
mod state;
mod topology;

pub use tandem_model::limits::Limits;
pub use tandem_model::outcome::{Cause, FlowRecord, Outcome};

pub use crate::answer::Answer;
pub use crate::kit::{Builder, TestKit};
pub use crate::state::State;

/// Why the kit could not do what a test asked for. That a request was rejected or failed is no error but an [`Answer`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A function, key, handler, state or egress that cannot be one.
    #[error(transparent)]
    Name(#[from] tandem_model::ids::InvalidName),
    /// An argument or a seed that cannot be written as JSON, or a result or a state that is of another type.
    #[error("failed to convert {what}")]
    Json {
        /// What it was.
        what: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A stored key that is of another type.
    #[error("failed to read a key of state {state}: {problem}")]
    Key {
        /// The state.
        state: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The request was not taken: an unknown function or handler, or a payload that is too large.
    #[error("the request was not accepted")]
    NotAccepted(#[from] tandem_runtime::runtime::NotAccepted),
    /// A result was asked for, but the request did not commit.
    #[error("the request ended as {outcome}: {reason}: {detail}")]
    NotCommitted {
        /// How it ended.
        outcome: Outcome,
        /// Why, for programs.
        reason: String,
        /// Why, for people.
        detail: String,
    },
    /// The runtime did not come to rest.
    #[error("the runtime did not come to rest within {0:?}")]
    Busy(std::time::Duration),
    /// The runtime or the server of the functions could not start, or stopped.
    #[error("{0}")]
    Stopped(String),
    /// The store did not take a seed, or could not be read.
    #[error("the store failed")]
    Store(#[from] tandem_store::Error),
}
