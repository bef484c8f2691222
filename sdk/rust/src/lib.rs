//! Functions that commit together: the Rust SDK of Tandem.
//!
//! ```no_run
//! use serde::{Deserialize, Serialize};
//! use tandem::prelude::*;
//!
//! #[derive(State)]
//! struct Stock {
//!     available: Value<u32>,
//!     reserved_by: Map<String, u32>,
//! }
//!
//! #[function(name = "inventory")]
//! impl Inventory {
//!     /// Takes stock for an order, or says no.
//!     async fn reserve(ctx: &Ctx<Stock>, quantity: u32) -> Result<u32> {
//!         let available = ctx.state.available.get_or_default().await?;
//!         let Some(left) = available.checked_sub(quantity) else {
//!             return reject("out-of-stock", format!("{}: {quantity} wanted, {available} left", ctx.key()));
//!         };
//!         ctx.state.available.set(left);
//!         ctx.state.reserved_by.insert(ctx.flow_id().to_owned(), quantity);
//!         Ok(left)
//!     }
//!
//!     /// What is there now.
//!     #[handler(read_only)]
//!     async fn available(ctx: &Ctx<Stock>) -> Result<u32> {
//!         ctx.state.available.get_or_default().await
//!     }
//! }
//!
//! #[derive(Serialize, Deserialize)]
//! struct Line {
//!     sku: String,
//!     quantity: u32,
//! }
//!
//! #[derive(State)]
//! struct OrderState {
//!     status: Value<String>,
//! }
//!
//! #[function(name = "order")]
//! impl Order {
//!     /// Places the order: all of it or nothing.
//!     async fn place(ctx: &Ctx<OrderState>, lines: Vec<Line>) -> Result<()> {
//!         if ctx.state.status.get().await?.is_some() {
//!             return reject("already-placed", format!("order {} exists", ctx.key()));
//!         }
//!         let reserved = lines.iter().map(|line| Inventory::at(&line.sku).reserve(ctx, line.quantity));
//!         try_join_all(reserved).await?;
//!         Order::at(ctx.key()).expire(ctx).send_after(Duration::from_mins(30));
//!         ctx.emit("order-events", &lines);
//!         ctx.state.status.set("placed".to_owned());
//!         Ok(())
//!     }
//!
//!     async fn expire(ctx: &Ctx<OrderState>) -> Result<()> {
//!         ctx.state.status.set("expired".to_owned());
//!         Ok(())
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> tandem::Result<()> {
//!     tandem::serve((Inventory, Order)).await
//! }
//! ```
//!
//! A handler may be run more than once for one request (after a conflict, a failure, the loss of a worker); only the
//! last run counts, and nothing of the others remains. So everything it does to the outside world goes through the
//! [`Ctx`]: state, calls, sends and emits. Clocks and random numbers are fine.
//!
//! | module | concept |
//! | --- | --- |
//! | `context` | [`Ctx`]: key, state, emit |
//! | `state`, `map`, `map_key` | [`Value`], [`Map`], and the keys of its entries |
//! | `call` | [`Call`]: await, spawn or send |
//! | `error` | [`reject`], [`Error`] |
//! | `invocation` | one run of a handler: what it read, wrote and waits for |
//! | `connection`, `server` | the protocol to the runtime; [`serve`], [`Server`] |

// The macros name this crate by its name, also in its own tests.
extern crate self as tandem;

mod call;
mod chain;
mod connection;
mod context;
mod error;
mod function;
mod invocation;
mod map;
mod map_key;
#[cfg(doctest)]
mod mistakes;
pub mod prelude;
mod server;
mod state;

pub use tandem_macros::{MapKey, State, function};

pub use crate::call::Call;
pub use crate::context::Ctx;
pub use crate::error::{Error, Rejection, Result, reject};
pub use crate::function::{Function, Functions};
pub use crate::invocation::Raw;
pub use crate::map::Map;
pub use crate::map_key::MapKey;
pub use crate::server::{ADDRESS, ADDRESS_VARIABLE, BoundServer, CREDIT, DRAIN, Server, serve};
pub use crate::state::{State, Value};

/// What generated code uses. Not for people, and it changes without notice.
#[doc(hidden)]
pub mod generated {
    pub use crate::call::{client_call, client_call_raw, json_payload};
    pub use crate::function::{Descriptor, Handler, HandlerFuture, Isolation};
    pub use crate::invocation::{Shared, json_argument, json_result, raw_argument, raw_result};
    pub use crate::state::{Field, FieldKind, FieldSpec};
}
