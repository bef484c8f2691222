//! Holds back expressions that parsing or evaluating would take more stack for than a thread has.

/// Deepest nesting of brackets. The parser and the evaluation recurse, and a bracket costs them up to 170 KB of stack in
/// a build without optimisation; a thread that takes requests has 2 MiB.
const NESTING_MAX: usize = 6;
/// Most operators and brackets. A chain of operators recurses, too; each costs up to 27 KB.
const OPERATORS_MAX: usize = 32;

/// Whether `source` can be parsed and evaluated on a small stack; says why not. To be asked before it is parsed.
pub(super) fn check_complexity(source: &str) -> Result<(), String> {
    let (mut nesting, mut operators) = (0_usize, source.split_whitespace().filter(|word| *word == "in").count());
    let mut deepest = 0;
    for character in outside_of_texts(source).chars() {
        match character {
            '(' | '[' | '{' => nesting += 1,
            ')' | ']' | '}' => nesting = nesting.saturating_sub(1),
            '+' | '-' | '*' | '/' | '%' | '<' | '>' | '=' | '!' | '&' | '|' | '?' | ':' | ',' => {}
            _ => continue,
        }
        operators += 1;
        deepest = deepest.max(nesting);
    }
    if deepest > NESTING_MAX {
        return Err(format!("the expression nests {deepest} brackets, at most {NESTING_MAX} are allowed"));
    }
    if operators > OPERATORS_MAX {
        return Err(format!(
            "the expression has {operators} operators and brackets, at most {OPERATORS_MAX} are allowed"
        ));
    }
    Ok(())
}

/// `source` without what stands in quotes. Where it is not plain what does (escapes, triple quotes, comments, several
/// lines, a quote that is not closed), nothing is left out: the parser goes on after a mistake, and may then see brackets
/// where a text was meant.
fn outside_of_texts(source: &str) -> String {
    let is_unclear = source.contains(char::is_control)
        || ["\\", "//", "'''", "\"\"\""].iter().any(|unclear| source.contains(unclear));
    if is_unclear {
        return source.to_owned();
    }
    let mut open = None;
    let is_outside = |character: &char| {
        let quote = matches!(character, '\'' | '"').then_some(*character);
        match open {
            None => open = quote,
            Some(_) if open == quote => open = None,
            Some(_) => return false,
        }
        true
    };
    let outside = source.chars().filter(is_outside).collect();
    if open.is_some() { source.to_owned() } else { outside }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_and_operators_are_counted_outside_of_texts() {
        let check = |source: &str, expected: bool| assert_eq!(check_complexity(source).is_ok(), expected, "{source}");
        check("'o-' + request.path.a + (has(request.query.b) ? request.query.b : 'x')", true);
        check(&format!("'{}' + \"{}\"", "(".repeat(50), "'+".repeat(50)), true);
        check(&format!("'' + {}", "(".repeat(7)), false);
        check(&format!("r'\\' + {}", "(".repeat(7)), false);
        check(&format!("'''a' ''' + {}", "(".repeat(7)), false);
        for unclear in ["'", "\"", "// '\n", "'a\n'"] {
            check(&format!("{unclear} {}", "(".repeat(7)), false);
        }
        check(&"1 in ".repeat(33), false);
    }

    /// Threads of tests have 2 MiB of stack, as those of the runtime have. Without the limits, this test does not fail
    /// but ends the whole process.
    #[test]
    fn what_is_allowed_fits_a_small_stack() {
        let nest = |open: &str, close: &str, inner: &str| {
            let depth = NESTING_MAX;
            format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
        };
        let chain = |link: &str, count: usize| format!("1{}", link.repeat(count));
        let rest = OPERATORS_MAX - 2 * NESTING_MAX;
        let worst = [
            nest("(", ")", &chain("+1", rest)),
            nest("[", "]", &chain("<1", rest)),
            nest("size(", ")", &chain("||1", rest / 2)),
            nest("{1:", "}", &chain("-1", rest - NESTING_MAX)),
            nest("request[", "]", &chain("&&1", rest / 2)),
            nest("[1].map(x,", ")", "1"),
            chain("[0]", OPERATORS_MAX / 2),
            chain(" in 1", OPERATORS_MAX),
            format!("request{}", ".a()".repeat(OPERATORS_MAX / 2)),
            format!("{}1", "1?1:".repeat(OPERATORS_MAX / 2)),
            format!("{}true", "!".repeat(OPERATORS_MAX)),
            format!("request{}", ".a".repeat(500)),
        ];
        let mut parsed = 0;
        for source in worst.iter().filter(|source| check_complexity(source).is_ok()) {
            if let Ok(expression) = crate::expression::Expression::parse(source) {
                let _ = expression.evaluate(&serde_json::json!({"a": [1]}));
                parsed += 1;
            }
        }
        assert!(parsed >= 8, "{parsed}");
    }
}
