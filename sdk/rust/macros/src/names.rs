//! What names may look like, so that a wrong one is found when the code is compiled and not when it is deployed.

use proc_macro2::Span;
use syn::{Error, Result};

const NAME_BYTES_MAX: usize = 63;

/// A name of a function: a DNS label.
pub(crate) fn check_function(name: &str, span: Span) -> Result<()> {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let valid = name.len() <= NAME_BYTES_MAX
        && name.starts_with(edge)
        && name.ends_with(edge)
        && name.chars().all(|c| edge(c) || c == '-');
    let rule = "a function's name must be 1 to 63 of a-z, 0-9 and '-', starting and ending with a letter or digit";
    if valid { Ok(()) } else { Err(Error::new(span, format!("{rule}; {name:?} is not"))) }
}

/// A name of a handler or of a state: an identifier.
pub(crate) fn check_identifier(what: &str, name: &str, span: Span) -> Result<()> {
    let valid = name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let rule = "must start with a letter and have up to 63 of a-z, A-Z, 0-9, '_' and '-'";
    if valid { Ok(()) } else { Err(Error::new(span, format!("a {what}'s name {rule}; {name:?} does not"))) }
}

/// `OrderItem` as `order-item`.
pub(crate) fn kebab_case(name: &str) -> String {
    let mut kebab = String::with_capacity(name.len() + 2);
    for c in name.chars() {
        if c.is_uppercase() && !kebab.is_empty() {
            kebab.push('-');
        }
        kebab.extend(c.to_lowercase().map(|c| if c == '_' { '-' } else { c }));
    }
    kebab
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_names_become_function_names() {
        assert_eq!(kebab_case("Order"), "order");
        assert_eq!(kebab_case("OrderItem"), "order-item");
    }

    #[test]
    fn names_that_the_runtime_would_refuse_are_refused() {
        let span = Span::call_site();
        for name in ["", "Order", "-a", "a-", "a_b", &"a".repeat(64)] {
            assert!(check_function(name, span).is_err(), "{name:?}");
        }
        for name in ["", "1a", "_a", "a.b", &"a".repeat(64)] {
            assert!(check_identifier("state", name, span).is_err(), "{name:?}");
        }
        assert!(check_function("order-2", span).is_ok() && check_identifier("state", "a_B-2", span).is_ok());
    }
}
