//! Keys of map entries: bytes whose order is the order of the keys.
//!
//! **Invariant:** what `to_bytes` writes is stored, so it is a format; `a < b` exactly if `a.to_bytes() < b.to_bytes()`.

use crate::error::{Error, Result};

/// A key of a [`Map`](crate::Map). Entries are kept in the order of the key's bytes.
///
/// There is one for text, for integers and for booleans; a newtype around one of them derives it:
/// ```
/// use tandem::prelude::*;
///
/// #[derive(MapKey)]
/// struct Sku(String);
/// ```
pub trait MapKey: Sized + Send + Sync {
    /// Bytes that sort as the keys do. At least one, at most 1024.
    fn to_bytes(&self) -> Vec<u8>;

    /// The key with these bytes, as `to_bytes` made them.
    fn from_bytes(bytes: &[u8]) -> Result<Self>;
}

impl MapKey for String {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes);
        text.map(str::to_owned).map_err(|error| Error::fatal_from("the stored key is not text", error))
    }
}

impl MapKey for bool {
    fn to_bytes(&self) -> Vec<u8> {
        vec![u8::from(*self)]
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        match bytes {
            [0] => Ok(false),
            [1] => Ok(true),
            other => Err(Error::fatal(format!("the stored key {other:?} is not a boolean"))),
        }
    }
}

fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| Error::fatal(format!("the stored key has {} bytes, expected {N}", bytes.len())))
}

macro_rules! unsigned_key {
    ($($integer:ty),*) => {$(
        impl MapKey for $integer {
            fn to_bytes(&self) -> Vec<u8> {
                self.to_be_bytes().to_vec()
            }

            fn from_bytes(bytes: &[u8]) -> Result<Self> {
                exactly(bytes).map(Self::from_be_bytes)
            }
        }
    )*};
}

macro_rules! signed_key {
    ($($integer:ty),*) => {$(
        impl MapKey for $integer {
            fn to_bytes(&self) -> Vec<u8> {
                // With the sign flipped, negative numbers sort before positive ones.
                (self ^ Self::MIN).to_be_bytes().to_vec()
            }

            fn from_bytes(bytes: &[u8]) -> Result<Self> {
                exactly(bytes).map(|bytes| Self::from_be_bytes(bytes) ^ Self::MIN)
            }
        }
    )*};
}

unsigned_key!(u8, u16, u32, u64, u128);
signed_key!(i8, i16, i32, i64, i128);

#[cfg(test)]
mod tests {
    use super::*;

    fn check<K: MapKey + PartialEq + std::fmt::Debug>(ascending: &[K]) {
        for pair in ascending.windows(2) {
            assert!(pair[0].to_bytes() < pair[1].to_bytes(), "{pair:?}");
        }
        for key in ascending {
            assert_eq!(&K::from_bytes(&key.to_bytes()).unwrap(), key);
        }
    }

    #[test]
    fn bytes_sort_as_keys_do() {
        check(&[i64::MIN, -256, -1, 0, 1, 255, 256, i64::MAX]);
        check(&[i8::MIN, -1, 0, i8::MAX]);
        check(&[0_u32, 1, 255, 256, u32::MAX]);
        check(&[false, true]);
        check(&["a", "a\u{0}", "aa", "b", "ä"].map(str::to_owned));
    }

    #[test]
    fn bytes_are_a_format() {
        assert_eq!(1_u16.to_bytes(), [0, 1]);
        assert_eq!((-1_i16).to_bytes(), [0x7f, 0xff]);
        assert_eq!(1_i16.to_bytes(), [0x80, 1]);
        assert_eq!("sku".to_owned().to_bytes(), b"sku");
    }

    #[test]
    fn damaged_keys_are_an_error() {
        assert!(u32::from_bytes(&[1]).is_err());
        assert!(bool::from_bytes(&[2]).is_err());
        assert!(String::from_bytes(&[0xff]).is_err());
    }
}
