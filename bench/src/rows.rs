//! The rows of a workload in a store: what is there at first, and what has to be there in the end.

use anyhow::Context;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tandem_model::ids::{FlowId, Instance, StateName};
use tandem_model::outcome::{CallStatus, CallTrace, FlowRecord, Outcome};
use tandem_model::slot::{Slot, SlotCount};
use tandem_store::keys::{self, Layout, RowKey};
use tandem_store::{Commit, CommitResult, Snapshot, Store, rows};

use crate::padded::Padded;
use crate::tally::{Ended, Stored, Tally};
use crate::workload::{Cell, Family, ORDER, Operation, Workload};

/// The one state of every function here.
const STATE: &str = "value";
/// First byte of the record of a bare transaction that was applied. The rest of it only has the right length.
const COMMITTED: u8 = b'C';
/// First byte of the record of one that was not.
const REJECTED: u8 = b'R';

/// How data is loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loading {
    /// Rows of one commit.
    rows: usize,
    /// Commits under way.
    at_once: usize,
    /// In the order of the keys, so that a commit lies in few places.
    sorted: bool,
}

impl Loading {
    /// Into a store in this process.
    pub(crate) const EMBEDDED: Self = Self { rows: 20_000, at_once: 1, sorted: false };
    /// Into stores elsewhere.
    pub(crate) const INTO_STORES: Self = Self { rows: 256, at_once: 4, sorted: true };
}

/// Ranges that are read at once while everything is compared.
const READS_AT_ONCE: usize = 16;

/// Keys and values of one workload.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    layout: Layout,
    state: StateName,
    families: Vec<Family>,
    has_orders: bool,
    /// Bytes of a record without calls, and what each call adds.
    record_bytes: (usize, usize),
}

impl Rows {
    /// Of `workload`.
    pub(crate) fn new(workload: Workload) -> anyhow::Result<Self> {
        let alone = sample(0)?;
        let each = sample(1)? - alone;
        Ok(Self {
            layout: Layout::new(SlotCount::DEFAULT),
            state: STATE.parse()?,
            families: workload.families(),
            has_orders: matches!(workload, Workload::Checkout { .. }),
            record_bytes: (alone, each),
        })
    }

    /// The row of a number.
    pub(crate) fn cell(&self, cell: Cell) -> anyhow::Result<Bytes> {
        let instance = Instance::parse(&self.families[cell.family].function, &cell.key())?;
        Ok(self.layout.state_value(&instance, &self.state))
    }

    /// The row of an order.
    pub(crate) fn order(&self, key: &str) -> anyhow::Result<Bytes> {
        Ok(self.layout.state_value(&Instance::parse(ORDER, key)?, &self.state))
    }

    /// The row of a request record.
    pub(crate) fn record(&self, id: &str, operation: &Operation) -> anyhow::Result<Bytes> {
        let entry = operation.changes.first().context("a request that changes nothing")?.cell;
        let instance = Instance::parse(&self.families[entry.family].function, &entry.key())?;
        let slot = self.layout.slots().slot_of(&instance.key);
        Ok(self.layout.request(FlowId::derive(slot, &instance, &id.parse()?)))
    }

    /// As long as the record that the runtime writes for such a request.
    pub(crate) fn record_value(&self, operation: &Operation, committed: bool) -> Bytes {
        let (alone, each) = self.record_bytes;
        let calls = operation.changes.len() + usize::from(operation.order.is_some());
        let mut value = vec![b'.'; alone + each * calls];
        value[0] = if committed { COMMITTED } else { REJECTED };
        value.into()
    }

    /// Writes what is there before the first request.
    pub(crate) async fn load<S: Store>(&self, store: &S, loading: Loading) -> anyhow::Result<()> {
        for (family, Family { rows, initial, .. }) in self.families.iter().enumerate() {
            let value = encode(*initial)?;
            let keys = (0..*rows).map(|row| self.cell(Cell { family, row }));
            let mut keys = keys.collect::<anyhow::Result<Vec<Bytes>>>()?;
            if loading.sorted {
                keys.sort();
            }
            let commits = keys.chunks(loading.rows).map(|keys| {
                let writes = keys.iter().map(|key| (key.clone(), Some(value.clone()))).collect();
                let primary = keys.first().cloned().unwrap_or_default();
                store.commit(Commit { primary, writes, ..Commit::default() })
            });
            let results: Vec<CommitResult> = stream::iter(commits).buffered(loading.at_once).try_collect().await?;
            let failed = results.iter().find(|result| !matches!(result, CommitResult::Committed(_)));
            anyhow::ensure!(failed.is_none(), "loading: {failed:?}");
        }
        Ok(())
    }

