//! `#[function]`: the unit struct, what the server runs, and the typed client.

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote};
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, Error, Ident, ImplItem, ItemImpl, LitBool, LitStr, Result, Token, Type};

use crate::handler::{Handler, is_raw};
use crate::names::{check_function, kebab_case};

/// What stands in the parentheses of `#[function(...)]`.
pub(crate) struct Options {
    name: Option<LitStr>,
    declare: bool,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut options = Self { name: None, declare: true };
        while !input.is_empty() {
            let option: Ident = input.parse()?;
            let _equals: Token![=] = input.parse()?;
            if option == "name" {
                options.name = Some(input.parse()?);
            } else if option == "declare" {
                options.declare = input.parse::<LitBool>()?.value;
            } else {
                let known = "unknown option of a function; there are `name = \"...\"` and `declare = false`";
                return Err(Error::new(option.span(), known));
            }
            if !input.is_empty() {
                let _comma: Token![,] = input.parse()?;
            }
        }
        Ok(options)
    }
}

/// A function, read from its block.
struct Function {
    ident: Ident,
    name: String,
    docs: Vec<Attribute>,
    handlers: Vec<Handler>,
    state: Type,
}

pub(crate) fn expand(options: &Options, mut block: ItemImpl) -> Result<TokenStream> {
    let function = Function::take(options, &mut block)?;
    let declaration = options.declare.then(|| function.declaration());
    let (implementation, client) = (function.implementation(), function.client());
    Ok(quote! {
        #declaration

        #[allow(clippy::unused_async, clippy::use_self)]
        #block

        #implementation

        #client
    })
}

impl Function {
    fn take(options: &Options, block: &mut ItemImpl) -> Result<Self> {
        let ident = ident_of(block)?;
        let name = match &options.name {
            Some(literal) => (literal.value(), literal.span()),
            None => (kebab_case(&ident.to_string()), ident.span()),
        };
        check_function(&name.0, name.1)?;
        let mut handlers = Vec::new();
        let mut problems: Option<Error> = None;
        for item in &mut block.items {
            let ImplItem::Fn(method) = item else { continue };
            match Handler::take(method) {
                Ok(handler) => handlers.extend(handler),
                Err(problem) => match &mut problems {
                    Some(problems) => problems.combine(problem),
                    None => problems = Some(problem),
                },
            }
        }
        if let Some(problems) = problems {
            return Err(problems);
        }
        let state = agreed_state(&ident, &handlers)?;
        check_names(&handlers)?;
        let docs = block.attrs.iter().filter(|attribute| attribute.path().is_ident("doc")).cloned().collect();
        Ok(Self { ident, name: name.0, docs, handlers, state })
    }

