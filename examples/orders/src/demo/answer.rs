//! What clients were told about an order.

use anyhow::Context;
use http::StatusCode;
use hyper::body::Bytes;
use orders::order::Receipt;
use serde::Deserialize;

/// What came back over HTTP when it was final.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: StatusCode,
    /// Which flow it was; empty if there was none.
    pub(crate) flow: String,
    /// The body.
    pub(crate) body: Bytes,
}

impl Reply {
    /// The reply to a request that places an order.
    pub(crate) fn answer(self) -> anyhow::Result<Answer> {
        let strange = || format!("{}: {}", self.status, String::from_utf8_lossy(&self.body));
        if self.status.is_success() {
            let ending = Ending::Committed(serde_json::from_slice(&self.body).with_context(strange)?);
            return Ok(Answer { flow: self.flow, ending });
        }
        let problem: Problem = serde_json::from_slice(&self.body).with_context(strange)?;
        let ending = match problem.outcome {
            Some(outcome) => Ending::Not(outcome, problem.reason),
            None => Ending::Refused(self.status.as_u16()),
        };
        Ok(Answer { flow: self.flow, ending })
    }
}

/// The answer to one request, as a client keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Which flow it was.
    pub(crate) flow: String,
    /// How it ended.
    pub(crate) ending: Ending,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is done, with this receipt.
    Committed(Receipt),
    /// It was not done: the outcome, and the reason.
    Not(String, String),
    /// It was refused without an outcome, with this HTTP status: the same id had been used for another body.
    Refused(u16),
}

impl Ending {
    /// The receipt, if it is done.
    pub(crate) fn receipt(&self) -> Option<&Receipt> {
        match self {
            Self::Committed(receipt) => Some(receipt),
            Self::Not(..) | Self::Refused(_) => None,
        }
    }

    /// Whether the outcome has this reason.
    pub(crate) fn is_for(&self, reason: &str) -> bool {
        matches!(self, Self::Not(_, why) if why == reason)
    }
}

/// The part of a problem document that matters here.
#[derive(Debug, Deserialize)]
struct Problem {
    /// How it ended; absent if there is no outcome.
    outcome: Option<String>,
    /// Why.
    #[serde(default)]
    reason: String,
}

/// Everything that clients were told about one order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// About the request that places it. `None`: no outcome could be had.
    pub(crate) first: Option<Answer>,
    /// About the same request, sent again.
    pub(crate) again: Vec<Answer>,
    /// About the same request id with another body.
    pub(crate) other_body: Option<Answer>,
    /// About another request that places the same order, sent after the first had committed.
    pub(crate) placed_twice: Option<Answer>,
}

impl Told {
    /// The receipt of the order, if it was acknowledged.
    pub(crate) fn receipt(&self) -> Option<&Receipt> {
        self.first.as_ref().and_then(|answer| answer.ending.receipt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, body: &str, expected: Ending) {
        let status = StatusCode::from_u16(status).unwrap();
        let reply = Reply { status, flow: "f-1".to_owned(), body: Bytes::from(body.to_owned()) };
        assert_eq!(reply.answer().unwrap(), Answer { flow: "f-1".to_owned(), ending: expected });
    }

    #[test]
    fn answers_are_told_apart() {
        let receipt = Receipt { payment: "p-c-0001-1".to_owned(), number: 1, total: 399 };
        check(200, r#"{"payment":"p-c-0001-1","number":1,"total":399}"#, Ending::Committed(receipt));
        let not = |outcome: &str, reason: &str| Ending::Not(outcome.to_owned(), reason.to_owned());
        check(409, r#"{"outcome":"REJECTED","reason":"out-of-stock"}"#, not("REJECTED", "out-of-stock"));
        check(504, r#"{"outcome":"TIMED_OUT","reason":"timed-out"}"#, not("TIMED_OUT", "timed-out"));
        check(422, r#"{"reason":"request-id-reused"}"#, Ending::Refused(422));
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_an_error() {
        let reply = Reply { status: StatusCode::OK, flow: String::new(), body: Bytes::from("<html>") };
        assert!(format!("{:#}", reply.answer().unwrap_err()).contains("<html>"));
    }
}
