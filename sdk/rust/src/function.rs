//! What a function is to the server: a name, handlers to run, states to announce. Written by `#[function]`.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use tandem_proto::function::v1alpha1 as proto;

use crate::error::Result;
use crate::invocation::Shared;
use crate::state::{FieldKind, FieldSpec};

/// A function that [`serve`](crate::serve) can run. Implemented by [`#[function]`](crate::function), not by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a function",
    note = "a function is made by `#[function(name = \"...\")]` on an `impl` block"
)]
pub trait Function: Send + Sync + 'static {
    /// Name of the `Function` resource.
    const NAME: &'static str;

    /// Its handlers and states.
    #[doc(hidden)]
    fn descriptor() -> Descriptor;
}

/// Handlers and states of a function.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    pub name: &'static str,
    pub handlers: &'static [Handler],
    pub fields: &'static [FieldSpec],
}

/// One handler.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Handler {
    pub name: &'static str,
    pub isolation: Isolation,
    pub run: fn(Shared) -> HandlerFuture,
}

/// A running handler.
#[doc(hidden)]
pub type HandlerFuture = Pin<Box<dyn Future<Output = Result<Output>> + Send>>;

/// What a handler returned, encoded.
#[doc(hidden)]
#[derive(Debug)]
pub struct Output {
    pub payload: Bytes,
    pub content_type: String,
}

/// What `#[handler(...)]` said about isolation.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    AsDeclared,
    Serializable,
    Snapshot,
    ReadOnly,
}

impl Descriptor {
    pub(crate) fn info(&self) -> proto::FunctionInfo {
        let handlers = self.handlers.iter().map(|handler| proto::HandlerInfo {
            name: handler.name.to_owned(),
            isolation: i32::from(match handler.isolation {
                Isolation::AsDeclared => proto::Isolation::Unspecified,
                Isolation::Serializable => proto::Isolation::Serializable,
                Isolation::Snapshot => proto::Isolation::Snapshot,
                Isolation::ReadOnly => proto::Isolation::ReadOnly,
            }),
        });
        let states = self.fields.iter().map(|field| proto::StateInfo {
            name: field.name.to_owned(),
            kind: i32::from(match field.kind {
                FieldKind::Value => proto::StateKind::Value,
                FieldKind::Map => proto::StateKind::Map,
            }),
        });
        proto::FunctionInfo { name: self.name.to_owned(), handlers: handlers.collect(), states: states.collect() }
    }
}

/// One function, or a tuple of up to twelve of them.
pub trait Functions {
    #[doc(hidden)]
    fn descriptors() -> Vec<Descriptor>;
}

impl<F: Function> Functions for F {
    fn descriptors() -> Vec<Descriptor> {
        vec![F::descriptor()]
    }
}

macro_rules! tuples {
    ($first:ident $($rest:ident)*) => {
        impl<$first: Function, $($rest: Function),*> Functions for ($first, $($rest,)*) {
            fn descriptors() -> Vec<Descriptor> {
                vec![$first::descriptor(), $($rest::descriptor()),*]
            }
        }
        tuples!($($rest)*);
    };
    () => {};
}

tuples!(F1 F2 F3 F4 F5 F6 F7 F8 F9 F10 F11 F12);
