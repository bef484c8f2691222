//! CEL expressions of resources: compiled when the topology is, evaluated per request.
//!
//! A format of the resources: [Common Expression Language](https://cel.dev). An expression sees one variable, `request`:
//! `request.path.<variable>`, `request.query.<name>`, `request.headers['<lower-case name>']`, `request.method`, and
//! `request.body` for JSON bodies.

use std::fmt;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

mod complexity;

/// The functions of CEL. Building the table takes longer than most evaluations.
static FUNCTIONS: LazyLock<cel::Context<'static, 'static>> = LazyLock::new(cel::Context::default);

/// Longest source of an expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 1024;

/// A compiled expression. Compares by its source.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Expression {
    source: Arc<str>,
    program: Arc<cel::Program>,
}

/// Why an expression cannot be used, or gave no text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not CEL.
    #[error("{0:?} is not a valid CEL expression: {1}")]
    Syntax(String, String),
    /// It is too long.
    #[error("the expression has {0} bytes, at most {EXPRESSION_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// Evaluating it could take more stack than a thread has.
    #[error("{0}")]
    TooComplex(String),
    /// It names something other than `request` or a CEL function.
    #[error("{0:?} uses {1:?}; only `request` is known here")]
    UnknownVariable(String, String),
    /// It failed on this request: something it needs is not there.
    #[error("{0:?} cannot be evaluated on this request: {1}")]
    Evaluation(String, String),
    /// It gave something else than a text, number or boolean.
    #[error("{0:?} gives {1}, but must give a text, an integer or a boolean")]
    NotText(String, String),
}

impl Expression {
    /// Compiles `source`.
    pub fn parse(source: &str) -> Result<Self, Error> {
        if source.len() > EXPRESSION_BYTES_MAX {
            return Err(Error::TooLong(source.len()));
        }
        complexity::check_complexity(source).map_err(Error::TooComplex)?;
        let syntax = |error: String| Error::Syntax(source.to_owned(), error);
        let program = cel::Program::compile(source).map_err(|error| syntax(error.to_string()))?;
        let references = program.references();
        // The parser gives them in no order; the least one makes the same expression always say the same.
        if let Some(unknown) = references.variables().into_iter().filter(|name| *name != "request").min() {
            return Err(Error::UnknownVariable(source.to_owned(), unknown.to_owned()));
        }
        drop(references);
        Ok(Self { source: source.into(), program: Arc::new(program) })
    }

    /// The text it was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Evaluates to text on `request`, a JSON object as the module describes. Integers and booleans become text.
    pub fn evaluate(&self, request: &serde_json::Value) -> Result<String, Error> {
        let failed = |error: String| Error::Evaluation(self.source.to_string(), error);
        let mut context = FUNCTIONS.new_inner_scope();
        context.add_variable("request", request).map_err(|error| failed(error.to_string()))?;
        let value = self.program.execute(&context).map_err(|error| failed(error.to_string()))?;
        match value {
            cel::Value::String(text) => Ok(text.to_string()),
            cel::Value::Int(number) => Ok(number.to_string()),
            cel::Value::UInt(number) => Ok(number.to_string()),
            cel::Value::Bool(flag) => Ok(flag.to_string()),
            other => Err(Error::NotText(self.source.to_string(), other.type_of().to_string())),
        }
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.source)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Expression {}

impl TryFrom<String> for Expression {
    type Error = Error;
    fn try_from(source: String) -> Result<Self, Error> {
        Self::parse(&source)
    }
}

impl From<Expression> for String {
    fn from(expression: Expression) -> Self {
        expression.source.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluates_to_text() {
        let request = serde_json::json!({"path": {"orderId": "o-1"}, "body": {"n": 7}});
        let check = |source: &str, expected: &str| {
            assert_eq!(Expression::parse(source).unwrap().evaluate(&request).unwrap(), expected);
        };
        check("request.path.orderId", "o-1");
        check("'order-' + request.path.orderId", "order-o-1");
        check("request.body.n", "7");
        check("has(request.body.m) ? 'm' : 'none'", "none");
    }

    #[test]
    fn says_what_is_wrong() {
        assert!(matches!(Expression::parse("request."), Err(Error::Syntax(..))));
        assert!(matches!(Expression::parse("req.path"), Err(Error::UnknownVariable(..))));
        let missing = Expression::parse("request.path.x").unwrap();
        assert!(matches!(missing.evaluate(&serde_json::json!({"path": {}})), Err(Error::Evaluation(..))));
        let list = Expression::parse("[1]").unwrap();
        assert!(matches!(list.evaluate(&serde_json::json!({})), Err(Error::NotText(..))));
    }
}
