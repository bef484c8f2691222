//! The state of an instance, as typed fields of a struct: [`Value`] here, [`Map`](crate::Map) beside.
//!
//! **Invariant:** a read sees what this invocation wrote before it; nothing is stored before the flow commits.

use std::fmt;
use std::future::{Ready, ready};
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::invocation::{Shared, decode, encode};

/// The states of a function: a struct whose fields are [`Value`]s and [`Map`](crate::Map)s. Derive it.
///
/// The name of a field is the name of the state; `#[state(name = "...")]` gives it another one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the state of a function",
    note = "put `#[derive(State)]` on the struct, or use `Ctx<()>` for a function without state"
)]
pub trait State: Sized + Send + Sync + 'static {
    #[doc(hidden)]
    const FIELDS: &'static [FieldSpec];

    #[doc(hidden)]
    fn attach(invocation: &Shared) -> Self;
}

/// No state.
impl State for () {
    const FIELDS: &'static [FieldSpec] = &[];

    fn attach(_invocation: &Shared) -> Self {}
}

/// A type that a field of a [`State`] may have.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "a field of a `State` must be a `Value<T>` or a `Map<K, V>`",
    label = "this is neither"
)]
pub trait Field {
    const KIND: FieldKind;

    fn attach(invocation: &Shared, index: usize) -> Self;
}

/// What is announced about one state.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct FieldSpec {
    pub name: &'static str,
    pub kind: FieldKind,
}

/// One value or many entries.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    Value,
    Map,
}

/// A state of one value, stored as JSON. It is there when the handler starts, so reading it never waits.
pub struct Value<T> {
    invocation: Shared,
    index: usize,
    stored: PhantomData<fn() -> T>,
}

impl<T> Field for Value<T> {
    const KIND: FieldKind = FieldKind::Value;

    fn attach(invocation: &Shared, index: usize) -> Self {
        Self { invocation: invocation.clone(), index, stored: PhantomData }
    }
}

impl<T> Value<T> {
    fn describe(&self) -> String {
        let request = self.invocation.request();
        let name = self.invocation.state_name(self.index);
        format!("state {name} of {}/{}", request.function, request.key)
    }

    /// Removes the value.
    pub fn delete(&self) {
        self.invocation.set_value(self.index, None);
    }
}

impl<T: DeserializeOwned> Value<T> {
    /// The value, if there is one.
    pub fn get(&self) -> Ready<Result<Option<T>>> {
        ready(self.read())
    }

    /// The value, or the default of its type.
    pub fn get_or_default(&self) -> Ready<Result<T>>
    where
        T: Default,
    {
        ready(self.read().map(Option::unwrap_or_default))
    }

    fn read(&self) -> Result<Option<T>> {
        let stored = self.invocation.value(self.index);
        stored.map(|bytes| decode(&bytes, || self.describe())).transpose()
    }
}

impl<T: Serialize> Value<T> {
    /// Replaces the value. One that cannot be written as JSON makes the invocation fail.
    pub fn set(&self, value: T) {
        match encode(&value, || self.describe()) {
            Ok(bytes) => self.invocation.set_value(self.index, Some(bytes)),
            Err(error) => self.invocation.break_with(error),
        }
    }
}

impl<T: Serialize + DeserializeOwned + Default> Value<T> {
    /// Changes the value in place, the default of its type if there is none, and returns what `change` returns.
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> Ready<Result<R>> {
        ready(self.read().map(|stored| {
            let mut value = stored.unwrap_or_default();
            let returned = change(&mut value);
            self.set(value);
            returned
        }))
    }
}

impl<T> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}
