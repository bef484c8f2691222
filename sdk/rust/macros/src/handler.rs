//! One handler of a function: what its signature says.

use syn::spanned::Spanned;
use syn::{
    Attribute, Error, FnArg, GenericArgument, Ident, ImplItemFn, LitStr, Pat, PathArguments, Result, ReturnType, Type,
};

use crate::names::check_identifier;

/// A handler, read from its signature and attributes.
pub(crate) struct Handler {
    pub(crate) ident: Ident,
    /// As the runtime knows it.
    pub(crate) name: String,
    /// Variant of `tandem::generated::Isolation`.
    pub(crate) isolation: Ident,
    pub(crate) docs: Vec<Attribute>,
    /// `S` of `&Ctx<S>`.
    pub(crate) state: Type,
    pub(crate) argument: Option<Argument>,
    /// `T` of `Result<T>`.
    pub(crate) output: Type,
}

/// What a handler takes besides the context.
pub(crate) struct Argument {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
}

#[derive(Default)]
struct Options {
    name: Option<LitStr>,
    isolation: Option<Ident>,
    skip: bool,
}

impl Handler {
    /// Reads a method and takes its `#[handler]` attributes off. `None` if it is not a handler.
    pub(crate) fn take(method: &mut ImplItemFn) -> Result<Option<Self>> {
        let (taken, kept) = method.attrs.drain(..).partition(|attribute| attribute.path().is_ident("handler"));
        method.attrs = kept;
        let taken: Vec<Attribute> = taken;
        let options = Options::parse(&taken)?;
        if options.skip {
            return Ok(None);
        }
        let Some(state) = state_of(method)? else {
            return match taken.first() {
                Some(attribute) => Err(Error::new(
                    attribute.span(),
                    "a handler is an `async fn` whose first parameter is `ctx: &Ctx<State>`; this is none",
                )),
                None => Ok(None),
            };
        };
        Self::read(method, &options, state).map(Some)
    }

    fn read(method: &ImplItemFn, options: &Options, state: Type) -> Result<Self> {
        let signature = &method.sig;
        if !signature.generics.params.is_empty() {
            return Err(Error::new_spanned(&signature.generics, "a handler cannot be generic"));
        }
        let ident = signature.ident.clone();
        let own = ident.to_string().trim_start_matches("r#").to_owned();
        let (name, span) = match &options.name {
            Some(literal) => (literal.value(), literal.span()),
            None => (own, ident.span()),
        };
        check_identifier("handler", &name, span)?;
        let isolation = options.isolation.clone().unwrap_or_else(|| Ident::new("AsDeclared", ident.span()));
        let docs = method.attrs.iter().filter(|attribute| attribute.path().is_ident("doc")).cloned().collect();
        let (argument, output) = (argument_of(method)?, output_of(method)?);
        Ok(Self { ident, name, isolation, docs, state, argument, output })
    }
}

impl Options {
    fn parse(attributes: &[Attribute]) -> Result<Self> {
        let mut options = Self::default();
        for attribute in attributes {
            attribute.parse_nested_meta(|meta| {
                let Some(option) = meta.path.get_ident().map(Ident::to_string) else {
                    return Err(meta.error("unknown option of a handler"));
                };
                let isolation = match option.as_str() {
                    "name" => {
                        options.name = Some(meta.value()?.parse()?);
                        return Ok(());
                    }
                    "skip" => {
                        options.skip = true;
                        return Ok(());
                    }
                    "read_only" => "ReadOnly",
                    "snapshot" => "Snapshot",
                    "serializable" => "Serializable",
                    _ => {
                        return Err(meta.error(
                            "unknown option of a handler; there are `name = \"...\"`, `read_only`, `snapshot`, \
                             `serializable` and `skip`",
                        ));
                    }
                };
                if options.isolation.is_some() {
                    return Err(meta.error("a handler has one isolation"));
                }
                options.isolation = Some(Ident::new(isolation, meta.path.span()));
                Ok(())
            })?;
        }
        Ok(options)
    }
}

/// The state that the context names, if the method is a handler.
fn state_of(method: &ImplItemFn) -> Result<Option<Type>> {
    if method.sig.asyncness.is_none() {
        return Ok(None);
    }
    let mut inputs = method.sig.inputs.iter();
    let first = inputs.next();
    if let (Some(FnArg::Receiver(receiver)), Some(FnArg::Typed(second))) = (first, inputs.next())
        && context_state(&second.ty).is_some()
    {
        let problem = "a handler does not take self; its state is in `ctx.state`";
        return Err(Error::new_spanned(receiver, problem));
    }
    let Some(FnArg::Typed(first)) = first else { return Ok(None) };
    if let Some(state) = context_state(&first.ty) {
        return Ok(Some(state));
    }
    let named = matches!(&*first.pat, Pat::Ident(pat) if pat.ident == "ctx");
    if named {
        return Err(Error::new_spanned(
            &first.ty,
            "the context of a handler is `&Ctx<State>`, or `&Ctx<()>` without state",
        ));
    }
    Ok(None)
}

/// `S` of `&Ctx<S>`.
fn context_state(ty: &Type) -> Option<Type> {
    let Type::Reference(reference) = ty else { return None };
    let Type::Path(path) = &*reference.elem else { return None };
    let last = path.path.segments.last().filter(|last| last.ident == "Ctx" && reference.mutability.is_none())?;
    match &last.arguments {
        PathArguments::None => Some(Type::Tuple(syn::TypeTuple {
            paren_token: syn::token::Paren(last.ident.span()),
            elems: syn::punctuated::Punctuated::new(),
        })),
        PathArguments::AngleBracketed(arguments) => match arguments.args.first() {
            Some(GenericArgument::Type(state)) => Some(state.clone()),
            _ => None,
        },
        PathArguments::Parenthesized(_) => None,
    }
}

fn argument_of(method: &ImplItemFn) -> Result<Option<Argument>> {
    let mut arguments = method.sig.inputs.iter().skip(1);
    let Some(argument) = arguments.next() else { return Ok(None) };
    if let Some(more) = arguments.next() {
        let problem = "a handler takes at most one argument besides ctx: put them into a struct, or mark what is no \
                       handler with `#[handler(skip)]`";
        return Err(Error::new_spanned(more, problem));
    }
    let FnArg::Typed(argument) = argument else { return Ok(None) };
    if let Type::Reference(_) = &*argument.ty {
        return Err(Error::new_spanned(&argument.ty, "the argument of a handler is a value, not a reference"));
    }
    let ident = match &*argument.pat {
        Pat::Ident(pat) => Ident::new(pat.ident.to_string().trim_start_matches('_'), pat.ident.span()),
        other => Ident::new("argument", other.span()),
    };
    Ok(Some(Argument { ident, ty: (*argument.ty).clone() }))
}

fn output_of(method: &ImplItemFn) -> Result<Type> {
    let problem = "a handler returns `Result<T>`";
    let ReturnType::Type(_, ty) = &method.sig.output else { return Err(Error::new_spanned(&method.sig, problem)) };
    let Type::Path(path) = &**ty else { return Err(Error::new_spanned(ty, problem)) };
    let Some(last) = path.path.segments.last().filter(|last| last.ident == "Result") else {
        return Err(Error::new_spanned(ty, problem));
    };
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return Err(Error::new_spanned(ty, problem));
    };
    match arguments.args.first() {
        Some(GenericArgument::Type(output)) => Ok(output.clone()),
        _ => Err(Error::new_spanned(ty, problem)),
    }
}

/// Whether a type is written as `Raw`, which is passed on as it is.
pub(crate) fn is_raw(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Raw"))
}
