//! The request headers that Tandem reads, and how: pure functions from text to values.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use tandem_model::ids::Timestamp;

use crate::problem::Problem;

/// What a client names its request by.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Shortens the deadline of one request.
pub const DEADLINE: HeaderName = HeaderName::from_static("tandem-deadline");
/// Reads a past state.
pub const AS_OF: HeaderName = HeaderName::from_static("tandem-as-of");
/// Preferences (RFC 7240).
pub const PREFER: HeaderName = HeaderName::from_static("prefer");
/// Which preferences were followed.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// Trace context of the client (W3C).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The request id that an answer belongs to.
pub const REQUEST: HeaderName = HeaderName::from_static("tandem-request");
/// Set on answers that come from the record of an earlier request.
pub const REPEATED: HeaderName = HeaderName::from_static("tandem-repeated");

/// What a client prefers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    /// Answer 202 and let the client ask later.
    pub respond_async: bool,
    /// Wait this long before answering that it still runs.
    pub wait: Option<Duration>,
}

/// The text of a header that may come once. `None` if it is absent or empty.
pub fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(malformed(name, "comes more than once"));
    }
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| malformed(name, "is not UTF-8"))?.trim();
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// A header that cannot be understood.
pub fn malformed(name: &HeaderName, problem: &str) -> Problem {
    Problem::invalid("malformed-header", format!("header {name} {problem}"))
}

/// The idempotency key: bare (`5f1c`) or as a structured field string (`"5f1c"`).
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(text) = single(headers, &IDEMPOTENCY_KEY)? else { return Ok(None) };
    let Some(rest) = text.strip_prefix('"') else { return Ok(Some(text.to_owned())) };
    let broken = || malformed(&IDEMPOTENCY_KEY, "begins with a quote but is not a quoted string");
    let mut key = String::with_capacity(rest.len());
    let mut characters = rest.chars();
    loop {
        match characters.next().ok_or_else(broken)? {
            '"' => break,
            '\\' => key.push(characters.next().filter(|c| matches!(c, '"' | '\\')).ok_or_else(broken)?),
            character => key.push(character),
        }
    }
    if characters.next().is_some() || key.is_empty() {
        return Err(broken());
    }
    Ok(Some(key))
}

/// How long the client lets the flow take, if it says so.
pub fn deadline(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let Some(text) = single(headers, &DEADLINE)? else { return Ok(None) };
    let duration = duration(text).filter(|duration| !duration.is_zero());
    duration.map(Some).ok_or_else(|| malformed(&DEADLINE, "must be a time above zero, like 500ms, 5s or 1m"))
}

/// The past time to read at.
pub fn as_of(headers: &HeaderMap) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = single(headers, &AS_OF)? else { return Ok(None) };
    let timestamp = point_in_time(text).map(Some);
    timestamp.ok_or_else(|| malformed(&AS_OF, "must be a time after 1970 in RFC 3339, like 2026-07-01T12:00:00Z"))
}

/// `Prefer`: `respond-async` and `wait=5`. Others are ignored, as RFC 7240 asks.
pub fn preferences(headers: &HeaderMap) -> Preferences {
    let mut preferences = Preferences::default();
    for value in headers.get_all(&PREFER) {
        for preference in value.to_str().unwrap_or_default().split(',') {
            // Parameters of a preference follow a semicolon; none is known.
            let preference = preference.split(';').next().unwrap_or_default().trim();
            if preference.eq_ignore_ascii_case("respond-async") {
                preferences.respond_async = true;
            } else if let Some((name, seconds)) = preference.split_once('=')
                && name.trim().eq_ignore_ascii_case("wait")
                && let Ok(seconds) = seconds.trim().trim_matches('"').parse::<u32>()
            {
                preferences.wait = Some(Duration::from_secs(seconds.into()));
            }
        }
    }
    preferences
}

/// The client's traceparent, if it is a valid one. A broken one is ignored, as the specification asks.
pub fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(&TRACEPARENT)?.to_str().ok()?;
    crate::telemetry::Traceparent::parse(text).map(|parent| parent.to_string())
}

/// A whole number with a unit: `500ms`, `5s`, `1m`.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u32 = text[..digits].parse().ok()?;
    match &text[digits..] {
        "ms" => Some(Duration::from_millis(number.into())),
        "s" => Some(Duration::from_secs(number.into())),
        "m" => Some(Duration::from_secs(u64::from(number) * 60)),
        _ => None,
    }
}

/// A time in RFC 3339 as the timestamp that sees everything committed until then.
pub fn point_in_time(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok().map(Timestamp::at_unix_ms)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn with(name: &HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.clone(), HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn idempotency_key_may_be_bare_or_quoted() {
        let check = |value: &str, expected: Option<&str>| {
            let found = idempotency_key(&with(&IDEMPOTENCY_KEY, value)).unwrap();
            assert_eq!(found.as_deref(), expected, "{value}");
        };
        check("5f1c", Some("5f1c"));
        check("\"5f1c\"", Some("5f1c"));
        check(r#""a\"b\\c""#, Some(r#"a"b\c"#));
        check("  ", None);
        for bad in ["\"open", "\"a\"b", "\"\"", r#""a\n""#] {
            assert!(idempotency_key(&with(&IDEMPOTENCY_KEY, bad)).is_err(), "{bad}");
        }
        let mut twice = with(&IDEMPOTENCY_KEY, "a");
        twice.append(IDEMPOTENCY_KEY, HeaderValue::from_static("b"));
        assert!(idempotency_key(&twice).is_err());
    }

    #[test]
    fn deadline_has_a_unit() {
        let check = |value: &str, ms: u64| {
            assert_eq!(deadline(&with(&DEADLINE, value)).unwrap(), Some(Duration::from_millis(ms)));
        };
        check("500ms", 500);
        check("5s", 5_000);
        check("1m", 60_000);
        for bad in ["5", "s", "-5s", "0s", "5h", "99999999999s", "5 s"] {
            assert!(deadline(&with(&DEADLINE, bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn as_of_is_a_time() {
        let timestamp = as_of(&with(&AS_OF, "1970-01-01T00:00:01Z")).unwrap().unwrap();
        assert_eq!(timestamp.unix_ms(), 1_000);
        assert_eq!(as_of(&with(&AS_OF, "1970-01-01T02:00:01+02:00")).unwrap().unwrap(), timestamp);
        for bad in ["yesterday", "2026-07-01", "1969-12-31T23:59:59Z"] {
            assert!(as_of(&with(&AS_OF, bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn preferences_are_read_and_unknown_ones_ignored() {
        let check = |value: &str, respond_async: bool, wait: Option<u64>| {
            let expected = Preferences { respond_async, wait: wait.map(Duration::from_secs) };
            assert_eq!(preferences(&with(&PREFER, value)), expected, "{value}");
        };
        check("respond-async", true, None);
        check("Respond-Async, wait=5", true, Some(5));
        check("wait = \"7\"; x=y, handling=lenient", false, Some(7));
        check("wait=soon", false, None);
    }
}
