//! Looking without changing anything: flows, state, instances, egress records.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join;
use futures_util::stream::{self, StreamExt as _};
use tandem_model::ids::{EgressName, FlowId, FunctionName, Instance, Key, Timestamp};
use tandem_model::outcome::FlowRecord;
use tandem_model::slot::Slot;
use tandem_store::keys::{self, RowKey};
use tandem_store::{Error, KeyRange, Snapshot, Store, rows};
use tokio::time::{Instant, sleep_until, timeout};

use crate::egress::read_stored;
use crate::host::RevisionReport;
use crate::partition::numbers::{Horizon, horizon};
use crate::peers::{Answer, Lookup};

use super::{EgressRecord, FlowFilter, FlowState, InstanceState, RunningFlow, Runtime};

/// Records read from the store for one list of flows.
const RECORDS_SCANNED_MAX: usize = 100_000;
/// Those of one slot.
const RECORDS_OF_SLOT_MAX: usize = 10_000;
/// Slots that are read at the same time: one after the other, a thousand of them take a second on a store elsewhere.
const SLOTS_AT_ONCE: usize = 64;
/// How often it is looked whether a flow has ended that runs elsewhere.
const WAIT_POLL: Duration = Duration::from_millis(100);
/// Rows read at once.
const PAGE: usize = 1_000;

impl<S: Store> Runtime<S> {
    /// How the workers of each function do, by revision of their code.
    pub fn workers(&self) -> BTreeMap<FunctionName, Vec<RevisionReport>> {
        self.engine.host.report()
    }

    /// What is known about a flow.
    pub async fn flow(&self, flow: FlowId) -> Result<FlowState, Error> {
        if let Some(running) = self.engine.registry.get(flow) {
            return Ok(FlowState::Running(running));
        }
        if let Some(record) = self.engine.recent.get(flow) {
            return Ok(FlowState::Ended(record));
        }
        if let Some(record) = self.earlier(flow).await? {
            return Ok(FlowState::Ended(Arc::new(record)));
        }
        Ok(match self.engine.peers.find(flow, Lookup::Look).await {
            Some(Answer::Running(running)) => FlowState::Running(running),
            Some(Answer::Ended { record, .. }) => FlowState::Ended(record),
            // It may have ended since the store was asked.
            None => self.earlier(flow).await?.map_or(FlowState::Unknown, |record| FlowState::Ended(Arc::new(record))),
        })
    }

    /// The same, waiting up to `wait` for it to end.
    pub async fn wait(&self, flow: FlowId, wait: Duration) -> Result<FlowState, Error> {
        if let Some(outcome) = self.engine.registry.join(flow)
            && let Ok(Ok(ended)) = timeout(wait, outcome).await
        {
            return Ok(FlowState::Ended(ended.record));
        }
        let until = Instant::now() + wait;
        loop {
            // One that runs elsewhere is asked for again and again.
            let state = self.flow(flow).await?;
            if !matches!(state, FlowState::Running(_)) || Instant::now() >= until || !self.engine.peers.are_there() {
                return Ok(state);
            }
            sleep_until(until.min(Instant::now() + WAIT_POLL)).await;
        }
    }

    /// Flows that run now, and records of flows that ended, latest first.
    ///
    /// Looks at no more than a hundred thousand stored records, ten thousand in each slot; beyond that, older ones may be
    /// missing.
    pub async fn flows(&self, filter: &FlowFilter) -> Result<(Vec<RunningFlow>, Vec<Arc<FlowRecord>>), Error> {
        let wanted = |record: &FlowRecord| {
            (filter.outcomes.is_empty() || filter.outcomes.contains(&record.outcome))
                && filter.function.as_ref().is_none_or(|function| *function == record.instance.function)
        };
        let mut running = self.engine.registry.all();
        running.retain(|flow| filter.function.as_ref().is_none_or(|function| *function == flow.instance.function));
        let mut records: Vec<Arc<FlowRecord>> =
            self.engine.recent.all().into_iter().filter(|record| wanted(record)).collect();
        if records.len() < filter.limit {
            let known: BTreeSet<FlowId> = records.iter().map(|record| record.flow).collect();
            let stored = self.stored_records().await?;
            records.extend(
                stored.into_iter().filter(|record| wanted(record) && !known.contains(&record.flow)).map(Arc::new),
            );
        }
        records.sort_by_key(|record| std::cmp::Reverse(record.accepted_unix_ms));
        records.truncate(filter.limit);
        Ok((running, records))
    }

    async fn stored_records(&self) -> Result<Vec<FlowRecord>, Error> {
        let (snapshot, layout) = (&self.engine.store.snapshot().await?, self.engine.layout);
        let scan = async |slot| snapshot.scan(&layout.requests(slot), RECORDS_OF_SLOT_MAX, false).await;
        let mut slots = pin!(stream::iter(layout.slots().all()).map(scan).buffered(SLOTS_AT_ONCE));
        let mut records = Vec::new();
        while let Some(scanned) = slots.next().await {
            let room = RECORDS_SCANNED_MAX - records.len();
            for (_, value) in scanned?.into_iter().take(room) {
                records.push(rows::decode_record(&value)?);
            }
            if records.len() == RECORDS_SCANNED_MAX {
                break;
            }
        }
        Ok(records)
    }

