//! `#[derive(State)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Field, Fields, LitStr, Result};

use crate::names::check_identifier;

pub(crate) fn expand(item: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &item.data else {
        return Err(Error::new_spanned(&item.ident, "the state of a function is a struct"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(&item.ident, "the state of a function is a struct with named fields"));
    };
    if !item.generics.params.is_empty() {
        return Err(Error::new_spanned(&item.generics, "the state of a function cannot be generic"));
    }
    let mut names: Vec<String> = Vec::new();
    for field in &fields.named {
        let name = name_of(field)?;
        if names.contains(&name) {
            return Err(Error::new_spanned(&field.ident, format!("two states are called {name:?}")));
        }
        names.push(name);
    }
    let ident = &item.ident;
    let types: Vec<_> = fields.named.iter().map(|field| &field.ty).collect();
    let fields = fields.named.iter().map(|field| &field.ident);
    let indices = 0..names.len();
    Ok(quote! {
        #[automatically_derived]
        impl ::tandem::State for #ident {
            const FIELDS: &'static [::tandem::generated::FieldSpec] = &[#(
                ::tandem::generated::FieldSpec { name: #names, kind: <#types as ::tandem::generated::Field>::KIND }
            ),*];

            fn attach(invocation: &::tandem::generated::Shared) -> Self {
                Self { #(#fields: <#types as ::tandem::generated::Field>::attach(invocation, #indices)),* }
            }
        }
    })
}

/// The name of the state: that of the field, unless `#[state(name = "...")]` says otherwise.
fn name_of(field: &Field) -> Result<String> {
    let Some(ident) = &field.ident else { return Err(Error::new_spanned(field, "a state needs a name")) };
    let mut name = ident.to_string().trim_start_matches("r#").to_owned();
    let mut span = ident.span();
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("state")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("name") {
                return Err(meta.error("unknown option of a state; there is `name = \"...\"`"));
            }
            let literal: LitStr = meta.value()?.parse()?;
            (name, span) = (literal.value(), literal.span());
            Ok(())
        })?;
    }
    check_identifier("state", &name, span)?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(item: &str, problem: &str) {
        let item: DeriveInput = syn::parse_str(item).unwrap();
        let said = expand(&item).unwrap_err().to_string();
        assert!(said.contains(problem), "{said}");
    }

    #[test]
    fn mistakes_are_named() {
        check("enum S {}", "is a struct");
        check("struct S(Value<u32>);", "named fields");
        check("struct S<T> { a: Value<T> }", "cannot be generic");
        check("struct S { _a: Value<u32> }", "must start with a letter");
        check("struct S { #[state(name = \"a b\")] a: Value<u32> }", "\"a b\" does not");
        check("struct S { #[state(key = 1)] a: Value<u32> }", "unknown option of a state");
        check("struct S { a: Value<u32>, #[state(name = \"a\")] b: Value<u32> }", "two states are called \"a\"");
    }
}
