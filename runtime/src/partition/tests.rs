use std::sync::Arc;

use tandem_model::outcome::Outcome;
use tandem_model::slot::SlotCount;
use tandem_store::memory::MemoryStore;
use tandem_store::{Commit, Read};

use super::*;
use crate::metrics::testdata::record;

struct Nobody;

impl Releases for Nobody {
    fn messages(&self, _: Vec<ReleasedMessage>) {}
    fn egress(&self, _: &EgressName, _: EgressRecord) {}
    fn group_committed(&self, _: usize, _: Duration) {}
    fn store_failed(&self, _: &tandem_store::Error) {}
}

fn layout(slots: u16) -> Layout {
    Layout::new(SlotCount::new(slots).unwrap())
}

#[tokio::test]
async fn the_number_of_slots_is_fixed_once_data_is_stored() {
    let store = MemoryStore::new();
    assert!(Partition::open(store.clone(), layout(16), Arc::new(Nobody), Sharing::Alone).await.is_ok());
    assert!(Partition::open(store.clone(), layout(16), Arc::new(Nobody), Sharing::Alone).await.is_ok());
    let refused = Partition::open(store, layout(17), Arc::new(Nobody), Sharing::Alone).await.err();
    assert!(matches!(refused, Some(tandem_store::Error::OtherLayout { found: 16, asked: 17 })), "{refused:?}");
}

#[tokio::test]
async fn versions_grow_over_restarts() {
    let store = MemoryStore::new();
    let mut last = 0;
    for _ in 0..3 {
        let partition = Partition::open(store.clone(), layout(16), Arc::new(Nobody), Sharing::Alone).await.unwrap();
        let first = partition.lock().next_version;
        assert!(first > last, "{first} after {last}");
        last = first;
    }
}

/// A view that waited for its turn sees what was sealed meanwhile, unless it had read what has changed.
#[tokio::test]
async fn a_view_moves_to_the_present_only_if_what_it_read_still_holds() {
    let partition = Partition::open(MemoryStore::new(), layout(16), Arc::new(Nobody), Sharing::Alone).await.unwrap();
    let (view, row) = (partition.view().await.unwrap(), Bytes::from_static(b"row"));
    let mut nothing_read = ReadSet::default();
    let mut row_read = ReadSet::default();
    row_read.add(row.clone(), view.read(std::slice::from_ref(&row)).await.unwrap().remove(0));
    {
        let mut inner = partition.lock();
        let version = inner.next_version;
        inner.next_version += 1;
        inner.sealed.insert(row.clone(), version, Some(Bytes::from_static(b"new")));
    }
    assert_eq!(view.extend(&row_read), Err(vec![row.clone()]));
    assert_eq!(view.extend(&nothing_read), Ok(()));
    let seen = view.read(std::slice::from_ref(&row)).await.unwrap().remove(0);
    assert_eq!(seen.value.as_deref(), Some(&b"new"[..]));
    nothing_read.add(row, seen);
    assert_eq!(view.extend(&nothing_read), Ok(()));
}

/// Another process changes a row between the views of two flows, and may change it back before their group commits.
#[tokio::test]
async fn a_group_tells_of_all_values_that_its_flows_saw() {
    let store = MemoryStore::new();
    let partition = Partition::open(store.clone(), layout(16), Arc::new(Nobody), Sharing::Shared).await.unwrap();
    let row = Bytes::from_static(b"row");
    let mut told = Vec::new();
    for number in 1..=2_u8 {
        let view = partition.view().await.unwrap();
        let seen = view.read(std::slice::from_ref(&row)).await.unwrap().remove(0);
        told.push((view.base().timestamp(), seen.value.clone()));
        let mut reads = ReadSet::default();
        reads.add(row.clone(), seen);
        let sealing = Sealing {
            reads,
            writes: vec![(Bytes::from(vec![number]), None)],
            messages: Vec::new(),
            emissions: Vec::new(),
            record: Arc::new(record(Outcome::Committed)),
            solo: false,
            lanes: Vec::new(),
        };
        partition.seal(&view, sealing).unwrap();
        let writes = vec![(row.clone(), Some(Bytes::from(vec![number])))];
        store.commit(Commit { primary: row.clone(), writes, ..Commit::default() }).await.unwrap();
    }
    let (_, commit) = partition.next_commit().unwrap();
    let expected: Vec<Read> =
        told.into_iter().map(|(seen_at, value)| Read { key: row.clone(), seen_at, value }).collect();
    assert_eq!(commit.reads, expected);
}
