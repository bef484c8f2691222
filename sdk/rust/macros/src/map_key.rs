//! `#[derive(MapKey)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, Result};

pub(crate) fn expand(item: &DeriveInput) -> Result<TokenStream> {
    let problem = "a derived MapKey is a struct with one unnamed field: `struct Sku(String);`";
    let Data::Struct(data) = &item.data else { return Err(Error::new_spanned(&item.ident, problem)) };
    let Fields::Unnamed(fields) = &data.fields else { return Err(Error::new_spanned(&item.ident, problem)) };
    let (Some(field), 1) = (fields.unnamed.first(), fields.unnamed.len()) else {
        return Err(Error::new_spanned(&item.ident, problem));
    };
    let (ident, inner) = (&item.ident, &field.ty);
    let (impl_generics, type_generics, where_clause) = item.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics ::tandem::MapKey for #ident #type_generics #where_clause {
            fn to_bytes(&self) -> ::std::vec::Vec<u8> {
                <#inner as ::tandem::MapKey>::to_bytes(&self.0)
            }

            fn from_bytes(bytes: &[u8]) -> ::tandem::Result<Self> {
                <#inner as ::tandem::MapKey>::from_bytes(bytes).map(Self)
            }
        }
    })
}