    /// Compares all that is stored with what was acknowledged.
    pub(crate) async fn check<S: Store>(&self, store: &S, tally: &Tally) -> anyhow::Result<()> {
        let snapshot = store.snapshot().await?;
        let slots = self.layout.slots().all().map(|slot| self.stored(&snapshot, slot));
        let mut slots = stream::iter(slots).buffer_unordered(READS_AT_ONCE);
        let mut stored = Stored::default();
        while let Some(slot) = slots.try_next().await? {
            stored.merge(slot);
        }
        tally.compare(&self.families, &stored)
    }

    /// What is stored in one slot.
    async fn stored(&self, snapshot: &impl Snapshot, slot: Slot) -> anyhow::Result<Stored> {
        let mut stored = Stored::default();
        for (family, Family { function, .. }) in self.families.iter().enumerate() {
            let range = self.layout.state_values_of_function(slot, &function.parse()?);
            for (key, value) in snapshot.scan(&range, usize::MAX, false).await? {
                let row = instance_key(&key)?.trim_start_matches('k').parse()?;
                stored.numbers.insert(Cell { family, row }, decode(&value)?);
            }
        }
        if self.has_orders {
            let orders = self.layout.state_values_of_function(slot, &ORDER.parse()?);
            for (_, value) in snapshot.scan(&orders, usize::MAX, false).await? {
                stored.orders += 1;
                stored.order_total += decode(&value)?;
            }
        }
        for (_, value) in snapshot.scan(&self.layout.requests(slot), usize::MAX, false).await? {
            *match Self::ended(&value)? {
                Ended::Committed => &mut stored.committed,
                Ended::Rejected => &mut stored.rejected,
                Ended::GaveUp => &mut stored.gave_up,
            } += 1;
        }
        Ok(stored)
    }

    /// What a record says about its request.
    pub(crate) fn ended(record: &[u8]) -> anyhow::Result<Ended> {
        match record.first() {
            Some(&COMMITTED) => Ok(Ended::Committed),
            Some(&REJECTED) => Ok(Ended::Rejected),
            _ => match rows::decode_record(record)?.outcome {
                Outcome::Committed => Ok(Ended::Committed),
                Outcome::Rejected => Ok(Ended::Rejected),
                Outcome::Conflict => Ok(Ended::GaveUp),
                other => anyhow::bail!("a request ended with {other}"),
            },
        }
    }

    /// What a store holds now of some rows, by row.
    pub(crate) fn numbers(values: &[Option<Bytes>]) -> anyhow::Result<Vec<Option<u64>>> {
        values.iter().map(|value| value.as_ref().map(|bytes| decode(bytes)).transpose()).collect()
    }
}

/// The bytes of a number.
pub(crate) fn encode(number: u64) -> anyhow::Result<Bytes> {
    Ok(serde_json::to_vec(&Padded(number))?.into())
}

fn decode(bytes: &[u8]) -> anyhow::Result<u64> {
    Ok(serde_json::from_slice::<Padded>(bytes)?.0)
}

fn instance_key(row: &[u8]) -> anyhow::Result<String> {
    match keys::parse(row)? {
        RowKey::StateValue { instance, .. } => Ok(instance.key.to_string()),
        other => anyhow::bail!("{other:?} lies among state values"),
    }
}

/// Bytes of a record of so many calls.
fn sample(calls: usize) -> anyhow::Result<usize> {
    const TYPICAL_DURATION_US: u64 = 2_000;
    let instance = Instance::parse("counter", "k12345")?;
    let request = format!("{:036}", 1).parse()?;
    let handler: tandem_model::ids::HandlerName = "add".parse()?;
    let call = CallTrace {
        depth: 0,
        instance: instance.clone(),
        handler: handler.clone(),
        duration_us: TYPICAL_DURATION_US,
        status: CallStatus::Done,
    };
    let record = FlowRecord {
        flow: FlowId::derive(SlotCount::DEFAULT.slot_of(&instance.key), &instance, &request),
        request,
        instance,
        handler,
        digest: [0; 16],
        outcome: Outcome::Committed,
        cause: None,
        result: Some(tandem_model::ids::Payload::json("123")),
        attempts: 1,
        accepted_unix_ms: 1_700_000_000_000,
        duration_us: TYPICAL_DURATION_US,
        calls: vec![call; calls],
    };
    Ok(rows::encode_record(&record).len())
}
