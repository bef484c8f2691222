//! What is wrong with a resource, where, and what to do about it.

use std::fmt;

use serde::Serialize;

use crate::codes::Code;
use crate::resources::Kind;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is applied.
    Error,
    /// It is applied, and probably not what was meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Location {
    /// The file, as it was named on the command line or found below a directory that was.
    pub file: String,
    /// Line, from 1. 0 if the whole file is meant.
    pub line: usize,
    /// Column in characters, from 1. 0 if the whole file is meant.
    pub column: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}

/// Names one resource: `FunctionRoute place-order`. Texts here may be wrong: it is what the user wrote.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// Its kind.
    pub kind: Kind,
    /// Its `metadata.name`.
    pub name: String,
}

impl ObjectName {
    /// The `kind` named `name`.
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.name)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Which problem it is: `E104`. Its page is in [`crate::codes`].
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The resource: `FunctionRoute place-order`. Empty if it is the file that is wrong.
    pub object: String,
    /// Path of the field: `spec.to.function`. Empty if the whole resource is meant.
    pub field: String,
    /// What is wrong. Lower case, one line.
    pub message: String,
    /// What to do. Lower case, one line.
    pub help: String,
    /// Where it is written, if it came from a file.
    pub location: Option<Location>,
}

impl Problem {
    /// A problem of `object` as a whole; refine it with the other methods.
    pub fn new(code: &'static Code, object: impl fmt::Display, message: impl Into<String>) -> Self {
        Self {
            code: code.code,
            severity: code.severity,
            object: object.to_string(),
            field: String::new(),
            message: one_line(message.into()),
            help: code.help.to_owned(),
            location: None,
        }
    }

    /// Says which field.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// Says what to do, better than the code's general advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = one_line(help.into());
        self
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, location: Option<Location>) -> Self {
        self.location = location;
        self
    }

    /// Whether it keeps the resources from being applied.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// `route place-order` for `FunctionRoute place-order`: the kind in the words of the documentation.
fn short_object(object: &str) -> String {
    match object.split_once(' ') {
        Some((kind, name)) => {
            let word = kind.strip_prefix("Function").filter(|rest| !rest.is_empty()).unwrap_or(kind);
            format!("{} {name}", word.to_lowercase())
        }
        None => object.to_owned(),
    }
}

/// Text of other libraries may have several lines; a problem is printed on one.
fn one_line(text: String) -> String {
    if text.contains(char::is_control) {
        return text
            .split(char::is_control)
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
    }
    text
}

/// `error[E104] route place-order: function "ordr" does not exist; did you mean "order"?`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] ", self.severity, self.code)?;
        if !self.object.is_empty() {
            write!(f, "{}: ", short_object(&self.object))?;
        }
        f.write_str(&self.message)?;
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        Ok(())
    }
}

/// Orders problems as they are read: by place, then by object and field. Problems without a place come last.
pub fn sort(problems: &mut [Problem]) {
    problems.sort_by(|a, b| {
        let key = |p: &Problem| (p.location.is_none(), p.location.clone(), p.object.clone(), p.field.clone(), p.code);
        key(a).cmp(&key(b)).then_with(|| a.message.cmp(&b.message))
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes;

    #[test]
    fn a_problem_reads_as_one_line() {
        let object = ObjectName::new(Kind::Route, "place-order");
        let problem = Problem::new(&codes::UNKNOWN_FUNCTION, object, "function \"ordr\"\n does not exist")
            .help("did you mean \"order\"?");
        assert_eq!(
            problem.to_string(),
            "error[E104] route place-order: function \"ordr\" does not exist; did you mean \"order\"?"
        );
        assert_eq!(short_object("Function order"), "function order");
    }
}
