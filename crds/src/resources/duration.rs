//! Lengths of time in resources: `1500ms`, `5s`, `2m`, `24h`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// Longest text of a duration, in bytes.
pub const DURATION_BYTES_MAX: usize = 11;
/// Most digits of a duration.
const DIGITS_MAX: usize = 9;
/// What a duration looks like.
pub const DURATION_PATTERN: &str = "^[0-9]{1,9}(ms|s|m|h)$";

/// A length of time, as its user wrote it: a whole number and one of `ms`, `s`, `m` and `h`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Duration(pub String);

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration")]
pub struct InvalidDuration(pub String);

impl Duration {
    /// Its length in milliseconds.
    pub fn milliseconds(&self) -> Result<u64, InvalidDuration> {
        let invalid = || InvalidDuration(self.0.chars().take(40).collect());
        let unit_at = self.0.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
        let (number, unit) = self.0.split_at(unit_at);
        if number.len() > DIGITS_MAX {
            return Err(invalid());
        }
        let number: u64 = number.parse().map_err(|_| invalid())?;
        let milliseconds_per_unit = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(invalid()),
        };
        number.checked_mul(milliseconds_per_unit).ok_or_else(invalid)
    }

    /// The text for `milliseconds`: in hours or seconds if that is whole.
    pub fn from_milliseconds(milliseconds: u64) -> Self {
        let units = [(3_600_000, "h"), (1_000, "s")];
        let whole = units.into_iter().find(|(length, _)| milliseconds > 0 && milliseconds.is_multiple_of(*length));
        let (length, unit) = whole.unwrap_or((1, "ms"));
        Self(format!("{}{unit}", milliseconds / length))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({"type": "string", "maxLength": DURATION_BYTES_MAX, "pattern": DURATION_PATTERN})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(Duration(text.to_owned()).milliseconds().ok(), expected, "{text:?}");
        };
        check("1500ms", Some(1_500));
        check("5s", Some(5_000));
        check("2m", Some(120_000));
        check("24h", Some(86_400_000));
        check("0s", Some(0));
        for bad in ["", "5", "s", "-5s", "5 s", "1.5s", "5d", "5S", "99999999999h", "5sm"] {
            check(bad, None);
        }
    }

    #[test]
    fn milliseconds_are_written_in_a_whole_unit() {
        for (milliseconds, text) in [(0, "0ms"), (1_500, "1500ms"), (5_000, "5s"), (86_400_000, "24h"), (60_000, "60s")]
        {
            assert_eq!(Duration::from_milliseconds(milliseconds).0, text);
        }
    }
}
