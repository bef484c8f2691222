//! Row keys: memcomparable and injective. A format: never changed, only added to.
//!
//! `<slot u16><table u8><parts...>`; integers are big endian, texts and bytes are escaped, so that the order of the keys
//! is the order of the tuples they stand for. Everything that an instance's flow touches lies in one slot, so that most
//! flows commit in one place.
//!
//! | table | parts after the slot |
//! | --- | --- |
//! | [`Table::StateValue`] | function, key, state |
//! | [`Table::StateEntry`] | function, key, state, entry |
//! | [`Table::Request`] | the 13 bytes of the flow id that follow its slot |
//! | [`Table::Inbox`] | function, key, slot of the sender, sequence |
//! | [`Table::Timer`] | due in milliseconds since 1970, slot of the sender, sequence |
//! | [`Table::Egress`] | egress, sequence |
//! | [`Table::DeadLetter`] | function, key, slot of the sender, sequence |
//! | [`Table::Lane`] | nothing |
//! | 0, below slot `0xffff` | name: rows of the runtime itself |
//!
//! **Invariant:** the slot `0xffff` never belongs to an instance, because there are at most `0xffff` slots.

use std::str::FromStr;

use bytes::Bytes;
use tandem_model::ids::{EgressName, FlowId, FunctionName, Instance, Key, StateName};
use tandem_model::slot::{Slot, SlotCount};

use crate::KeyRange;

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
    /// Who numbers the messages that instances of the slot send.
    Lane = 8,
}

/// The table byte of rows that belong to the runtime itself, below [`META_SLOT`].
const META_TABLE: u8 = 0;
/// A slot number that no instance can have.
const META_SLOT: u16 = u16::MAX;

/// Stands for a zero byte inside of an escaped part, together with the zero before it.
const ESCAPED_ZERO: u8 = 0xff;
/// Ends an escaped part, together with the zero before it. Less than [`ESCAPED_ZERO`], so that a prefix sorts first.
const TERMINATOR: u8 = 0x01;

/// Builds the keys of one runtime. Two layouts with different numbers of slots must never meet in one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    slots: SlotCount,
}

impl Layout {
    /// The layout of data that is spread over so many slots.
    pub fn new(slots: SlotCount) -> Self {
        Self { slots }
    }

    /// The number of slots.
    pub fn slots(self) -> SlotCount {
        self.slots
    }

    /// The row of a state of kind value.
    pub fn state_value(self, instance: &Instance, state: &StateName) -> Bytes {
        self.of_instance(Table::StateValue, instance).text(state.as_str()).build()
    }

    /// All values of one instance.
    pub fn state_values(self, instance: &Instance) -> KeyRange {
        self.of_instance(Table::StateValue, instance).range()
    }

    /// The row of one entry of a state of kind map.
    pub fn state_entry(self, instance: &Instance, state: &StateName, entry: &[u8]) -> Bytes {
        self.of_instance(Table::StateEntry, instance).text(state.as_str()).bytes(entry).build()
    }

    /// All entries of one state of kind map, in the order of the entries' keys.
    pub fn state_entries(self, instance: &Instance, state: &StateName) -> KeyRange {
        self.of_instance(Table::StateEntry, instance).text(state.as_str()).range()
    }

    /// All entries of all map states of one instance.
    pub fn all_entries(self, instance: &Instance) -> KeyRange {
        self.of_instance(Table::StateEntry, instance).range()
    }

    /// The values of all instances of a function in one slot, ordered by key.
    pub fn state_values_of_function(self, slot: Slot, function: &FunctionName) -> KeyRange {
        KeyBuilder::new(slot, Table::StateValue).text(function.as_str()).range()
    }

    /// The map entries of all instances of a function in one slot, ordered by key.
    pub fn state_entries_of_function(self, slot: Slot, function: &FunctionName) -> KeyRange {
        KeyBuilder::new(slot, Table::StateEntry).text(function.as_str()).range()
    }

    /// The request record of a flow. Its slot is part of the flow id.
    pub fn request(self, flow: FlowId) -> Bytes {
        KeyBuilder::new(flow.slot(), Table::Request).raw(&flow.as_bytes()[SLOT_BYTES..]).build()
    }

    /// All request records of one slot.
    pub fn requests(self, slot: Slot) -> KeyRange {
        KeyBuilder::new(slot, Table::Request).range()
    }

    /// A message that waits for its flow. `sequence` orders what instances of the slot `from` send to one target, and
    /// names it.
    pub fn inbox(self, target: &Instance, from: Slot, sequence: u64) -> Bytes {
        self.of_instance(Table::Inbox, target).slot(from).number(sequence).build()
    }

    /// What instances of the slot `from` have sent to `target`, above the sequence `after` and below `before`.
    pub fn inbox_between(self, target: &Instance, from: Slot, after: Option<u64>, before: u64) -> KeyRange {
        let lane = self.of_instance(Table::Inbox, target).slot(from);
        // Sequences are eight bytes, so one more byte is what directly follows a row.
        let start = match after {
            Some(after) => lane.clone().number(after).raw(&[0]).build(),
            None => lane.clone().build(),
        };
        KeyRange { start, end: Some(lane.number(before).build()) }
    }

