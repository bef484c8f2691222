//! Macros of the Rust SDK: `#[function]`, `#[derive(State)]`, `#[derive(MapKey)]`.
//!
//! What they generate names the crate `tandem` and nothing else; every mistake a user can make is an error on the line
//! that has to change. Use them through `tandem::prelude`.

mod function;
mod handler;
mod map_key;
mod names;
mod state;

use proc_macro::TokenStream;
use syn::parse_macro_input;

/// Makes an `impl` block a function.
///
/// ```text
/// #[function(name = "order")]
/// impl Order {
///     async fn place(ctx: &Ctx<OrderState>, cart: Cart) -> Result<Receipt> { ... }
/// }
/// ```
/// Options: `name = "..."` (a DNS label; by default the type's name in kebab case) and `declare = false`, for a unit
/// struct that is declared elsewhere; otherwise the macro declares `pub struct Order;`.
///
/// Every `async fn` whose first parameter is `ctx: &Ctx<State>` is a handler; it takes at most one argument more
/// (deserialized from JSON) and returns `Result<T>` (`T` serialized to JSON). All handlers of a function name the same
/// state. Everything else in the block is left as it is. `#[handler(...)]` on a handler takes `name = "..."`,
/// `read_only`, `snapshot`, `serializable`, or `skip` for what is no handler.
///
/// The macro also makes the typed client: `Order::at(key)` gives an `OrderClient` with one method for each handler.
#[proc_macro_attribute]
pub fn function(options: TokenStream, item: TokenStream) -> TokenStream {
    let options = parse_macro_input!(options as function::Options);
    let block = parse_macro_input!(item as syn::ItemImpl);
    function::expand(&options, block).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a struct of `Value<T>` and `Map<K, V>` fields the state of a function.
#[proc_macro_derive(State, attributes(state))]
pub fn derive_state(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as syn::DeriveInput);
    state::expand(&item).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a newtype around a key of a map a key itself, with the same bytes.
#[proc_macro_derive(MapKey)]
pub fn derive_map_key(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as syn::DeriveInput);
    map_key::expand(&item).unwrap_or_else(syn::Error::into_compile_error).into()
}
