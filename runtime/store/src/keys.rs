//! Row keys: memcomparable and injective. A format: never changed, only added to.
//!
//! `<slot u16><table u8><parts...>`; integers are big endian, texts and bytes are [escaped](escape). Everything that an
//! instance's flow touches lies in one slot, so that most flows commit in one place.







/// Follows the slot in every key. A retired table keeps its byte for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Table {
    /// Values of states of kind value.
    StateValue = 1,
    /// Entries of states of kind map.
    StateEntry = 2,
    /// Request records.
    Request = 3,
    /// Messages that wait for their flow.
    Inbox = 4,
    /// Messages that wait for their time.
    Timer = 5,
    /// Records for an egress.
    Egress = 6,
    /// Messages that were set aside.
    DeadLetter = 7,
}