    /// All waiting messages of one slot: per target, in the order of their sequences.
    pub fn inboxes(self, slot: Slot) -> KeyRange {
        KeyBuilder::new(slot, Table::Inbox).range()
    }

    /// A message that waits for its time, in the slot of `target`. `sequence` must be unique for the slot `from`.
    pub fn timer(self, target: &Instance, due_unix_ms: u64, from: Slot, sequence: u64) -> Bytes {
        let slot = self.slots.slot_of(&target.key);
        KeyBuilder::new(slot, Table::Timer).number(due_unix_ms).slot(from).number(sequence).build()
    }

    /// All timers of one slot, the one that is due first in front.
    pub fn timers(self, slot: Slot) -> KeyRange {
        KeyBuilder::new(slot, Table::Timer).range()
    }

    /// All messages of one slot that wait for their flow or for their time. Their tables are neighbours.
    pub fn waiting(self, slot: Slot) -> KeyRange {
        KeyRange { start: self.inboxes(slot).start, end: self.timers(slot).end }
    }

    /// A record for an egress, in the slot of the flow's `entry`. `sequence` must be unique in that slot and egress.
    pub fn egress(self, entry: &Instance, egress: &EgressName, sequence: u64) -> Bytes {
        let slot = self.slots.slot_of(&entry.key);
        KeyBuilder::new(slot, Table::Egress).text(egress.as_str()).number(sequence).build()
    }

    /// The records of one egress in one slot whose sequence is greater than `after`.
    pub fn egresses(self, slot: Slot, egress: &EgressName, after: u64) -> KeyRange {
        let all = KeyBuilder::new(slot, Table::Egress).text(egress.as_str());
        // Sequences are eight bytes, so one more byte is what directly follows a row.
        KeyRange { start: all.clone().number(after).raw(&[0]).build(), end: all.range().end }
    }

    /// The records of one egress in one slot up to and including sequence `until`: what can be trimmed.
    pub fn egresses_until(self, slot: Slot, egress: &EgressName, until: u64) -> KeyRange {
        let all = KeyBuilder::new(slot, Table::Egress).text(egress.as_str());
        KeyRange { start: all.clone().build(), end: Some(all.number(until).raw(&[0]).build()) }
    }

    /// A message of `target` that was set aside.
    pub fn dead_letter(self, target: &Instance, from: Slot, sequence: u64) -> Bytes {
        self.of_instance(Table::DeadLetter, target).slot(from).number(sequence).build()
    }

    /// The row that says who numbers the messages which instances of a slot send.
    pub fn lane(self, from: Slot) -> Bytes {
        KeyBuilder::new(from, Table::Lane).build()
    }

    fn of_instance(self, table: Table, instance: &Instance) -> KeyBuilder {
        let slot = self.slots.slot_of(&instance.key);
        KeyBuilder::new(slot, table).text(instance.function.as_str()).text(instance.key.as_str())
    }
}

/// A row of the runtime itself, outside of every slot: the format, what is remembered between starts.
pub fn meta(name: &str) -> Bytes {
    let mut key = META_SLOT.to_be_bytes().to_vec();
    key.push(META_TABLE);
    KeyBuilder(key).text(name).build()
}

/// The rows of the runtime itself whose names begin with `prefix`.
pub fn metas(prefix: &str) -> KeyRange {
    let key = meta(prefix);
    KeyRange::prefix(&key[..key.len() - END_BYTES])
}

const SLOT_BYTES: usize = size_of::<u16>();
/// Bytes that end an escaped part.
const END_BYTES: usize = 2;

#[derive(Clone)]
struct KeyBuilder(Vec<u8>);

impl KeyBuilder {
    fn new(slot: Slot, table: Table) -> Self {
        // Most keys are shorter than this; a longer one costs one more allocation.
        const USUAL_BYTES: usize = 64;
        let mut key = Vec::with_capacity(USUAL_BYTES);
        key.extend_from_slice(&slot.get().to_be_bytes());
        key.push(table as u8);
        Self(key)
    }

    fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        for byte in bytes {
            self.0.push(*byte);
            if *byte == 0 {
                self.0.push(ESCAPED_ZERO);
            }
        }
        self.raw(&[0, TERMINATOR])
    }

    fn number(self, number: u64) -> Self {
        self.raw(&number.to_be_bytes())
    }

    fn slot(self, slot: Slot) -> Self {
        self.raw(&slot.get().to_be_bytes())
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn build(self) -> Bytes {
        self.0.into()
    }

    fn range(self) -> KeyRange {
        KeyRange::prefix(&self.0)
    }
}

