//! Where to cut the key space into regions, so that the slots of a runtime lie on all stores.
//!
//! Row keys begin with a prefix that a runtime is configured with, and then the slot, two bytes, big endian. Regions go to
//! the stores in turn.

/// How many regions the slots of a prefix get where nobody says otherwise.
pub const REGIONS: u16 = 12;
/// The number of slots of a runtime where nobody says otherwise.
pub const SLOTS: u16 = 1024;

/// Where the rows of a store with this prefix begin: below the prefix, what is the store's own comes first.
pub fn rows_behind(prefix: &[u8]) -> Vec<u8> {
    const ROWS: &[u8] = b"d";
    [prefix, ROWS].concat()
}

/// The keys that cut the slots behind `prefix` into `regions` ranges of about the same size, all with the prefix: the
/// first cut is the prefix itself, the last one ends it.
///
/// Keys of one installation begin with one byte, and no other installation's with the byte that follows it: the test store
/// keeps what became of a transaction at a key below the next first byte.
pub fn cuts(prefix: &[u8], slots: u16, regions: u16) -> Vec<Vec<u8>> {
    let regions = regions.clamp(1, slots.max(1));
    let mut all = vec![prefix.to_vec()];
    all.extend((1..regions).map(|region| {
        let slot = u32::from(slots) * u32::from(region) / u32::from(regions);
        let slot = u16::try_from(slot).expect("less than the number of slots, which is one itself");
        [prefix, &slot.to_be_bytes()].concat()
    }));
    all.extend(end_of(prefix));
    all.retain(|cut| !cut.is_empty());
    all
}

/// The first key behind all that have this prefix, if there is one.
pub fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Bytes of a hexadecimal text, if it is one.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).ok()?;
            // `from_str_radix` also takes a sign.
            pair.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u8::from_str_radix(pair, 16).ok())?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_divide_the_slots_evenly_and_fence_the_prefix() {
        let all = cuts(b"t/", 1024, 4);
        assert_eq!(all, [&b"t/"[..], b"t/\x01\x00", b"t/\x02\x00", b"t/\x03\x00", b"t0"]);
    }

    #[test]
    fn there_are_never_more_regions_than_slots() {
        assert_eq!(cuts(b"t/", 2, 12), [&b"t/"[..], b"t/\x00\x01", b"t0"]);
    }

    #[test]
    fn cuts_are_in_order_whatever_the_numbers() {
        for (slots, regions) in [(1024, 12), (7, 3), (65_535, 100), (1, 1), (0, 0)] {
            let all = cuts(b"x\x00", slots, regions);
            assert!(all.is_sorted(), "{slots} slots in {regions} regions: {all:?}");
        }
    }

    #[test]
    fn no_prefix_is_no_cut_at_the_ends() {
        assert_eq!(cuts(b"", 256, 2), [b"\x00\x80"]);
    }

    #[test]
    fn the_end_of_a_prefix_carries_over_full_bytes() {
        assert_eq!(end_of(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(end_of(b"\xff\xff"), None);
    }

    #[test]
    fn hexadecimal_goes_there_and_back_and_refuses_the_rest() {
        assert_eq!(unhex(&hex(b"\x00\xffz")), Some(b"\x00\xffz".to_vec()));
        assert_eq!((unhex("abc"), unhex("+1"), unhex("zz"), unhex("é")), (None, None, None, None));
    }
}
