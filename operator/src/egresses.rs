//! `FunctionEgress`: a way out. It has no children: it is a part of the topology.

use tandem_crds::resources::Kind;
use tandem_crds::resources::status::Status;

use crate::conditions::{Finding, conditions};
use crate::context::Context;
use crate::graph::Graph;
use crate::key::ObjectKey;
use crate::kubeapi::Error;
use crate::queue::Outcome;
use crate::{functions, reasons, resync};

/// Brings the status of an egress to what is.
pub async fn reconcile(context: &Context, key: &ObjectKey) -> Result<Outcome, Error> {
    let Some(held) = context.world.egresses.get(&key.namespace, &key.name) else { return Ok(Outcome::Done) };
    let Some(graph) = context.world.graph(&key.namespace) else {
        context.touch_graph(&key.namespace);
        return Ok(Outcome::Done);
    };
    if held.is_deleting() || context.is_too_early(key, &graph, held.metadata().generation) {
        return Ok(Outcome::Done);
    }
    let is_served = context.world.is_served(&graph, &key.namespace, |accepted| accepted.egresses.get(&key.name));
    let finding = finding(key, &graph, is_served);
    let outdated = graph.outdated.contains(&(Kind::Egress, key.name.clone()));
    let also = outdated.then(|| graph.finding(Kind::Egress, &key.name)).flatten();
    let previous = held.good().and_then(|egress| egress.status.as_ref());
    let known = previous.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let generation = held.metadata().generation;
    let conditions = conditions(&finding, also.as_ref(), generation, known, (context.clock)());
    let status = Status { observed_generation: generation, conditions };
    if context.write_status(key, held.uid(), previous, &status).await? {
        crate::events::transition(context, key, held.uid(), known, &status.conditions).await;
    }
    Ok(Outcome::After(resync::pause()))
}

fn finding(key: &ObjectKey, graph: &Graph, is_served: bool) -> Finding {
    if graph.runtime.is_none() {
        return functions::validate::no_runtime();
    }
    if !graph.accepted.egresses.contains_key(&key.name) {
        let pending = || Finding::new(&reasons::RETRYING, "the graph of the namespace is not compiled yet");
        return graph.finding(Kind::Egress, &key.name).unwrap_or_else(pending);
    }
    if is_served {
        return Finding::new(&reasons::READY, "the runtime serves it");
    }
    Finding::new(&reasons::RUNTIME_NOT_READY, "no pod of the runtime serves it yet")
}
