//! A number that takes 128 bytes in the store, as the state of a real instance would.

use serde::{Deserialize, Serialize};

/// Digits of the text that it is stored as; with its quotes the JSON has 128 bytes.
const DIGITS: usize = 126;

/// A number, stored as a text with leading zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Padded(pub(crate) u64);

impl From<Padded> for String {
    fn from(padded: Padded) -> Self {
        format!("{:0DIGITS$}", padded.0)
    }
}

impl TryFrom<String> for Padded {
    type Error = std::num::ParseIntError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_takes_128_bytes_and_comes_back() {
        for number in [0, 7, u64::MAX] {
            let bytes = serde_json::to_vec(&Padded(number)).unwrap();
            assert_eq!(bytes.len(), 128);
            assert_eq!(serde_json::from_slice::<Padded>(&bytes).unwrap(), Padded(number));
        }
    }
}
