//! Keys on the way to the cluster: a prefix of the installation, a keyspace if there is one, and PD's own encoding.
//!
//! PD and the borders of regions know keys in a memcomparable encoding: groups of eight bytes, each followed by a byte
//! that says how many of them count. Requests to stores have keys without it.

use bytes::Bytes;
use tandem_store::KeyRange;

const GROUP_BYTES: usize = 8;
const FULL_GROUP: u8 = 0xff;
/// Begins every key of a transaction in a keyspace.
const KEYSPACE_MODE: u8 = b'x';
/// Bytes of a keyspace's number in a key.
const KEYSPACE_BYTES: usize = 3;

/// Between keys of the store's user and keys of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Encoding {
    /// What each key of the cluster begins with.
    prefix: Bytes,
}

impl Encoding {
    /// All keys below `prefix`, in a keyspace if it is given.
    pub(crate) fn new(prefix: &[u8], keyspace: Option<u32>) -> Self {
        let mut all = Vec::with_capacity(1 + KEYSPACE_BYTES + prefix.len());
        if let Some(keyspace) = keyspace {
            all.push(KEYSPACE_MODE);
            all.extend_from_slice(&keyspace.to_be_bytes()[size_of::<u32>() - KEYSPACE_BYTES..]);
        }
        all.extend_from_slice(prefix);
        Self { prefix: all.into() }
    }

    /// The key in requests to stores.
    pub(crate) fn key(&self, key: &[u8]) -> Bytes {
        [&self.prefix, key].concat().into()
    }

    /// The other way round. `None` if it is not one of ours.
    pub(crate) fn own_key(&self, key: &[u8]) -> Option<Bytes> {
        key.strip_prefix(&self.prefix[..]).map(Bytes::copy_from_slice)
    }

    /// The range in requests to stores. It always has an end.
    pub(crate) fn range(&self, range: &KeyRange) -> (Vec<u8>, Vec<u8>) {
        let all = KeyRange::prefix(&self.prefix);
        let end = range.end.as_ref().map(|end| self.key(end)).or(all.end).unwrap_or_default();
        (self.key(&range.start).into(), end.into())
    }

    /// A border of a region as requests to stores have it. `None` if it was not encoded as a key.
    pub(crate) fn border(key: &[u8]) -> Option<Vec<u8>> {
        from_memcomparable(key)
    }

    /// The key as PD and the borders of regions have it.
    pub(crate) fn at_pd(&self, key: &[u8]) -> Bytes {
        memcomparable(&self.key(key))
    }

    /// The same of a key that is as requests to stores have it.
    pub(crate) fn at_pd_of(key: &[u8]) -> Bytes {
        memcomparable(key)
    }
}

fn memcomparable(key: &[u8]) -> Bytes {
    let mut encoded = Vec::with_capacity((key.len() / GROUP_BYTES + 1) * (GROUP_BYTES + 1));
    let mut groups = key.chunks_exact(GROUP_BYTES);
    for group in groups.by_ref() {
        encoded.extend_from_slice(group);
        encoded.push(FULL_GROUP);
    }
    // The last group is never full, so that the end is seen.
    let rest = groups.remainder();
    encoded.extend_from_slice(rest);
    encoded.resize(encoded.len() + GROUP_BYTES - rest.len(), 0);
    let missing = u8::try_from(GROUP_BYTES - rest.len()).expect("a group has eight bytes");
    encoded.push(FULL_GROUP - missing);
    encoded.into()
}

fn from_memcomparable(encoded: &[u8]) -> Option<Vec<u8>> {
    let (groups, rest) = encoded.as_chunks::<{ GROUP_BYTES + 1 }>();
    let (last, full) = groups.split_last().filter(|_| rest.is_empty())?;
    let mut key = Vec::with_capacity(groups.len() * GROUP_BYTES);
    for group in full {
        let bytes = group.strip_suffix(&[FULL_GROUP])?;
        key.extend_from_slice(bytes);
    }
    let (marker, bytes) = last.split_last()?;
    let missing = usize::from(FULL_GROUP - marker);
    let counts = GROUP_BYTES.checked_sub(missing).filter(|counts| *counts < GROUP_BYTES)?;
    key.extend_from_slice(&bytes[..counts]);
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_encoded_as_the_protocol_says() {
        assert_eq!(memcomparable(b"")[..], [0, 0, 0, 0, 0, 0, 0, 0, 247]);
        assert_eq!(memcomparable(&[1, 2, 3])[..], [1, 2, 3, 0, 0, 0, 0, 0, 250]);
        let eight = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(memcomparable(&eight)[..], [1, 2, 3, 4, 5, 6, 7, 8, 255, 0, 0, 0, 0, 0, 0, 0, 0, 247]);
    }

    #[test]
    fn the_encoding_can_be_undone() {
        let keys: [&[u8]; 6] = [b"", b"\0", b"a", b"aaaaaaaa", b"aaaaaaaa\0", b"bbbbbbbbbbbbbbbbb"];
        for key in keys {
            assert_eq!(from_memcomparable(&memcomparable(key)).as_deref(), Some(key));
        }
        for other in [&b""[..], b"plain", b"12345678\xff", b"12345678\x00", b"1234567\0\xfe1234567\0\xfe"] {
            assert_eq!(from_memcomparable(other), None, "{other:?}");
        }
    }

    #[test]
    fn the_order_of_keys_stays() {
        let keys: [&[u8]; 6] = [b"", b"\0", b"a", b"aaaaaaaa", b"aaaaaaaa\0", b"b"];
        assert!(keys.iter().map(|key| memcomparable(key)).is_sorted());
    }

    #[test]
    fn a_prefix_and_a_keyspace_come_first() {
        let plain = Encoding::new(b"t/", None);
        assert_eq!(plain.key(b"k"), "t/k");
        assert_eq!(plain.own_key(b"t/k").as_deref(), Some(&b"k"[..]));
        assert_eq!(plain.own_key(b"u/k"), None);
        let spaced = Encoding::new(b"p", Some(0x01_02_03));
        assert_eq!(spaced.key(b"k"), &b"x\x01\x02\x03pk"[..]);
    }

    #[test]
    fn a_range_ends_with_the_prefix_at_the_latest() {
        let encoding = Encoding::new(b"t/", None);
        let all = KeyRange { start: Bytes::new(), end: None };
        assert_eq!(encoding.range(&all), (b"t/".to_vec(), b"t0".to_vec()));
        let some = KeyRange { start: Bytes::from_static(b"a"), end: Some(Bytes::from_static(b"b")) };
        assert_eq!(encoding.range(&some), (b"t/a".to_vec(), b"t/b".to_vec()));
    }
}
