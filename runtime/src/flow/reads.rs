//! What calls read: the states sent along with an invocation, and map states on request.

use std::collections::BTreeMap;

use bytes::Bytes;
use tandem_model::flow::CallId;
use tandem_model::ids::{Instance, StateName};
use tandem_model::mechanism::{Mechanism, works};
use tandem_model::topology::StateKind;
use tandem_store::keys::RowKey;
use tandem_store::{KeyRange, Store};

use super::attempt::{Attempt, Broken};
use super::effects::check_entry_key;
use crate::host::{Interface, ReadWhat};
use crate::partition::ScanRequest;

/// Most bytes of entries in one answer. One entry may exceed it by itself.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Entries of a map state.
#[derive(Debug)]
pub(super) struct MapRead {
    pub(super) entries: Vec<(Bytes, Bytes)>,
    pub(super) more: bool,
}

impl<S: Store> Attempt<'_, S> {
    /// The values of all states of kind value that the worker knows, in one batch read.
    pub(super) async fn prefetch(
        &self,
        call: CallId,
        instance: &Instance,
        interface: Option<&Interface>,
    ) -> Result<Vec<(StateName, Option<Bytes>)>, Broken> {
        let states = interface.into_iter().flat_map(|interface| &interface.states);
        let names: Vec<&StateName> =
            states.filter(|(_, kind)| **kind == StateKind::Value).map(|(name, _)| name).collect();
        let rows: Vec<Bytes> = names.iter().map(|name| self.engine.layout.state_value(instance, name)).collect();
        let values = self.read_rows(call, &rows).await?;
        Ok(names.into_iter().cloned().zip(values).collect())
    }

    /// Reads rows as the call sees them: what the flow wrote itself, else the view. The latter is noted as read.
    async fn read_rows(&self, call: CallId, rows: &[Bytes]) -> Result<Vec<Option<Bytes>>, Broken> {
        let own: Vec<Option<Option<Bytes>>> = {
            let tree = self.tree();
            rows.iter().map(|row| tree.lookup(call, row)).collect()
        };
        let missing: Vec<Bytes> =
            rows.iter().zip(&own).filter(|(_, own)| own.is_none()).map(|(row, _)| row.clone()).collect();
        if missing.is_empty() {
            return Ok(own.into_iter().map(Option::flatten).collect());
        }
        let seen = self.view.read(&missing).await?;
        let mut values = Vec::with_capacity(rows.len());
        let mut reads = self.reads.lock().await;
        let mut seen = missing.into_iter().zip(seen);
        for own in own {
            values.push(match own {
                Some(value) => value,
                None => seen.next().and_then(|(row, seen)| {
                    let value = seen.value.clone();
                    if value.is_some() || works(Mechanism::AbsenceIsRead) {
                        reads.add(row, seen);
                    }
                    value
                }),
            });
        }
        Ok(values)
    }

    /// Whether user code may read this map state; gives its name.
    pub(super) fn check_read(
        &self,
        instance: &Instance,
        interface: Option<&Interface>,
        state: &str,
    ) -> Result<StateName, Broken> {
        match self.state(instance, interface, state)? {
            (name, StateKind::Map) => Ok(name),
            (name, StateKind::Value) => {
                let detail = format!("state {name} is a value: it was sent along, and has no entries to read");
                Err(Broken::fatal("state-kind", detail, instance))
            }
        }
    }

    /// Reads one entry or a range of entries of a map state.
    pub(super) async fn read_map(
        &self,
        call: CallId,
        instance: &Instance,
        state: &StateName,
        what: ReadWhat,
    ) -> Result<MapRead, Broken> {
        let layout = self.engine.layout;
        match what {
            ReadWhat::Entry(key) => {
                check_entry_key(instance, state, &key)?;
                let row = layout.state_entry(instance, state, &key);
                let value = self.read_rows(call, &[row]).await?.into_iter().next().flatten();
                Ok(MapRead { entries: value.map(|value| (key, value)).into_iter().collect(), more: false })
            }
            ReadWhat::Scan { from, to, limit, reverse } => {
                let all = layout.state_entries(instance, state);
                let start = from.filter(|from| !from.is_empty()).map(|from| layout.state_entry(instance, state, &from));
                let end = to.map(|to| layout.state_entry(instance, state, &to));
                let range = KeyRange { start: start.unwrap_or(all.start), end: end.or(all.end) };
                if range.end.as_ref().is_some_and(|end| *end <= range.start) {
                    return Ok(MapRead { entries: Vec::new(), more: false });
                }
                let max = self.topology.limits.scan_entries_max;
                let limit = if limit == 0 { max } else { limit.min(max) };
                self.scan(call, ScanRequest { range, limit, reverse, own: BTreeMap::new() }).await
            }
        }
    }

    async fn scan(&self, call: CallId, mut request: ScanRequest) -> Result<MapRead, Broken> {
        request.own = self.tree().lookup_range(call, request.range.bounds());
        let mut reads = self.reads.lock().await;
        let scanned = self.view.scan(request, &mut reads).await?;
        drop(reads);
        let mut entries = Vec::with_capacity(scanned.rows.len());
        let mut bytes = 0;
        for (row, value) in scanned.rows {
            bytes += row.len() + value.len();
            if bytes > ANSWER_BYTES_MAX && !entries.is_empty() {
                // User code asks again for what is behind the last entry. That more was read than told is no harm.
                return Ok(MapRead { entries, more: true });
            }
            match tandem_store::keys::parse(&row) {
                Ok(RowKey::StateEntry { entry, .. }) => entries.push((entry, value)),
                Ok(_) | Err(_) => {
                    return Err(tandem_store::Error::Damaged(format!("row {row:?} is not a map entry")).into());
                }
            }
        }
        Ok(MapRead { entries, more: scanned.more })
    }
}
