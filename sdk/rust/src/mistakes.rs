//! Mistakes that the compiler finds, each beside the same code without it. Compiled as doc tests only.
//!
//! A field that is neither a value nor a map:
//! ```
//! #[derive(tandem::State)]
//! struct Stock { available: tandem::Value<u32> }
//! ```
//! ```compile_fail,E0277
//! #[derive(tandem::State)]
//! struct Stock { available: u32 }
//! ```
//!
//! A state that was not derived:
//! ```
//! use tandem::prelude::*;
//! #[derive(State)]
//! struct Stock { available: Value<u32> }
//! #[function(name = "inventory")]
//! impl Inventory {
//!     async fn count(ctx: &Ctx<Stock>) -> Result<u32> { ctx.state.available.get_or_default().await }
//! }
//! # fn main() {}
//! ```
//! ```compile_fail,E0277
//! use tandem::prelude::*;
//! struct Stock { available: Value<u32> }
//! #[function(name = "inventory")]
//! impl Inventory {
//!     async fn count(ctx: &Ctx<Stock>) -> Result<u32> { ctx.state.available.get_or_default().await }
//! }
//! # fn main() {}
//! ```
//!
//! A result that cannot be serialized, and an argument of the wrong type for a client:
//! ```
//! use tandem::prelude::*;
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Level(u32);
//! #[function(name = "inventory")]
//! impl Inventory {
//!     async fn level(_ctx: &Ctx) -> Result<Level> { Ok(Level(1)) }
//!     async fn set(ctx: &Ctx, level: u32) -> Result<()> { Inventory::at("other").set(ctx, level).await }
//! }
//! # fn main() {}
//! ```
//! ```compile_fail,E0277
//! use tandem::prelude::*;
//! struct Level(u32);
//! #[function(name = "inventory")]
//! impl Inventory {
//!     async fn level(_ctx: &Ctx) -> Result<Level> { Ok(Level(1)) }
//! }
//! # fn main() {}
//! ```
//! ```compile_fail,E0308
//! use tandem::prelude::*;
//! #[function(name = "inventory")]
//! impl Inventory {
//!     async fn set(ctx: &Ctx, level: u32) -> Result<()> { Inventory::at("other").set(ctx, "much").await }
//! }
//! # fn main() {}
//! ```
//!
//! What is served has to be a function:
//! ```compile_fail,E0277
//! struct Order;
//! async fn start() -> tandem::Result<()> { tandem::serve((Order,)).await }
//! ```
