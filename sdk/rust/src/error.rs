//! What a handler says when it does not return a value: a rejection (the business "no") or a failure (the code broke).
//!
//! **Invariant:** a rejection keeps the name of the instance that said it, through any number of `?`.

use std::error::Error as StdError;
use std::fmt;

use tandem_proto::function::v1alpha1 as proto;

/// `Result` of a handler.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Longest reason of a rejection, in bytes.
const REASON_BYTES_MAX: usize = 63;

/// Why a handler did not return a value. Any standard error becomes a retryable failure with `?`.
///
/// It is either a [`Rejection`], by this handler or by one that it called, or a failure. A failure is run again as
/// often as the function's resource allows, unless it is [`Error::fatal`].
pub struct Error(Box<Kind>);

enum Kind {
    Rejected(Rejection),
    Failed { message: String, source: Option<Box<dyn StdError + Send + Sync>>, retryable: bool },
}

/// The business "no": it undoes what its own handler did, and ends the flow unless a caller handles it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Stable, for programs: `out-of-stock`.
    pub reason: String,
    /// For people: `sku-7: 2 wanted, 1 left`.
    pub detail: String,
    /// Function that said no; empty while it has not left the handler that says it.
    pub function: String,
    /// Key of the instance that said no; empty likewise.
    pub key: String,
}

/// Says no: `return reject("out-of-stock", format!("{wanted} wanted, {left} left"));`
///
/// `reason` is for programs: 1 to 63 of a-z, 0-9 and '-', starting and ending with a letter or digit. Anything else is
/// a mistake in the code and becomes a failure that is not retried.
pub fn reject<T>(reason: impl Into<String>, detail: impl Into<String>) -> Result<T> {
    Err(Error::rejected(reason, detail))
}

impl Error {
    /// A rejection, as [`reject`] makes it.
    pub fn rejected(reason: impl Into<String>, detail: impl Into<String>) -> Self {
        let (reason, detail) = (reason.into(), detail.into());
        if !is_reason(&reason) {
            return Self::fatal(format!(
                "{reason:?} cannot be the reason of a rejection: it must be 1 to {REASON_BYTES_MAX} of a-z, 0-9 and '-', \
                 starting and ending with a letter or digit (the detail was: {detail})"
            ));
        }
        Self(Box::new(Kind::Rejected(Rejection { reason, detail, function: String::new(), key: String::new() })))
    }

    /// A failure that may go away when the flow is run again.
    pub fn retryable(message: impl fmt::Display) -> Self {
        Self(Box::new(Kind::Failed { message: message.to_string(), source: None, retryable: true }))
    }

    /// A failure that running again cannot mend.
    pub fn fatal(message: impl fmt::Display) -> Self {
        Self(Box::new(Kind::Failed { message: message.to_string(), source: None, retryable: false }))
    }

    /// The same error with what was attempted in front of it. A rejection stays as it is.
    #[must_use]
    pub fn context(self, attempted: impl fmt::Display) -> Self {
        match *self.0 {
            Kind::Rejected(rejection) => Self(Box::new(Kind::Rejected(rejection))),
            Kind::Failed { message, source, retryable } => {
                let separator = if message.is_empty() { "" } else { ": " };
                let message = format!("{attempted}{separator}{message}");
                Self(Box::new(Kind::Failed { message, source, retryable }))
            }
        }
    }

    /// The rejection, if it is one.
    pub fn rejection(&self) -> Option<&Rejection> {
        match &*self.0 {
            Kind::Rejected(rejection) => Some(rejection),
            Kind::Failed { .. } => None,
        }
    }

    /// Whether it is a rejection with this reason, by whomever.
    pub fn is_rejected_with(&self, reason: &str) -> bool {
        self.rejection().is_some_and(|rejection| rejection.reason == reason)
    }

    /// Whether it is a failure that may be run again.
    pub fn is_retryable(&self) -> bool {
        matches!(&*self.0, Kind::Failed { retryable: true, .. })
    }