/// What a key names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKey {
    /// A state of kind value.
    StateValue {
        /// The slot.
        slot: Slot,
        /// Whose state.
        instance: Instance,
        /// Which state.
        state: StateName,
    },
    /// An entry of a state of kind map.
    StateEntry {
        /// The slot.
        slot: Slot,
        /// Whose state.
        instance: Instance,
        /// Which state.
        state: StateName,
        /// The key of the entry.
        entry: Bytes,
    },
    /// A request record.
    Request {
        /// The flow.
        flow: FlowId,
    },
    /// A message that waits for its flow.
    Inbox {
        /// The slot.
        slot: Slot,
        /// Whom it is for.
        target: Instance,
        /// The slot of its sender.
        from: Slot,
        /// Its place in the order of what that slot sends.
        sequence: u64,
    },
    /// A message that waits for its time.
    Timer {
        /// The slot.
        slot: Slot,
        /// When it is due.
        due_unix_ms: u64,
        /// The slot of its sender.
        from: Slot,
        /// Tells apart what is due in the same millisecond.
        sequence: u64,
    },
    /// A record for an egress.
    Egress {
        /// The slot.
        slot: Slot,
        /// Which egress.
        egress: EgressName,
        /// Its place in the order of that egress in that slot.
        sequence: u64,
    },
    /// A message that was set aside.
    DeadLetter {
        /// The slot.
        slot: Slot,
        /// Whom it was for.
        target: Instance,
        /// The slot of its sender.
        from: Slot,
        /// Its place in the order of what that slot sends.
        sequence: u64,
    },
    /// Who numbers the messages that instances of the slot send.
    Lane {
        /// The slot.
        slot: Slot,
    },
    /// A row of the runtime itself.
    Meta {
        /// Its name.
        name: String,
    },
}

/// Bytes that no [`Layout`] makes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("row key {key} makes no sense: {problem}")]
pub struct InvalidKey {
    /// The key in hexadecimal.
    pub key: String,
    /// What is wrong.
    pub problem: String,
}

/// Takes a key apart again. What it accepts is exactly what [`Layout`] and [`meta`] make, for some number of slots.
pub fn parse(key: &[u8]) -> Result<RowKey, InvalidKey> {
    let parsed = Reader(key).row();
    parsed.map_err(|problem| InvalidKey { key: hex(key), problem })
}

/// Bytes as people read them in error messages.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn row(mut self) -> Result<RowKey, String> {
        let [slot_high, slot_low, table] = self.array()?;
        let number = u16::from_be_bytes([slot_high, slot_low]);
        let slot = Slot::new(number);
        if number == META_SLOT && table != META_TABLE {
            return Err(format!("slot {number} belongs to no instance"));
        }
        let row = match table {
            META_TABLE if number == META_SLOT => RowKey::Meta { name: self.text()? },
            1 => RowKey::StateValue { slot, instance: self.instance()?, state: self.name()? },
            2 => {
                let (instance, state) = (self.instance()?, self.name()?);
                RowKey::StateEntry { slot, instance, state, entry: self.bytes()?.into() }
            }
            3 => {
                let mut flow = [0; FlowId::BYTES];
                flow[..SLOT_BYTES].copy_from_slice(&number.to_be_bytes());
                flow[SLOT_BYTES..].copy_from_slice(&self.array::<{ FlowId::BYTES - SLOT_BYTES }>()?);
                RowKey::Request { flow: FlowId::from_bytes(flow) }
            }
            4 => RowKey::Inbox { slot, target: self.instance()?, from: self.slot()?, sequence: self.number()? },
            5 => RowKey::Timer { slot, due_unix_ms: self.number()?, from: self.slot()?, sequence: self.number()? },
            6 => RowKey::Egress { slot, egress: self.name()?, sequence: self.number()? },
            7 => RowKey::DeadLetter { slot, target: self.instance()?, from: self.slot()?, sequence: self.number()? },
            8 => RowKey::Lane { slot },
            other => return Err(format!("there is no table {other}")),
        };
        if self.0.is_empty() { Ok(row) } else { Err(format!("{} bytes follow its end", self.0.len())) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (head, tail) = self.0.split_first_chunk().ok_or("it is too short")?;
        self.0 = tail;
        Ok(*head)
    }

    fn number(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_be_bytes)
    }

    fn slot(&mut self) -> Result<Slot, String> {
        self.array().map(|bytes| Slot::new(u16::from_be_bytes(bytes)))
    }

    fn bytes(&mut self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::with_capacity(self.0.len());
        loop {
            let [byte] = self.array()?;
            if byte != 0 {
                bytes.push(byte);
                continue;
            }
            match self.array()? {
                [ESCAPED_ZERO] => bytes.push(0),
                [TERMINATOR] => return Ok(bytes),
                [other] => return Err(format!("a zero is followed by {other:#04x}")),
            }
        }
    }

    fn text(&mut self) -> Result<String, String> {
        String::from_utf8(self.bytes()?).map_err(|error| error.to_string())
    }

    fn name<T: FromStr>(&mut self) -> Result<T, String>
    where
        T::Err: std::fmt::Display,
    {
        self.text()?.parse().map_err(|error: T::Err| error.to_string())
    }

    fn instance(&mut self) -> Result<Instance, String> {
        Ok(Instance::new(self.name::<FunctionName>()?, self.name::<Key>()?))
    }
}

#[cfg(test)]
mod tests;
