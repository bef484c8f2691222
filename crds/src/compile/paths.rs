//! Path patterns of routes: `/orders/{orderId}`, `/files/{*rest}`.

use crate::codes::{self, Code};

/// Longest path pattern, in bytes.
const PATH_BYTES_MAX: usize = 1024;
/// First segments that the runtime answers itself.
pub(super) const RESERVED: [&str; 2] = ["flows", "egress"];

/// The names of the variables in `pattern`, or what is wrong with it.
pub(super) fn variables(pattern: &str) -> Result<Vec<String>, (&'static Code, String)> {
    let invalid = |message: String| Err((&codes::INVALID_PATH, message));
    if pattern.len() > PATH_BYTES_MAX {
        return invalid(format!("the path has {} bytes, at most {PATH_BYTES_MAX} are allowed", pattern.len()));
    }
    let Some(rest) = pattern.strip_prefix('/') else {
        return invalid(format!("path {pattern:?} does not start with /"));
    };
    if let Some(bad) = pattern.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '?' | '#' | '%' | '\\')) {
        return invalid(format!("path {pattern:?} contains {bad:?}"));
    }
    if pattern.contains("//") {
        return invalid(format!("path {pattern:?} has an empty segment"));
    }
    let mut variables = Vec::new();
    let segments: Vec<&str> = rest.split('/').collect();
    for (index, segment) in segments.iter().enumerate() {
        let Some(variable) =
            variable(segment).map_err(|why| (&codes::INVALID_PATH, format!("path {pattern:?}: {why}")))?
        else {
            continue;
        };
        let is_last = index + 1 == segments.len();
        if variable.takes_rest && !is_last {
            return invalid(format!("path {pattern:?} goes on after {segment}"));
        }
        if variables.iter().any(|known| known == variable.name) {
            return invalid(format!("path {pattern:?} has the variable {} twice", variable.name));
        }
        variables.push(variable.name.to_owned());
    }
    match segments.first() {
        Some(first) if RESERVED.contains(first) => {
            Err((&codes::RESERVED_PATH, format!("path {pattern:?} is below /{first}")))
        }
        _ => Ok(variables),
    }
}

struct Variable<'a> {
    name: &'a str,
    takes_rest: bool,
}

/// The variable at the end of a segment, if there is one.
fn variable(segment: &str) -> Result<Option<Variable<'_>>, String> {
    let Some((before, rest)) = segment.split_once('{') else {
        return if segment.contains('}') { Err("a } without its {".to_owned()) } else { Ok(None) };
    };
    let Some(inner) = rest.strip_suffix('}') else {
        return Err(format!("{segment:?} must end with the }} of its variable"));
    };
    let (name, takes_rest) = inner.strip_prefix('*').map_or((inner, false), |name| (name, true));
    if takes_rest && !before.is_empty() {
        return Err(format!("{{*{name}}} must be a segment of its own"));
    }
    let is_identifier = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if before.contains('}') || !is_identifier {
        return Err(format!("{name:?} is not the name of a variable: letters, digits and _, a letter first"));
    }
    Ok(Some(Variable { name, takes_rest }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_found() {
        let check = |pattern: &str, expected: &[&str]| assert_eq!(variables(pattern).unwrap(), expected, "{pattern}");
        check("/", &[]);
        check("/orders", &[]);
        check("/orders/{orderId}", &["orderId"]);
        check("/o-{orderId}/lines/{line}/", &["orderId", "line"]);
        check("/files/{*rest}", &["rest"]);
    }

    #[test]
    fn bad_patterns_are_refused() {
        for bad in [
            "", "orders", "/a b", "/a?b", "/a//b", "/{", "/}", "/{}", "/{a", "/{a}b", "/{a}{b}", "/{a-b}", "/{1}",
            "/{a}/{a}", "/{*a}/b", "/x{*a}", "/{{a}}", "/%7e", "/ä",
        ] {
            assert_eq!(variables(bad).unwrap_err().0, &codes::INVALID_PATH, "{bad}");
        }
        assert_eq!(variables("/flows/{id}").unwrap_err().0, &codes::RESERVED_PATH);
        assert_eq!(variables("/egress").unwrap_err().0, &codes::RESERVED_PATH);
        assert!(variables("/flowers").is_ok());
    }
}
