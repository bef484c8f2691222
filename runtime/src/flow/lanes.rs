//! What a flow has to do with the order of messages: who numbers those that it sends, and what comes before its own.

use std::collections::BTreeMap;

use bytes::Bytes;
use tandem_model::flow::OutgoingMessage;
use tandem_model::mechanism::{Mechanism, works};
use tandem_store::Store;

use super::{Flow, Left, Step};
use crate::partition::{ReadSet, ScanRequest, SeenLane, View};

impl<S: Store> Flow<S> {
    /// Who numbers what the flow sends, where that is not this process.
    pub(super) async fn see_lanes(&self, view: &View<S>, messages: &[OutgoingMessage]) -> Result<Vec<SeenLane>, Step> {
        let unheld = self.engine.partition.unheld_lanes(messages);
        if unheld.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<Bytes> = unheld.iter().map(|from| self.engine.layout.lane(*from)).collect();
        let seen = view.read(&rows).await.map_err(|error| Step::Refused(error.to_string()))?;
        Ok(unheld.into_iter().zip(seen).map(|(from, seen)| SeenLane { from, seen }).collect())
    }

    /// Makes the flow's message row part of what it read: two deliveries of one message cannot both commit. Where other
    /// processes deliver as well, so is the absence of messages that come before it in its lane.
    pub(super) async fn consume(&self, view: &View<S>, row: &Bytes, reads: &mut ReadSet) -> Result<(), Step> {
        let seen = view.read(std::slice::from_ref(row)).await.map_err(|error| Step::Refused(error.to_string()))?;
        match seen.into_iter().next() {
            Some(seen) if seen.value.is_some() => reads.add(row.clone(), seen),
            Some(_) | None => return Err(Step::Left(Left::Consumed)),
        }
        if !self.engine.partition.is_shared() || !works(Mechanism::LaneOrder) || !works(Mechanism::LaneRead) {
            return Ok(());
        }
        let Some(range) = self.engine.courier.before(row) else { return Ok(()) };
        let request = ScanRequest { range, limit: 1, reverse: false, own: BTreeMap::new() };
        let before = view.scan(request, reads).await.map_err(|error| Step::Refused(error.to_string()))?;
        if before.rows.is_empty() { Ok(()) } else { Err(Step::Left(Left::TooEarly)) }
    }
}