    /// The stored state of an instance, now or as of a past time.
    pub async fn state(
        &self,
        instance: &Instance,
        as_of: Option<Timestamp>,
        entries_max: usize,
    ) -> Result<InstanceState, Error> {
        let store = &self.engine.store;
        let snapshot = match as_of {
            Some(at) => store.snapshot_at(at).await?,
            None => store.snapshot().await?,
        };
        let layout = self.engine.layout;
        let mut state = InstanceState {
            instance: instance.clone(),
            timestamp: snapshot.timestamp(),
            values: Vec::new(),
            entries: Vec::new(),
            more: false,
        };
        let (values, entries) = (layout.state_values(instance), layout.all_entries(instance));
        let values = snapshot.scan(&values, PAGE, false);
        let entries = snapshot.scan(&entries, entries_max.saturating_add(1), false);
        let (values, entries) = try_join(values, entries).await?;
        for (row, value) in values {
            if let Ok(RowKey::StateValue { state: name, .. }) = keys::parse(&row) {
                state.values.push((name, value));
            }
        }
        state.more = entries.len() > entries_max;
        for (row, value) in entries.into_iter().take(entries_max) {
            if let Ok(RowKey::StateEntry { state: name, entry, .. }) = keys::parse(&row) {
                state.entries.push((name, entry, value));
            }
        }
        Ok(state)
    }

    /// Keys of a function that have state, in no useful order but a stable one; continue after the last key of a page.
    pub async fn instances(
        &self,
        function: &FunctionName,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Key>, Error> {
        let layout = self.engine.layout;
        let snapshot = &self.engine.store.snapshot().await?;
        let first = after.map_or_else(|| Slot::new(0), |key| layout.slots().slot_of(key));
        let keys_of = async |slot| {
            let after = after.filter(|_| slot == first);
            let values = self.keys_in(snapshot, layout.state_values_of_function(slot, function), after, limit);
            let entries = self.keys_in(snapshot, layout.state_entries_of_function(slot, function), after, limit);
            let (values, entries) = try_join(values, entries).await?;
            Ok::<BTreeSet<Key>, Error>(values.into_iter().chain(entries).collect())
        };
        let slots = stream::iter(layout.slots().all().filter(|slot| *slot >= first));
        let mut slots = pin!(slots.map(keys_of).buffered(SLOTS_AT_ONCE));
        let mut found = Vec::new();
        while let Some(keys) = slots.next().await {
            found.extend(keys?.into_iter().take(limit - found.len()));
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    /// The keys of instances that have rows in a range, jumping from each instance to the next.
    async fn keys_in(
        &self,
        snapshot: &S::Snapshot,
        mut range: KeyRange,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Key>, Error> {
        let layout = self.engine.layout;
        let mut found = Vec::new();
        let mut page = snapshot.scan(&range, PAGE, false).await?;
        while !page.is_empty() && found.len() < limit {
            let is_last = page.len() < PAGE;
            let mut behind = None;
            for (row, _) in page {
                let (RowKey::StateValue { instance, .. } | RowKey::StateEntry { instance, .. }) =
                    keys::parse(&row).map_err(|error| Error::Damaged(error.to_string()))?
                else {
                    continue;
                };
                if found.last() != Some(&instance.key) && after.is_none_or(|after| instance.key > *after) {
                    found.push(instance.key.clone());
                }
                behind = Some((row, instance));
            }
            let Some((row, instance)) = behind.filter(|_| !is_last) else { break };
            let rows_of = if layout.state_values(&instance).contains(&row) {
                layout.state_values(&instance)
            } else {
                layout.all_entries(&instance)
            };
            let Some(end) = rows_of.end else { break };
            range.start = end;
            page = snapshot.scan(&range, PAGE, false).await?;
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Whether others may release egress records as well, so that what was read last need not be the last in order.
    pub(crate) fn is_shared(&self) -> bool {
        self.engine.partition.is_shared()
    }

    /// What is known now of the numbers of egress records.
    pub(crate) async fn egress_horizon(&self) -> Result<Horizon, Error> {
        horizon(&self.engine.store.snapshot().await?).await
    }

    /// Records of an egress with a sequence above `after`, oldest first, at most `limit`, as far as none will be released
    /// below them any more. And how far that is.
    pub(crate) async fn egress_settled(
        &self,
        egress: &EgressName,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<EgressRecord>, Horizon), Error> {
        let snapshot = self.engine.store.snapshot().await?;
        let horizon = horizon(&snapshot).await?;
        let mut records = read_stored(&snapshot, self.engine.layout, egress, after, limit).await?;
        records.retain(|record| record.sequence <= horizon.settled);
        Ok((records, horizon))
    }

    /// Records of an egress with a sequence above `after`, oldest first, at most `limit`: all that are durable. If others
    /// share the store, one that is below them may still be released.
    pub async fn egress(&self, egress: &EgressName, after: u64, limit: usize) -> Result<Vec<EgressRecord>, Error> {
        let engine = &self.engine;
        if engine.partition.is_shared() {
            // What this process has released is not all there is.
            return read_stored(&engine.store.snapshot().await?, engine.layout, egress, after, limit).await;
        }
        engine.egresses.read(&engine.store, engine.layout, egress, after, limit).await
    }
}