    fn declaration(&self) -> TokenStream {
        let Self { ident, docs, .. } = self;
        let fallback = docs.is_empty().then(|| format!("The function `{}`.", self.name));
        let fallback = fallback.map(|text| quote!(#[doc = #text]));
        quote! {
            #(#docs)*
            #fallback
            #[allow(unreachable_pub)]
            #[derive(Clone, Copy, Debug)]
            pub struct #ident;
        }
    }

    fn implementation(&self) -> TokenStream {
        let Self { ident, name, state, .. } = self;
        let handlers = self.handlers.iter().map(|handler| {
            let Handler { name, isolation, .. } = handler;
            let run = self.run(handler);
            quote!(::tandem::generated::Handler {
                name: #name,
                isolation: ::tandem::generated::Isolation::#isolation,
                run: #run,
            })
        });
        quote! {
            #[automatically_derived]
            impl ::tandem::Function for #ident {
                const NAME: &'static str = #name;

                fn descriptor() -> ::tandem::generated::Descriptor {
                    const HANDLERS: &[::tandem::generated::Handler] = &[#(#handlers),*];
                    ::tandem::generated::Descriptor {
                        name: #name,
                        handlers: HANDLERS,
                        fields: <#state as ::tandem::State>::FIELDS,
                    }
                }
            }
        }
    }

    /// A function from an invocation to the future that decodes, runs and encodes.
    fn run(&self, handler: &Handler) -> TokenStream {
        let (ident, method, state) = (&self.ident, &handler.ident, &self.state);
        let (decoded, argument) = match &handler.argument {
            None => (None, None),
            Some(argument) => {
                let ty = &argument.ty;
                let decode = if is_raw(ty) { quote!(raw_argument) } else { quote!(json_argument) };
                let decoded = quote!(let argument: #ty = ::tandem::generated::#decode(&invocation)?;);
                (Some(decoded), Some(quote!(argument)))
            }
        };
        let encode = if is_raw(&handler.output) { quote!(raw_result) } else { quote!(json_result) };
        quote! {
            |invocation: ::tandem::generated::Shared| -> ::tandem::generated::HandlerFuture {
                ::std::boxed::Box::pin(async move {
                    let ctx = ::tandem::Ctx::<#state>::of(&invocation);
                    #decoded
                    let result = #ident::#method(&ctx, #argument).await;
                    ::tandem::generated::#encode(&invocation, result)
                })
            }
        }
    }

    fn client(&self) -> TokenStream {
        let Self { ident, name, .. } = self;
        let client = format_ident!("{ident}Client");
        let methods = self.handlers.iter().map(|handler| self.client_method(handler));
        let about_client = format!("Calls one instance of `{name}`. Made by [`{ident}::at`].");
        let about_at = format!("The instance `key` of `{name}`, to call its handlers.");
        quote! {
            #[allow(unreachable_pub, dead_code)]
            impl #ident {
                #[doc = #about_at]
                pub fn at(key: impl ::std::fmt::Display) -> #client {
                    #client { key: ::std::string::ToString::to_string(&key) }
                }
            }

            #[doc = #about_client]
            #[allow(unreachable_pub, dead_code)]
            #[derive(Clone, Debug)]
            pub struct #client {
                key: ::std::string::String,
            }

            #[allow(unreachable_pub, dead_code, private_interfaces, clippy::needless_pass_by_value)]
            impl #client {
                #(#methods)*
            }
        }
    }

    fn client_method(&self, handler: &Handler) -> TokenStream {
        let function = &self.name;
        let Handler { ident, name, docs, argument, output, .. } = handler;
        let fallback = docs.is_empty().then(|| format!("Calls `{name}`."));
        let fallback = fallback.map(|text| quote!(#[doc = #text]));
        let parameter = argument.as_ref().map(|argument| {
            let (ident, ty) = (&argument.ident, &argument.ty);
            quote!(, #ident: #ty)
        });
        let payload = match argument {
            None => quote!(::tandem::generated::json_payload(&(), #function)),
            Some(argument) => {
                let ident = &argument.ident;
                if is_raw(&argument.ty) {
                    quote!(::tandem::Result::Ok(#ident.bytes))
                } else {
                    quote!(::tandem::generated::json_payload(&#ident, #function))
                }
            }
        };
        let call = if is_raw(output) { quote!(client_call_raw) } else { quote!(client_call) };
        quote! {
            #(#docs)*
            #fallback
            pub fn #ident<'ctx, CallerState>(
                &self,
                ctx: &'ctx ::tandem::Ctx<CallerState> #parameter
            ) -> ::tandem::Call<'ctx, #output> {
                ::tandem::generated::#call(ctx, [#function, #name], &self.key, #payload)
            }
        }
    }
}

fn ident_of(block: &ItemImpl) -> Result<Ident> {
    if let Some((_, path, _)) = &block.trait_ {
        return Err(Error::new_spanned(path, "a function is an `impl` block of its own type, not of a trait"));
    }
    let problem = "the type of a function is a plain name: `impl Order`";
    if !block.generics.params.is_empty() {
        return Err(Error::new_spanned(&block.generics, problem));
    }
    let Type::Path(path) = &*block.self_ty else { return Err(Error::new_spanned(&block.self_ty, problem)) };
    path.path.get_ident().cloned().ok_or_else(|| Error::new_spanned(path, problem))
}

/// The state that all handlers name.
fn agreed_state(ident: &Ident, handlers: &[Handler]) -> Result<Type> {
    let Some(first) = handlers.first() else {
        let problem = "a function needs a handler: an `async fn` whose first parameter is `ctx: &Ctx<State>`";
        return Err(Error::new(ident.span(), problem));
    };
    match handlers.iter().find(|handler| handler.state != first.state) {
        None => Ok(first.state.clone()),
        Some(other) => {
            let problem = format!(
                "all handlers of a function have the same state: here it is `{}`, but in `{}` it is `{}`",
                other.state.to_token_stream(),
                first.ident,
                first.state.to_token_stream()
            );
            Err(Error::new_spanned(&other.state, problem))
        }
    }
}

fn check_names(handlers: &[Handler]) -> Result<()> {
    for (index, handler) in handlers.iter().enumerate() {
        if handlers[..index].iter().any(|earlier| earlier.name == handler.name) {
            return Err(Error::new(handler.ident.span(), format!("two handlers are called {:?}", handler.name)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