    /// A failure that running again cannot mend, because of `source`.
    pub(crate) fn fatal_from(attempted: impl fmt::Display, source: impl StdError + Send + Sync + 'static) -> Self {
        let source = Some(Box::from(source));
        Self(Box::new(Kind::Failed { message: attempted.to_string(), source, retryable: false }))
    }

    pub(crate) fn from_callee(rejection: proto::Rejection) -> Self {
        let proto::Rejection { reason, detail, function, key } = rejection;
        Self(Box::new(Kind::Rejected(Rejection { reason, detail, function, key })))
    }

    /// How the protocol says it.
    pub(crate) fn into_result(self) -> proto::finished::Result {
        match *self.0 {
            Kind::Rejected(Rejection { reason, detail, function, key }) => {
                proto::finished::Result::Rejection(proto::Rejection { reason, detail, function, key })
            }
            Kind::Failed { retryable, .. } => {
                proto::finished::Result::Failure(proto::Failure { message: self.to_string(), retryable })
            }
        }
    }
}

fn is_reason(reason: &str) -> bool {
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = reason.as_bytes();
    bytes.len() <= REASON_BYTES_MAX
        && bytes.first().is_some_and(inner)
        && bytes.last().is_some_and(inner)
        && bytes.iter().all(|byte| inner(byte) || *byte == b'-')
}

impl<E: StdError + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        Self(Box::new(Kind::Failed { message: String::new(), source: Some(Box::new(error)), retryable: true }))
    }
}

impl fmt::Display for Error {
    /// The whole chain of causes in one line, as it is shown in the flow's outcome.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (message, source) = match &*self.0 {
            Kind::Rejected(Rejection { reason, detail, function, key }) => {
                write!(f, "rejected with {reason}")?;
                if !function.is_empty() {
                    write!(f, " by {function}/{key}")?;
                }
                return write!(f, ": {detail}");
            }
            Kind::Failed { message, source, .. } => (message, source),
        };
        f.write_str(message)?;
        let mut separator = if message.is_empty() { "" } else { ": " };
        let mut next: Option<&dyn StdError> = source.as_deref().map(|source| source as &dyn StdError);
        while let Some(error) = next {
            write!(f, "{separator}{error}")?;
            separator = ": ";
            next = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    /// The same as `Display`, because `main` prints it so.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// So that it can be passed on to `anyhow` and to functions that return boxed errors.
impl From<Error> for Box<dyn StdError + Send + Sync> {
    fn from(error: Error) -> Self {
        error.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_errors_become_retryable_failures_with_their_causes() {
        fn parse() -> Result<u32> {
            Ok("x".parse::<u32>()?)
        }
        let error = parse().unwrap_err();
        assert!(error.is_retryable() && error.rejection().is_none());
        assert_eq!(error.context("failed to parse").to_string(), "failed to parse: invalid digit found in string");
    }

    #[test]
    fn a_callees_rejection_keeps_its_origin() {
        let said = proto::Rejection {
            reason: "out-of-stock".into(),
            detail: "1 left".into(),
            function: "inventory".into(),
            key: "sku-7".into(),
        };
        let error = Error::from_callee(said.clone()).context("ignored");
        assert!(error.is_rejected_with("out-of-stock"));
        assert_eq!(error.to_string(), "rejected with out-of-stock by inventory/sku-7: 1 left");
        assert_eq!(error.into_result(), proto::finished::Result::Rejection(said));
    }

    #[test]
    fn a_reason_that_programs_cannot_read_is_a_failure() {
        for reason in ["", "Out", "a b", "-a", "a-", &"a".repeat(64)] {
            let error = Error::rejected(reason, "why");
            assert!(error.rejection().is_none() && !error.is_retryable(), "{reason:?}");
        }
        assert!(Error::rejected("a".repeat(63), "why").rejection().is_some());
    }
}
