//! A state of many entries, read one by one or by range.
//!
//! Entries are read from the runtime when asked for. **Invariant:** what this invocation wrote lies over what the
//! runtime answers, for single entries and for ranges alike.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tandem_proto::function::v1alpha1 as proto;

use crate::error::Result;
use crate::invocation::{Shared, Written, decode, encode};
use crate::map_key::MapKey;
use crate::state::{Field, FieldKind};

/// A state of many entries, stored as JSON by key.
pub struct Map<K, V> {
    invocation: Shared,
    index: usize,
    entry: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Field for Map<K, V> {
    const KIND: FieldKind = FieldKind::Map;

    fn attach(invocation: &Shared, index: usize) -> Self {
        Self { invocation: invocation.clone(), index, entry: PhantomData }
    }
}

impl<K, V> Map<K, V> {
    fn describe(&self) -> String {
        let request = self.invocation.request();
        let name = self.invocation.state_name(self.index);
        format!("an entry of state {name} of {}/{}", request.function, request.key)
    }
}

impl<K: MapKey, V> Map<K, V> {
    /// Removes the entry, if there is one.
    pub fn remove(&self, key: &K) {
        self.invocation.set_entry(self.index, key.to_bytes().into(), None);
    }

    /// Whether there is an entry. Conflicts with others only as reading it does.
    pub async fn contains(&self, key: &K) -> Result<bool> {
        Ok(self.entry(key).await?.is_some())
    }

    async fn entry(&self, key: &K) -> Result<Option<Bytes>> {
        let key = Bytes::from(key.to_bytes());
        match self.invocation.written_entry(self.index, &key) {
            Written::Set(value) => return Ok(Some(value)),
            Written::Removed => return Ok(None),
            Written::Nothing => {}
        }
        let done = self.invocation.read(self.index, proto::read::What::Entry(key)).await?;
        Ok(done.entries.into_iter().next().map(|entry| entry.value))
    }
}

impl<K: MapKey, V: Serialize> Map<K, V> {
    /// Sets the entry. A value that cannot be written as JSON makes the invocation fail.
    #[expect(clippy::needless_pass_by_value, reason = "reads as in every other map")]
    pub fn insert(&self, key: K, value: V) {
        match encode(&value, || self.describe()) {
            Ok(bytes) => self.invocation.set_entry(self.index, key.to_bytes().into(), Some(bytes)),
            Err(error) => self.invocation.break_with(error),
        }
    }
}

impl<K: MapKey, V: DeserializeOwned> Map<K, V> {
    /// The entry, if there is one.
    pub async fn get(&self, key: &K) -> Result<Option<V>> {
        let stored = self.entry(key).await?;
        stored.map(|bytes| decode(&bytes, || self.describe())).transpose()
    }

    /// All entries of a range, in order of their keys: `scan(..)`, `scan(from..to)`. Others that add, change or remove
    /// an entry in it conflict with this flow.
    pub async fn scan(&self, range: impl RangeBounds<K>) -> Result<Vec<(K, V)>> {
        self.scan_up_to(bounds(&range), None, false).await
    }

    /// The first entries of a range, at most `limit`, in order of their keys.
    pub async fn first(&self, range: impl RangeBounds<K>, limit: u32) -> Result<Vec<(K, V)>> {
        self.scan_up_to(bounds(&range), Some(limit), false).await
    }

    /// The last entries of a range, at most `limit`, from the greatest key down.
    pub async fn last(&self, range: impl RangeBounds<K>, limit: u32) -> Result<Vec<(K, V)>> {
        self.scan_up_to(bounds(&range), Some(limit), true).await
    }

    async fn scan_up_to(&self, scan: proto::Scan, limit: Option<u32>, reverse: bool) -> Result<Vec<(K, V)>> {
        let count_max = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        if count_max == 0 {
            return Ok(Vec::new());
        }
        let written = self.invocation.written_entries(self.index, &scan);
        let stored = self.stored(proto::Scan { reverse, ..scan }, limit, &written).await?;
        let mut entries: BTreeMap<Bytes, Option<Bytes>> =
            stored.into_iter().map(|entry| (entry.key, Some(entry.value))).collect();
        entries.extend(written);
        let present = entries.into_iter().filter_map(|(key, value)| Some((key, value?)));
        let decoded = |(key, value): (Bytes, Bytes)| {
            Ok((
                K::from_bytes(&key).map_err(|error| error.context(self.describe()))?,
                decode(&value, || self.describe())?,
            ))
        };
        if reverse {
            present.rev().take(count_max).map(decoded).collect()
        } else {
            present.take(count_max).map(decoded).collect()
        }
    }

    /// Pages through the runtime's entries until there are no more, or so many that `limit` of them remain for sure
    /// when the entries that this invocation wrote are laid over them.
    async fn stored(
        &self,
        mut scan: proto::Scan,
        limit: Option<u32>,
        written: &BTreeMap<Bytes, Option<Bytes>>,
    ) -> Result<Vec<proto::Entry>> {
        let removed = written.values().filter(|value| value.is_none()).count();
        let wanted = limit.map(|limit| limit.saturating_add(u32::try_from(removed).unwrap_or(u32::MAX)));
        let wanted_count = wanted.map_or(usize::MAX, |wanted| usize::try_from(wanted).unwrap_or(usize::MAX));
        let mut entries: Vec<proto::Entry> = Vec::new();
        loop {
            let missing = u32::try_from(wanted_count - entries.len()).unwrap_or(u32::MAX);
            scan.limit = wanted.map_or(0, |_| missing);
            let page = self.invocation.read(self.index, proto::read::What::Scan(scan.clone())).await?;
            let last = page.entries.last().map(|entry| entry.key.clone());
            entries.extend(page.entries);
            let Some(last) = last.filter(|_| page.more && entries.len() < wanted_count) else {
                return Ok(entries);
            };
            if scan.reverse {
                scan.to = Some(last);
            } else {
                scan.from = Some(just_behind(&last));
            }
        }
    }
}

impl<K, V> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.invocation.state_name(self.index))
    }
}

/// The smallest key that is greater.
fn just_behind(key: &[u8]) -> Bytes {
    let mut behind = Vec::with_capacity(key.len() + 1);
    behind.extend_from_slice(key);
    behind.push(0);
    behind.into()
}

fn bounds<K: MapKey>(range: &impl RangeBounds<K>) -> proto::Scan {
    let from = match range.start_bound() {
        Bound::Included(key) => Some(key.to_bytes().into()),
        Bound::Excluded(key) => Some(just_behind(&key.to_bytes())),
        Bound::Unbounded => None,
    };
    let to = match range.end_bound() {
        Bound::Included(key) => Some(just_behind(&key.to_bytes())),
        Bound::Excluded(key) => Some(key.to_bytes().into()),
        Bound::Unbounded => None,
    };
    proto::Scan { from, to, limit: 0, reverse: false }
}
