//! Mistakes in a function are named in words that say what to do.

use super::*;

fn expanded(options: &str, block: &str) -> Result<TokenStream> {
    expand(&syn::parse_str::<Options>(options)?, syn::parse_str::<ItemImpl>(block)?)
}

fn check(options: &str, block: &str, problem: &str) {
    let said = expanded(options, block).expect_err("no mistake was found").to_string();
    assert!(said.contains(problem), "{said}");
}

/// Checks a block with one method.
fn check_method(method: &str, problem: &str) {
    check("", &format!("impl Order {{ {method} }}"), problem);
}

const GOOD: &str = "async fn place(ctx: &Ctx<S>, cart: Cart) -> Result<Receipt> { todo!() }";

#[test]
fn mistakes_in_the_block_are_named() {
    let good = format!("impl Order {{ {GOOD} }}");
    check("name = \"Order\"", &good, "a function's name must be 1 to 63 of a-z");
    check("nme = \"order\"", &good, "unknown option of a function");
    check("", &format!("impl Trait for Order {{ {GOOD} }}"), "not of a trait");
    check("", &format!("impl<T> Order {{ {GOOD} }}"), "a plain name");
    check("", &format!("impl shop::Order {{ {GOOD} }}"), "a plain name");
    check("", "impl Order { fn helper() {} }", "a function needs a handler");
}

#[test]
fn mistakes_in_a_handler_are_named() {
    check_method("async fn a(&self, ctx: &Ctx<S>) -> Result<()> {}", "does not take self");
    check_method("async fn a(ctx: Ctx<S>) -> Result<()> {}", "the context of a handler is `&Ctx<State>`");
    check_method("async fn a(ctx: &mut Ctx<S>) -> Result<()> {}", "the context of a handler is `&Ctx<State>`");
    check_method("async fn a<T>(ctx: &Ctx<S>, t: T) -> Result<()> {}", "cannot be generic");
    check_method("async fn a(ctx: &Ctx<S>, b: u8, c: u8) -> Result<()> {}", "at most one argument besides ctx");
    check_method("async fn a(ctx: &Ctx<S>, b: &str) -> Result<()> {}", "a value, not a reference");
    check_method("async fn a(ctx: &Ctx<S>) {}", "a handler returns `Result<T>`");
    check_method("async fn a(ctx: &Ctx<S>) -> u8 {}", "a handler returns `Result<T>`");
    check_method("#[handler(read_only, snapshot)] async fn a(ctx: &Ctx<S>) -> Result<()> {}", "has one isolation");
    check_method("#[handler(readonly)] async fn a(ctx: &Ctx<S>) -> Result<()> {}", "unknown option of a handler");
    check_method("#[handler(name = \"a b\")] async fn a(ctx: &Ctx<S>) -> Result<()> {}", "a handler's name must");
    check_method("#[handler(read_only)] fn helper() {}", "this is none");
}

#[test]
fn handlers_have_to_agree() {
    let other = "async fn other(ctx: &Ctx<T>) -> Result<()> {}";
    let problem = "have the same state: here it is `T`, but in `place` it is `S`";
    check_method(&format!("{GOOD} {other}"), problem);
    check_method(&format!("{GOOD} async fn other(ctx: &Ctx) -> Result<()> {{}}"), "here it is `()`");
    let same_name = "#[handler(name = \"place\")] async fn other(ctx: &Ctx<S>) -> Result<()> {}";
    check_method(&format!("{GOOD} {same_name}"), "two handlers are called \"place\"");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let two = "impl Order { async fn a(ctx: &Ctx<S>) {} async fn b(ctx: &Ctx<S>) {} }";
    assert_eq!(expanded("", two).unwrap_err().into_iter().count(), 2);
}

#[test]
fn what_is_no_handler_stays_as_it_is() {
    let helpers = "fn helper() {} async fn wait(seconds: u64) {} #[handler(skip)] async fn part(ctx: &Ctx<T>) {}";
    let code = expanded("declare = false", &format!("impl Order {{ {GOOD} {helpers} }}")).unwrap().to_string();
    let client = code.split("pub struct OrderClient").nth(1).unwrap();
    assert!(client.contains("pub fn place"));
    for helper in ["helper", "wait", "part"] {
        assert!(code.contains(&format!("fn {helper}")) && !client.contains(helper), "{helper}");
    }
    assert!(!code.contains("pub struct Order ;") && !code.contains("# [handler"));
}
