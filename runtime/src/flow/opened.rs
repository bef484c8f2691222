//! The view that an attempt runs on, with what it surely reads.

use bytes::Bytes;
use tandem_model::request::{Origin, Request};
use tandem_model::topology::StateKind;
use tandem_store::Store;
use tracing::debug;

use crate::engine::Engine;
use crate::partition::{ReadSet, Seen, View};

/// A view, and what it shows of a flow's record. The record's absence is part of what the flow read.
pub(crate) struct Opened<S: Store> {
    pub(super) view: View<S>,
    pub(super) row: Bytes,
    pub(crate) record: Seen,
}

impl<S: Store> Opened<S> {
    /// A view of everything that was sealed before this call.
    ///
    /// What the flow will surely read comes with the record: a request to a store costs the same for one row or several.
    pub(crate) async fn of(engine: &Engine<S>, request: &Request) -> Result<Self, tandem_store::Error> {
        let row = engine.layout.request(request.flow);
        let view = engine.partition.view().await?;
        let mut rows = vec![row.clone()];
        if let Some(interface) = engine.host.interface(&request.instance.function) {
            let values = interface.states.iter().filter(|(_, kind)| **kind == StateKind::Value);
            rows.extend(values.map(|(name, _)| engine.layout.state_value(&request.instance, name)));
        }
        if let Origin::Message { row } = &request.origin {
            rows.push(row.clone());
        }
        // If something is in the way of one of them, only those who need it have to wait for it.
        if let Err(error) = view.read_ahead(&rows).await {
            debug!(%error, "nothing was read ahead");
        }
        let seen = view.read(std::slice::from_ref(&row)).await?;
        let missing = || tandem_store::Error::Unavailable("the store gave no answer".to_owned());
        let record = seen.into_iter().next().ok_or_else(missing)?;
        Ok(Self { view, row, record })
    }

    /// Moves the view to the present. `false` if there is no way from here to there, and another one has to be opened.
    pub(super) fn extend(&self) -> bool {
        let mut reads = ReadSet::default();
        reads.add(self.row.clone(), self.record.clone());
        !self.view.is_void() && self.view.extend(&reads).is_ok()
    }
}
