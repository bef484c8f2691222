//! The floor: the same reads and writes as bare transactions of the embedded store, one a request.

use std::time::Instant;

use bytes::Bytes;
use tandem_model::ids::{FlowId, Instance};
use tandem_model::slot::SlotCount;
use tandem_store::embedded::{EmbeddedStore, Options};
use tandem_store::keys::Layout;
use tandem_store::{Commit, CommitResult, Read, Snapshot, Store};

use crate::usage::Usage;
use crate::{Figures, Load, closed_loop, key_of};

/// Bytes of a request record as the runtime writes it for a counter request.
const RECORD_BYTES: usize = 150;

/// Measures the floor.
pub(crate) async fn run(load: Load) -> anyhow::Result<Figures> {
    let directory = tempfile::tempdir_in(".")?;
    let store = EmbeddedStore::open(directory.path(), Options::default())?;
    let (before, started) = (Usage::of(&[])?, Instant::now());
    let shared = store.clone();
    let latencies = closed_loop(load, move |client, number| add(shared.clone(), load, client, number)).await?;
    let took = started.elapsed();
    let used = Usage::of(&[])?.since(before);
    check(&store, load, latencies.len()).await?;
    Ok(Figures::new("bare transaction", load, latencies, used, took))
}

fn rows(load: Load, client: usize, number: usize) -> anyhow::Result<(Bytes, Bytes)> {
    let layout = Layout::new(SlotCount::DEFAULT);
    let instance = Instance::parse("counter", &format!("k{}", key_of(client, number, load.keys)))?;
    let request = format!("{client}-{number}").parse()?;
    let flow = FlowId::derive(layout.slots().slot_of(&instance.key), &instance, &request);
    Ok((layout.state_value(&instance, &"count".parse()?), layout.request(flow)))
}

/// One request: until it commits, read the counter and the absence of the record, write both.
async fn add(store: EmbeddedStore, load: Load, client: usize, number: usize) -> anyhow::Result<()> {
    let (counter, record) = rows(load, client, number)?;
    loop {
        let snapshot = store.snapshot().await?;
        let seen = snapshot.batch_get(&[counter.clone(), record.clone()]).await?;
        let count: i64 = match seen.first().cloned().flatten() {
            Some(bytes) => serde_json::from_slice(&bytes)?,
            None => 0,
        };
        let seen_at = snapshot.timestamp();
        let keys = [counter.clone(), record.clone()];
        let reads = keys.into_iter().zip(seen).map(|(key, value)| Read { key, seen_at, value }).collect();
        let writes = vec![
            (counter.clone(), Some(Bytes::from((count + 1).to_string()))),
            (record.clone(), Some(Bytes::from(vec![b'r'; RECORD_BYTES]))),
        ];
        let commit = Commit { primary: record.clone(), reads, ranges: Vec::new(), writes };
        match store.commit(commit).await? {
            CommitResult::Committed(_) => return Ok(()),
            CommitResult::Conflict(_) => {}
            CommitResult::Undetermined(why) => anyhow::bail!("undetermined: {why}"),
        }
    }
}

/// The counters together are the number of acknowledged requests, or the run has no result.
async fn check(store: &EmbeddedStore, load: Load, requests: usize) -> anyhow::Result<()> {
    let (layout, snapshot) = (Layout::new(SlotCount::DEFAULT), store.snapshot().await?);
    let mut sum = 0;
    for key in 0..load.keys {
        let instance = Instance::parse("counter", &format!("k{key}"))?;
        if let Some(bytes) = snapshot.get(&layout.state_value(&instance, &"count".parse()?)).await? {
            sum += serde_json::from_slice::<usize>(&bytes)?;
        }
    }
    anyhow::ensure!(sum == requests, "the counters sum up to {sum}, {requests} requests were acknowledged");
    Ok(())
}
